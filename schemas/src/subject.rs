//! NATS subjects: the only place where one is spelled.
//!
//! A [`Subject`] is one subject, one text: `Display` writes it and [`Subject::parse`] is the exact inverse.
//! Wildcards that subscribers, consumers, exports and permissions need are functions beside it, with `*` put
//! where a name would stand.
//!
//! Source of the rules: <https://docs.nats.io/nats-concepts/subjects>.

use std::fmt;

use crate::id::{BridgeId, CommandId, MachineToken, OperatorId, RequestId, Workspace};

/// Which fact about a run a subject of the RUN stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FactKind {
    /// The register: the first message decides the run's fate.
    Claim,
    /// An SSH command started on its target.
    Start,
    /// The run ended.
    Exit,
    /// Nobody knows how the run ended.
    Lost,
}

impl FactKind {
    /// All kinds, in the order in which they normally happen.
    pub const ALL: [Self; 4] = [Self::Claim, Self::Start, Self::Exit, Self::Lost];

    /// The last token of the subject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Start => "start",
            Self::Exit => "exit",
            Self::Lost => "lost",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Which piece of a command a subject of the CMD stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandPiece {
    /// The n-th part of the grants, from 1.
    Part(u32),
    /// The spec: its presence is the commit.
    Spec,
    /// An operator asked to cancel.
    Cancel,
    /// How far it has spread.
    Rollout,
}

/// One subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A piece of a command.
    Command(Workspace, CommandId, CommandPiece),
    /// A machine's mailbox as it is stored.
    Mailbox(Workspace, MachineToken),
    /// A machine's mailbox as it is republished after storing.
    LiveMailbox(Workspace, MachineToken),
    /// A fact about a run.
    Run(Workspace, MachineToken, CommandId, FactKind),
    /// Output of a run.
    Output(Workspace, MachineToken, CommandId),
    /// Settled runs of a machine.
    DoneRuns(Workspace, MachineToken),
    /// Settled commands.
    DoneCommands(Workspace),
    /// A heartbeat as it is stored.
    Heartbeat(Workspace, MachineToken),
    /// A heartbeat as it is republished.
    LiveHeartbeat(Workspace, MachineToken),
    /// What a machine's relay keeps.
    Inventory(Workspace, MachineToken),
    /// The authors document.
    Authors(Workspace),
    /// Something happened: its type, as one token.
    Event(Workspace, String),
    /// How the machines of one bucket were.
    History(Workspace, u32),
    /// One link of a bridge's audit chain.
    Audit(Workspace, BridgeId, String, String),
    /// A record of the `state` bucket: table and id.
    State(Workspace, String, String),
    /// Who dispatches.
    Lease(Workspace),
    /// An operator's request.
    Api(Workspace, OperatorId, String, String, RequestId),
    /// Answers to an operator's request.
    Feed(Workspace, OperatorId, RequestId),
}

impl fmt::Display for CommandPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(n) => write!(f, "p{n}"),
            Self::Spec => f.write_str("spec"),
            Self::Cancel => f.write_str("cancel"),
            Self::Rollout => f.write_str("rollout"),
        }
    }
}

/// The text is no subject of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown subject of {} bytes", .0)]
pub struct SubjectError(usize);

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(ws, cid, piece) => write!(f, "cmd.{ws}.{cid}.{piece}"),
            Self::Mailbox(ws, mid) => write!(f, "mbox.{ws}.{mid}"),
            Self::LiveMailbox(ws, mid) => write!(f, "live.mbox.{ws}.{mid}"),
            Self::Run(ws, mid, cid, kind) => write!(f, "run.{ws}.{mid}.{cid}.{}", kind.as_str()),
            Self::Output(ws, mid, cid) => write!(f, "out.{ws}.{mid}.{cid}"),
            Self::DoneRuns(ws, mid) => write!(f, "done.{ws}.{mid}"),
            Self::DoneCommands(ws) => write!(f, "done.{ws}._"),
            Self::Heartbeat(ws, mid) => write!(f, "hb.{ws}.{mid}"),
            Self::LiveHeartbeat(ws, mid) => write!(f, "live.hb.{ws}.{mid}"),
            Self::Inventory(ws, mid) => write!(f, "inv.{ws}.{mid}"),
            Self::Authors(ws) => write!(f, "doc.{ws}.authors"),
            Self::Event(ws, kind) => write!(f, "evt.{ws}.{kind}"),
            Self::History(ws, bucket) => write!(f, "hist.{ws}.{bucket}"),
            Self::Audit(ws, bridge, actor, action) => write!(f, "audit.{ws}.{bridge}.{actor}.{action}"),
            Self::State(ws, table, id) => write!(f, "$KV.state.{ws}.{table}.{id}"),
            Self::Lease(ws) => write!(f, "$KV.lease.{ws}"),
            Self::Api(ws, op, noun, verb, rid) => write!(f, "api.{ws}.{op}.{noun}.{verb}.{rid}"),
            Self::Feed(ws, op, rid) => write!(f, "feed.{ws}.{op}.{rid}"),
        }
    }
}

