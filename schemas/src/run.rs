//! Facts about one command on one machine, and the fold that turns them into a state.
//!
//! Facts are small signed messages on write-once subjects `run.<ws>.<mid>.<cid>.<kind>`. The `claim` subject is
//! the *register*: whoever is first to write it decides the run's fate. A relay claims or rejects, the bridge
//! withdraws; no process starts before its claim is acknowledged.
//!
//! The fold is commutative and idempotent: facts may arrive in any order and any number of times.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Base64Url,
    id::{CommandId, MachineToken, Nonce, Sha256, Workspace},
    limit,
    signed::{Message, SignedError},
};

/// Who speaks for a relay that has no key of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A bridge, for a relay of the old contract: the assignment whose API key it brought.
    Legacy(String),
}

/// The relay takes the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// The command.
    pub cid: CommandId,
    /// Drawn by the claimer's keeper at its start: tells this claim from one of an earlier life or of another
    /// relay with the same credentials.
    pub nonce: Nonce,
    /// When, Unix ms by the relay's clock.
    pub claimed_at: u64,
    /// Absent: the relay signed it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
}

impl Message for Claim {
    const TYPE: &'static str = "claim";
    const MAX_BYTES: usize = 4096;
}

/// Why a relay refuses an offer inside a verified mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The spec does not parse, is out of range, or is not the one the grant speaks of.
    Invalid,
    /// The grant names another machine, command or workspace.
    Misplaced,
    /// The grant's signature is wrong.
    Signature,
    /// The grant's author may not author this, by the authors document or the machine's own policy.
    Forbidden,
    /// The offer needs something that this relay does not know.
    Critical,
    /// The relay remembers as many commands as it can.
    JournalFull,
    /// Used by the bridge: the first message in the register was neither claim, rejection nor withdrawal.
    BadRegister,
}

impl RejectReason {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Misplaced => "misplaced",
            Self::Signature => "signature",
            Self::Forbidden => "forbidden",
            Self::Critical => "critical",
            Self::JournalFull => "journal_full",
            Self::BadRegister => "bad_register",
        }
    }
}

impl From<&SignedError> for RejectReason {
    /// Why an offer is refused whose grant cannot be opened.
    fn from(error: &SignedError) -> Self {
        match error {
            SignedError::Untrusted(_) => Self::Forbidden,
            SignedError::Signature => Self::Signature,
            SignedError::Critical(_) => Self::Critical,
            SignedError::Misplaced(_) => Self::Misplaced,
            SignedError::TooLarge { .. } | SignedError::Envelope | SignedError::Payload(_) => Self::Invalid,
        }
    }
}

/// The relay refuses the run, or a bridge does for a relay that has no key to check its grant with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// The command.
    pub cid: CommandId,
    /// Why.
    pub reason: RejectReason,
    /// Why, for people; cut at 512 bytes by whoever reads it.
    pub message: String,
    /// When, Unix ms by the relay's clock.
    pub rejected_at: u64,
}

impl Message for Rejection {
    const TYPE: &'static str = "rejection";
    const MAX_BYTES: usize = 4096;
}

/// Why a bridge takes an offer back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithdrawReason {
    /// `expires_at` has passed.
    Expired,
    /// An operator asked.
    Cancelled,
}

/// The bridge takes the offer back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// The command.
    pub cid: CommandId,
    /// Why.
    pub reason: WithdrawReason,
    /// When, Unix ms by the bridge's clock.
    pub withdrawn_at: u64,
}

impl Message for Withdrawal {
    const TYPE: &'static str = "withdrawal";
    const MAX_BYTES: usize = 4096;
}

/// A run began where its process is: said of those elsewhere (SSH), and in the name of relays that have no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// The command.
    pub cid: CommandId,
    /// The claim's nonce.
    pub nonce: Nonce,
    /// When, Unix ms by the relay's clock.
    pub started_at: u64,
    /// Absent: the relay signed it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
}

