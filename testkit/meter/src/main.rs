//! The meter: one run per figure, floors and peers beside ours, a table for people and the same as JSON; fleets of simulated
//! relays to be looked at; and pictures of where the time goes.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is the report")]

mod figures;
mod flames;
mod fleet;
mod gallery;
mod keep;
mod machine;
mod page;
mod peers;
mod place;
mod probe;
mod report;
mod toil;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum as _};

use tokio::signal::unix::{SignalKind, signal};

use figures::{Figure, Scope};
use report::{Report, Style, table};

/// Measures Signalbox.
#[derive(Debug, Parser)]
#[command(name = "signalbox-meter", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measure all figures, or the named ones
    Bench(Bench),
    /// Write the page about performance from what was measured
    Page(Page),
    /// Keep a fleet of simulated relays alive beside a real system, for looking at
    Fleet(keep::FleetArgs),
    /// Draw every screen of the console, dark and light, and the page that shows them
    Gallery(gallery::GalleryArgs),
    /// Draw a flame graph: the output of `perf script` on stdin, SVG on stdout
    Flames,
    /// Give back each byte of stdin after two milliseconds of work: a floor for those that draw
    #[command(hide = true)]
    Toil,
}

#[derive(Debug, Args)]
struct Bench {
    /// Figures; all of them unless some are named
    names: Vec<Figure>,
    /// A tenth of the rounds, to see that it works
    #[arg(long)]
    quick: bool,
    /// No table
    #[arg(long)]
    json_only: bool,
    /// Where the JSON goes, a file for each figure
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Page {
    /// Where the JSON of the figures is
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    from: PathBuf,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    to: PathBuf,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Flames => flames::draw(std::io::stdin().lock(), std::io::stdout().lock()),
        Task::Page(page) => write_page(&page),
        Task::Bench(bench) => in_runtime(measure(&bench))
            .and_then(|done| done.context("interrupted: not everything is measured")),
        Task::Toil => toil::toil().context("giving back what is typed"),
        Task::Gallery(args) => in_runtime(gallery::draw(&args)).map(|_| ()),
        Task::Fleet(args) => in_runtime(keep::run(&args)).map(|_| ()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Works until it is done, or somebody ends it; none if so. Either way what was started is gone before this returns: it goes
/// with the work.
fn in_runtime(work: impl Future<Output = Result<()>>) -> Result<Option<()>> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let listen = |kind| signal(kind).context("listening for signals");
        let mut interrupted = listen(SignalKind::interrupt())?;
        let mut terminated = listen(SignalKind::terminate())?;
        let mut hung_up = listen(SignalKind::hangup())?;
        tokio::select! {
            done = work => done.map(Some),
            _ = interrupted.recv() => Ok(None),
            _ = terminated.recv() => Ok(None),
            _ = hung_up.recv() => Ok(None),
        }
    })
}

async fn measure(bench: &Bench) -> Result<()> {
    let all: &[Figure] = if bench.names.is_empty() { Figure::value_variants() } else { &bench.names };
    let mut failed = Vec::new();
    std::fs::create_dir_all(&bench.out).with_context(|| format!("making {}", bench.out.display()))?;
    for figure in all {
        let name = figure.name();
        eprintln!("measuring {name}");
        match figure.measure(Scope { quick: bench.quick }).await {
            Ok(report) => {
                let path = save(&report, &bench.out)?;
                if !bench.json_only {
                    println!("\n{name}, also in {}\n\n{}", path.display(), table(&report, Style::Terminal));
                    report.misses().for_each(|(row, budget)| println!("missed: {}", page::miss(row, budget)));
                }
            }
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

fn save(report: &Report, out: &Path) -> Result<PathBuf> {
    let path = out.join(format!("{}.json", report.name));
    let text = serde_json::to_string_pretty(report)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn write_page(args: &Page) -> Result<()> {
    let mut reports = Vec::new();
    for figure in Figure::value_variants() {
        let path = args.from.join(format!("{}.json", figure.name()));
        match std::fs::read(&path) {
            Ok(text) => {
                let report: Report =
                    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
                reports.push((*figure, report));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("not on the page: {}, there is no {}", figure.name(), path.display());
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
    std::fs::write(&args.to, page::page(&reports)).with_context(|| format!("writing {}", args.to.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["x", "bench", "old-relays", "dispatch", "--quick"]).is_ok());
        assert!(Cli::try_parse_from(["x", "bench", "nothing"]).is_err());
    }
}
