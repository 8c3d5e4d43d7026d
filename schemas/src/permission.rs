//! Who may publish and subscribe what, and what crosses from one account to another.
//!
//! Three accounts under one operator: **CTRL** owns every stream; **RELAY** is used by relays, **OPS** by
//! operators. Neither of the two has JetStream. The broker checks the subject of a publish and never its
//! *reply* subject, so in one shared account a relay could have the server store a message under another
//! machine's subject; the split is what prevents it.
//!
//! Signing keys of RELAY and OPS are *scoped*: a minted user carries no permissions of its own, and the
//! account's template, with `{{name()}}` where the user's name goes, is all it gets.

use crate::{
    id::Workspace,
    limit::{BROKER_PAYLOAD_BYTES, RELAY_PAYLOAD_BYTES},
    stream::{DOC, MBOX, RUN},
};

/// Version of the tables below. A user JWT that names an older one is minted anew.
pub const VERSION: u32 = 2;

/// What the broker's template language puts the user's name in place of.
pub const NAME_TEMPLATE: &str = "{{name()}}";

/// What one kind of user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects it may publish.
    pub publish: Vec<String>,
    /// Subjects it may subscribe.
    pub subscribe: Vec<String>,
    /// Largest message it may publish, bytes.
    pub payload_bytes: usize,
    /// Most subscriptions at once.
    pub subscriptions: u32,
}

/// A relay, by its machine token or [`NAME_TEMPLATE`].
pub fn relay(ws: &Workspace, mid: &str) -> Permissions {
    Permissions {
        publish: vec![
            format!("run.{ws}.{mid}.*.claim"),
            format!("run.{ws}.{mid}.*.start"),
            format!("run.{ws}.{mid}.*.exit"),
            format!("run.{ws}.{mid}.*.lost"),
            format!("out.{ws}.{mid}.*"),
            format!("hb.{ws}.{mid}"),
            format!("inv.{ws}.{mid}"),
            format!("$JS.API.DIRECT.GET.{MBOX}.mbox.{ws}.{mid}"),
            format!("$JS.API.DIRECT.GET.{RUN}.run.{ws}.{mid}.*.claim"),
            format!("$JS.API.DIRECT.GET.{DOC}.doc.{ws}.authors"),
            format!("$JS.API.DIRECT.GET.{DOC}.doc.{ws}.{mid}.>"),
        ],
        subscribe: vec![format!("live.mbox.{ws}.{mid}"), format!("_INBOX_{mid}.>")],
        payload_bytes: RELAY_PAYLOAD_BYTES,
        subscriptions: 32,
    }
}

/// An operator, by its id or [`NAME_TEMPLATE`].
pub fn operator(ws: &Workspace, op: &str) -> Permissions {
    Permissions {
        publish: vec![format!("api.{ws}.{op}.>")],
        subscribe: vec![format!("live.hb.{ws}.*"), format!("feed.{ws}.{op}.>")],
        payload_bytes: BROKER_PAYLOAD_BYTES,
        subscriptions: 1024,
    }
}

/// An account beside CTRL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// Relays.
    Relay,
    /// Operators.
    Ops,
}

/// Which way a subject crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Crossing {
    /// Published in the other account, received in CTRL.
    Service,
    /// Published in CTRL, received in the other account.
    Stream,
}

/// One private export of CTRL and the import that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Who imports it.
    pub account: Account,
    /// Which way.
    pub crossing: Crossing,
    /// Exported subject: any workspace.
    pub export: String,
    /// Imported subject: one workspace.
    pub import: String,
}

/// Unanswered service requests are forgotten by the broker after this long; without it each one with a reply
/// subject costs it 0.8 KB for good.
pub const RESPONSE_THRESHOLD_MS: u64 = 2_000;

/// Everything that crosses between CTRL and the two accounts, for one workspace.
pub fn passages(ws: &Workspace) -> Vec<Passage> {
    use {
        Account::{Ops, Relay},
        Crossing::{Service, Stream},
    };
    [
        (Relay, Service, "run.", "*.*.claim"),
        (Relay, Service, "run.", "*.*.start"),
        (Relay, Service, "run.", "*.*.exit"),
        (Relay, Service, "run.", "*.*.lost"),
        (Relay, Service, "out.", "*.*"),
        (Relay, Service, "hb.", "*"),
        (Relay, Service, "inv.", "*"),
        (Relay, Service, "$JS.API.DIRECT.GET.MBOX.mbox.", "*"),
        (Relay, Service, "$JS.API.DIRECT.GET.RUN.run.", "*.*.claim"),
        (Relay, Service, "$JS.API.DIRECT.GET.DOC.doc.", "authors"),
        (Relay, Service, "$JS.API.DIRECT.GET.DOC.doc.", "*.>"),
        (Relay, Stream, "live.mbox.", "*"),
        (Ops, Service, "api.", "*.>"),
        (Ops, Stream, "live.hb.", "*"),
        (Ops, Stream, "feed.", "*.>"),
    ]
    .into_iter()
    .map(|(account, crossing, head, tail)| Passage {
        account,
        crossing,
        export: format!("{head}*.{tail}"),
        import: format!("{head}{ws}.{tail}"),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether every subject that `narrow` matches is matched by `wide`.
    fn covers(wide: &str, narrow: &str) -> bool {
        let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
        loop {
            match (wide.next(), narrow.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(token)) if token != ">" => {}
                (Some(a), Some(b)) if a == b => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn every_permission_has_its_passage_and_only_that() {
        let ws = Workspace::main();
        for (account, permissions) in
            [(Account::Relay, relay(&ws, "web-1")), (Account::Ops, operator(&ws, "local"))]
        {
            let passages: Vec<_> = passages(&ws).into_iter().filter(|p| p.account == account).collect();
            for (crossing, subjects) in
                [(Crossing::Service, &permissions.publish), (Crossing::Stream, &permissions.subscribe)]
            {
                for subject in subjects.iter().filter(|s| !s.starts_with("_INBOX")) {
                    let fits = |p: &&Passage| p.crossing == crossing && covers(&p.import, subject);
                    assert!(passages.iter().any(|p| fits(&p)), "{subject} leads nowhere");
                }
                for passage in passages.iter().filter(|p| p.crossing == crossing) {
                    assert!(
                        subjects.iter().any(|subject| covers(&passage.import, subject)),
                        "nobody may use {}",
                        passage.import
                    );
                    assert!(covers(&passage.export, &passage.import));
                }
            }
        }
    }

    #[test]
    fn events_and_history_are_written_by_bridges_alone() {
        let ws = Workspace::main();
        for subject in ["evt.main.machine-online", "hist.main.0", "audit.main.b1.nobody.http"] {
            let mut published: Vec<String> =
                passages(&ws).into_iter().map(|passage| passage.export).collect();
            published.extend(relay(&ws, "web-1").publish);
            published.extend(operator(&ws, "local").publish);
            assert!(published.iter().all(|may| !covers(may, subject)), "{subject} can be written");
        }
    }

    #[test]
    fn a_relay_names_itself_everywhere_and_no_stream_api() {
        let permissions = relay(&Workspace::main(), "web-1");
        for subject in permissions.publish.iter().chain(&permissions.subscribe) {
            let own = subject.split('.').any(|token| token == "web-1" || token == "_INBOX_web-1");
            assert!(own || subject.ends_with("doc.main.authors"), "{subject} is not its own");
            assert!(!subject.starts_with("$JS.API.") || subject.starts_with("$JS.API.DIRECT.GET."));
        }
    }
}
