//! From a stored message to an event. Pure and strict: what is not exactly as the contract says is refused with
//! a reason, and nothing here decides whether a key may speak: that needs state, see
//! [`projection`](crate::projection).
//!
//! A signature is checked here against the key that the envelope names, so that this costly part needs no state
//! and runs beside everything else; those of many messages together, in [`Decoder::decode_all`].

use bytes::Bytes;
use serde::Deserialize;
use signalbox_link::Message;
use signalbox_schemas::{
    api::{Cancel, Request, op},
    authors::Authors,
    command::{CommandSpec, Part},
    config::ConfigPushRecord,
    credential::SharedCredentialRecord,
    heartbeat::Heartbeat,
    id::{CommandId, MachineToken, Sha256, Workspace},
    inventory::Inventory,
    label::LABELS,
    limit,
    mailbox::Mailbox,
    output::ChunkHead,
    record::{
        ApiKeyRecord, AssignmentRecord, DoneCommand, DoneRun, MachineRecord, OperatorRecord, StoredFact,
        table,
    },
    relay::RelayRecord,
    rollout::Progress,
    run::{Claim, Exit, Lost, Rejection, RunState, Start, Withdrawal},
    signed::{Checks, Message as Body, PublicKey, Signed, SignedError},
    subject::{CommandPiece, FactKind, Subject},
};

use crate::projection::MailboxRow;

/// Whose streams these are.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    pub(crate) ws: Workspace,
    pub(crate) fleet_key: PublicKey,
}

/// A message as the broker gave it.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) sequence: u64,
    /// When the broker stored it, Unix ms.
    pub(crate) stored_at: u64,
    pub(crate) subject: &'a str,
    pub(crate) payload: &'a Bytes,
    pub(crate) head: Result<ChunkHead, &'static str>,
}

impl<'a> Raw<'a> {
    pub(crate) fn of(message: &'a Message) -> Self {
        let head = ChunkHead::from_headers(|name| message.headers.get(name)).map_err(|error| error.0);
        let Message { sequence, time_ms: stored_at, subject, payload, .. } = message;
        Self { sequence: *sequence, stored_at: *stored_at, subject, payload, head }
    }
}

/// A signed fact whose signature fits the key that it names.
#[derive(Debug, Clone)]
pub(crate) enum SignedFact {
    Claim(Claim),
    Rejection(Rejection),
    Withdrawal(Withdrawal),
    Start(Start),
    Exit(Box<Exit>),
    Lost(Lost),
}

/// A message on a fact's subject.
#[derive(Debug, Clone)]
pub(crate) struct FactEvent {
    pub(crate) cid: CommandId,
    pub(crate) mid: MachineToken,
    pub(crate) kind: FactKind,
    /// Its sequence in RUN.
    pub(crate) sequence: u64,
    /// When the broker stored it, Unix ms.
    pub(crate) stored_at: u64,
    /// What it says and who says so, or why it is not to be believed.
    pub(crate) fact: Result<(SignedFact, PublicKey), &'static str>,
    /// The message as it stood there.
    pub(crate) body: Bytes,
}

/// A record of the `state` bucket.
#[derive(Debug)]
pub(crate) enum Record {
    Machine(MachineRecord),
    Operator(OperatorRecord),
    Assignment(AssignmentRecord),
    ApiKey(String, ApiKeyRecord),
    Relay(RelayRecord),
    SharedCredential(SharedCredentialRecord),
    ConfigPush(Box<ConfigPushRecord>),
}

/// What a message says.
#[derive(Debug)]
pub(crate) enum Event {
    Authors {
        doc: Authors,
        sha256: Sha256,
        envelope: Bytes,
    },
    Record(Record, PublicKey),
    Part {
        cid: CommandId,
        n: u32,
        body: Bytes,
    },
    Spec {
        cid: CommandId,
        spec: Box<CommandSpec>,
        bytes: Bytes,
    },
    Cancel {
        cid: CommandId,
        key: PublicKey,
    },
    /// How far a command has spread.
    Rollout {
        cid: CommandId,
        progress: Box<Progress>,
        key: PublicKey,
    },
    /// A mailbox that this bridge wrote itself: what it says is in memory.
    OwnMailbox {
        mid: MachineToken,
    },
    /// `None`: what stands there is to be replaced.
    Mailbox {
        mid: MachineToken,
        row: Option<(MailboxRow, PublicKey)>,
    },
    Fact(FactEvent),
    Chunk {
        cid: CommandId,
        mid: MachineToken,
        head: ChunkHead,
        body: Bytes,
    },
    DoneRun {
        cid: CommandId,
        mid: MachineToken,
        state: RunState,
        facts: Vec<FactEvent>,
        key: PublicKey,
    },
    DoneCommand {
        done: Box<DoneCommand>,
        spec: Box<CommandSpec>,
        key: PublicKey,
    },
    Heartbeat(Box<Heartbeat>),
    /// What a machine's relay keeps; or why what stands in that place says nothing.
    Inventory {
        mid: MachineToken,
        list: Result<Box<Signed<Inventory>>, &'static str>,
    },
}

