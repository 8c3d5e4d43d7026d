//! The system itself: operators, events, streams, and what should be done.

use signalbox_schemas::{
    api::{self, EventView, HealthView, OperatorView, StreamHealth},
    authors::{Right, Role},
    event::kind,
};

use super::{Cell, Column, Item, column, hidden, moment, yes};
use crate::tui::{state::Severity, text, view::amount};

/// How full a stream is from which on it needs a look, percent.
const FULL_PERCENT: u8 = 80;

pub(super) const OPERATORS: &[Column] = &[
    column("operator", (10, 30), 0),
    column("role", (6, 8), 4),
    column("may author", (10, 48), 2),
    column("until", (7, 8), 3),
    column("last did", (8, 8), 3),
    column("since", (7, 7), 1),
    hidden("signs with", (12, 56)),
];

pub(super) const EVENTS: &[Column] = &[
    column("when", (7, 7), 0),
    column("what", (12, 20), 3),
    column("machine", (8, 28), 2),
    column("told", (12, 90), 0),
    hidden("command", (8, 36)),
    hidden("bridge", (8, 24)),
];

pub(super) const STREAMS: &[Column] = &[
    column("stream", (8, 10), 0),
    column("messages", (8, 12), 4),
    column("size", (8, 10), 4),
    column("full", (5, 6), 5),
    column("newest", (7, 7), 3),
    column("oldest", (7, 7), 1),
    column("copies", (6, 16), 2),
    column("readers", (7, 8), 1),
    column("pending", (7, 9), 2),
    column("again", (5, 7), 2),
];

pub(super) const HEALTH: &[Column] =
    &[column("how", (11, 11), 0), column("what", (12, 64), 0), column("to do", (10, 90), 1)];

