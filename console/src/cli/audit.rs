//! `signalbox audit`.

use serde::Serialize;
use signalbox_schemas::{
    api::{AuditView, Page, op},
    audit::{AuditEntry, Link, Outcome},
    id::Sha256,
    limit::DAY_MS,
    signed::PublicKey,
};

use super::{
    call::{self, Call, Row},
    card::{NOTHING, moment},
    clean,
    decode::Keys,
    event,
    exit::{self, Failure},
    table::Column,
};
use crate::{
    args::{self, audit::Since},
    client::{clock::now_ms, list::Pages},
    config::Config,
};

/// Entries of one question.
const PAGE: usize = 1_000;
/// How long entries are kept at least, ms: a day less than the stream keeps them.
const KEPT_MS: u64 = 399 * DAY_MS;
/// Faults that are told one by one.
const TOLD: usize = 20;

impl Row for AuditView {
    const COLUMNS: &'static [Column] =
        &[("N", 1), ("WHEN", 0), ("WHO", 0), ("WHAT", 0), ("BRIDGE", 3), ("OUTCOME", 2), ("ABOUT", 0)];

    fn key(&self) -> String {
        self.sequence.to_string()
    }

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let Some(entry) = &self.entry else {
            let mut cells = vec![NOTHING.to_owned(); Self::COLUMNS.len() - 1];
            cells.push(format!("message {} is no entry of a bridge", self.sequence));
            return cells;
        };
        let outcome = match &entry.outcome {
            Outcome::Stored { stream, sequence, .. } => format!("{} {sequence}", clean::line(stream)),
            Outcome::Refused { code, count } => format!("{code} × {count}"),
        };
        vec![
            entry.n.to_string(),
            moment(entry.written_at, now_ms()),
            clean::line(&entry.actor),
            clean::line(&entry.action),
            entry.bridge.to_string(),
            outcome,
            clean::line(&entry.about),
        ]
    }
}

/// Lists the audit chain, newest first, or checks it.
///
/// # Errors
/// [`Failure`]; with `--verify` also when the chain does not hold.
pub async fn audit(config: &Config, args: &args::Audit) -> Result<u8, Failure> {
    let call = Call::of(config, &args.listing, "read the audit chain");
    if !args.verify {
        return call.list::<_, AuditView>(op::AUDIT_LIST, Page::default(), Some(args.limit)).await;
    }
    let keys = Keys::load(&config.layout);
    if !keys.knows_bridges() {
        let line = "cannot check the audit chain: no key of a bridge is known here; give the state directory with the fleet's \
                    `authors.json` by --state-dir";
        return Err(Failure::new(exit::USAGE, line));
    }
    let client = call::connect(config, "read the audit chain").await?;
    let mut pages = Pages::new(op::AUDIT_LIST, Page::default());
    let mut check = Check::new(|key, at| keys.was_bridge(key, at), args.since);
    while !pages.is_over() {
        let page: Vec<AuditView> = pages
            .next(&client, PAGE)
            .await
            .map_err(|error| Failure::client("read the audit chain", &error))?;
        for view in page {
            check.older(view);
        }
    }
    let found = check.end(now_ms());
    let text = if args.listing.json { event::line(&found) } else { found.text().into_bytes() };
    let code = call::print(text).await?;
    Ok(if found.holds { code } else { exit::FAILED })
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Whether every message is an entry that a bridge has signed, and each names the one before it.
    pub holds: bool,
    /// Entries.
    pub entries: u64,
    /// Number of the oldest that is kept; 1 where none was dropped for its age.
    pub first: Option<u64>,
    /// Number of the newest.
    pub last: Option<u64>,
    /// SHA-256 of the newest.
    pub sha256: Option<Sha256>,
    /// What is wrong, the newest first, at most 20 of it.
    pub faults: Vec<String>,
    /// How much is wrong.
    pub fault_count: u64,
}

impl Found {
    fn text(&self) -> String {
        let (Some(first), Some(last), Some(sha256)) = (self.first, self.last, self.sha256) else {
            return format!("there is no entry at all\n{}", self.told());
        };
        let verdict = if self.holds {
            "the chain holds, and bridges of this fleet have signed it".to_owned()
        } else {
            format!("THE CHAIN DOES NOT HOLD: {} faults", self.fault_count)
        };
        format!(
            "entries {first} to {last}: {verdict}\n{}note this down, and see later that nothing was changed up to here or cut \
             off:\n  signalbox audit --verify --since {last}:{sha256}\n",
            self.told()
        )
    }

    fn told(&self) -> String {
        self.faults.iter().flat_map(|fault| ["  ", fault, "\n"]).collect()
    }
}

/// An entry, with the message that it is.
struct Genuine {
    entry: AuditEntry,
    body: Vec<u8>,
    sequence: u64,
}

/// A check from the newest entry to the oldest. What it takes for one is only believed once it is seen what stands before it.
pub struct Check<F> {
    was_bridge: F,
    since: Option<Since>,
    /// The last message that was given.
    last: Option<Genuine>,
    /// The entry behind that.
    newer: Option<Genuine>,
    found: Found,
}