/// When signatures are checked.
pub(crate) enum Checking {
    /// Each where it is met.
    Now,
    /// All of them later: until then nothing that was read is to be believed.
    Later(Checks),
}

impl Checking {
    /// Checks signature, type and size; who the key is, is not asked.
    fn open<T: Body>(&mut self, bytes: &[u8]) -> Result<(T, PublicKey), &'static str> {
        let signed = Signed::from_json(bytes).map_err(|error| error.reason())?;
        self.open_signed(&signed)
    }

    fn open_signed<T: Body>(&mut self, signed: &Signed<T>) -> Result<(T, PublicKey), &'static str> {
        let payload = match self {
            Self::Now => signed.open(|_| true),
            Self::Later(checks) => signed.open_unchecked(checks),
        };
        Ok((payload.map_err(|error| error.reason())?, signed.key().clone()))
    }

    fn put_off(&self) -> usize {
        match self {
            Self::Now => 0,
            Self::Later(checks) => checks.len(),
        }
    }

    /// Whether each of those that were put off is valid.
    fn verdicts(self) -> Vec<bool> {
        match self {
            Self::Now => Vec::new(),
            Self::Later(checks) => checks.verdicts(),
        }
    }
}

fn agree(agrees: bool) -> Result<(), &'static str> {
    if agrees { Ok(()) } else { Err("misplaced") }
}