fn role(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

pub(super) fn operator(view: &OperatorView) -> Item {
    let rights = view.rights.iter().map(|right: &Right| right.as_str()).collect::<Vec<_>>().join(", ");
    let may = view.role.map_or_else(
        || Cell::Word(Severity::Warn, "none".to_owned()),
        |known| Cell::Text(role(known).to_owned()),
    );
    Item {
        key: view.id.to_string(),
        cells: vec![
            Cell::Text(view.id.to_string()),
            may,
            Cell::Quiet(rights.clone()),
            Cell::time(view.valid_until),
            Cell::time(view.last_seen_at),
            Cell::Time(view.created_at),
            Cell::Quiet(view.signing_key.to_string()),
        ],
        details: vec![
            ("operator", view.id.to_string()),
            (
                "role",
                view.role.map_or_else(|| "none: may do nothing".to_owned(), |known| role(known).to_owned()),
            ),
            ("may author", rights),
            ("until", view.valid_until.map_or_else(|| "-".to_owned(), moment)),
            ("last did", view.last_seen_at.map_or_else(|| "nothing that is written down".to_owned(), moment)),
            ("since", moment(view.created_at)),
            ("logs in with", view.login_key.to_string()),
            ("signs with", view.signing_key.to_string()),
        ],
        machine: None,
    }
}

/// How an event is to be looked at.
fn severity(event: &str) -> Severity {
    match event {
        kind::MACHINE_OFFLINE | kind::RUN_LOST | kind::EVENTS_DROPPED => Severity::Bad,
        kind::MACHINE_STALE | kind::RELAY_RESTARTED | kind::STREAM_NEARLY_FULL | kind::CLOCK_SKEW => {
            Severity::Warn
        }
        _ => Severity::Good,
    }
}

pub(super) fn event(view: EventView) -> Item {
    let EventView { sequence, event, .. } = view;
    let machine = event.machine_id.as_ref().map(|id| text::line(id.as_str()));
    let command = event.command.map(|id| id.to_string());
    let mut details = vec![
        ("when", moment(event.at)),
        ("what", text::line(&event.kind)),
        ("told", text::line(&event.text)),
        ("machine", machine.clone().unwrap_or_else(|| "-".to_owned())),
        ("command", command.clone().unwrap_or_else(|| "-".to_owned())),
        ("bridge", event.bridge.to_string()),
    ];
    if !event.details.is_empty() {
        let members = event.details.iter().map(|(name, value)| format!("{name} {value}"));
        details.push(("in figures", text::line(&members.collect::<Vec<_>>().join(", "))));
    }
    Item {
        key: sequence.to_string(),
        cells: vec![
            Cell::Time(event.at),
            Cell::Word(severity(&event.kind), text::line(&event.kind)),
            machine.map_or(Cell::Nothing, Cell::Text),
            Cell::foreign(&event.text),
            command.map_or(Cell::Nothing, Cell::Quiet),
            Cell::Quiet(event.bridge.to_string()),
        ],
        details,
        machine: event.machine,
    }
}

pub(super) fn stream(view: &StreamHealth) -> Item {
    let full = match view.fill_percent {
        None => Cell::Nothing,
        Some(percent) if percent >= FULL_PERCENT && view.refuses_when_full => {
            Cell::Word(Severity::Bad, format!("{percent}%"))
        }
        Some(percent) => Cell::Text(format!("{percent}%")),
    };
    let behind = view.followers.iter().filter(|follower| !follower.current).count();
    let copies = if behind > 0 {
        Cell::Word(Severity::Warn, format!("{}, {behind} behind", view.replicas))
    } else {
        Cell::Number(u64::from(view.replicas))
    };
    let again = match view.consumers.redelivered {
        0 => Cell::Quiet("0".to_owned()),
        n => Cell::Word(Severity::Warn, n.to_string()),
    };
    let followers = view.followers.iter().map(|follower| {
        let how = if follower.offline {
            "offline"
        } else if follower.current {
            "current"
        } else {
            "behind"
        };
        format!("{} {how}, lag {}", text::line(&follower.name), follower.lag)
    });
    Item {
        key: view.name.clone(),
        cells: vec![
            Cell::foreign(&view.name),
            Cell::Number(view.messages),
            Cell::Text(amount::bytes(view.bytes)),
            full,
            Cell::time(view.last_at),
            Cell::time(view.first_at),
            copies,
            Cell::Number(view.consumers.count),
            Cell::Number(view.consumers.pending),
            again,
        ],
        details: vec![
            ("stream", text::line(&view.name)),
            ("messages", view.messages.to_string()),
            ("size", amount::bytes(view.bytes)),
            ("most", view.max_bytes.map_or_else(|| "no limit of its own".to_owned(), amount::bytes)),
            ("refuses when full", yes(view.refuses_when_full)),
            ("kept for", view.max_age_ms.map_or_else(|| "ever".to_owned(), amount::duration)),
            ("oldest", view.first_at.map_or_else(|| "-".to_owned(), moment)),
            ("newest", view.last_at.map_or_else(|| "-".to_owned(), moment)),
            ("leader", view.leader.as_deref().map_or_else(|| "a single server".to_owned(), text::line)),
            ("copies", view.replicas.to_string()),
            ("followers", followers.collect::<Vec<_>>().join("; ")),
            ("unacknowledged", view.consumers.ack_pending.to_string()),
        ],
        machine: None,
    }
}

/// How bad something is, as it is shown.
pub fn shown(severity: api::Severity) -> Severity {
    match severity {
        api::Severity::Info => Severity::Good,
        api::Severity::Warning => Severity::Warn,
        api::Severity::Critical => Severity::Bad,
    }
}

/// Bridge and broker in a line each, then what should be done.
pub(super) fn health(view: &HealthView) -> Vec<Item> {
    let lag: u64 = view.bridge.lag.values().sum();
    let leads = if view.bridge.epoch.is_some() { "dispatches" } else { "does not dispatch" };
    let bridge_text = format!(
        "bridge {} {}, {leads}, {lag} messages behind",
        view.bridge.id,
        text::line(&view.bridge.version)
    );
    let broker = &view.broker;
    let broker_text = format!(
        "broker {} {}, {} on disk",
        text::line(&broker.server),
        text::line(&broker.version),
        amount::bytes(broker.store_bytes)
    );
    let is_well = view.status == "ok" && view.bridge.caught_up;
    let how = |is: bool| if is { Severity::Good } else { Severity::Bad };
    let mut items = vec![
        line("bridge", how(is_well), text::line(&view.status), bridge_text, String::new()),
        line(
            "broker",
            how(broker.connected),
            if broker.connected { "connected" } else { "lost" }.to_owned(),
            broker_text,
            String::new(),
        ),
    ];
    items.extend(view.warnings.iter().enumerate().map(|(n, warning)| {
        let word = warning.severity.as_str().to_owned();
        let key = format!("{n} {}", warning.code);
        line(&key, shown(warning.severity), word, text::line(&warning.text), text::line(&warning.advice))
    }));
    items.extend(view.counters.iter().map(|(reason, n)| {
        let what = format!("{} {n} times since this bridge started", text::line(reason));
        line(reason, Severity::Good, "counted".to_owned(), what, String::new())
    }));
    items
}

fn line(key: &str, severity: Severity, how: String, what: String, to_do: String) -> Item {
    let details = vec![("how", how.clone()), ("what", what.clone()), ("to do", to_do.clone())];
    let to_do = if to_do.is_empty() { Cell::Nothing } else { Cell::Quiet(to_do) };
    Item {
        key: key.to_owned(),
        cells: vec![Cell::Word(severity, how), Cell::Text(what), to_do],
        details,
        machine: None,
    }
}
