//! `gallery`: every screen of the real console on a real system, drawn as SVG, dark and light, and the page that shows them.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use signalbox_testkit::{picture::Ground, pty::Pty};

use crate::{
    fleet::{Fleet, Nature, temper},
    place::Place,
};

/// Machines of the pictures.
const MACHINES: usize = 214;
/// Real relays beside them.
const REAL: u32 = 3;
const COLUMNS: u16 = 120;
const ROWS: u16 = 34;
const BOUND: Duration = Duration::from_secs(20);

/// What `gallery` was given.
#[derive(Debug, Args)]
pub(crate) struct GalleryArgs {
    /// Where the pictures and their page go
    #[arg(long, value_name = "DIR", default_value = "docs/gallery")]
    out: PathBuf,
    /// Seconds until somebody looks, so that figures have a history
    #[arg(long, value_name = "SECONDS", default_value_t = 150)]
    after: u64,
}

/// One picture.
struct Shot {
    name: &'static str,
    /// What is seen, for people.
    about: &'static str,
    /// What is typed, from the picture before.
    keys: &'static [&'static str],
    /// What must be on the screen then.
    shows: &'static str,
}

const fn shot(
    name: &'static str,
    about: &'static str,
    keys: &'static [&'static str],
    shows: &'static str,
) -> Shot {
    Shot { name, about, keys, shows }
}

const ESC: &str = "\x1b";

const SHOTS: &[Shot] = &[
    shot("pulse", "How the fleet is, and what needs a look", &["p"], "busiest"),
    shot("machines", "All machines, sorted by load of their processors", &["m", "C"], "sort: cpu"),
    shot("filter", "A filter in the language of selectors", &["/cpu>50 and role=web"], "cpu>50 and role=web"),
    shot("columns", "Choosing columns", &["\r", "|", "jj"], "columns"),
    shot("past", "The machines as they were a minute ago", &[ESC, ESC, "N", "{"], "as of"),
    shot("machine", "One machine: its newest commands, and charts", &[ESC, "/demo-1\r", "\r"], "uptime -p"),
    shot("inbox", "What waits for a machine, in the order in which it will run", &["2"], "[2 inbox]"),
    shot("facts", "What a machine is", &["5"], "said by"),
    shot("charts", "Charts fill the page", &["z"], "10 min"),
    shot(
        "run",
        "Writing a command: where, in which waves, for how long",
        &[
            "z",
            ESC,
            ESC,
            "/web-*\r",
            "a",
            "xapt list --installed",
            "\t\t",
            "canary 1, 10%, 50%, pause after 20%",
        ],
        "pause after 20%",
    ),
    shot("sure", "Above a number of machines it is typed", &["\r"], "confirm"),
    shot(
        "search",
        "An earlier text, found by its words",
        &[ESC, "xa", "\x15", "\x12", "nginx"],
        "systemctl reload nginx",
    ),
    shot(
        "folded",
        "Outputs of a command, folded as they arrive",
        &[ESC, "apt list --installed", "\r", "27", "\r"],
        "exit 0",
    ),
    shot("diff", "What two groups differ in", &["jj", "d"], "+ "),
    shot("output", "One output on the whole screen, searched", &[ESC, "o", "/nginx\r"], "nginx"),
    shot("commands", "All commands", &[ESC, ESC, ESC, ESC, "c"], "apt list"),
    shot(
        "waves",
        "A command that spreads in waves, and was paused because too many failed",
        &["/reload nginx\r", "\r"],
        "paused",
    ),
    shot("events", "What happened", &[ESC, ESC, "e"], "machine"),
    shot("audit", "Who did what", &["w"], "submit"),
    shot("operators", "Who may use the console", &[":operators\r"], "may author"),
    shot("streams", "What the broker holds", &[":streams\r"], "KV_state"),
    shot("health", "How bridge and broker are", &[":health\r"], "bridge"),
    shot("palette", "Going anywhere and doing anything by its name", &[":", "ma"], "go or do"),
    shot("help", "The keys of a screen, from the key map", &[ESC, "m", "?"], "keys: machines"),
];