impl Decoder {
    /// Reads one message.
    ///
    /// # Errors
    /// The reason, a short constant for counters.
    pub(crate) fn decode(&self, raw: &Raw<'_>) -> Result<Event, &'static str> {
        self.read(raw, &mut Checking::Now)
    }

    /// Reads messages, and says of each what [`decode`](Self::decode) would, in less time. Blocks.
    pub(crate) fn decode_all(&self, messages: &[Raw<'_>]) -> Vec<Result<Event, &'static str>> {
        let mut checking = Checking::Later(Checks::default());
        let read = |raw| {
            let first = checking.put_off();
            let event = self.read(raw, &mut checking);
            (event, first..checking.put_off())
        };
        let events: Vec<_> = messages.iter().map(read).collect();
        let verdicts = checking.verdicts();
        let is_valid = |range| verdicts.get(range).is_some_and(|all: &[bool]| all.iter().all(|valid| *valid));
        let event = |(raw, (event, range))| if is_valid(range) { event } else { self.decode(raw) };
        messages.iter().zip(events).map(event).collect()
    }

    fn read(&self, raw: &Raw<'_>, checking: &mut Checking) -> Result<Event, &'static str> {
        let &Raw { sequence, stored_at, .. } = raw;
        let subject = Subject::parse(raw.subject).map_err(|_| "subject")?;
        let body = raw.payload;
        match subject {
            Subject::Authors(ws) => {
                self.own(&ws)?;
                self.authors(body, checking)
            }
            Subject::State(ws, table, id) => {
                self.own(&ws)?;
                self.record(&table, &id, body, checking)
            }
            Subject::Command(ws, cid, piece) => {
                self.own(&ws)?;
                self.command(cid, piece, body, checking)
            }
            Subject::Mailbox(ws, mid) => {
                self.own(&ws)?;
                let row = self.mailbox(&mid, sequence, body, checking).ok();
                Ok(Event::Mailbox { mid, row })
            }
            Subject::Run(ws, mid, cid, kind) => {
                self.own(&ws)?;
                let stored = FactMessage { kind, sequence, stored_at, body: body.clone() };
                self.read_fact(cid, mid, stored, checking).map(Event::Fact)
            }
            Subject::Output(ws, mid, cid) => {
                self.own(&ws)?;
                let head = raw.head?;
                if body.len() > limit::CHUNK_BYTES {
                    return Err("too_large");
                }
                Ok(Event::Chunk { cid, mid, head, body: body.clone() })
            }
            Subject::DoneRuns(ws, mid) => {
                self.own(&ws)?;
                self.done_run(mid, body, checking)
            }
            Subject::DoneCommands(ws) => {
                self.own(&ws)?;
                self.done_command(body, checking)
            }
            Subject::Heartbeat(ws, mid) => {
                self.own(&ws)?;
                self.heartbeat(&mid, body)
            }
            Subject::Inventory(ws, mid) => {
                self.own(&ws)?;
                let list = self.inventory(&mid, body, checking).map(Box::new);
                Ok(Event::Inventory { mid, list })
            }
            _ => Err("subject"),
        }
    }

    fn own(&self, ws: &Workspace) -> Result<(), &'static str> {
        if *ws == self.ws { Ok(()) } else { Err("workspace") }
    }

    fn authors(&self, body: &Bytes, checking: &mut Checking) -> Result<Event, &'static str> {
        let (doc, key) = checking.open::<Authors>(body)?;
        if key != self.fleet_key {
            return Err("untrusted");
        }
        agree(doc.ws == self.ws)?;
        Ok(Event::Authors { doc, sha256: Sha256::of(body), envelope: body.clone() })
    }

    fn record(
        &self,
        table: &str,
        id: &str,
        body: &[u8],
        checking: &mut Checking,
    ) -> Result<Event, &'static str> {
        let (record, key) = match table {
            table::MACHINES => {
                let (record, key) = checking.open::<MachineRecord>(body)?;
                let token = record.id.token() == record.token && record.token.as_str() == id;
                agree(record.ws == self.ws && token)?;
                (Record::Machine(record), key)
            }
            table::OPERATORS => {
                let (record, key) = checking.open::<OperatorRecord>(body)?;
                agree(record.ws == self.ws && record.id.as_str() == id)?;
                (Record::Operator(record), key)
            }
            table::ASSIGNMENTS => {
                let (record, key) = checking.open::<AssignmentRecord>(body)?;
                agree(record.ws == self.ws && record.id == id)?;
                (Record::Assignment(record), key)
            }
            table::API_KEYS => {
                let (record, key) = checking.open::<ApiKeyRecord>(body)?;
                agree(record.ws == self.ws)?;
                (Record::ApiKey(id.to_owned(), record), key)
            }
            table::RELAYS => {
                let (record, key) = checking.open::<RelayRecord>(body)?;
                agree(record.ws == self.ws && record.assignment == id)?;
                (Record::Relay(record), key)
            }
            table::SHARED_CREDENTIALS => {
                let (record, key) = checking.open::<SharedCredentialRecord>(body)?;
                agree(record.ws == self.ws && record.id == id)?;
                (Record::SharedCredential(record), key)
            }
            table::CONFIG_PUSHES => {
                let (record, key) = checking.open::<ConfigPushRecord>(body)?;
                agree(record.ws == self.ws && record.id == id)?;
                (Record::ConfigPush(Box::new(record)), key)
            }
            _ => return Err("table"),
        };
        Ok(Event::Record(record, key))
    }

    fn command(
        &self,
        cid: CommandId,
        piece: CommandPiece,
        body: &Bytes,
        checking: &mut Checking,
    ) -> Result<Event, &'static str> {
        match piece {
            CommandPiece::Part(n) => {
                if body.len() > limit::BROKER_PAYLOAD_BYTES {
                    return Err("too_large");
                }
                let part: Part = serde_json::from_slice(body).map_err(|_| "payload")?;
                agree(part.cid == cid && part.n == n)?;
                part.check(body.len()).map_err(|_| "parts")?;
                Ok(Event::Part { cid, n, body: body.clone() })
            }
            CommandPiece::Spec => {
                let spec = CommandSpec::from_stored_bytes(body).map_err(|error| error.member)?;
                agree(spec.cid == cid && spec.ws == self.ws)?;
                Ok(Event::Spec { cid, spec: Box::new(spec), bytes: body.clone() })
            }
            CommandPiece::Cancel => {
                let (request, key) = checking.open::<Request>(body)?;
                let args: Cancel = serde_json::from_value(request.args).map_err(|_| "payload")?;
                agree(request.ws == self.ws && request.op == op::COMMANDS_CANCEL && args.id == cid)?;
                Ok(Event::Cancel { cid, key })
            }
            CommandPiece::Rollout => {
                let (progress, key) = checking.open::<Progress>(body)?;
                agree(progress.ws == self.ws && progress.cid == cid)?;
                Ok(Event::Rollout { cid, progress: Box::new(progress), key })
            }
        }
    }