impl Message for Start {
    const TYPE: &'static str = "start";
    const MAX_BYTES: usize = 4096;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitState {
    /// Code 0.
    Completed,
    /// Another code, a signal, or it could not start.
    Failed,
    /// `timeout_ms` passed first.
    Timeout,
    /// An operator asked first.
    Cancelled,
}

/// What one stream of a run amounts to. Bytes and hash are of the whole, also when it was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// Bytes written by the process.
    pub bytes: u64,
    /// SHA-256 over all of them.
    pub sha256: Sha256,
    /// Whether more was written than `max_output` keeps: bytes between head and tail may be left out. Or whether another host
    /// still sent something when the run was over, which is in neither figure.
    pub truncated: bool,
}

impl StreamSummary {
    /// A stream on which nothing was written.
    pub fn empty() -> Self {
        Self { bytes: 0, sha256: Sha256::of(b""), truncated: false }
    }
}

/// Output that the exit carries itself, from offset 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineOutput {
    /// Standard output.
    #[serde(default)]
    pub stdout: Base64Url,
    /// Standard error.
    #[serde(default)]
    pub stderr: Base64Url,
}

/// Why a run failed without an exit code, or what went wrong beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// Stable code, such as `spawn_failed`, `keeper_gone`, `bad_register`.
    pub code: String,
    /// For people; cut at 512 bytes by whoever reads it.
    pub message: String,
}

/// The run ended: signed by the claimer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// The command.
    pub cid: CommandId,
    /// The claim's nonce.
    pub nonce: Nonce,
    /// How.
    pub state: ExitState,
    /// Exit code of the shell, 0 to 255, when it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Name of the signal that ended the shell, such as `SIGKILL`; at most 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Why it could not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// When it started, Unix ms by the relay's clock.
    pub started_at: u64,
    /// How long it ran, ms, by a clock that does not jump.
    pub duration_ms: u64,
    /// Whether the process group was seen empty.
    pub group_dead: bool,
    /// Standard output.
    pub stdout: StreamSummary,
    /// Standard error.
    pub stderr: StreamSummary,
    /// Output chunks published to OUT.
    pub chunks: u64,
    /// The output itself, when none was published to OUT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineOutput>,
    /// Absent: the relay signed it itself. It counts only if it is the claim's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
}

impl Message for Exit {
    const TYPE: &'static str = "exit";
    const MAX_BYTES: usize = limit::FACT_BYTES;
}

impl Exit {
    /// Whether code and signal are in their range, and agree with state and error: `completed` is exit code 0 and
    /// nothing else.
    pub fn is_consistent(&self) -> bool {
        let code = self.exit_code.is_none_or(|code| (0..=255).contains(&code));
        let signal = self.signal.as_ref().is_none_or(|name| name.len() <= limit::SIGNAL_BYTES);
        if !code || !signal {
            return false;
        }
        let clean = self.exit_code == Some(0) && self.signal.is_none() && self.error.is_none();
        match self.state {
            ExitState::Completed => clean,
            ExitState::Failed => !clean,
            ExitState::Timeout | ExitState::Cancelled => true,
        }
    }
}

/// Why nobody knows how a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostReason {
    /// The keeper that had claimed it is no more (it died, or the machine rebooted).
    KeeperGone,
    /// No exit came in time.
    Deadline,
}

impl LostReason {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeeperGone => "keeper_gone",
            Self::Deadline => "deadline",
        }
    }
}

/// Nobody knows how the run ended: signed by the claimer or by a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// The command.
    pub cid: CommandId,
    /// The claim's nonce.
    pub nonce: Nonce,
    /// Why.
    pub reason: LostReason,
    /// When it was given up, Unix ms.
    pub lost_at: u64,
    /// Output bytes that are known of, stdout and stderr.
    pub known_bytes: [u64; 2],
}

impl Message for Lost {
    const TYPE: &'static str = "lost";
    const MAX_BYTES: usize = 4096;
}

