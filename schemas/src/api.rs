//! Operations, views and feeds: the same for the console, the command line and HTTP.
//!
//! Over NATS a request is a publish to `api.<ws>.<op>.<noun>.<verb>.<rid>` without a reply subject; its
//! answers come on `feed.<ws>.<op>.<rid>`. Operations that change something are [`Signed`]
//! [`Request`]s; those that only read are the bare arguments.

mod assignments;
mod audit;
mod events;
mod health;
mod history;
mod inventory;
mod labels;
mod operators;
mod rollout;
mod whole;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Base64Url,
    command::{self, Grant},
    error::Problem,
    heartbeat::{Facts, Metrics, metrics_if_readable},
    id::{CommandId, MachineId, MachineToken, Nonce, Sha256, Workspace},
    label::LabelViews,
    limit,
    output::OutputStream,
    run::{RunError, RunState, StreamSummary},
    signed::{Message, Signed},
};

pub use assignments::*;
pub use audit::AuditView;
pub use events::*;
pub use health::*;
pub use history::*;
pub use inventory::*;
pub use labels::*;
pub use operators::OperatorView;
pub use rollout::{RolloutView, SteerRollout, Steered, counted};

/// An operation that changes something, signed by its author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Workspace.
    pub ws: Workspace,
    /// `<noun>.<verb>`, as in the subject.
    pub op: String,
    /// Its arguments.
    pub args: serde_json::Value,
    /// Drawn at random: a request counts once.
    pub nonce: Nonce,
    /// When, Unix ms; refused when it is more than 5 min off.
    pub issued_at: u64,
}

impl Message for Request {
    const TYPE: &'static str = "request";
    const MAX_BYTES: usize = limit::BROKER_PAYLOAD_BYTES;
}

