//! What the streams say, believed only where a signature says so.

use std::collections::{BTreeMap, BTreeSet};

use signalbox_schemas::{
    api::{Cancel, Request, op},
    authors::{Authors, Role},
    command::{CommandSpec, Grant, Part, granted},
    id::{CommandId, MachineToken, Nonce, Sha256},
    mailbox::Mailbox,
    record::{DoneCommand, DoneRun, MachineRecord, OperatorRecord, table},
    rollout::Progress,
    run::{Claim, Exit, Fact, Lost, Register, Rejection, RunFacts, RunKind, RunState, Start, Withdrawal},
    signed::{Message, PublicKey, Signed},
    subject::{CommandPiece, FactKind, Subject},
};

use crate::observed::Stored;

/// A command as CMD has it.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// What was granted.
    pub(crate) spec: CommandSpec,
    /// The machines of its grants, sorted.
    pub(crate) machines: Vec<MachineToken>,
    /// Whether a wish to cancel it is stored.
    pub(crate) is_cancelled: bool,
    /// Whether it stands in DONE, where wishes to cancel are not kept. A bridge whose clock was ahead put it there early.
    pub(crate) is_done: bool,
}

impl Command {
    /// Whether it is known that nobody asked to cancel it.
    pub(crate) fn was_never_cancelled(&self) -> bool {
        !self.is_cancelled && !self.is_done
    }
}

/// A run as RUN and DONE have it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// Its facts.
    pub(crate) facts: RunFacts,
    /// When the register was written, Unix ms by the broker's clock.
    pub(crate) register_at: Option<u64>,
    /// When it was claimed, Unix ms: when its machine says it asked for it, or when that was stored, whichever was first. What
    /// is asked of a broker that stands still is stored late.
    pub(crate) claimed_at: Option<u64>,
    /// When it was first said to be lost, by nonce, Unix ms by the broker's clock.
    pub(crate) lost_at: BTreeMap<Nonce, u64>,
    /// Its exit, whoever wrote it.
    pub(crate) exit: Option<Exit>,
    /// The facts for people.
    pub(crate) lines: Vec<String>,
}

impl Run {
    /// Its state, as far as facts say; `held` is `pending`.
    pub(crate) fn state(&self) -> RunState {
        self.facts.state(RunKind::default())
    }
}

/// A stored message that does not verify.
#[derive(Debug, Clone)]
pub(crate) struct Wrong {
    /// Its subject.
    pub(crate) subject: String,
    /// Its sequence.
    pub(crate) sequence: u64,
    /// Why.
    pub(crate) why: String,
    /// Of which run it speaks.
    pub(crate) of: Option<(CommandId, Option<MachineToken>)>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Commands whose spec is stored.
    pub(crate) commands: BTreeMap<CommandId, Command>,
    /// Runs of which anything is stored.
    pub(crate) runs: BTreeMap<(CommandId, MachineToken), Run>,
    /// What does not verify.
    pub(crate) wrong: Vec<Wrong>,
    authors: Option<Authors>,
    machines: BTreeMap<MachineToken, Vec<PublicKey>>,
    /// A repeated submit by another bridge stores other grants: the spec says which ones count.
    parts: BTreeMap<CommandId, Vec<Vec<Signed<Grant>>>>,
    cancels: BTreeSet<CommandId>,
    /// When an edition was stored, Unix ms by the broker's clock, and what it says, in their order.
    rollouts: BTreeMap<CommandId, Vec<(u64, Progress)>>,
}

type Read = Result<(), String>;
type Step = fn(&mut Ledger, &PublicKey, &Subject, &Stored) -> Read;