/// What stands in a run's register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Register {
    /// A relay's claim.
    Claimed {
        /// The keeper's nonce.
        nonce: Nonce,
        /// When the broker stored it, Unix ms.
        stored_at: u64,
        /// Who claimed for the relay, if it did not itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        via: Option<Via>,
    },
    /// A refusal, by a relay or for one.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// Why, for people.
        message: String,
    },
    /// A bridge's withdrawal.
    Withdrawn(WithdrawReason),
}

impl Register {
    /// What a first message that verifies as nothing decides.
    pub fn bad(why: &str) -> Self {
        Self::Rejected {
            reason: RejectReason::BadRegister,
            message: format!("the first message in the register is not to be believed ({why})"),
        }
    }
}

/// A verified fact, ready for the fold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The register was written.
    Register(Register),
    /// It began on its target.
    Start(Start),
    /// It ended.
    Exit(Box<Exit>),
    /// It was given up.
    Lost(Lost),
}

/// A fact with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Slot<T> {
    sequence: u64,
    value: T,
}

/// Nonces of which a `lost` is kept. RUN holds one at a time, and bridges remove one that is not the claimer's, so there
/// is rarely a second.
const LOST_KEPT: usize = 4;

/// Everything known about one run: at most one fact of each kind, the one the stream held first; of `lost` one of each
/// nonce, so that one which is not the claimer's does not stand in the way of the one that is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    register: Option<Slot<Register>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<Slot<Start>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<Slot<Box<Exit>>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Slot<Lost>>,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Accepted, not to be offered yet.
    Held,
    /// On offer.
    Pending,
    /// A relay has it; its process is elsewhere and has not started.
    Claimed,
    /// It runs.
    Executing,
    /// Code 0.
    Completed,
    /// Another code, a signal, or it could not start.
    Failed,
    /// `timeout_ms` passed.
    Timeout,
    /// An operator asked.
    Cancelled,
    /// It never started: too late.
    Expired,
    /// It never started: refused.
    Rejected,
    /// Nobody knows how it ended. A later exit replaces it.
    Lost,
}

impl RunState {
    /// All states, in the order of a run's life.
    pub const ALL: [Self; 11] = [
        Self::Held,
        Self::Pending,
        Self::Claimed,
        Self::Executing,
        Self::Completed,
        Self::Failed,
        Self::Timeout,
        Self::Cancelled,
        Self::Expired,
        Self::Rejected,
        Self::Lost,
    ];

    /// Whether nothing more is waited for.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Held | Self::Pending | Self::Claimed | Self::Executing)
    }

    /// Whether a relay has it and it did not end.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Claimed | Self::Executing)
    }

    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Pending => "pending",
            Self::Claimed => "claimed",
            Self::Executing => "executing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
        }
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the fold needs to know of the command beside the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunKind {
    /// Accepted, not to be offered yet.
    pub held: bool,
    /// Its process runs on another machine (SSH): a claim is not yet a start.
    pub elsewhere: bool,
}

fn keep_first<T>(slot: &mut Option<Slot<T>>, sequence: u64, value: T) -> bool {
    let first = slot.as_ref().is_none_or(|kept| sequence < kept.sequence);
    if first {
        *slot = Some(Slot { sequence, value });
    }
    first
}

/// Relays write what they like: a text is shown in every list and feed.
fn cut(text: &mut String) {
    let end = text.floor_char_boundary(limit::FACT_TEXT_BYTES);
    text.truncate(end);
}