/// Names of the operations: noun and verb.
pub mod op {
    /// Lists machines: [`ListMachines`](super::ListMachines) → [`Listed`](super::Listed) of [`MachineView`](super::MachineView).
    pub const MACHINES_LIST: &str = "machines.list";
    /// Gives labels to machines, and takes them away (signed): [`SetLabels`](super::SetLabels) →
    /// [`LabelsSet`](super::LabelsSet).
    pub const LABELS_SET: &str = "labels.set";
    /// Answers which machines a selector means: [`Preview`](super::Preview) → [`Previewed`](super::Previewed).
    pub const COMMANDS_PREVIEW: &str = "commands.preview";
    /// Submits a command (signed): [`Submit`](super::Submit) → [`Accepted`](super::Accepted).
    pub const COMMANDS_SUBMIT: &str = "commands.submit";
    /// Grants ahead of a submit above 1,000 targets (signed): each part of them as a [`Part`](crate::command::Part) →
    /// [`PartTaken`](super::PartTaken).
    pub const COMMANDS_PART: &str = "commands.part";
    /// Cancels a command (signed): [`Cancel`](super::Cancel) → [`Cancelling`](super::Cancelling).
    pub const COMMANDS_CANCEL: &str = "commands.cancel";
    /// Lets no other machine begin a command that spreads in waves (signed): [`SteerRollout`](super::SteerRollout) →
    /// [`Steered`](super::Steered).
    pub const COMMANDS_PAUSE: &str = "commands.pause";
    /// Lets it go on (signed): [`SteerRollout`](super::SteerRollout) → [`Steered`](super::Steered).
    pub const COMMANDS_RESUME: &str = "commands.resume";
    /// Ends it; what runs goes on (signed): [`SteerRollout`](super::SteerRollout) → [`Steered`](super::Steered).
    pub const COMMANDS_ABORT: &str = "commands.abort";
    /// Lists commands, newest first: [`Page`](super::Page) → [`Listed`](super::Listed) of
    /// [`CommandSummary`](super::CommandSummary).
    pub const COMMANDS_LIST: &str = "commands.list";
    /// One command with its runs: [`Get`](super::Get) → [`CommandView`](super::CommandView).
    pub const COMMANDS_GET: &str = "commands.get";
    /// The audit chain, newest first: [`Page`](super::Page) → [`Listed`](super::Listed) of [`AuditView`](super::AuditView).
    pub const AUDIT_LIST: &str = "audit.list";
    /// Events, newest first: [`ListEvents`](super::ListEvents) → [`Listed`](super::Listed) of
    /// [`EventView`](super::EventView).
    pub const EVENTS_LIST: &str = "events.list";
    /// The fleet at an earlier moment: [`FleetAt`](super::FleetAt) → [`FleetThen`](super::FleetThen).
    pub const HISTORY_FLEET: &str = "history.fleet";
    /// The figures of a machine over time: [`MachineOver`](super::MachineOver) → [`MachineSeries`](super::MachineSeries).
    pub const HISTORY_MACHINE: &str = "history.machine";
    /// Who may use the console, by id: [`Page`](super::Page) → [`Listed`](super::Listed) of
    /// [`OperatorView`](super::OperatorView).
    pub const OPERATORS_LIST: &str = "operators.list";
    /// How the system itself is; no arguments → [`HealthView`](super::HealthView).
    pub const HEALTH_GET: &str = "health.get";
    /// A range of output: [`ReadOutput`](super::ReadOutput) → one chunk (headers of [`chunk`](super::chunk)).
    pub const COMMANDS_OUTPUT: &str = "commands.output";
    /// Runs by machine and state: [`ListRuns`](super::ListRuns) → [`Listed`](super::Listed) of
    /// [`MachineRunView`](super::MachineRunView).
    pub const RUNS_LIST: &str = "runs.list";
    /// Takes a run for a relay of the old contract (signed): [`ClaimRun`](super::ClaimRun) →
    /// [`ClaimedRun`](super::ClaimedRun).
    pub const RUNS_CLAIM: &str = "runs.claim";
    /// Says that it has begun (signed): [`ClaimRun`](super::ClaimRun) → [`StartedRun`](super::StartedRun).
    pub const RUNS_START: &str = "runs.start";
    /// Ends it (signed): [`CompleteRun`](super::CompleteRun) → [`CompletedRun`](super::CompletedRun).
    pub const RUNS_COMPLETE: &str = "runs.complete";
    /// Makes an assignment (signed): [`NewAssignment`](super::NewAssignment) →
    /// [`AssignmentView`](super::AssignmentView).
    pub const ASSIGNMENTS_CREATE: &str = "assignments.create";
    /// Assignments, newest first: [`ListAssignments`](super::ListAssignments) → [`Listed`](super::Listed) of
    /// [`AssignmentView`](super::AssignmentView).
    pub const ASSIGNMENTS_LIST: &str = "assignments.list";
    /// One assignment: [`ById`](super::ById) → [`AssignmentView`](super::AssignmentView).
    pub const ASSIGNMENTS_GET: &str = "assignments.get";
    /// Changes one (signed): [`UpdateAssignment`](super::UpdateAssignment) → [`AssignmentView`](super::AssignmentView).
    pub const ASSIGNMENTS_UPDATE: &str = "assignments.update";
    /// Removes one (signed): [`RemoveAssignment`](super::RemoveAssignment) →
    /// [`RemovedAssignment`](super::RemovedAssignment).
    pub const ASSIGNMENTS_REMOVE: &str = "assignments.remove";
    /// A sign of life of its relay (signed): [`ById`](super::ById) → [`AssignmentView`](super::AssignmentView).
    pub const ASSIGNMENTS_HEARTBEAT: &str = "assignments.heartbeat";
    /// Relays of the old contract: [`ListRelays`](super::ListRelays) → [`Listed`](super::Listed) of
    /// [`RelayView`](super::RelayView).
    pub const RELAYS_LIST: &str = "relays.list";
    /// One of them, by assignment: [`ById`](super::ById) → [`RelayView`](super::RelayView).
    pub const RELAYS_GET: &str = "relays.get";
    /// What it says of itself (signed): [`Report`](super::Report) → [`Reported`](super::Reported).
    pub const RELAYS_REPORT: &str = "relays.report";
    /// What relays hold: [`ListCredentials`](super::ListCredentials) → [`Listed`](super::Listed) of
    /// [`CredentialView`](super::CredentialView).
    pub const CREDENTIALS_LIST: &str = "credentials.list";
    /// Which machines have a credential for a host: [`Reach`](super::Reach) → [`Listed`](super::Listed) of
    /// [`ReachView`](super::ReachView).
    pub const CREDENTIALS_REACH: &str = "credentials.reach";
    /// What relays with keys keep, as they signed it: [`ListInventory`](super::ListInventory) → [`Listed`](super::Listed) of
    /// [`InventoryView`](super::InventoryView).
    pub const INVENTORY_LIST: &str = "inventory.list";
    /// Makes a shared credential (signed): [`NewSharedCredential`](super::NewSharedCredential) →
    /// [`SharedCredentialView`](super::SharedCredentialView).
    pub const SHARED_CREATE: &str = "shared_credentials.create";
    /// All of them: [`Page`](super::Page) → [`Listed`](super::Listed) of
    /// [`SharedCredentialView`](super::SharedCredentialView).
    pub const SHARED_LIST: &str = "shared_credentials.list";
    /// One of them: [`ById`](super::ById) → [`SharedCredentialView`](super::SharedCredentialView).
    pub const SHARED_GET: &str = "shared_credentials.get";
    /// Changes one (signed): [`UpdateSharedCredential`](super::UpdateSharedCredential) →
    /// [`SharedCredentialView`](super::SharedCredentialView).
    pub const SHARED_UPDATE: &str = "shared_credentials.update";
    /// Removes one (signed): [`ById`](super::ById) → [`SharedCredentialView`](super::SharedCredentialView).
    pub const SHARED_REMOVE: &str = "shared_credentials.remove";
    /// Says who has one of those for relays with keys (signed): [`KeepShared`](super::KeepShared) →
    /// [`SharedCredentialView`](super::SharedCredentialView).
    pub const SHARED_KEEP: &str = "shared_credentials.keep";
    /// One of those, with its sealed value: [`ByName`](super::ByName) → [`SharedKept`](crate::credential::SharedKept).
    pub const SHARED_KEPT: &str = "shared_credentials.kept";
    /// Queues a configuration push (signed): [`NewConfigPush`](super::NewConfigPush) →
    /// [`ConfigPushView`](super::ConfigPushView).
    pub const PUSHES_CREATE: &str = "config_pushes.create";
    /// Pushes, oldest first: [`ListConfigPushes`](super::ListConfigPushes) → [`Listed`](super::Listed) of
    /// [`ConfigPushView`](super::ConfigPushView).
    pub const PUSHES_LIST: &str = "config_pushes.list";
    /// One of them: [`ById`](super::ById) → [`ConfigPushView`](super::ConfigPushView).
    pub const PUSHES_GET: &str = "config_pushes.get";
    /// Its relay was told (signed): [`ById`](super::ById) → [`ConfigPushView`](super::ConfigPushView).
    pub const PUSHES_SENT: &str = "config_pushes.sent";
    /// Its relay has answered (signed): [`AckConfigPush`](super::AckConfigPush) →
    /// [`ConfigPushView`](super::ConfigPushView).
    pub const PUSHES_ACK: &str = "config_pushes.ack";
    /// It waits again (signed): [`ById`](super::ById) → [`ConfigPushView`](super::ConfigPushView).
    pub const PUSHES_RETRY: &str = "config_pushes.retry";
    /// Opens a feed: [`OpenFeed`](super::OpenFeed) → [`FeedEvent`](super::FeedEvent)s.
    pub const FEED_OPEN: &str = "feed.open";
    /// Gives a feed credit: [`Credit`](super::Credit); not answered.
    pub const FEED_CREDIT: &str = "feed.credit";
    /// Closes a feed; no arguments, not answered.
    pub const FEED_CLOSE: &str = "feed.close";

