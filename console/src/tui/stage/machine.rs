//! What may be told of one machine.

use signalbox_schemas::{
    api::{ConfigPushView, FiguresView, Kept, Liveness, MachineRunView, MachineSeries, PointView},
    config::{PushState, PushType},
    run::RunState,
};

use super::{NOW_MS, Stage, audited, found, happened, machine_id, run, summary};
use crate::{
    client::{
        Told,
        look::Found,
        machine::{Configured, Looked, Part, Span, Tab},
    },
    tui::lists::ListKind,
};

const MINUTE_MS: u64 = 60_000;

/// What there is of machine `n`.
pub(in crate::tui) fn told(n: u32, tab: Tab) -> Told {
    Told::Part { machine: machine_id(n).token(), tab, part: Ok(Looked { part: part(n, tab), is_cut: false }) }
}

fn part(n: u32, tab: Tab) -> Part {
    match tab {
        Tab::Commands => Part::Runs(vec![
            of(n, 9, "sleep 600", RunState::Executing),
            of(n, 2, "systemctl restart nginx", RunState::Failed),
            of(n, 1, "uname -a", RunState::Completed),
        ]),
        Tab::Inbox => Part::Runs(vec![
            of(n, 3, "apt-get upgrade --yes", RunState::Pending),
            of(n, 4, "reboot", RunState::Pending),
            of(n, 5, "uname -r", RunState::Held),
        ]),
        Tab::Config => {
            let Found::Assignments(mut assignments) = found(ListKind::Assignments) else { unreachable!() };
            assignments.retain(|assignment| assignment.machine_id == machine_id(n));
            let mut changes = vec![of(n, 6, "add host keys of web-1", RunState::Completed)];
            for run in &mut changes {
                run.command.changes = true;
            }
            let pushes = vec![push("a", PushState::Acked), push("b", PushState::Failed)];
            Part::Config(Box::new(Configured { assignments, pushes, changes }))
        }
        Tab::Credentials => {
            let Found::Kept(mut kept) = found(ListKind::Credentials) else { unreachable!() };
            for view in &mut kept {
                view.machine = machine_id(n);
            }
            Part::Kept(kept)
        }
        Tab::Facts => Part::Nothing,
        Tab::Events => Part::Events((1..=9).rev().map(happened).collect()),
        Tab::Audit => Part::Audit((1..=9).rev().map(audited).collect()),
    }
}

fn of(n: u32, command: u8, text: &str, state: RunState) -> MachineRunView {
    MachineRunView { command: summary(command, text, &[(state, 1)]), run: run(n, state) }
}

fn push(id: &str, state: PushState) -> ConfigPushView {
    ConfigPushView {
        id: id.to_owned(),
        assignment_id: "0193a2b4-0000-7000-8000-000000000102".to_owned(),
        push_type: PushType::MetricsInterval,
        payload: serde_json::json!({ "seconds": 30 }),
        state,
        error: (state == PushState::Failed).then(|| "not supported".to_owned()),
        created_by: "operator:local".to_owned(),
        created_at: NOW_MS - 3_600_000,
        sent_at: Some(NOW_MS - 3_500_000),
        acked_at: Some(NOW_MS - 3_400_000),
    }
}

/// The figures of machine `n` over the last minutes, with some that it was silent in, as they were last asked for.
pub(in crate::tui) fn series(n: u32, stage: &Stage, minutes: u64) -> Told {
    let count = minutes.min(240);
    let step_ms = minutes * MINUTE_MS / count;
    let time = Span { from: stage.now.wall_ms - minutes * MINUTE_MS, to: stage.now.wall_ms, points: 1 };
    let point = |at: u64| PointView {
        at: time.from + at * step_ms,
        state: if (count / 3..count / 2).contains(&at) { Liveness::Offline } else { Liveness::Online },
        figures: FiguresView {
            cpu_percent: u8::try_from(20 + at * 60 / count).ok(),
            memory_percent: Some(58),
            disk_percent: Some(97),
            load_tenths: u32::try_from(at % 40).ok(),
            running: 0,
            pending: 0,
        },
    };
    let kept = Kept { earliest: NOW_MS - 7 * 86_400_000, latest: NOW_MS };
    let series = MachineSeries {
        id: machine_id(n),
        token: machine_id(n).token(),
        step_ms,
        points: (0..count).map(point).collect(),
        kept: Some(kept),
    };
    Told::Series { machine: machine_id(n).token(), time, series: Ok(Box::new(series)) }
}