impl RunFacts {
    /// Adds a verified fact that the stream holds at `sequence`, its texts cut at [`limit::FACT_TEXT_BYTES`]. Answers
    /// whether anything changed.
    pub fn apply(&mut self, sequence: u64, fact: Fact) -> bool {
        match fact {
            Fact::Register(mut register) => {
                if let Register::Rejected { message, .. } = &mut register {
                    cut(message);
                }
                keep_first(&mut self.register, sequence, register)
            }
            Fact::Start(start) => keep_first(&mut self.start, sequence, start),
            Fact::Exit(mut exit) => {
                if let Some(error) = &mut exit.error {
                    cut(&mut error.code);
                    cut(&mut error.message);
                }
                keep_first(&mut self.exit, sequence, exit)
            }
            Fact::Lost(lost) => self.keep_lost(Slot { sequence, value: lost }),
        }
    }

    /// Keeps the first `lost` of each nonce, of the earliest [`LOST_KEPT`] nonces. Sorted, so that the order in which
    /// they came cannot be seen.
    fn keep_lost(&mut self, new: Slot<Lost>) -> bool {
        let known = self.lost.iter().position(|slot| slot.value.nonce == new.value.nonce);
        if let Some(known) = known {
            if self.lost.get(known).is_none_or(|slot| slot.sequence <= new.sequence) {
                return false;
            }
            self.lost.remove(known);
        }
        let place = self.lost.partition_point(|slot| slot.sequence < new.sequence);
        if place >= LOST_KEPT {
            return false;
        }
        self.lost.insert(place, new);
        self.lost.truncate(LOST_KEPT);
        true
    }

    /// What stands in the register.
    pub fn register(&self) -> Option<&Register> {
        self.register.as_ref().map(|slot| &slot.value)
    }

    /// The claim's nonce and when the broker stored it.
    pub fn claim(&self) -> Option<(Nonce, u64)> {
        match self.register()? {
            Register::Claimed { nonce, stored_at, .. } => Some((*nonce, *stored_at)),
            Register::Rejected { .. } | Register::Withdrawn(_) => None,
        }
    }

    /// Who claimed for a relay that has no key of its own.
    pub fn via(&self) -> Option<&Via> {
        match self.register()? {
            Register::Claimed { via, .. } => via.as_ref(),
            Register::Rejected { .. } | Register::Withdrawn(_) => None,
        }
    }

    /// The exit, if it is the claimer's.
    pub fn exit(&self) -> Option<&Exit> {
        let (nonce, _) = self.claim()?;
        let is_claimers =
            |exit: &&Exit| exit.nonce == nonce && exit.via.as_ref() == self.via() && exit.is_consistent();
        self.exit.as_ref().map(|slot| &*slot.value).filter(is_claimers)
    }

    /// Why it was given up, if it was and no exit came after all.
    pub fn lost(&self) -> Option<&Lost> {
        let (nonce, _) = self.claim()?;
        let claimers = self.lost.iter().map(|slot| &slot.value).find(|lost| lost.nonce == nonce);
        claimers.filter(|_| self.exit().is_none())
    }

    /// The state.
    pub fn state(&self, kind: RunKind) -> RunState {
        match self.register() {
            None if kind.held => RunState::Held,
            None => RunState::Pending,
            Some(Register::Rejected { .. }) => RunState::Rejected,
            Some(Register::Withdrawn(WithdrawReason::Expired)) => RunState::Expired,
            Some(Register::Withdrawn(WithdrawReason::Cancelled)) => RunState::Cancelled,
            Some(Register::Claimed { .. }) => match (self.exit(), self.lost()) {
                (Some(exit), _) => match exit.state {
                    ExitState::Completed => RunState::Completed,
                    ExitState::Failed => RunState::Failed,
                    ExitState::Timeout => RunState::Timeout,
                    ExitState::Cancelled => RunState::Cancelled,
                },
                (None, Some(_)) => RunState::Lost,
                (None, None) if kind.elsewhere && self.start.is_none() => RunState::Claimed,
                (None, None) => RunState::Executing,
            },
        }
    }

