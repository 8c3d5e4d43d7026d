//! Every screen worth looking at, by name, on a screen of any size.

use bytes::Bytes;
use signalbox_schemas::{
    api::{CommandSummary, OutputView, RolloutView, RunView},
    error::{ErrorCode, Problem},
    output::OutputStream,
    rollout::{Rollout, RolloutState},
    run::RunState,
};

use super::{
    lists::{ListKind, Tab},
    stage::{Stage, command_id, found, machine, machine_id, past::then, run, summary},
};
use crate::{
    client::{LinkView, Told},
    question::Rule,
    settings::saved::SavedCommand,
};

/// Scenes of the tabs of a machine.
const TABS: [&str; 7] = [
    "machine-commands",
    "machine-inbox",
    "machine-config",
    "machine-credentials",
    "machine-facts",
    "machine-events",
    "machine-audit",
];

/// What a scene is called, and the stage that shows it.
pub(super) type Scene = (&'static str, Stage);

/// All of them.
pub(super) fn scenes(columns: u16, rows: u16) -> Vec<Scene> {
    let demo = move || Stage::demo(columns, rows);
    let mut all = machines(demo);
    all.extend(commands(demo));
    all.extend(one_machine(demo));
    all.extend(outputs(demo));
    all.extend(lists(demo));
    all.extend(over(demo));
    all.push(("starting", Stage::new(columns, rows)));
    all
}

/// A stage on which keys were pressed.
fn pressed(mut stage: Stage, keys: &str) -> Stage {
    stage.keys(keys);
    stage
}

fn machines(demo: impl Fn() -> Stage) -> Vec<Scene> {
    let past = || {
        let mut stage = pressed(demo(), "({");
        stage.tell(then(&stage));
        stage.tell(then(&stage));
        stage
    };
    let (earlier, earlier_too) = (past(), past());
    let mut frozen = pressed(demo(), "F");
    frozen.wait(65_000);
    let mut lost = demo();
    lost.tell(Told::Link(LinkView::default()));
    lost.wait(30_000);
    vec![
        ("pulse", pressed(demo(), "p")),
        ("machines", pressed(demo(), "j<space>")),
        ("machine", pressed(demo(), "j<enter>")),
        ("filter", pressed(demo(), "/mo-2")),
        ("past", earlier),
        ("past-run", pressed(earlier_too, "<space>xuptime")),
        ("held", frozen),
        ("disconnected", lost),
    ]
}

/// The page of one machine: each tab, a long time, and a machine that was silent for a while.
fn one_machine(demo: impl Fn() -> Stage + Copy) -> Vec<Scene> {
    let tab = |at: usize, tab: Tab| {
        let mut stage = pressed(demo(), &format!("j<enter>{}", at + 1));
        stage.tell(machine::told(2, tab));
        stage.tell(machine::series(2, &stage, 10));
        (TABS[at], stage)
    };
    let mut week = pressed(demo(), "j<enter>----");
    week.tell(machine::series(2, &week, 7 * 24 * 60));
    let mut charts = pressed(demo(), "j<enter>-z");
    charts.tell(machine::series(2, &charts, 60));
    let mut ascii = pressed(demo(), "j<enter>-");
    ascii.state.options.ascii = true;
    ascii.tell(machine::series(2, &ascii, 60));
    let tabs = Tab::ALL.into_iter().enumerate().map(|(at, kind)| tab(at, kind));
    tabs.chain([("week", week), ("charts", charts), ("ascii-charts", ascii)]).collect()
}

fn commands(demo: impl Fn() -> Stage) -> Vec<Scene> {
    let mut command = pressed(demo(), "axuptime<enter>");
    command.accept(3, 3);
    command.run(3, 1, RunState::Completed);
    command.run(3, 2, RunState::Executing);
    command.run(3, 3, RunState::Pending);
    command.output(3, 1, 0, " 14:02:01 up 41 days,  2:10,  0 users\n");
    command.output(3, 2, 0, " 14:02:01 up 3 days\nnext line has no end yet");
    let folded = || {
        let mut stage = pressed(demo(), "axcat<space>/etc/issue<enter>");
        stage.accept(3, 3);
        for (machine, version) in [(1, 12), (2, 12), (3, 11)] {
            let text = format!("Debian GNU/Linux {version}\nsecond line\n");
            stage.output(3, machine, 0, &text);
            stage.run(3, machine, RunState::Completed);
        }
        stage
    };
    vec![
        ("commands", pressed(demo(), "cj")),
        ("command", command),
        ("folded", folded()),
        ("compared", pressed(folded(), "jjd")),
        ("waves", waves(demo())),
    ]
}

/// A command that spreads, and was paused.
fn waves(mut stage: Stage) -> Stage {
    let counts = [(RunState::Completed, 6), (RunState::Failed, 1), (RunState::Held, 93)];
    let plan: Rollout = "canary 1, 6, 25%, pause after 1".parse().unwrap();
    let view = RolloutView {
        state: RolloutState::Paused,
        why: Some("1 of 7 runs failed".to_owned()),
        wave: 2,
        ..RolloutView::new(plan, 100, None, &counts.into())
    };
    let told = summary(3, "systemctl reload nginx", &counts);
    let told = CommandSummary { settled: false, rollout: Some(Box::new(view)), ..told };
    stage.tell(Told::Command(told));
    pressed(stage, "c<enter>")
}

/// A saved command on protected machines, before their number is typed.
fn sure(mut stage: Stage) -> Stage {
    stage.state.options.rule = Rule { protected: "demo-2".to_owned(), ..Rule::default() };
    stage.state.options.saved = vec![SavedCommand {
        name: "restart".to_owned(),
        text: "systemctl restart {{unit}}".to_owned(),
        on: Some("os=debian".to_owned()),
        timeout: None,
        confirm: false,
    }];
    stage.keys(":saved<space>restart<space>unit=nginx<enter>");
    stage.meant(&[1, 2, 3], 1);
    pressed(stage, "<tab><tab><tab>canary<space>1<enter>")
}

/// Outputs that fill the screen.
fn outputs(demo: impl Fn() -> Stage) -> Vec<Scene> {
    let begun = |keys: &str, machines: u32| {
        let mut stage = pressed(demo(), keys);
        stage.accept(3, machines);
        (1..=machines).for_each(|machine| stage.run(3, machine, RunState::Executing));
        stage.screen();
        stage
    };
    let running = || {
        let mut stage = begun("xapt-get<space>upgrade<enter>", 1);
        stage.output(3, 1, 0, "Reading package lists...\nBuilding dependency tree...\n");
        let stderr = Told::Output {
            id: command_id(3),
            machine: machine_id(1),
            stream: OutputStream::Stderr,
            offset: 0,
            data: Bytes::from_static(b"W: some index files failed to download\n"),
        };
        stage.tell(stderr);
        stage.output(3, 1, 5_000, "Get:1 http://deb.debian.org/debian bookworm/main amd64 nginx [520 kB]\n");
        stage.output(
            3,
            1,
            5_070,
            "Get:2 http://deb.debian.org/debian bookworm/main amd64 openssl [1430 kB]\n",
        );
        pressed(stage, "o")
    };
    let mut merged = begun("axuptime<enter>", 3);
    for machine in 1..=3 {
        merged.output(3, machine, 0, " 14:02:01 up 41 days,  2:10,  0 users\n");
    }
    let mut stored = begun("xseq<space>9999999<enter>", 1);
    let stdout = OutputView { bytes: 78_888_888, ..OutputView::default() };
    stored.tell(Told::Run { id: command_id(3), run: RunView { stdout, ..run(1, RunState::Completed) } });
    let mut refused = pressed(stored, "o");
    refused.tell(Told::OutputRange {
        id: command_id(3),
        machine: machine_id(1),
        stream: OutputStream::Stdout,
        from: 0,
        range: Err(Problem::new(ErrorCode::NotCaughtUp, "this bridge is still reading its streams")),
    });
    vec![
        ("output", pressed(running(), "/deb<enter>#")),
        ("output-wrapped", pressed(running(), "wt/package")),
        ("output-of-all", pressed(merged, "o")),
        ("output-refused", refused),
    ]
}

fn lists(demo: impl Fn() -> Stage) -> Vec<Scene> {
    let told = |kind: ListKind| {
        let mut stage = pressed(demo(), &format!(":{}<enter>", kind.name()));
        stage.tell(Told::Found { kind, found: Ok(found(kind)) });
        stage
    };
    vec![
        ("credentials", told(ListKind::Credentials)),
        ("assignments", told(ListKind::Assignments)),
        ("pushes", told(ListKind::Pushes)),
        ("events", told(ListKind::Events)),
        ("operators", told(ListKind::Operators)),
        ("streams", told(ListKind::Streams)),
        ("health", told(ListKind::Health)),
        ("audit", pressed(told(ListKind::Audit), "jj><lt>")),
        ("entry", pressed(told(ListKind::Audit), "<enter>")),
    ]
}

/// What lies over a screen.
fn over(demo: impl Fn() -> Stage) -> Vec<Scene> {
    let mut confirm = demo();
    let open = [(RunState::Executing, 2), (RunState::Completed, 1)];
    confirm.tell(Told::Command(summary(3, "sleep 600", &open)));
    vec![
        ("prompt", pressed(demo(), "axsystemctl<space>reload<space>nginx")),
        ("sure", sure(demo())),
        ("search", pressed(demo(), "x<c-r>res")),
        ("palette", pressed(demo(), ":cr<down>")),
        ("columns", pressed(demo(), "|jj<space>")),
        ("help", pressed(demo(), "?")),
        ("confirm", pressed(confirm, "cX")),
    ]
}