    fn mailbox(
        &self,
        mid: &MachineToken,
        sequence: u64,
        body: &[u8],
        checking: &mut Checking,
    ) -> Result<(MailboxRow, PublicKey), &'static str> {
        let (mailbox, key) = checking.open::<Mailbox>(body)?;
        agree(mailbox.ws == self.ws && mailbox.mid == *mid)?;
        Ok((MailboxRow::of(&mailbox, sequence, Sha256::of(body)), key))
    }

    /// Reads a message that stands, or once stood, on a fact's subject.
    ///
    /// # Errors
    /// Never for a register: the first message there decides, also when it says nothing.
    pub(crate) fn fact(
        &self,
        cid: CommandId,
        mid: MachineToken,
        stored: FactMessage,
    ) -> Result<FactEvent, &'static str> {
        self.read_fact(cid, mid, stored, &mut Checking::Now)
    }

    fn read_fact(
        &self,
        cid: CommandId,
        mid: MachineToken,
        stored: FactMessage,
        checking: &mut Checking,
    ) -> Result<FactEvent, &'static str> {
        let FactMessage { kind, sequence, stored_at, mut body } = stored;
        if kind == FactKind::Claim {
            // What is too large for a register decides too, and is kept: as much of it as shows that it is.
            body.truncate(Claim::MAX_BYTES + 1);
        }
        let fact = self.signed_fact(cid, &mid, kind, &body, checking);
        if let (Err(reason), true) = (&fact, kind != FactKind::Claim) {
            return Err(reason);
        }
        Ok(FactEvent { cid, mid, kind, sequence, stored_at, fact, body })
    }

    fn signed_fact(
        &self,
        cid: CommandId,
        mid: &MachineToken,
        kind: FactKind,
        body: &[u8],
        checking: &mut Checking,
    ) -> Result<(SignedFact, PublicKey), &'static str> {
        // (workspace, machine, command, fact, key) of whatever it is.
        macro_rules! take {
            ($kind:ty, $signed:expr, $make:expr) => {{
                let signed: Signed<$kind> = $signed.map_err(|error| error.reason())?;
                let (fact, key) = checking.open_signed(&signed)?;
                agree(fact.ws == self.ws && fact.mid == *mid && fact.cid == cid)?;
                Ok(($make(fact), key))
            }};
        }
        match kind {
            // The envelope does not name its type; the members of the payload tell which of the three it can
            // be, and the signature, which covers the type, then decides.
            FactKind::Claim => {
                let signed = Signed::<Claim>::from_json(body).map_err(|error| error.reason())?;
                match time_of(signed.payload()) {
                    Some("rejected_at") => {
                        take!(Rejection, signed.taken_for(body.len()), SignedFact::Rejection)
                    }
                    Some("withdrawn_at") => {
                        take!(Withdrawal, signed.taken_for(body.len()), SignedFact::Withdrawal)
                    }
                    _ => take!(Claim, Ok::<_, SignedError>(signed), SignedFact::Claim),
                }
            }
            FactKind::Start => take!(Start, Signed::from_json(body), SignedFact::Start),
            FactKind::Exit => take!(Exit, Signed::from_json(body), |exit| SignedFact::Exit(Box::new(exit))),
            FactKind::Lost => take!(Lost, Signed::from_json(body), SignedFact::Lost),
        }
    }

    fn done_run(
        &self,
        mid: MachineToken,
        body: &[u8],
        checking: &mut Checking,
    ) -> Result<Event, &'static str> {
        let (done, key) = checking.open::<DoneRun>(body)?;
        agree(done.ws == self.ws && done.mid == mid)?;
        let state = done.state;
        let facts =
            done.facts.into_iter().map(|fact| self.read_fact(done.cid, mid.clone(), fact.into(), checking));
        // The bridge that wrote it had believed each of them.
        let facts = facts.collect::<Result<Vec<_>, _>>()?;
        Ok(Event::DoneRun { cid: done.cid, mid, state, facts, key })
    }

    fn done_command(&self, body: &[u8], checking: &mut Checking) -> Result<Event, &'static str> {
        let (done, key) = checking.open::<DoneCommand>(body)?;
        let spec = CommandSpec::from_settled_bytes(&done.spec.0).map_err(|error| error.member)?;
        agree(done.ws == self.ws && spec.ws == self.ws && spec.cid == done.cid)?;
        Ok(Event::DoneCommand { done: Box::new(done), spec: Box::new(spec), key })
    }

    fn heartbeat(&self, mid: &MachineToken, body: &[u8]) -> Result<Event, &'static str> {
        if body.len() > limit::HEARTBEAT_BYTES {
            return Err("too_large");
        }
        let beat: Heartbeat = serde_json::from_slice(body).map_err(|_| "payload")?;
        agree(beat.ws == self.ws && beat.mid == *mid)?;
        Ok(Event::Heartbeat(Box::new(beat)))
    }

    fn inventory(
        &self,
        mid: &MachineToken,
        body: &Bytes,
        checking: &mut Checking,
    ) -> Result<Signed<Inventory>, &'static str> {
        let (inventory, _) = checking.open::<Inventory>(body)?;
        agree(inventory.ws == self.ws && inventory.mid == *mid)?;
        if inventory.credentials.len() > limit::CREDENTIALS {
            return Err("too_many");
        }
        if inventory.labels.len() > LABELS {
            return Err("too_many");
        }
        Signed::from_json(body).map_err(|error| error.reason())
    }
}