    /// All of them.
    pub const ALL: [&str; 50] = [
        MACHINES_LIST,
        LABELS_SET,
        COMMANDS_PREVIEW,
        COMMANDS_SUBMIT,
        COMMANDS_PART,
        COMMANDS_CANCEL,
        COMMANDS_PAUSE,
        COMMANDS_RESUME,
        COMMANDS_ABORT,
        COMMANDS_LIST,
        COMMANDS_GET,
        AUDIT_LIST,
        EVENTS_LIST,
        HISTORY_FLEET,
        HISTORY_MACHINE,
        OPERATORS_LIST,
        HEALTH_GET,
        COMMANDS_OUTPUT,
        RUNS_LIST,
        RUNS_CLAIM,
        RUNS_START,
        RUNS_COMPLETE,
        ASSIGNMENTS_CREATE,
        ASSIGNMENTS_LIST,
        ASSIGNMENTS_GET,
        ASSIGNMENTS_UPDATE,
        ASSIGNMENTS_REMOVE,
        ASSIGNMENTS_HEARTBEAT,
        RELAYS_LIST,
        RELAYS_GET,
        RELAYS_REPORT,
        CREDENTIALS_LIST,
        CREDENTIALS_REACH,
        INVENTORY_LIST,
        SHARED_CREATE,
        SHARED_LIST,
        SHARED_GET,
        SHARED_UPDATE,
        SHARED_REMOVE,
        SHARED_KEEP,
        SHARED_KEPT,
        PUSHES_CREATE,
        PUSHES_LIST,
        PUSHES_GET,
        PUSHES_SENT,
        PUSHES_ACK,
        PUSHES_RETRY,
        FEED_OPEN,
        FEED_CREDIT,
        FEED_CLOSE,
    ];
}

