//! What the journal says: the entries and what they add up to. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    Base64Url,
    id::{CommandId, Nonce, Sha256},
    limit::{CHUNKS_IN_FLIGHT, DAY_MS},
    output::OutputStream,
};

/// Ids that are remembered, about 100 bytes each; above it nothing new is taken on. At one command per second it
/// takes two days to get there, and ids go a day after their command has expired.
pub(crate) const MAX_REMEMBERED: usize = 200_000;
/// Reports that were acknowledged and are kept whole, to be said again: the newest ones.
const MAX_REPORTS: usize = 64;
/// The same in bytes; a report with inline output has up to 60 KiB.
const MAX_REPORT_BYTES: usize = 512 * 1024;

/// One life of a keeper, recognisable when it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeeperMark {
    /// Its public name, in the environment of its processes.
    pub(crate) instance: Nonce,
    /// Its process id.
    pub(crate) pid: u32,
    /// When the process was started, clock ticks since boot (`proc_pid_stat(5)`).
    pub(crate) started_ticks: u64,
    /// The boot it lived in.
    pub(crate) boot_id: String,
    /// Tells a claim made with its nonce from another relay's. The nonce itself is never stored.
    pub(crate) nonce_sha256: Sha256,
}

/// A piece of output that was sent: after a restart it is sent again in the same shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkRecord {
    #[serde(rename = "s")]
    pub(crate) stream: OutputStream,
    #[serde(rename = "o")]
    pub(crate) offset: u64,
    /// Bytes; 0 for the notice of a cut.
    #[serde(rename = "l")]
    pub(crate) len: u64,
    /// Whether it lies past a cut.
    #[serde(rename = "t", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_tail: bool,
}

/// One of the facts about a run, by the last token of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// A rejection, in the register.
    Rejection,
    /// The exit.
    Exit,
    /// Given up.
    Lost,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A mailbox was believed.
    Mailbox { generation: u64, sha256: Sha256 },
    /// A keeper was met for the first time.
    Keeper { mark: KeeperMark },
    /// A claim is about to be sent. `spec` is the spec's text, for a relay that has to start it later.
    Claim {
        cid: CommandId,
        instance: Nonce,
        expires_at: u64,
        spec: String,
        /// After writing anew: output that was sent and acknowledged.
        #[serde(default, skip_serializing_if = "Progress::is_zero")]
        before: Progress,
    },
    /// The change that was claimed is about to be applied: from then on it is, whatever else is wanted.
    Applying { cid: CommandId },
    /// The claim was never stored, and nobody wants it any more.
    Unclaimed { cid: CommandId },
    /// Somebody else decided its fate; it is never started here.
    Decided { cid: CommandId },
    /// A chunk is about to be sent.
    Chunk {
        #[serde(rename = "c")]
        cid: CommandId,
        #[serde(flatten)]
        chunk: ChunkRecord,
    },
    /// A fact is about to be sent; it is repeated until it is acknowledged.
    Fact { cid: CommandId, report: Report, expires_at: u64, body: Base64Url },
    /// It was acknowledged, or stands there already.
    Acked { cid: CommandId },
    /// What is kept here was listed under this revision.
    Inventory { revision: u64 },
    /// After writing anew: an id that is only remembered.
    Known { cid: CommandId, expires_at: u64 },
}

/// How far the output of a run was sent; by stream, stdout first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Number of the next chunk.
    pub(crate) counter: u64,
    /// Where the next chunk of the beginning starts.
    pub(crate) bulk: [u64; 2],
    /// Whether the notice of a cut was sent.
    pub(crate) cut: [bool; 2],
    /// Where the next chunk past the cut starts; 0 = none was sent.
    pub(crate) tail: [u64; 2],
}

impl Progress {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Counts a chunk as sent.
    pub(crate) fn add(&mut self, chunk: ChunkRecord) {
        self.counter += 1;
        let index = chunk.stream as usize;
        let end = chunk.offset + chunk.len;
        let (bulk, cut, tail) = (self.bulk.get_mut(index), self.cut.get_mut(index), self.tail.get_mut(index));
        match (bulk, cut, tail) {
            (_, _, Some(tail)) if chunk.is_tail => *tail = end,
            (_, Some(cut), _) if chunk.len == 0 => *cut = true,
            (Some(bulk), _, _) => *bulk = end,
            _ => {}
        }
    }
}

/// Output that was sent, as far as it matters for going on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ChunkLog {
    /// What is acknowledged for sure.
    pub(crate) before: Progress,
    /// The newest chunks. All before them are acknowledged: no more than this many are ever in flight.
    pub(crate) window: VecDeque<ChunkRecord>,
}

impl ChunkLog {
    pub(crate) fn push(&mut self, chunk: ChunkRecord) {
        if self.window.len() == CHUNKS_IN_FLIGHT
            && let Some(acknowledged) = self.window.pop_front()
        {
            self.before.add(acknowledged);
        }
        self.window.push_back(chunk);
    }
}

