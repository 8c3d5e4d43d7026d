//! Bridges among themselves, and with the facts.

use std::collections::BTreeSet;

use serde_json::Value;
use signalbox_schemas::{
    api::{CommandView, Counts, RunView},
    id::{CommandId, MachineToken},
    run::RunState,
};

use super::{Case, Promise, Violation};
use crate::observed::Answers;

pub(super) fn answers_agree(case: &Case<'_>) -> Vec<Violation> {
    let answers = &case.observed.answers;
    let mut broken: Vec<Violation> = answers.iter().flat_map(|one| with_facts(case, one)).collect();
    if let Some((first, others)) = answers.split_first() {
        broken.extend(others.iter().flat_map(|other| with_each_other(case, first, other)));
    }
    broken
}

fn with_each_other(case: &Case<'_>, one: &Answers, other: &Answers) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut say = |command, machine: Option<&MachineToken>, what: &str, left: &Value, right: &Value| {
        let what = format!("{what}. {}: {left}. {}: {right}", one.bridge, other.bridge);
        broken.push(case.broken(Promise::AnswersAgree, command, machine, what));
    };
    let order = |answers: &Answers| {
        answers.listed.iter().filter_map(|item| item.get("id")).cloned().collect::<Value>()
    };
    let (left, right) = (order(one), order(other));
    if left != right {
        say(None, None, "the lists have other commands, or another order", &left, &right);
    }
    for (left, right) in one.listed.iter().zip(&other.listed) {
        if left != right && left.get("id") == right.get("id") {
            let id = left.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
            say(id, None, "the lists say different things of a command", left, right);
        }
    }
    let ids: BTreeSet<&CommandId> = one.commands.keys().chain(other.commands.keys()).collect();
    for id in ids {
        let (left, right) = (one.commands.get(id), other.commands.get(id));
        if left != right {
            let (left, right) = (left.unwrap_or(&Value::Null), right.unwrap_or(&Value::Null));
            say(Some(*id), None, "they say different things of a command", left, right);
        }
    }
    for left in &one.outputs {
        let is_same = |right: &&crate::observed::Output| {
            (right.command, &right.machine, right.stream) == (left.command, &left.machine, left.stream)
        };
        let right = other.outputs.iter().find(is_same);
        if right != Some(left) {
            let json = |output| serde_json::to_value(output).unwrap_or(Value::Null);
            let what = "they give different output of a run";
            say(Some(left.command), Some(&left.machine), what, &json(Some(left)), &json(right));
        }
    }
    broken
}

fn with_facts(case: &Case<'_>, answers: &Answers) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (id, value) in &answers.commands {
        let Some(command) = case.ledger.commands.get(id) else { continue };
        let view: CommandView = match serde_json::from_value(value.clone()) {
            Ok(view) => view,
            Err(error) => {
                let what = format!("what {} says of a command cannot be read: {error}", answers.bridge);
                broken.push(case.broken(Promise::AnswersAgree, Some(*id), None, what));
                continue;
            }
        };
        let shown: Vec<MachineToken> = view.runs.iter().map(|run| run.machine.token()).collect();
        if shown != command.machines {
            let what =
                format!("{} shows it on {shown:?}, and it is for {:?}", answers.bridge, command.machines);
            broken.push(case.broken(Promise::AnswersAgree, Some(*id), None, what));
        }
        let counted = counts(view.summary.counts.clone());
        let facts = counts(command.machines.iter().map(|machine| (case.ledger.state(*id, machine), 1)));
        if counted != facts {
            let what = format!("{} counts {counted:?}, and the facts {facts:?}", answers.bridge);
            broken.push(case.broken(Promise::AnswersAgree, Some(*id), None, what));
        }
        for (run, machine) in view.runs.iter().zip(&shown) {
            if let Some(why) = differs(case, *id, machine, run) {
                let what = format!("{} says {why}", answers.bridge);
                broken.push(case.broken_run(Promise::AnswersAgree, (*id, machine), what));
            }
        }
    }
    broken
}

/// Runs by state. Facts do not say whether what is pending is held.
fn counts(runs: impl IntoIterator<Item = (RunState, u32)>) -> Counts {
    let mut counts = Counts::new();
    for (state, count) in runs {
        let state = if state == RunState::Held { RunState::Pending } else { state };
        *counts.entry(state).or_default() += count;
    }
    counts
}

fn differs(case: &Case<'_>, id: CommandId, machine: &MachineToken, view: &RunView) -> Option<String> {
    let run = case.ledger.run(id, machine);
    let state = case.ledger.state(id, machine);
    let is_same = view.state == state || (view.state == RunState::Held && state == RunState::Pending);
    if !is_same {
        return Some(format!("{}, and the facts say {state}", view.state));
    }
    let exit = run.and_then(|run| run.facts.exit());
    let facts = (
        exit.and_then(|exit| exit.exit_code),
        exit.and_then(|exit| exit.signal.clone()),
        run.and_then(|run| run.facts.error()),
        exit.map(|exit| exit.duration_ms),
        exit.map(|exit| exit.group_dead),
    );
    let shown = (view.exit_code, view.signal.clone(), view.error.clone(), view.duration_ms, view.group_dead);
    (facts != shown).then(|| format!("{shown:?}, and the facts say {facts:?}"))
}