/// Headers of an answer whose body is raw output.
pub mod chunk {
    /// Header: the answer's number in its feed.
    pub const SEQ: &str = "Sb-Seq";
    /// Header: the bridge that answers.
    pub const BRIDGE: &str = "Sb-Bridge";
    /// Header: the machine's id.
    pub const MACHINE: &str = "Sb-Machine";
    /// Header: `stdout` or `stderr`.
    pub const STREAM: &str = "Sb-Stream";
    /// Header: absolute offset of the first byte.
    pub const OFFSET: &str = "Sb-Offset";
    /// Header: position to resume the feed after this chunk.
    pub const POSITION: &str = "Sb-Position";
    /// Header on answers to `commands.output`: bytes there are in all.
    pub const TOTAL: &str = "Sb-Total";
    /// Header on answers to `commands.output`: `true` when bytes were left out.
    pub const TRUNCATED: &str = "Sb-Truncated";
}

/// One answer: number in its feed from 0, who answers, and what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Number of this answer in its feed, from 0, without gaps.
    pub seq: u64,
    /// The bridge that answers.
    pub bridge: String,
    /// What.
    #[serde(flatten)]
    pub body: AnswerBody,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerBody {
    /// The operation's result: the only and last answer.
    Ok(serde_json::Value),
    /// The operation was refused: the only and last answer.
    Error(Problem),
    /// Something happened in an open feed.
    Event(Box<FeedEvent>),
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Items and where they go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give it as `after` for the next page; `null` when this was the last.
    pub next: Option<String>,
}

/// Whether a machine was heard lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Heard in the last 25 s.
    Online,
    /// Not heard for 25 s.
    Stale,
    /// Not heard for 60 s, or never.
    Offline,
}

impl Liveness {
    /// What `age_ms` since the last heartbeat means; `None` = never heard.
    pub fn of(age_ms: Option<u64>) -> Self {
        match age_ms {
            Some(age) if age <= limit::STALE_MS => Self::Online,
            Some(age) if age <= limit::OFFLINE_MS => Self::Stale,
            _ => Self::Offline,
        }
    }

    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Stale => "stale",
            Self::Offline => "offline",
        }
    }
}

/// A machine as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineView {
    /// What people call it.
    pub id: MachineId,
    /// What subjects call it.
    pub token: MachineToken,
    /// Whether it was heard lately.
    pub state: Liveness,
    /// When it was last heard, Unix ms by the broker's clock; `null` = never.
    pub last_seen_at: Option<u64>,
    /// Runs that a relay has and that did not end.
    pub running: u32,
    /// Runs that wait.
    pub pending: u32,
    /// Version of its relay; `null` = never heard.
    pub relay: Option<String>,
    /// What it is.
    pub facts: Option<Facts>,
    /// How it is; `null` = not known.
    #[serde(default, deserialize_with = "metrics_if_readable")]
    pub metrics: Option<Metrics>,
    /// What it is for: what counts, and what that overrules.
    #[serde(default, skip_serializing_if = "LabelViews::is_empty")]
    pub labels: LabelViews,
    /// Its relay has not said its own labels yet: one that is not among these is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub labels_unheard: bool,
}

/// Which machines: sorted by token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMachines {
    /// Those that this selector means; absent: all. All pages are of one list, as in [`Previewed`], with what is known of each
    /// machine now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Which machines would it be?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Selector.
    pub on: String,
    /// Most machines of one answer, 1 to 1,000. Absent: all of them, in one answer that may be too large for a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the answer before; with `limit` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The machines are to be given a secret: what their relays say of themselves is not known then, see
    /// [`Traits::is_own_word_ignored`](crate::selector::Traits).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

/// A machine that a selector means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What people call it.
    pub id: MachineId,
    /// What subjects call it: grants are made out to this.
    pub token: MachineToken,
    /// Whether it was heard lately.
    pub state: Liveness,
}