impl Ledger {
    /// Reads messages of DOC, `KV_state`, CMD, RUN, DONE and MBOX, each stream in its order.
    pub(crate) fn read(fleet_key: &PublicKey, stored: &[Stored]) -> Self {
        let mut ledger = Self::default();
        // Who may speak comes first, whatever the order of the streams.
        let steps: [Step; 3] = [Self::authors, Self::entity, Self::rest];
        for step in steps {
            for message in stored {
                let Ok(subject) = Subject::parse(&message.subject) else { continue };
                if let Err(why) = step(&mut ledger, fleet_key, &subject, message) {
                    ledger.refuse(&subject, message, why);
                }
            }
        }
        for message in stored.iter().filter(|message| Subject::parse(&message.subject).is_err()) {
            let (subject, sequence) = (message.subject.clone(), message.sequence);
            ledger.wrong.push(Wrong { subject, sequence, why: "no subject of ours".to_owned(), of: None });
        }
        for (id, command) in &mut ledger.commands {
            command.is_cancelled = ledger.cancels.contains(id);
        }
        ledger
    }

    /// The run, if anything is stored of it.
    pub(crate) fn run(&self, command: CommandId, machine: &MachineToken) -> Option<&Run> {
        self.runs.get(&(command, machine.clone()))
    }

    /// Its state.
    pub(crate) fn state(&self, command: CommandId, machine: &MachineToken) -> RunState {
        self.run(command, machine).map_or(RunState::Pending, Run::state)
    }

    /// When a machine of a command that spreads was let go, Unix ms by the broker's clock.
    pub(crate) fn let_go_at(&self, id: CommandId, command: &Command, machine: &MachineToken) -> Option<u64> {
        let place = u32::try_from(command.machines.binary_search(machine).ok()?).ok()?;
        let editions = self.rollouts.get(&id)?;
        editions.iter().find(|(_, it)| it.released.has(place)).map(|(stored_at, _)| *stored_at)
    }