impl<F: Fn(&PublicKey, u64) -> bool> Check<F> {
    /// Begins; `was_bridge` says whether a key might sign entries at a time, Unix ms. An entry that was noted must be there.
    pub fn new(was_bridge: F, since: Option<Since>) -> Self {
        let found = Found {
            holds: true,
            entries: 0,
            first: None,
            last: None,
            sha256: None,
            faults: Vec::new(),
            fault_count: 0,
        };
        Self { was_bridge, since, last: None, newer: None, found }
    }

    /// Takes the message that stands before the last one that was given.
    pub fn older(&mut self, view: AuditView) {
        if self.last.as_ref().is_some_and(|last| last.sequence <= view.sequence) {
            return self.fault(&format!("message {} comes out of its order", view.sequence));
        }
        self.judge(Some(view.sequence));
        let sequence = view.sequence;
        let opened = match &view.envelope {
            Some(signed) => signed.open(|key| (self.was_bridge)(key, view.stored_at)),
            None => return self.fault(&format!("message {sequence} is no entry: it is not signed")),
        };
        match opened {
            Ok(entry) => {
                let body = view.envelope.map(|signed| signed.to_json()).unwrap_or_default();
                self.last = Some(Genuine { entry, body, sequence });
            }
            Err(error) => self.fault(&format!("message {sequence} is no entry: {error}")),
        }
    }

    /// Judges the last one, now that it is known behind what it stands.
    fn judge(&mut self, stands_behind: Option<u64>) {
        let Some(Genuine { entry, body, sequence }) = self.last.take() else { return };
        if stands_behind.is_some_and(|before| before != entry.after) {
            let n = entry.n;
            return self.fault(&format!(
                "message {sequence} is no entry: it is entry {n}, stored once more, or something before it is gone"
            ));
        }
        let sha256 = Sha256::of(&body);
        if let Some(newer) = &self.newer {
            let mut link = Link { sequence: newer.entry.after, ..Link::of(sequence, &entry, &body) };
            if let Err(broken) = link.follow(newer.sequence, &newer.entry, &newer.body) {
                self.fault(&broken.to_string());
            }
        }
        if let Some(since) = self.since.take_if(|since| since.n == entry.n)
            && since.sha256 != sha256
        {
            self.fault(&format!("entry {} is not the one that was noted", entry.n));
        }
        self.found.entries += 1;
        self.found.first = Some(entry.n);
        self.found.last.get_or_insert(entry.n);
        self.found.sha256.get_or_insert(sha256);
        self.newer = Some(Genuine { entry, body, sequence });
    }

    /// What was found at `now_ms`, Unix ms.
    pub fn end(mut self, now_ms: u64) -> Found {
        self.judge(None);
        match self.newer.take() {
            None => self.fault("a fleet whose authors document was ever published has entries"),
            Some(first) if first.entry.n == 1 => {
                if let Err(broken) = Link::default().follow(first.sequence, &first.entry, &first.body) {
                    self.fault(&broken.to_string());
                }
            }
            Some(first) if now_ms.saturating_sub(first.entry.written_at) < KEPT_MS => {
                self.fault(&format!(
                    "entries before {} are not there, and are not old enough to have been dropped",
                    first.entry.n
                ));
            }
            Some(_) => {}
        }
        if let Some(since) = self.since.take() {
            self.fault(&format!("entry {}, which was noted, is not there", since.n));
        }
        self.found
    }