/// All facts of a run fit into one record of DONE: their bodies as base64, which is once more base64 in the envelope;
/// the names beside them are below 8 KiB.
const _: () = {
    let bodies = Exit::MAX_BYTES + Claim::MAX_BYTES + 1 + Start::MAX_BYTES + Lost::MAX_BYTES;
    let payload = bodies / 3 * 4 + 8 * 1024;
    assert!(Rejection::MAX_BYTES <= Claim::MAX_BYTES && Withdrawal::MAX_BYTES <= Claim::MAX_BYTES);
    assert!(payload / 3 * 4 + 1024 <= DoneRun::MAX_BYTES);
};

/// A fact's message with its place.
#[derive(Debug, Clone)]
pub(crate) struct FactMessage {
    pub(crate) kind: FactKind,
    pub(crate) sequence: u64,
    pub(crate) stored_at: u64,
    pub(crate) body: Bytes,
}

impl From<StoredFact> for FactMessage {
    fn from(fact: StoredFact) -> Self {
        let StoredFact { kind, sequence, stored_at, body } = fact;
        Self { kind, sequence, stored_at, body: body.0.into() }
    }
}

/// Which time a register's message speaks of; unchecked.
fn time_of(payload: &[u8]) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Times {
        rejected_at: Option<u64>,
        withdrawn_at: Option<u64>,
    }
    let times: Times = serde_json::from_slice(payload).ok()?;
    let rejected = times.rejected_at.map(|_| "rejected_at");
    rejected.or(times.withdrawn_at.map(|_| "withdrawn_at"))
}

#[cfg(test)]
mod tests {
    use nkeys::{KeyPair, KeyPairType};
    use proptest::prelude::*;
    use signalbox_schemas::{
        id::Nonce,
        run::{WithdrawReason, Withdrawal},
        signed::SigningKey,
    };

    use super::*;

    const CID: &str = "0193a2b4-0000-7000-8000-000000000000";

