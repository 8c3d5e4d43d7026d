//! What is seen of a bench, with answers as its facts say.

use std::collections::BTreeMap;

use serde_json::Value;
use signalbox_schemas::{
    Base64Url,
    api::{CommandSummary, CommandView, OutputView, RunView},
    audit::{AuditEntry, Entered, Link, Outcome, action},
    id::{BridgeId, CommandId, MachineId, MachineToken, Sha256},
    output::OutputStream,
    run::RunState,
    signed::Signed,
    stream,
    subject::Subject,
};

use super::bench::{BEGIN, BOOTED, Bench, HEALED, mid, ws};
use crate::{
    check::Ledger,
    observed::{Answers, Done, MachineSeen, Observed, Output, Stored},
    plan::Harm,
    script,
    told::{Piece, Said},
};

impl Bench {
    /// What is seen, with answers as the facts say.
    pub(super) fn seen(&self) -> Observed {
        let fleet_key = self.keys.fleet.public().clone();
        let ledger = Ledger::read(&fleet_key, &self.stored);
        let answers = |name: &str| self.answers(name, &ledger);
        Observed {
            plan: self.plan.clone(),
            skipped: vec![],
            missed: vec![],
            done: Some(self.plan.harms.iter().map(done).collect()),
            ends: vec![],
            booted_at: BOOTED,
            said: Said { told: self.told.clone(), slow: self.slow.clone() },
            healed_at: HEALED,
            seen_at: HEALED + 1_000,
            fleet_key,
            machines: (0..2).map(|n| MachineSeen { token: mid(n), marks: self.marks[n].clone() }).collect(),
            stored: self.stored.clone(),
            audit: Some(self.audit(&self.stored)),
            chunks: self.chunks.clone(),
            answers: vec![answers("bridge 0"), answers("a bridge from nothing")],
        }
    }