    /// All runs that were accepted.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (CommandId, &Command, &MachineToken)> {
        self.commands
            .iter()
            .flat_map(|(id, command)| command.machines.iter().map(move |machine| (*id, command, machine)))
    }

    /// Whether it knows of nobody who may speak: then it has not read what there is.
    pub(crate) fn is_blind(&self) -> bool {
        self.authors.is_none() || self.machines.is_empty()
    }

    fn refuse(&mut self, subject: &Subject, message: &Stored, why: String) {
        let of = match subject {
            Subject::Command(_, cid, _) => Some((*cid, None)),
            Subject::Run(_, mid, cid, _) => Some((*cid, Some(mid.clone()))),
            _ => None,
        };
        let (subject, sequence) = (message.subject.clone(), message.sequence);
        self.wrong.push(Wrong { subject, sequence, why, of });
    }

    fn authors(&mut self, fleet_key: &PublicKey, subject: &Subject, message: &Stored) -> Read {
        if let Subject::Authors(_) = subject {
            self.authors = Some(open::<Authors>(&message.body.0, |key| key == fleet_key)?);
        }
        Ok(())
    }

    fn entity(&mut self, _: &PublicKey, subject: &Subject, message: &Stored) -> Read {
        let Subject::State(_, kind, id) = subject else { return Ok(()) };
        let body = &message.body.0;
        match kind.as_str() {
            table::MACHINES => {
                let record: MachineRecord = open(body, |key| self.is_bridge(key, message.at))?;
                agree(record.token.as_str() == id)?;
                let keys = record.former_keys.iter().chain(record.signing_key()).cloned();
                self.machines.entry(record.token.clone()).or_default().extend(keys);
            }
            table::OPERATORS => {
                let record: OperatorRecord = open(body, |key| self.is_bridge(key, message.at))?;
                agree(record.id.as_str() == id)?;
            }
            other => return Err(format!("a record of table {other}, which nothing here writes")),
        }
        Ok(())
    }

    fn rest(&mut self, _: &PublicKey, subject: &Subject, message: &Stored) -> Read {
        let body = &message.body.0;
        match subject {
            Subject::Command(_, cid, piece) => self.command(*cid, *piece, message),
            Subject::Run(_, mid, cid, kind) => {
                self.fact(*cid, mid, *kind, (message.sequence, message.at), body)
            }
            Subject::DoneRuns(_, mid) => {
                let done: DoneRun = open(body, |key| self.is_bridge(key, message.at))?;
                agree(done.mid == *mid)?;
                for fact in &done.facts {
                    self.fact(done.cid, mid, fact.kind, (fact.sequence, fact.stored_at), &fact.body.0)?;
                }
                Ok(())
            }
            Subject::DoneCommands(_) => {
                let done: DoneCommand = open(body, |key| self.is_bridge(key, message.at))?;
                let spec =
                    CommandSpec::from_settled_bytes(&done.spec.0).map_err(|error| error.to_string())?;
                agree(spec.cid == done.cid)?;
                let command = Command { spec, machines: done.machines, is_cancelled: false, is_done: true };
                self.commands.entry(done.cid).or_insert(command).is_done = true;
                Ok(())
            }
            Subject::Mailbox(_, mid) => {
                let mailbox: Mailbox = open(body, |key| self.is_bridge(key, message.at))?;
                agree(mailbox.mid == *mid)
            }
            Subject::Authors(_) | Subject::State(..) => Ok(()),
            _ => Err("nothing of this kind is read here".to_owned()),
        }
    }

    fn command(&mut self, cid: CommandId, piece: CommandPiece, message: &Stored) -> Read {
        let body = &message.body.0;
        match piece {
            CommandPiece::Part(1) => {
                let part: Part = serde_json::from_slice(body).map_err(|error| error.to_string())?;
                agree(part.cid == cid && (part.n, part.of) == (1, 1))?;
                for grant in &part.grants {
                    let may =
                        |key: &PublicKey| self.authors.as_ref().is_some_and(|a| a.author(key).is_some());
                    grant.open(may).map_err(|error| error.to_string())?;
                }
                self.parts.entry(cid).or_default().push(part.grants);
                Ok(())
            }
            CommandPiece::Spec => {
                let spec = CommandSpec::from_stored_bytes(body).map_err(|error| error.to_string())?;
                agree(spec.cid == cid)?;
                let sha256 = Sha256::of(body);
                let mut parts = self.parts.get(&cid).into_iter().flatten();
                let granted = parts.find_map(|grants| granted(&spec, sha256, grants).ok());
                let machines = granted.ok_or("grants for it are not there")?.machines;
                self.commands.insert(cid, Command { spec, machines, is_cancelled: false, is_done: false });
                Ok(())
            }
            CommandPiece::Cancel => {
                let stored_at = message.at;
                let request: Request =
                    open(body, |key| self.is_bridge(key, stored_at) || self.is_member(key))?;
                let args: Cancel = serde_json::from_value(request.args).map_err(|error| error.to_string())?;
                agree(request.op == op::COMMANDS_CANCEL && args.id == cid)?;
                self.cancels.insert(cid);
                Ok(())
            }
            CommandPiece::Rollout => {
                let progress: Progress = open(body, |key| self.is_bridge(key, message.at))?;
                agree(progress.cid == cid)?;
                self.rollouts.entry(cid).or_default().push((message.at, progress));
                Ok(())
            }
            other @ CommandPiece::Part(_) => Err(format!("a piece that nothing here writes: {other:?}")),
        }
    }

    fn fact(
        &mut self,
        cid: CommandId,
        mid: &MachineToken,
        kind: FactKind,
        at: (u64, u64),
        body: &[u8],
    ) -> Read {
        let (sequence, stored_at) = at;
        let by_machine = |key: &PublicKey| self.machines.get(mid).is_some_and(|keys| keys.contains(key));
        let by_bridge = |key: &PublicKey| self.is_bridge(key, stored_at);
        let mut claimed_at = None;
        let (fact, line) = match kind {
            FactKind::Claim => {
                let (fact, line, at) = register(body, stored_at, (cid, mid), by_machine, by_bridge)?;
                claimed_at = at;
                (fact, line)
            }
            FactKind::Start => {
                let start: Start = open(body, by_machine)?;
                agree(start.cid == cid && start.mid == *mid)?;
                (Fact::Start(start), "start".to_owned())
            }
            FactKind::Exit => {
                let exit: Exit = open(body, by_machine)?;
                agree(exit.cid == cid && exit.mid == *mid && exit.is_consistent())?;
                let line = format!(
                    "exit {:?}, code {:?}, signal {:?}, error {:?}, {} ms, {} bytes{}, nonce {}",
                    exit.state,
                    exit.exit_code,
                    exit.signal,
                    exit.error.as_ref().map(|error| &error.code),
                    exit.duration_ms,
                    exit.stdout.bytes,
                    if exit.stdout.truncated { " (cut)" } else { "" },
                    exit.nonce
                );
                (Fact::Exit(Box::new(exit)), line)
            }
            FactKind::Lost => {
                let lost: Lost = open(body, |key| by_machine(key) || by_bridge(key))?;
                agree(lost.cid == cid && lost.mid == *mid)?;
                let line = format!("lost, {}, nonce {}", lost.reason.as_str(), lost.nonce);
                (Fact::Lost(lost), line)
            }
        };
        let run = self.runs.entry((cid, mid.clone())).or_default();
        if kind == FactKind::Claim {
            run.register_at = Some(stored_at);
            run.claimed_at = claimed_at.map(|at| at.min(stored_at));
        }
        if let Fact::Exit(exit) = &fact {
            run.exit = Some((**exit).clone());
        }
        if let Fact::Lost(lost) = &fact {
            let first = run.lost_at.entry(lost.nonce).or_insert(stored_at);
            *first = stored_at.min(*first);
        }
        run.lines.push(format!("RUN {sequence} at {stored_at}: {line}"));
        run.facts.apply(sequence, fact);
        Ok(())
    }

    /// Whether a key was a bridge's when something was stored.
    pub(super) fn is_bridge(&self, key: &PublicKey, stored_at: u64) -> bool {
        self.authors.as_ref().is_some_and(|authors| authors.was_bridge(key, stored_at))
    }

    fn is_member(&self, key: &PublicKey) -> bool {
        let role = self.authors.as_ref().and_then(|authors| authors.author(key)).map(|author| author.role);
        role.is_some_and(|role| role != Role::Viewer)
    }
}