    fn key(byte: u8) -> SigningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
        SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
    }

    fn decoder() -> Decoder {
        Decoder { ws: Workspace::main(), fleet_key: key(1).public().clone() }
    }

    fn decode(subject: &str, payload: Vec<u8>) -> Result<Event, &'static str> {
        let payload = payload.into();
        decoder().decode(&Raw { sequence: 7, stored_at: 8, subject, payload: &payload, head: Err("none") })
    }

    fn claim_subject() -> String {
        format!("run.main.web-1.{CID}.claim")
    }

    #[test]
    fn a_register_is_told_apart_by_what_was_signed() {
        let (ws, mid) = (Workspace::main(), MachineToken::new("web-1").unwrap());
        let cid: CommandId = CID.parse().unwrap();
        let reason = WithdrawReason::Expired;
        let withdrawal = Withdrawal { ws: ws.clone(), mid: mid.clone(), cid, reason, withdrawn_at: 1 };
        let body = Signed::sign(&withdrawal, &key(2)).unwrap().to_json();
        let Ok(Event::Fact(fact)) = decode(&claim_subject(), body) else { panic!("no fact") };
        assert!(matches!(fact.fact, Ok((SignedFact::Withdrawal(_), _))), "{fact:?}");
        let claim = Claim { ws, mid, cid, nonce: Nonce([0; 16]), claimed_at: 1, via: None };
        let body = Signed::sign(&claim, &key(2)).unwrap().to_json();
        let Ok(Event::Fact(fact)) = decode(&claim_subject(), body.clone()) else { panic!("no fact") };
        assert!(matches!(fact.fact, Ok((SignedFact::Claim(_), _))), "{fact:?}");
        // The same under another machine's subject says nothing, and yet decides there.
        let Ok(Event::Fact(fact)) = decode(&claim_subject().replace("web-1", "web-2"), body) else {
            panic!("no fact")
        };
        assert_eq!(fact.fact.err(), Some("misplaced"));
    }

    /// Messages of many kinds, good and bad in every way, say the same together as one by one.
    #[test]
    fn together_is_as_one_by_one() {
        let (ws, mid) = (Workspace::main(), MachineToken::new("web-1").unwrap());
        let cid: CommandId = CID.parse().unwrap();
        let claim = Claim { ws, mid, cid, nonce: Nonce([0; 16]), claimed_at: 1, via: None };
        let good = Signed::sign(&claim, &key(2)).unwrap().to_json();
        let forged = String::from_utf8(good.clone()).unwrap();
        let by = |n| key(n).public().to_string();
        let forged = forged.replace(&by(2), &by(3)).into_bytes();
        let other = claim_subject().replace("web-1", "web-2");
        let exit = claim_subject().replace("claim", "exit");
        let kinds = [
            (claim_subject(), good.clone()),
            (claim_subject(), forged.clone()),
            (other.clone(), good.clone()),
            // Misplaced and forged: whoever reads it alone sees the signature first.
            (other, forged.clone()),
            (exit.clone(), good),
            (exit, forged),
            (claim_subject(), b"rubbish".to_vec()),
            ("nowhere".to_owned(), Vec::new()),
        ];
        let kinds: Vec<_> = kinds.into_iter().map(|(subject, body)| (subject, Bytes::from(body))).collect();
        let raw = |(subject, payload)| Raw { sequence: 7, stored_at: 8, subject, payload, head: Err("none") };
        let alone: Vec<_> = kinds
            .iter()
            .map(|(subject, body)| format!("{:?}", decoder().decode(&raw((subject, body)))))
            .collect();
        for skip in 0..kinds.len() {
            let some = kinds.iter().cycle().skip(skip).take(kinds.len() * 3);
            let many: Vec<_> = some.map(|(subject, body)| raw((subject, body))).collect();
            let together = decoder().decode_all(&many);
            assert_eq!(together.len(), many.len());
            for (i, event) in together.iter().enumerate() {
                assert_eq!(format!("{event:?}"), alone[(skip + i) % kinds.len()]);
            }
        }
    }

    #[test]
    fn another_workspace_is_refused() {
        assert_eq!(decode(&claim_subject().replace("main", "other"), vec![]).err(), Some("workspace"));
    }

    proptest! {
        #[test]
        fn rubbish_is_refused_everywhere(body in prop::collection::vec(any::<u8>(), 0..200), which in 0..9_usize) {
            let subjects = [
                "doc.main.authors".to_owned(),
                "$KV.state.main.machines.web-1".to_owned(),
                format!("cmd.main.{CID}.p1"),
                format!("cmd.main.{CID}.spec"),
                format!("cmd.main.{CID}.cancel"),
                format!("run.main.web-1.{CID}.exit"),
                format!("out.main.web-1.{CID}"),
                "done.main._".to_owned(),
                "hb.main.web-1".to_owned(),
            ];
            prop_assert!(decode(&subjects[which], body.clone()).is_err());
            // A register, a list and a mailbox that say nothing are something all the same.
            let said_nothing =
                matches!(decode(&claim_subject(), body.clone()), Ok(Event::Fact(fact)) if fact.fact.is_err());
            prop_assert!(said_nothing);
            let is_listed = matches!(decode("inv.main.web-1", body.clone()), Ok(Event::Inventory { list: Err(_), .. }));
            prop_assert!(is_listed);
            let replaced = matches!(decode("mbox.main.web-1", body), Ok(Event::Mailbox { row: None, .. }));
            prop_assert!(replaced);
        }
    }
}