/// Draws all of it.
///
/// # Errors
/// When something cannot be started, or a screen does not come.
pub(crate) async fn draw(args: &GalleryArgs) -> Result<()> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let names = temper::names(MACHINES);
    let place = Place::start(&names, REAL).await?;
    let mut fleet = Fleet::default();
    fleet.connect(place.stack.ready(), &names, Nature::SHOWN).await?;
    work(&place).await?;
    eprintln!("waiting until figures have a history");
    tokio::time::sleep(Duration::from_secs(args.after)).await;
    for (ground, theme) in [(Ground::Dark, "dark"), (Ground::Light, "light")] {
        let config = args.out.join("config.toml");
        std::fs::write(&config, format!("[look]\ntheme = \"{theme}\"\n[run]\nconfirm_above = 20\n"))?;
        let drawn = look(&place, &config, (ground, theme), &args.out).await;
        std::fs::remove_file(&config)?;
        drawn?;
    }
    let page = args.out.join("README.md");
    std::fs::write(&page, written()).with_context(|| format!("writing {}", page.display()))?;
    fleet.is_well()?;
    fleet.stop().await;
    Ok(())
}

/// Something that has happened before somebody looks.
async fn work(place: &Place) -> Result<()> {
    // More than a relay runs at once: the others wait.
    let long: &[&str] = &["run", "--on", "demo-1", "--no-wait", "--timeout", "1h", "--", "sleep 3600"];
    let runs: [&[&str]; 12] = [
        &["label", "set", "web-*", "role=web", "dc=fra"],
        &["label", "set", "demo-*", "role=lab", "dc=oslo"],
        &["run", "--on", "demo-*", "--", "uptime -p"],
        &["run", "--yes", "--on", "db-*", "--no-wait", "--", "vacuumdb --all --analyze-in-stages"],
        &[
            "run",
            "--yes",
            "--on",
            "web-* or edge-*",
            "--canary",
            "1",
            "--waves",
            "20%",
            "--pause-after",
            "1",
            "--no-wait",
            "--",
            "systemctl reload nginx",
        ],
        &["run", "--on", "demo-2", "--", "ls --color=always -l / && printf '\\033[32mready\\033[0m\\n'"],
        long,
        long,
        long,
        long,
        long,
        long,
    ];
    for args in runs {
        let mut command = tokio::process::Command::from(place.stack.cli(args)?);
        let done = command.stdin(Stdio::null()).stdout(Stdio::null()).output().await?;
        ensure!(
            done.status.code().is_some_and(|code| code <= 1),
            "{args:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(())
}

async fn look(place: &Place, config: &Path, (ground, theme): (Ground, &str), out: &Path) -> Result<()> {
    let mut command = place.stack.cli(&[])?;
    command.env("SIGNALBOX_CONFIG", config).env("COLORTERM", "truecolor");
    let mut console = Pty::spawn(&command, COLUMNS, ROWS)?;
    console.wait_for("bridge", BOUND).await?;
    let mut missing = Vec::new();
    for shot in SHOTS {
        for keys in shot.keys {
            settled(&console).await;
            console.type_keys(keys)?;
        }
        if let Err(error) = console.wait_for(shot.shows, BOUND).await {
            eprintln!("{}: {error:#}", shot.name);
            missing.push(shot.name);
        }
        settled(&console).await;
        let path = out.join(format!("{}-{theme}.svg", shot.name));
        std::fs::write(&path, console.picture(ground))
            .with_context(|| format!("writing {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    ensure!(missing.is_empty(), "not as they should be: {}", missing.join(", "));
    Ok(())
}

/// Until nothing was drawn for a moment, or for as long as somebody would look.
async fn settled(console: &Pty) {
    const MOMENT: Duration = Duration::from_millis(120);
    for _ in 0..10 {
        let before = console.written();
        tokio::time::sleep(MOMENT).await;
        if console.written() == before {
            return;
        }
    }
}

/// The page.
fn written() -> String {
    let mut page = String::from(
        "# The console\n\nEach picture is the real console on a real system of 214 simulated machines and three real ones, drawn by\n`cargo xtask gallery`: the dark theme at the left, the light one at the right.\n",
    );
    for Shot { name, about, .. } in SHOTS {
        // Writing into a text does not fail.
        let _ = write!(
            page,
            "\n## {about}\n\n<img src=\"{name}-dark.svg\" width=\"49%\" alt=\"{about}, dark\"> <img src=\"{name}-light.svg\" width=\"49%\" alt=\"{about}, light\">\n"
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_picture_has_a_name_of_its_own() {
        assert_eq!(SHOTS.iter().map(|shot| shot.name).collect::<BTreeSet<_>>().len(), SHOTS.len());
        assert!(SHOTS.iter().all(|shot| written().contains(&format!("{}-light.svg", shot.name))));
    }
}
