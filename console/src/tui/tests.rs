//! Stories in the operator's own notation: keys and tellings in, screens and asks out.

mod chrome;
mod commands;
mod lists;
mod machine;
mod machines;
mod output;
mod past;
mod running;

use rstest::rstest;
use signalbox_schemas::id::MachineToken;

use super::{
    scenes::scenes,
    stage::{Stage, machine_id},
    state::Modal,
};
use crate::client::{Ask, Draft};

fn token(n: u32) -> MachineToken {
    machine_id(n).token()
}

/// The machines that are seen, in order.
fn order(stage: &Stage) -> Vec<MachineToken> {
    stage.state.sight().order().cloned().collect()
}

fn run_of(ask: Option<&Ask>) -> (&str, &str) {
    match ask {
        Some(Ask::Run { draft, .. }) => (&draft.on, &draft.command),
        other => panic!("not a run: {other:?}"),
    }
}

fn draft_of(ask: Option<&Ask>) -> &Draft {
    match ask {
        Some(Ask::Run { draft, .. }) => draft,
        other => panic!("not a run: {other:?}"),
    }
}

#[rstest]
fn screens(#[values((80, 24), (120, 40), (40, 10), (200, 50))] (columns, rows): (u16, u16)) {
    for (name, mut stage) in scenes(columns, rows) {
        insta::assert_snapshot!(format!("{name}-{columns}x{rows}"), stage.screen());
    }
}