impl Subject {
    /// Parses a subject received from the broker.
    ///
    /// # Errors
    /// [`SubjectError`] for everything that `Display` would not write. The caller counts it and drops the
    /// message: a foreign subject never becomes one of ours by trying again.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        parse(text).ok_or(SubjectError(text.len()))
    }
}

fn parse(text: &str) -> Option<Subject> {
    let tokens: Vec<&str> = text.splitn(8, '.').collect();
    Some(match *tokens.as_slice() {
        ["cmd", ws, cid, piece] => Subject::Command(workspace(ws)?, cid.parse().ok()?, command_piece(piece)?),
        ["mbox", ws, mid] => Subject::Mailbox(workspace(ws)?, machine(mid)?),
        ["live", "mbox", ws, mid] => Subject::LiveMailbox(workspace(ws)?, machine(mid)?),
        ["run", ws, mid, cid, kind] => {
            Subject::Run(workspace(ws)?, machine(mid)?, cid.parse().ok()?, FactKind::parse(kind)?)
        }
        ["out", ws, mid, cid] => Subject::Output(workspace(ws)?, machine(mid)?, cid.parse().ok()?),
        ["done", ws, "_"] => Subject::DoneCommands(workspace(ws)?),
        ["done", ws, mid] => Subject::DoneRuns(workspace(ws)?, machine(mid)?),
        ["hb", ws, mid] => Subject::Heartbeat(workspace(ws)?, machine(mid)?),
        ["live", "hb", ws, mid] => Subject::LiveHeartbeat(workspace(ws)?, machine(mid)?),
        ["inv", ws, mid] => Subject::Inventory(workspace(ws)?, machine(mid)?),
        ["doc", ws, "authors"] => Subject::Authors(workspace(ws)?),
        ["evt", ws, kind] => Subject::Event(workspace(ws)?, word(kind)?),
        ["hist", ws, bucket] => Subject::History(workspace(ws)?, bucket_number(bucket)?),
        ["audit", ws, bridge, actor, action] => {
            Subject::Audit(workspace(ws)?, BridgeId::new(bridge).ok()?, word(actor)?, word(action)?)
        }
        ["$KV", "state", ws, table, id] => Subject::State(workspace(ws)?, word(table)?, word(id)?),
        ["$KV", "lease", ws] => Subject::Lease(workspace(ws)?),
        ["api", ws, op, noun, verb, rid] => Subject::Api(
            workspace(ws)?,
            OperatorId::new(op).ok()?,
            word(noun)?,
            word(verb)?,
            RequestId::new(rid).ok()?,
        ),
        ["feed", ws, op, rid] => {
            Subject::Feed(workspace(ws)?, OperatorId::new(op).ok()?, RequestId::new(rid).ok()?)
        }
        _ => return None,
    })
}

fn workspace(text: &str) -> Option<Workspace> {
    Workspace::new(text).ok()
}

fn machine(text: &str) -> Option<MachineToken> {
    MachineToken::new(text).ok()
}

/// A token that is no name of ours: a table, a record id, a noun, a verb.
fn word(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let good = (1..=64).contains(&text.len()) && text.bytes().all(plain);
    good.then(|| text.to_owned())
}

fn command_piece(text: &str) -> Option<CommandPiece> {
    match text {
        "spec" => Some(CommandPiece::Spec),
        "cancel" => Some(CommandPiece::Cancel),
        "rollout" => Some(CommandPiece::Rollout),
        _ => match text.split_at_checked(1)? {
            ("p", n) => canonical_number(n).map(CommandPiece::Part),
            _ => None,
        },
    }
}

/// A positive decimal number without the other spellings that `u32::from_str` accepts (`+7`, `007`).
fn canonical_number(text: &str) -> Option<u32> {
    text.starts_with(|c: char| ('1'..='9').contains(&c)).then(|| text.parse().ok()).flatten()
}

/// The number of a bucket: as above, or 0.
fn bucket_number(text: &str) -> Option<u32> {
    if text == "0" { Some(0) } else { canonical_number(text) }
}

/// Every event of a workspace.
pub fn all_events(ws: &Workspace) -> String {
    format!("evt.{ws}.*")
}

/// Every frame of a workspace's history of figures.
pub fn all_history(ws: &Workspace) -> String {
    format!("hist.{ws}.*")
}

/// Every fact that says that a run of a workspace is lost.
pub fn all_lost(ws: &Workspace) -> String {
    format!("run.{ws}.*.*.lost")
}

/// Every request of every operator of a workspace; bridges share it in a queue group.
pub fn all_requests(ws: &Workspace) -> String {
    format!("api.{ws}.*.*.*.*")
}

/// Every `feed.credit` and `feed.close`: these go to every bridge, since only one of them serves the feed.
pub fn all_feed_control(ws: &Workspace) -> [String; 2] {
    [format!("api.{ws}.*.feed.credit.*"), format!("api.{ws}.*.feed.close.*")]
}

/// This piece of every command of a workspace.
pub fn of_all_commands(ws: &Workspace, piece: CommandPiece) -> String {
    format!("cmd.{ws}.*.{piece}")
}