    /// What went wrong, for people and programs.
    pub fn error(&self) -> Option<RunError> {
        if let Some(Register::Rejected { reason, message }) = self.register() {
            return Some(RunError { code: reason.as_str().to_owned(), message: message.clone() });
        }
        if let Some(lost) = self.lost() {
            let message = match lost.reason {
                LostReason::KeeperGone => "the keeper that ran it is gone; how it ended is not known",
                LostReason::Deadline => "no exit came in time; how it ended is not known",
            };
            return Some(RunError { code: lost.reason.as_str().to_owned(), message: message.to_owned() });
        }
        self.exit().and_then(|exit| exit.error.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: Nonce = Nonce([7; 16]);

    fn exit(state: ExitState, code: Option<i32>, nonce: Nonce) -> Fact {
        Fact::Exit(Box::new(Exit {
            ws: Workspace::main(),
            mid: MachineToken::new("web-1").unwrap(),
            cid: "0193a2b4-0000-7000-8000-000000000000".parse().unwrap(),
            nonce,
            state,
            exit_code: code,
            signal: None,
            error: None,
            started_at: 0,
            duration_ms: 0,
            group_dead: true,
            stdout: StreamSummary::empty(),
            stderr: StreamSummary::empty(),
            chunks: 0,
            inline: None,
            via: None,
        }))
    }

    fn lost(nonce: Nonce) -> Fact {
        Fact::Lost(Lost {
            ws: Workspace::main(),
            mid: MachineToken::new("web-1").unwrap(),
            cid: "0193a2b4-0000-7000-8000-000000000000".parse().unwrap(),
            nonce,
            reason: LostReason::Deadline,
            lost_at: 0,
            known_bytes: [0, 0],
        })
    }

    fn claimed() -> Fact {
        Fact::Register(Register::Claimed { nonce: NONCE, stored_at: 1, via: None })
    }

    fn fold(facts: &[(u64, Fact)]) -> RunState {
        let mut run = RunFacts::default();
        for (sequence, fact) in facts {
            run.apply(*sequence, fact.clone());
        }
        run.state(RunKind::default())
    }

    fn any_fact() -> impl Strategy<Value = Fact> {
        // More of them than are kept of `lost`.
        let nonce = prop_oneof![Just(NONCE), (1..7u8).prop_map(|byte| Nonce([byte; 16]))];
        (0..8u8, nonce).prop_map(|(kind, nonce)| match kind {
            0 | 1 => Fact::Register(Register::Claimed { nonce, stored_at: 1, via: None }),
            2 => Fact::Register(Register::Withdrawn(WithdrawReason::Expired)),
            3 => Fact::Register(Register::bad("x")),
            4 => exit(ExitState::Completed, Some(0), nonce),
            5 => exit(ExitState::Failed, Some(3), nonce),
            _ => lost(nonce),
        })
    }

    proptest! {
        /// One message per sequence, as a stream has it; any order, any number of deliveries.
        #[test]
        fn order_and_repetition_change_nothing(
            facts in prop::collection::vec(any_fact(), 0..16),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let stream: Vec<_> = facts.into_iter().enumerate().map(|(i, f)| (i as u64, f)).collect();
            let straight = fold(&stream);
            let mut shuffled: Vec<_> = order.iter().filter(|_| !stream.is_empty()).map(|i| i.get(&stream).clone()).collect();
            shuffled.extend(stream.iter().rev().cloned());
            prop_assert_eq!(fold(&shuffled), straight);
        }
    }

    #[test]
    fn texts_are_cut_when_they_are_taken() {
        // The cut falls into a letter of two bytes.
        let long = format!("x{}", "ü".repeat(1_000));
        let rejected = Register::Rejected { reason: RejectReason::Forbidden, message: long.clone() };
        let mut run = RunFacts::default();
        run.apply(1, Fact::Register(rejected));
        assert_eq!(run.error().unwrap().message, long[..511]);
        let Fact::Exit(mut failed) = exit(ExitState::Failed, None, NONCE) else { unreachable!() };
        failed.error = Some(RunError { code: long.clone(), message: long.clone() });
        let mut run = RunFacts::default();
        run.apply(1, claimed());
        run.apply(2, Fact::Exit(failed));
        let error = run.error().unwrap();
        assert_eq!((&*error.code, &*error.message), (&long[..511], &long[..511]));
    }

    #[test]
    fn an_exit_out_of_range_is_none() {
        let with = |code, signal: Option<&str>| {
            let Fact::Exit(mut failed) = exit(ExitState::Failed, code, NONCE) else { unreachable!() };
            failed.signal = signal.map(str::to_owned);
            fold(&[(1, claimed()), (2, Fact::Exit(failed))])
        };
        assert_eq!(with(Some(255), None), RunState::Failed);
        assert_eq!(with(None, Some("SIGRTMIN+15")), RunState::Failed);
        for (code, signal) in [(Some(256), None), (Some(-1), None), (None, Some("S".repeat(33)))] {
            assert_eq!(with(code, signal.as_deref()), RunState::Executing, "{code:?} {signal:?}");
        }
    }

    #[test]
    fn a_run_completes_only_with_code_zero_from_its_claimer() {
        let done = exit(ExitState::Completed, Some(0), NONCE);
        assert_eq!(fold(&[(1, claimed()), (2, done.clone())]), RunState::Completed);
        assert_eq!(fold(&[(2, done.clone())]), RunState::Pending);
        let foreign = exit(ExitState::Completed, Some(0), Nonce([9; 16]));
        assert_eq!(fold(&[(1, claimed()), (2, foreign)]), RunState::Executing);
        let liar = exit(ExitState::Completed, Some(1), NONCE);
        assert_eq!(fold(&[(1, claimed()), (2, liar)]), RunState::Executing);
    }

    #[test]
    fn an_exit_replaces_lost_and_never_the_other_way_round() {
        let done = exit(ExitState::Failed, Some(3), NONCE);
        assert_eq!(fold(&[(1, claimed()), (2, lost(NONCE))]), RunState::Lost);
        assert_eq!(fold(&[(1, claimed()), (2, lost(NONCE)), (3, done.clone())]), RunState::Failed);
        assert_eq!(fold(&[(1, claimed()), (2, done), (3, lost(NONCE))]), RunState::Failed);
    }

    #[test]
    fn a_foreign_lost_does_not_stand_in_the_way_of_the_real_one() {
        let foreign = || lost(Nonce([9; 16]));
        assert_eq!(fold(&[(1, foreign()), (2, claimed())]), RunState::Executing);
        assert_eq!(fold(&[(1, foreign()), (2, claimed()), (3, lost(NONCE))]), RunState::Lost);
        assert_eq!(fold(&[(1, claimed()), (3, lost(NONCE)), (2, foreign())]), RunState::Lost);
    }

    #[test]
    fn of_many_foreign_losts_few_are_kept() {
        let mut run = RunFacts::default();
        for i in (0..100u8).rev() {
            run.apply(u64::from(i), lost(Nonce([i; 16])));
        }
        let kept: Vec<_> = run.lost.iter().map(|slot| slot.sequence).collect();
        assert_eq!(kept, [0, 1, 2, 3]);
    }

    #[test]
    fn the_first_message_in_the_register_decides() {
        let expired = Fact::Register(Register::Withdrawn(WithdrawReason::Expired));
        assert_eq!(fold(&[(1, claimed()), (2, expired.clone())]), RunState::Executing);
        assert_eq!(fold(&[(2, claimed()), (1, expired)]), RunState::Expired);
        assert_eq!(fold(&[(1, Fact::Register(Register::bad("x"))), (2, claimed())]), RunState::Rejected);
    }

    #[test]
    fn a_claim_elsewhere_is_not_yet_a_start() {
        let mut run = RunFacts::default();
        run.apply(1, claimed());
        assert_eq!(run.state(RunKind { elsewhere: true, held: false }), RunState::Claimed);
        assert_eq!(RunFacts::default().state(RunKind { held: true, elsewhere: false }), RunState::Held);
    }
}