    fn fault(&mut self, what: &str) {
        self.found.holds = false;
        self.found.fault_count += 1;
        if self.found.faults.len() < TOLD {
            self.found.faults.push(clean::line(what));
        }
    }
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::{
        audit::Entered,
        error::ErrorCode,
        id::{BridgeId, Workspace},
        signed::{Signed, SigningKey},
    };

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(include_str!("../../tests/seven.seed")).unwrap()
    }

    fn signed(sequence: u64, entry: &AuditEntry) -> AuditView {
        let envelope = Signed::sign(entry, &key()).unwrap();
        AuditView { sequence, stored_at: sequence, entry: Some(entry.clone()), envelope: Some(envelope) }
    }

    /// Entries from the first on, the newest first. Sequences are ten times the number.
    fn chain(first: u64, count: u64) -> Vec<AuditView> {
        let mut at = Link { n: first - 1, sequence: (first - 1) * 10, ..Link::default() };
        let mut views = Vec::new();
        for n in first..first + count {
            let entry = AuditEntry {
                ws: Workspace::main(),
                n,
                before: at.sha256,
                after: at.sequence,
                bridge: BridgeId::new("b1").unwrap(),
                written_at: n,
                actor: "operator:local".to_owned(),
                action: op::COMMANDS_SUBMIT.to_owned(),
                about: n.to_string(),
                outcome: Outcome::Refused { code: ErrorCode::Forbidden, count: 1 },
                entered: Entered::default(),
            };
            let view = signed(n * 10, &entry);
            at = Link::of(n * 10, &entry, &view.envelope.as_ref().unwrap().to_json());
            views.push(view);
        }
        views.reverse();
        views
    }

    fn check(views: &[AuditView]) -> Found {
        check_with(views, None, 1_000)
    }

    fn check_with(views: &[AuditView], since: Option<Since>, now_ms: u64) -> Found {
        let mut check = Check::new(|by: &PublicKey, _| by == key().public(), since);
        for view in views {
            check.older(view.clone());
        }
        check.end(now_ms)
    }

    fn noted(views: &[AuditView], at: usize) -> Since {
        let view = &views[at];
        let sha256 = Sha256::of(&view.envelope.as_ref().unwrap().to_json());
        Since { n: view.entry.as_ref().unwrap().n, sha256 }
    }

    #[test]
    fn a_whole_chain_holds() {
        let whole = chain(1, 5);
        let found = check(&whole);
        assert_eq!((found.holds, found.first, found.last, found.entries), (true, Some(1), Some(5), 5));
        let text = found.text();
        assert!(text.contains("entries 1 to 5: the chain holds"), "{text}");
        // What it says to note down is what it takes.
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words.last().unwrap().parse::<Since>().unwrap(), noted(&whole, 0));
        for at in 0..5 {
            assert!(check_with(&whole, Some(noted(&whole, at)), 1_000).holds);
        }
        // The oldest ones go with their age.
        assert!(check_with(&chain(4, 5), None, KEPT_MS + 5).holds);
    }

    #[test]
    fn whatever_is_changed_is_seen() {
        let whole = chain(1, 5);
        let changed = |change: &dyn Fn(&mut Vec<AuditView>)| {
            let mut views = whole.clone();
            change(&mut views);
            views
        };
        let cases = [
            ("one is gone", changed(&|views| drop(views.remove(2))), "something before it is gone"),
            ("two have changed places", changed(&|views| views.swap(1, 2)), "out of its order"),
            (
                "one is another, of a bridge",
                changed(&|views| {
                    let entry = AuditEntry { about: "other".to_owned(), ..views[2].entry.clone().unwrap() };
                    views[2] = signed(30, &entry);
                }),
                "entry 4 follows an entry other than",
            ),
            (
                "an old one was stored again",
                changed(&|views| {
                    views.insert(0, AuditView { sequence: 60, ..views[2].clone() });
                }),
                "it is entry 3, stored once more",
            ),
            ("one is no message of ours", changed(&|views| views[2].envelope = None), "is not signed"),
            (
                "the beginning is another's",
                chain(2, 4).into_iter().chain(chain(1, 1)).collect(),
                "entry 2 follows an entry other",
            ),
            ("the beginning is held back", chain(4, 5), "entries before 4 are not there"),
            ("nothing is shown", Vec::new(), "has entries"),
        ];
        for (what, views, said) in cases {
            let found = check(&views);
            assert!(
                !found.holds && found.faults.iter().any(|fault| fault.contains(said)),
                "{what}: {found:?}"
            );
        }
        assert!(check(&changed(&|views| drop(views.remove(2)))).text().contains("DOES NOT HOLD"));
    }

    #[test]
    fn what_is_no_entry_is_told_and_breaks_no_other() {
        let mut views = chain(1, 2);
        let stray = AuditView { sequence: 25, stored_at: 25, entry: None, envelope: None };
        let last = views[0].envelope.as_ref().unwrap().to_json();
        let next =
            AuditEntry { n: 3, before: Sha256::of(&last), after: 25, ..views[0].entry.clone().unwrap() };
        views.insert(0, stray);
        views.insert(0, signed(30, &next));
        let found = check(&views);
        assert_eq!((found.entries, found.fault_count), (3, 1), "{found:?}");
    }

    #[test]
    fn an_end_that_was_cut_off_is_seen_by_who_noted_it() {
        let whole = chain(1, 5);
        let last = noted(&whole, 0);
        assert!(check_with(&whole[2..], None, 1_000).holds, "nothing shows it by itself");
        let found = check_with(&whole[2..], Some(last), 1_000);
        assert!(found.faults[0].contains("entry 5, which was noted, is not there"), "{found:?}");
        let other = Since { sha256: Sha256::of(b"other"), ..noted(&whole, 2) };
        assert!(check_with(&whole, Some(other), 1_000).faults[0].contains("is not the one that was noted"));
    }

    #[test]
    fn what_somebody_else_signs_is_no_entry() {
        let mut check = Check::new(|_: &PublicKey, _| false, None);
        for view in chain(1, 2) {
            check.older(view);
        }
        let found = check.end(1_000);
        assert!(found.faults[..2].iter().all(|fault| fault.contains("may not sign this")), "{found:?}");
        assert_eq!((found.holds, found.entries), (false, 0));
    }

    #[test]
    fn many_faults_are_told_in_few_lines() {
        let mut views = chain(1, 100);
        for view in &mut views {
            view.envelope = None;
        }
        let found = check(&views);
        assert_eq!((found.fault_count, found.faults.len()), (101, TOLD));
    }
}