/// Every entry of a workspace's audit chain.
pub fn all_audits(ws: &Workspace) -> String {
    format!("audit.{ws}.*.*.*")
}

/// Every live heartbeat of a workspace.
pub fn all_live_heartbeats(ws: &Workspace) -> String {
    format!("live.hb.{ws}.*")
}

/// Every fact about one run.
pub fn all_facts(ws: &Workspace, mid: &MachineToken, cid: CommandId) -> String {
    format!("run.{ws}.{mid}.{cid}.*")
}

/// The queue group that bridges answer operators in.
pub const BRIDGE_QUEUE: &str = "bridges";

/// The inbox prefix of a relay's connection: its JWT lets it listen nowhere else.
pub fn relay_inbox_prefix(mid: &MachineToken) -> String {
    format!("_INBOX_{mid}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use uuid::Uuid;

    fn any_subject() -> impl Strategy<Value = Subject> {
        let ws = "[a-z0-9][a-z0-9-]{0,20}".prop_map(|t| Workspace::new(t).unwrap());
        let mid = "[b-z0-9][a-z0-9-]{4,40}".prop_map(|t| MachineToken::new(t).unwrap());
        let cid = any::<[u8; 16]>()
            .prop_map(|b| CommandId::new(uuid::Builder::from_custom_bytes(b).into_uuid()).unwrap());
        let op = "[a-z0-9][a-z0-9-]{0,20}".prop_map(|t| OperatorId::new(t).unwrap());
        let rid = "[A-Za-z0-9_-]{8,64}".prop_map(|t| RequestId::new(t).unwrap());
        let word = "[A-Za-z0-9_-]{1,64}";
        (ws, mid, cid, op, rid, word, 1..u32::MAX, 0..22u8).prop_map(
            |(ws, mid, cid, op, rid, word, n, kind)| match kind {
                0 => Subject::Command(ws, cid, CommandPiece::Part(n)),
                1 => Subject::Command(ws, cid, CommandPiece::Spec),
                2 => Subject::Command(ws, cid, CommandPiece::Cancel),
                3 => Subject::Command(ws, cid, CommandPiece::Rollout),
                4 => Subject::Mailbox(ws, mid),
                5 => Subject::LiveMailbox(ws, mid),
                6 => Subject::Run(ws, mid, cid, FactKind::Claim),
                7 => Subject::Run(ws, mid, cid, FactKind::Exit),
                8 => Subject::Output(ws, mid, cid),
                9 => Subject::DoneRuns(ws, mid),
                10 => Subject::DoneCommands(ws),
                11 => Subject::Heartbeat(ws, mid),
                12 => Subject::LiveHeartbeat(ws, mid),
                13 => Subject::Authors(ws),
                14 => Subject::Event(ws, word),
                15 => Subject::Audit(ws, BridgeId::new("b1").unwrap(), word.clone(), word),
                16 => Subject::State(ws, word.clone(), word),
                17 => Subject::Lease(ws),
                18 => Subject::Api(ws, op, word.clone(), word, rid),
                19 => Subject::Inventory(ws, mid),
                20 => Subject::History(ws, n - 1),
                _ => Subject::Feed(ws, op, rid),
            },
        )
    }

    proptest! {
        #[test]
        fn parse_inverts_display(subject in any_subject()) {
            prop_assert_eq!(Subject::parse(&subject.to_string()), Ok(subject));
        }

        #[test]
        fn what_parses_is_written_the_same(text in "(cmd|mbox|run|out|done|hb|api)(\\.[a-z0-9*>_-]{0,5}){0,6}") {
            if let Ok(subject) = Subject::parse(&text) {
                prop_assert_eq!(subject.to_string(), text);
            }
        }
    }

    #[rstest]
    #[case::empty_machine("mbox.main.")]
    #[case::wildcard("mbox.main.*")]
    #[case::longer("mbox.main.web-1.x")]
    #[case::reserved_machine("mbox.main.all")]
    #[case::padded_part("cmd.main.0193a2b4-0000-7000-8000-000000000000.p01")]
    #[case::part_zero("cmd.main.0193a2b4-0000-7000-8000-000000000000.p0")]
    #[case::unknown_fact("run.main.web-1.0193a2b4-0000-7000-8000-000000000000.done")]
    #[case::upper_case_id("out.main.web-1.0193A2B4-0000-7000-8000-000000000000")]
    #[case::short_request("feed.main.op.abc")]
    #[case::padded_bucket("hist.main.07")]
    #[case::named_bucket("hist.main.web-1")]
    fn refuses(#[case] text: &str) {
        assert!(Subject::parse(text).is_err(), "accepted {text:?}");
    }

    #[test]
    fn subjects_read_as_documented() {
        let cid = CommandId::new(Uuid::parse_str("0193a2b4-0000-7000-8000-000000000000").unwrap()).unwrap();
        let mid = MachineToken::new("web-1").unwrap();
        assert_eq!(
            Subject::Run(Workspace::main(), mid, cid, FactKind::Claim).to_string(),
            "run.main.web-1.0193a2b4-0000-7000-8000-000000000000.claim"
        );
    }
}