/// A run whose claim was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// The keeper's life it was claimed in.
    pub(crate) instance: Nonce,
    /// The spec's text.
    pub(crate) spec: String,
    pub(crate) chunks: ChunkLog,
    /// Of a change: whether applying it has begun.
    pub(crate) is_applying: bool,
}

/// Where a remembered command stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordState {
    /// Claimed, perhaps; perhaps it runs.
    Claimed(Box<Claimed>),
    /// Its report waits for the acknowledgement.
    Reporting(Report, Base64Url),
    /// Its report was acknowledged, and can be said again.
    Reported(Report, Base64Url),
    /// Only known: never started again.
    Known,
}

/// A remembered command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) expires_at: u64,
    pub(crate) state: RecordState,
}

/// A fact that waits for its acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WaitingFact {
    pub(crate) cid: CommandId,
    pub(crate) report: Report,
    pub(crate) body: Base64Url,
}

/// What all lines add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    seen: Option<(u64, Sha256)>,
    inventory: u64,
    keepers: BTreeMap<Nonce, KeeperMark>,
    commands: HashMap<CommandId, Record>,
    /// Commands in `Claimed`, in the order in which they were claimed.
    claimed: Vec<CommandId>,
    /// Commands in `Reported`, oldest first.
    reports: VecDeque<CommandId>,
    report_bytes: usize,
}

impl Ledger {
    /// Generation and payload hash of the newest mailbox that was believed.
    pub(crate) fn seen(&self) -> Option<(u64, Sha256)> {
        self.seen
    }

    /// The newest revision of what is kept here; 0 = it was never listed.
    pub(crate) fn inventory(&self) -> u64 {
        self.inventory
    }

    /// The life of a keeper.
    pub(crate) fn keeper(&self, instance: Nonce) -> Option<&KeeperMark> {
        self.keepers.get(&instance)
    }

    /// What is known of a command.
    pub(crate) fn record(&self, cid: CommandId) -> Option<&Record> {
        self.commands.get(&cid)
    }

    /// The claim of a command that was not reported yet.
    pub(crate) fn claimed(&self, cid: CommandId) -> Option<&Claimed> {
        match &self.commands.get(&cid)?.state {
            RecordState::Claimed(claimed) => Some(claimed),
            _ => None,
        }
    }