    /// The chain of what is stored, as bridges enter it.
    pub(super) fn audit<'a>(&self, stored: impl IntoIterator<Item = &'a Stored>) -> Vec<Stored> {
        self.audit_by("operator:local", stored)
    }

    /// The same, where all of it was done by one.
    pub(super) fn audit_by<'a>(
        &self,
        actor: &str,
        stored: impl IntoIterator<Item = &'a Stored>,
    ) -> Vec<Stored> {
        let (mut at, mut audit) = (Link::default(), Vec::new());
        for (sequence, message) in (1..).zip(stored.into_iter().filter(|message| is_act(message))) {
            let entry = AuditEntry {
                ws: ws(),
                n: sequence,
                before: at.sha256,
                after: at.sequence,
                bridge: BridgeId::new("b1").unwrap(),
                written_at: message.at,
                actor: actor.to_owned(),
                action: action::COMMANDS_SUBMIT.to_owned(),
                about: message.subject.split('.').nth(2).unwrap_or_default().to_owned(),
                outcome: Outcome::Stored {
                    stream: stream_of(message).to_owned(),
                    sequence: message.sequence,
                    stored_at: message.at,
                    sha256: Sha256::of(&message.body.0),
                },
                entered: Entered::default(),
            };
            let body = Signed::sign(&entry, &self.keys.bridge).unwrap().to_json();
            at = Link::of(sequence, &entry, &body);
            let subject = entry.subject().to_string();
            audit.push(Stored { subject, sequence, at: message.at, body: Base64Url(body) });
        }
        audit
    }

    fn answers(&self, name: &str, ledger: &Ledger) -> Answers {
        let mut answers =
            Answers { bridge: name.to_owned(), listed: vec![], commands: BTreeMap::new(), outputs: vec![] };
        for (id, command) in &ledger.commands {
            let runs: Vec<RunView> = command.machines.iter().map(|m| run_view(ledger, *id, m)).collect();
            let mut counts = BTreeMap::new();
            for run in &runs {
                *counts.entry(run.state).or_default() += 1;
            }
            let summary = CommandSummary {
                id: *id,
                command: command.spec.command.clone(),
                on: command.spec.on.clone(),
                by: command.spec.by.clone(),
                created_at: command.spec.created_at,
                expires_at: command.spec.expires_at,
                timeout_ms: command.spec.timeout_ms,
                settled: runs.iter().all(|run| RunState::is_settled(run.state)),
                counts,
                created_by: None,
                target: None,
                changes: false,
                rollout: None,
                retry_of: None,
            };
            answers.listed.insert(0, serde_json::to_value(&summary).unwrap());
            let view: Value = serde_json::to_value(CommandView { summary, runs, next: None }).unwrap();
            answers.commands.insert(*id, view);
            for machine in &command.machines {
                answers
                    .outputs
                    .extend(OutputStream::ALL.map(|stream| self.output(ledger, *id, machine, stream)));
            }
        }
        answers
    }

    fn output(&self, ledger: &Ledger, id: CommandId, machine: &MachineToken, stream: OutputStream) -> Output {
        let work = &self.told.iter().find(|told| told.command == id).unwrap().work;
        let exit = ledger.run(id, machine).and_then(|run| run.facts.exit());
        let subject = Subject::Output(ws(), machine.clone(), id).to_string();
        let chunks = self.chunks.iter().filter(|chunk| chunk.subject == subject);
        let received: Vec<Piece> = chunks.map(|chunk| chunk.piece.clone()).collect();
        let (total, truncated) = match (stream, exit) {
            (OutputStream::Stderr, _) => (0, false),
            (OutputStream::Stdout, Some(exit)) => (exit.stdout.bytes, exit.stdout.truncated),
            (OutputStream::Stdout, None) => {
                let total = received.iter().map(Piece::end).max().unwrap_or(0);
                return Output {
                    command: id,
                    machine: machine.clone(),
                    stream,
                    total,
                    truncated: false,
                    pieces: received,
                };
            }
        };
        let bytes = script::output(work, 0, total);
        let pieces = if bytes.is_empty() { vec![] } else { vec![Piece::of(stream, 0, &bytes)] };
        Output { command: id, machine: machine.clone(), stream, total, truncated, pieces }
    }
}

/// Whether the last token of its subject is this.
pub(super) fn ends(message: &Stored, token: &str) -> bool {
    message.subject.rsplit('.').next() == Some(token)
}

/// Whether it is to be entered.
fn is_act(message: &Stored) -> bool {
    let is_spec = ends(message, "spec") || ends(message, "cancel");
    is_spec || ["doc.", "$KV."].iter().any(|begin| message.subject.starts_with(begin))
}

fn stream_of(message: &Stored) -> &'static str {
    match message.subject.split('.').next() {
        Some("doc") => stream::DOC,
        Some("cmd") => stream::CMD,
        _ => stream::STATE,
    }
}

fn done(harm: &Harm) -> Done {
    let from = BEGIN + harm.at_ms;
    Done { fault: harm.fault.clone(), from, until: from + harm.for_ms }
}

fn run_view(ledger: &Ledger, id: CommandId, machine: &MachineToken) -> RunView {
    let run = ledger.run(id, machine);
    let exit = run.and_then(|run| run.facts.exit());
    RunView {
        machine: MachineId::new(machine.as_str()).unwrap(),
        state: ledger.state(id, machine),
        exit_code: exit.and_then(|exit| exit.exit_code),
        signal: exit.and_then(|exit| exit.signal.clone()),
        error: run.and_then(|run| run.facts.error()),
        duration_ms: exit.map(|exit| exit.duration_ms),
        group_dead: exit.map(|exit| exit.group_dead),
        stdout: exit.map(|exit| OutputView::from(&exit.stdout)).unwrap_or_default(),
        stderr: exit.map(|exit| OutputView::from(&exit.stderr)).unwrap_or_default(),
        claimed_by: None,
        claimed_at: None,
        ended_at: None,
    }
}