/// The frozen list, or a page of it, sorted by token. All pages are of the list that the first one begins: `next` names it, and a
/// bridge that cannot give the same list again refuses with `id_conflict`. Who reads begins anew then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previewed {
    /// Sorted by token.
    pub targets: Vec<Target>,
    /// Give it as `after` for those behind; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// When it was evaluated, Unix ms by the clock of the bridge that gave the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// What the bridge had read when it looked: give it back to read no less.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cursor: String,
    /// SHA-256 of the tokens of the whole list, each with a line feed behind it: so whoever has read all pages sees that they are
    /// of one list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

impl Previewed {
    /// What [`sha256`](Self::sha256) is of a list of tokens.
    pub fn digest<'a>(tokens: impl IntoIterator<Item = &'a MachineToken>) -> Sha256 {
        let mut lines = Vec::new();
        for token in tokens {
            lines.extend_from_slice(token.as_str().as_bytes());
            lines.push(b'\n');
        }
        Sha256::of(&lines)
    }
}

/// A command with its grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// Exact bytes of the spec.
    pub spec: Base64Url,
    /// One per target, sorted by token, up to 1,000. None at all: they were sent ahead in parts, each taken with
    /// [`op::COMMANDS_PART`] not longer ago than 5 min, by this author and about these very bytes.
    pub grants: Vec<Signed<Grant>>,
    /// What the command's id was made of, if it was: nobody can take the place of another one's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// The broker has a part of a command. Nothing is accepted yet, and it is forgotten when its submit does not come within
/// 10 min.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartTaken {
    /// The command.
    pub id: CommandId,
    /// Which part.
    pub n: u32,
    /// Give it back to read what you wrote.
    #[serde(default)]
    pub cursor: String,
}

/// The broker has it; it will reach a terminal state on every target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The command.
    pub id: CommandId,
    /// The machines, sorted. None are named to whoever sent their grants ahead in parts: a message has no room for them.
    pub targets: Vec<MachineId>,
    /// Give it back to read what you wrote.
    #[serde(default)]
    pub cursor: String,
}

/// Cancel a command wherever it has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The command.
    pub id: CommandId,
}

/// The wish to cancel is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelling {
    /// Runs that had not ended.
    pub cancelling: u32,
}

/// One command, please.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The command.
    pub id: CommandId,
    /// Most runs of one answer, 1 to 1,000. Absent: all of them, in one answer that may be too large for a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A range of output, please.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOutput {
    /// The command.
    pub id: CommandId,
    /// The machine, by id or token.
    pub machine: String,
    /// Which stream.
    pub stream: OutputStream,
    /// Absolute offset of the first byte.
    #[serde(default)]
    pub offset: u64,
    /// Most bytes, up to 512 KiB.
    pub limit: u32,
}

/// How many runs are in which state.
pub type Counts = BTreeMap<RunState, u32>;

/// One line about a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSummary {
    /// Its id.
    pub id: CommandId,
    /// Its text.
    pub command: String,
    /// The selector as it was written.
    pub on: String,
    /// Who asked.
    pub by: String,
    /// When it was made, Unix ms.
    pub created_at: u64,
    /// It does not start from this moment on, Unix ms.
    pub expires_at: u64,
    /// How long it may run, ms.
    pub timeout_ms: u64,
    /// Whether every run has settled.
    pub settled: bool,
    /// Runs by state.
    pub counts: Counts,
    /// In whose name it was asked for, as the one who asked says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Where its machines run it; absent: on themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<command::Target>,
    /// Whether it changes what its machines' relays keep: its text says that for people, and is no text for a shell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changes: bool,
    /// How far it has spread; absent: it goes to all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Box<RolloutView>>,
    /// The command whose runs it tries once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<CommandId>,
}

impl CommandSummary {
    /// Where it runs, for people: its selector, and the host behind those machines.
    pub fn place(&self) -> String {
        match &self.target {
            Some(command::Target::Ssh(ssh)) => format!("{ssh} via {}", self.on),
            None => self.on.clone(),
        }
    }
}