/// What stands in a register: a claim or a rejection by the machine, or a withdrawal by a bridge. With what a claim says of its
/// time.
fn register(
    body: &[u8],
    stored_at: u64,
    (cid, mid): (CommandId, &MachineToken),
    by_machine: impl Fn(&PublicKey) -> bool,
    by_bridge: impl Fn(&PublicKey) -> bool,
) -> Result<(Fact, String, Option<u64>), String> {
    if let Ok(claim) = open::<Claim>(body, &by_machine) {
        agree(claim.cid == cid && claim.mid == *mid && claim.via.is_none())?;
        let line = format!("claim, nonce {}", claim.nonce);
        let register = Register::Claimed { nonce: claim.nonce, stored_at, via: None };
        return Ok((Fact::Register(register), line, Some(claim.claimed_at)));
    }
    if let Ok(rejection) = open::<Rejection>(body, &by_machine) {
        agree(rejection.cid == cid && rejection.mid == *mid)?;
        let line = format!("rejection, {}: {}", rejection.reason.as_str(), rejection.message);
        let register = Register::Rejected { reason: rejection.reason, message: rejection.message };
        return Ok((Fact::Register(register), line, None));
    }
    let withdrawal: Withdrawal = open(body, by_bridge)
        .map_err(|why| format!("neither claim nor rejection nor withdrawal of who may say so ({why})"))?;
    agree(withdrawal.cid == cid && withdrawal.mid == *mid)?;
    let line = format!("withdrawal, {:?}", withdrawal.reason);
    Ok((Fact::Register(Register::Withdrawn(withdrawal.reason)), line, None))
}

fn open<T: Message>(body: &[u8], may: impl Fn(&PublicKey) -> bool) -> Result<T, String> {
    let signed = Signed::<T>::from_json(body).map_err(|error| error.to_string())?;
    signed.open(|key| may(key)).map_err(|error| error.to_string())
}

fn agree(agrees: bool) -> Read {
    if agrees { Ok(()) } else { Err("it does not say what its subject says".to_owned()) }
}