    /// Every claim that was not reported yet, in the order in which they were made.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (CommandId, u64, &Claimed)> {
        self.claimed.iter().filter_map(|cid| {
            let record = self.commands.get(cid)?;
            match &record.state {
                RecordState::Claimed(claimed) => Some((*cid, record.expires_at, claimed.as_ref())),
                _ => None,
            }
        })
    }

    /// Whether a claim brought a secret, sealed, that should not lie in the file when the claim is over.
    pub(crate) fn brought_secret(&self, cid: CommandId) -> bool {
        self.claimed(cid).is_some_and(|claimed| claimed.spec.contains(r#""sealed":""#))
    }

    /// Every fact that waits for its acknowledgement, in no order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = WaitingFact> {
        self.commands.iter().filter_map(|(cid, record)| match &record.state {
            RecordState::Reporting(report, body) => {
                Some(WaitingFact { cid: *cid, report: *report, body: body.clone() })
            }
            _ => None,
        })
    }

    /// How many facts wait for their acknowledgement.
    pub(crate) fn waiting_count(&self) -> usize {
        let waiting = |record: &&Record| matches!(record.state, RecordState::Reporting(..));
        self.commands.values().filter(waiting).count()
    }

    /// When a remembered command expires, Unix ms; 0 = it is not remembered.
    pub(crate) fn expires_at(&self, cid: CommandId) -> u64 {
        self.commands.get(&cid).map_or(0, |record| record.expires_at)
    }

    /// Whether another id can be remembered.
    pub(crate) fn has_room(&self) -> bool {
        self.commands.len() < MAX_REMEMBERED
    }

    /// Takes one line.
    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Mailbox { generation, sha256 } => self.seen = Some((generation, sha256)),
            Entry::Inventory { revision } => self.inventory = self.inventory.max(revision),
            Entry::Keeper { mark } => {
                self.keepers.insert(mark.instance, mark);
            }
            Entry::Claim { cid, instance, expires_at, spec, before } => {
                let chunks = ChunkLog { before, window: VecDeque::new() };
                let claimed = Claimed { instance, spec, chunks, is_applying: false };
                self.set(cid, Some(expires_at), RecordState::Claimed(Box::new(claimed)));
            }
            Entry::Applying { cid } => {
                if let Some(Record { state: RecordState::Claimed(claimed), .. }) = self.commands.get_mut(&cid)
                {
                    claimed.is_applying = true;
                }
            }
            Entry::Unclaimed { cid } => {
                self.drop_report(cid);
                self.claimed.retain(|claimed| *claimed != cid);
                self.commands.remove(&cid);
            }
            Entry::Decided { cid } => self.set(cid, None, RecordState::Known),
            Entry::Chunk { cid, chunk } => {
                if let Some(Record { state: RecordState::Claimed(claimed), .. }) = self.commands.get_mut(&cid)
                {
                    claimed.chunks.push(chunk);
                }
            }
            Entry::Fact { cid, report, expires_at, body } => {
                self.set(cid, Some(expires_at), RecordState::Reporting(report, body));
            }
            Entry::Acked { cid } => self.acked(cid),
            Entry::Known { cid, expires_at } => self.set(cid, Some(expires_at), RecordState::Known),
        }
    }

    fn set(&mut self, cid: CommandId, expires_at: Option<u64>, state: RecordState) {
        self.drop_report(cid);
        let known = self.commands.get(&cid).map(|record| record.expires_at);
        let expires_at = expires_at.or(known).unwrap_or_default();
        self.claimed.retain(|claimed| *claimed != cid);
        if matches!(state, RecordState::Claimed(_)) {
            self.claimed.push(cid);
        }
        self.commands.insert(cid, Record { expires_at, state });
    }

    /// Takes an acknowledged report out of those that are kept whole.
    fn drop_report(&mut self, cid: CommandId) {
        let Some(record) = self.commands.get_mut(&cid) else { return };
        if let RecordState::Reported(_, body) = &record.state {
            self.report_bytes = self.report_bytes.saturating_sub(body.0.len());
            record.state = RecordState::Known;
            self.reports.retain(|reported| *reported != cid);
        }
    }

    fn acked(&mut self, cid: CommandId) {
        let Some(record) = self.commands.get_mut(&cid) else { return };
        if let RecordState::Reporting(report, body) = &record.state {
            self.report_bytes += body.0.len();
            record.state = RecordState::Reported(*report, body.clone());
            self.reports.push_back(cid);
        }
        while self.reports.len() > MAX_REPORTS || self.report_bytes > MAX_REPORT_BYTES {
            let Some(oldest) = self.reports.front().copied() else { break };
            self.drop_report(oldest);
        }
    }

    /// Forgets what expired more than a day ago and has nothing left to do, and keepers without claims.
    pub(crate) fn prune(&mut self, now_ms: u64) {
        let (reports, report_bytes) = (&mut self.reports, &mut self.report_bytes);
        self.commands.retain(|cid, record| {
            let open = matches!(record.state, RecordState::Claimed(_) | RecordState::Reporting(..));
            if open || now_ms < record.expires_at.saturating_add(DAY_MS) {
                return true;
            }
            if let RecordState::Reported(_, body) = &record.state {
                *report_bytes = report_bytes.saturating_sub(body.0.len());
                reports.retain(|reported| reported != cid);
            }
            false
        });
    }

    /// Forgets the lives of keepers that no claim needs, but the present one.
    pub(crate) fn forget_keepers(&mut self, present: Nonce) {
        let needed: Vec<Nonce> = self.claims().map(|(_, _, claimed)| claimed.instance).collect();
        self.keepers.retain(|instance, _| *instance == present || needed.contains(instance));
    }

    /// The fewest lines that say the same.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let seen = self.seen.map(|(generation, sha256)| Entry::Mailbox { generation, sha256 });
        let keepers = self.keepers.values().map(|mark| Entry::Keeper { mark: mark.clone() });
        let in_order = self.claimed.iter().chain(&self.reports);
        let in_order = in_order.filter_map(|cid| Some((*cid, self.commands.get(cid)?)));
        let others = self.commands.iter().map(|(cid, record)| (*cid, record));
        let is_in_order =
            |state: &RecordState| matches!(state, RecordState::Claimed(_) | RecordState::Reported(..));
        let others = others.filter(move |(_, record)| !is_in_order(&record.state));
        let commands = in_order.chain(others).flat_map(|(cid, record)| command_entries(cid, record));
        let inventory = (self.inventory > 0).then_some(Entry::Inventory { revision: self.inventory });
        seen.into_iter().chain(inventory).chain(keepers).chain(commands)
    }
}

fn command_entries(cid: CommandId, record: &Record) -> Vec<Entry> {
    let expires_at = record.expires_at;
    match &record.state {
        RecordState::Claimed(claimed) => {
            let Claimed { instance, spec, chunks, is_applying } = claimed.as_ref();
            let (instance, spec, before) = (*instance, spec.clone(), chunks.before);
            let mut entries = vec![Entry::Claim { cid, instance, expires_at, spec, before }];
            entries.extend(is_applying.then_some(Entry::Applying { cid }));
            entries.extend(chunks.window.iter().map(|chunk| Entry::Chunk { cid, chunk: *chunk }));
            entries
        }
        RecordState::Reporting(report, body) => {
            vec![Entry::Fact { cid, report: *report, expires_at, body: body.clone() }]
        }
        RecordState::Reported(report, body) => {
            vec![Entry::Fact { cid, report: *report, expires_at, body: body.clone() }, Entry::Acked { cid }]
        }
        RecordState::Known => vec![Entry::Known { cid, expires_at }],
    }
}