/// A command with its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandView {
    /// The line about it.
    #[serde(flatten)]
    pub summary: CommandSummary,
    /// Its runs, or a page of them, sorted by machine.
    pub runs: Vec<RunView>,
    /// Give it as `after` for those behind; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One run as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// The machine's id.
    pub machine: MachineId,
    /// Its state.
    pub state: RunState,
    /// Exit code of the shell; `null` without one.
    pub exit_code: Option<i32>,
    /// Name of the signal that ended it; `null` without one.
    pub signal: Option<String>,
    /// What went wrong; `null` when nothing did.
    pub error: Option<RunError>,
    /// How long it ran, ms; `null` before it ended.
    pub duration_ms: Option<u64>,
    /// Whether its process group was seen empty; `null` before it ended.
    pub group_dead: Option<bool>,
    /// Standard output; before the exit what is known so far, without a hash.
    pub stdout: OutputView,
    /// Standard error, likewise.
    pub stderr: OutputView,
    /// The assignment in whose name it was claimed; absent when nobody has, or the machine's own relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
    /// When it was claimed, Unix ms by the broker's clock; absent when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<u64>,
    /// When it settled as it is, Unix ms by the broker's clock; absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
}

/// A run with its command, as lists of runs show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRunView {
    /// The line about the command.
    pub command: CommandSummary,
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
}

/// What is known of one stream of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputView {
    /// Bytes written by the process; before the exit, bytes received.
    pub bytes: u64,
    /// SHA-256 over all of them, hex; `null` before the exit.
    pub sha256: Option<String>,
    /// Whether bytes were left out.
    pub truncated: bool,
}

impl From<&StreamSummary> for OutputView {
    fn from(summary: &StreamSummary) -> Self {
        Self { bytes: summary.bytes, sha256: Some(summary.sha256.to_string()), truncated: summary.truncated }
    }
}

/// What a feed shall tell of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// One command: its runs and, if wished, their output.
    Command {
        /// The command.
        id: CommandId,
        /// Whether output is sent too.
        output: bool,
        /// Of runs that have ended by then and wrote more bytes than this, no output is sent: it is there to be read in
        /// ranges. Absent: the output of every run is sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended_bytes: Option<u64>,
    },
    /// Every command, as a line each, when it is new or changed; no output.
    Commands,
}

/// Opens a feed. It first tells what is, then what changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFeed {
    /// What it tells of.
    pub watch: Watch,
    /// Output after this position only (a chunk's, or that of [`FeedEvent::Alive`]); absent or 0: from the first byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Output bytes that may be sent before more credit is given.
    pub credit: u64,
}

/// More output may come. `feed.credit`, sent with the request id of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// So many output bytes more.
    pub bytes: u64,
}

/// Something in a feed. Output comes as raw messages with [`chunk`] headers instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum FeedEvent {
    /// A command: at the start of its feed, and there whenever its rollout changed; in `commands` feeds whenever it changed.
    Command(CommandSummary),
    /// A run: each at the start, then whenever it changed. Its output up to the exit was sent before, but for that of runs
    /// whose output is not sent.
    Run(RunView),
    /// Every run has settled and all output that is sent was sent. The feed stays open: a lost run may yet end.
    Settled {
        /// Runs by state.
        counts: Counts,
    },
    /// Nothing was sent for 5 s.
    Alive {
        /// Position to resume the feed after, when it sends output and got anywhere: output that is no longer kept is
        /// passed over without a word.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<u64>,
    },
    /// The feed was closed by the bridge (it stops, or the command is gone). Open it anew.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(serde_json::json!({"cpu_percent": null}))]
    #[case(serde_json::json!("much"))]
    fn a_page_survives_metrics_that_cannot_be_read(#[case] metrics: serde_json::Value) {
        let machine = serde_json::json!({"id": "a", "token": "a", "state": "online", "last_seen_at": 1, "running": 0,
            "pending": 0, "relay": null, "facts": null, "metrics": metrics});
        let page: Listed<MachineView> =
            serde_json::from_value(serde_json::json!({"items": [machine], "next": null})).unwrap();
        assert_eq!((page.items[0].state, page.items[0].metrics.as_ref()), (Liveness::Online, None));
    }

    #[rstest]
    #[case(Some(0), Liveness::Online)]
    #[case(Some(25_000), Liveness::Online)]
    #[case(Some(25_001), Liveness::Stale)]
    #[case(Some(60_000), Liveness::Stale)]
    #[case(Some(60_001), Liveness::Offline)]
    #[case(None, Liveness::Offline)]
    fn a_machine_is_as_alive_as_its_last_heartbeat(#[case] age_ms: Option<u64>, #[case] expected: Liveness) {
        assert_eq!(Liveness::of(age_ms), expected);
    }
}
