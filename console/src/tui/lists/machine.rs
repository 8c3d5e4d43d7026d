//! What there is of one machine: a list for each tab of its page.

use signalbox_schemas::{
    api::{AssignmentView, ConfigPushView, MachineRunView, RunView},
    command::Target,
    config::PushState,
    label::LabelSource,
    run::RunState,
};

use super::{Cell, Column, Item, Tab, audit, column, credentials, hidden, json, moment, system};
use crate::{
    client::machine::{Configured, ENTRIES, EVENTS as EVENTS_READ, Part, RUNS as RUNS_READ},
    tui::{
        state::{
            Severity,
            machine::{self, Machine},
        },
        text,
        view::amount,
    },
};

/// A generation above this is a moment, Unix ms: the year 2020.
const CLOCKS_FROM_MS: u64 = 1_577_836_800_000;

const RUNS: &[Column] = &[
    column("when", (7, 7), 0),
    column("state", (9, 12), 0),
    column("command", (10, 90), 0),
    column("exit", (4, 12), 4),
    column("took", (6, 8), 3),
    column("by", (6, 20), 2),
    hidden("host", (8, 30)),
    hidden("id", (8, 36)),
];

const INBOX: &[Column] = &[
    column("n", (3, 4), 2),
    column("state", (9, 12), 3),
    column("left", (7, 8), 0),
    column("command", (10, 90), 0),
    column("by", (6, 20), 1),
    column("since", (7, 7), 2),
    hidden("id", (8, 36)),
];

const CONFIG: &[Column] = &[
    column("what", (10, 24), 0),
    column("desired", (8, 40), 0),
    column("applied", (8, 40), 0),
    column("since", (7, 7), 2),
    column("how", (8, 80), 1),
];

const FACTS: &[Column] = &[column("what", (8, 18), 0), column("is", (10, 60), 0), column("more", (8, 60), 1)];

/// What a tab is called where columns are kept, and in the palette.
pub(super) fn name(tab: Tab) -> &'static str {
    match tab {
        Tab::Commands => "machine-commands",
        Tab::Inbox => "machine-inbox",
        Tab::Config => "machine-config",
        Tab::Credentials => "machine-credentials",
        Tab::Facts => "machine-facts",
        Tab::Events => "machine-events",
        Tab::Audit => "machine-audit",
    }
}

/// What a tab is called on the page.
pub fn word(tab: Tab) -> &'static str {
    let name = name(tab);
    name.strip_prefix("machine-").unwrap_or(name)
}

/// What is in it.
pub(super) fn about(tab: Tab) -> &'static str {
    match tab {
        Tab::Commands => "what ran on it, the newest first",
        Tab::Inbox => "what waits for it, in the order in which it will run",
        Tab::Config => "what it should be like, and what it is like",
        Tab::Credentials => "what its relay keeps for hosts behind it",
        Tab::Facts => "what it is, and what is not told of it",
        Tab::Events => "what happened to it",
        Tab::Audit => "who did what with it",
    }
}

/// What is said where there is nothing.
pub(super) fn hint(tab: Tab) -> &'static str {
    match tab {
        Tab::Commands => "nothing ran on it yet; x runs a command",
        Tab::Inbox => "nothing waits for it",
        Tab::Config => "nothing is known of how it should be",
        Tab::Credentials => {
            "its relay keeps none, or has not said so; give it one: signalbox credential push"
        }
        Tab::Facts => "nothing is known of it yet",
        Tab::Events => "nothing has happened to it",
        Tab::Audit => "none of the newest entries is about it or its commands; w shows all of them",
    }
}

pub(super) fn columns(tab: Tab) -> &'static [Column] {
    match tab {
        Tab::Commands => RUNS,
        Tab::Inbox => INBOX,
        Tab::Config => CONFIG,
        Tab::Credentials => credentials::COLUMNS,
        Tab::Facts => FACTS,
        Tab::Events => system::EVENTS,
        Tab::Audit => audit::COLUMNS,
    }
}

/// Rows as they were told, made harmless; `machine` is what is known of it here.
pub fn items(tab: Tab, part: Part, machine: Option<&Machine>) -> Vec<Item> {
    match part {
        Part::Runs(runs) if tab == Tab::Inbox => (1..).zip(runs).map(|(n, run)| waiting(n, &run)).collect(),
        Part::Runs(runs) => runs.iter().map(run).collect(),
        Part::Config(configured) => config(&configured, machine),
        Part::Kept(views) => views.into_iter().map(credentials::kept).collect(),
        Part::Held(views) => views.iter().map(credentials::held).collect(),
        Part::Events(views) => views.into_iter().map(system::event).collect(),
        Part::Audit(views) => views.into_iter().map(audit::entry).collect(),
        Part::Nothing => machine.map(facts).unwrap_or_default(),
    }
}

/// What stands beside the rows of a tab, of which there are so many, where they are not all there is; `is_cut`: nobody looked
/// as far as to the end.
pub fn note(tab: Tab, rows: usize, is_cut: bool) -> Option<String> {
    match tab {
        Tab::Audit => Some(format!("of the newest {ENTRIES} entries")),
        Tab::Commands if rows >= RUNS_READ => Some(format!("the newest {rows}")),
        Tab::Inbox if rows >= RUNS_READ || is_cut => Some("those that begin first may be missing".to_owned()),
        Tab::Events if rows >= EVENTS_READ => Some(format!("the newest {rows}")),
        _ => is_cut.then(|| "older ones may be missing".to_owned()),
    }
}

fn state(state: RunState) -> Cell {
    let severity = match state {
        RunState::Completed
        | RunState::Held
        | RunState::Pending
        | RunState::Claimed
        | RunState::Executing => Severity::Good,
        RunState::Timeout | RunState::Cancelled | RunState::Expired => Severity::Warn,
        RunState::Failed | RunState::Lost | RunState::Rejected => Severity::Bad,
    };
    match state {
        // A mark would say that it ended well.
        state if !state.is_settled() => Cell::Text(state.as_str().to_owned()),
        state => Cell::Word(severity, state.as_str().to_owned()),
    }
}

/// Exit code, signal, or what went wrong.
fn exit(run: &RunView) -> Cell {
    match (run.exit_code, run.signal.as_deref(), &run.error) {
        (Some(code), _, _) => Cell::Text(code.to_string()),
        (None, Some(signal), _) => Cell::foreign(signal),
        (None, None, Some(error)) => Cell::foreign(error.code.as_str()),
        (None, None, None) => Cell::Nothing,
    }
}

fn run(view: &MachineRunView) -> Item {
    let (command, run) = (&view.command, &view.run);
    let took = run.duration_ms.map(amount::duration);
    Item {
        key: command.id.to_string(),
        cells: vec![
            Cell::Time(command.created_at),
            state(run.state),
            Cell::foreign(&command.command),
            exit(run),
            took.clone().map_or(Cell::Nothing, Cell::Quiet),
            Cell::Quiet(text::line(&command.by)),
            command.target.as_ref().map_or(Cell::Nothing, |Target::Ssh(ssh)| Cell::foreign(&ssh.to_string())),
            Cell::Quiet(command.id.to_string()),
        ],
        details: details(view),
        machine: Some(run.machine.token()),
    }
}

fn waiting(n: u64, view: &MachineRunView) -> Item {
    let command = &view.command;
    Item {
        key: command.id.to_string(),
        cells: vec![
            Cell::Number(n),
            state(view.run.state),
            Cell::Time(command.expires_at),
            Cell::foreign(&command.command),
            Cell::Quiet(text::line(&command.by)),
            Cell::Time(command.created_at),
            Cell::Quiet(command.id.to_string()),
        ],
        details: details(view),
        machine: Some(view.run.machine.token()),
    }
}

fn details(view: &MachineRunView) -> Vec<(&'static str, String)> {
    let (command, run) = (&view.command, &view.run);
    vec![
        ("command", text::line(&command.command)),
        ("state", run.state.as_str().to_owned()),
        ("by", text::line(&command.by)),
        ("accepted", moment(command.created_at)),
        ("expires", moment(command.expires_at)),
        ("id", command.id.to_string()),
    ]
}

/// A row of what should be, and what is.
fn setting(
    what: &'static str,
    desired: Cell,
    applied: Cell,
    since: Option<u64>,
    how: impl Into<String>,
) -> Item {
    let how = how.into();
    let told = |cell: &Cell| match cell.plain(0) {
        plain if plain.is_empty() => "not known".to_owned(),
        plain => plain,
    };
    let mut details =
        vec![("what", what.to_owned()), ("desired", told(&desired)), ("applied", told(&applied))];
    details.extend(since.map(|since| ("since", moment(since))));
    details.push(("how", how.clone()));
    let cells = vec![Cell::Text(what.to_owned()), desired, applied, Cell::time(since), Cell::Quiet(how)];
    Item { key: what.to_owned(), cells, details, machine: None }
}

/// What nobody desires, or nobody says.
fn unknown(word: &str) -> Cell {
    Cell::Quiet(word.to_owned())
}

fn config(configured: &Configured, machine: Option<&Machine>) -> Vec<Item> {
    let beat = machine.and_then(|machine| machine.beat);
    let relay = machine.and_then(|machine| machine.relay.as_deref());
    let version = |version: u64| if version == 0 { "none".to_owned() } else { format!("version {version}") };
    let authors = beat.map_or_else(|| unknown("not told"), |beat| Cell::Text(version(beat.authors)));
    let mailbox = beat.map_or_else(
        || unknown("not told"),
        |beat| match beat.generation {
            0 => unknown("none"),
            // It grows with the clock, and counts on where that stands still.
            generation if generation < CLOCKS_FROM_MS => Cell::Number(generation),
            generation => Cell::Text(amount::date(generation)),
        },
    );
    let mut items = vec![
        setting(
            "relay",
            unknown("nobody says"),
            relay.map_or_else(|| unknown("not told"), Cell::foreign),
            beat.map(|beat| beat.started_at),
            "its version is its own word; nothing prescribes one; since: its process",
        ),
        setting(
            "authors",
            unknown("the newest"),
            authors,
            None,
            "who may author work; it runs nothing under an older one than its mailbox names",
        ),
        setting(
            "mailbox",
            unknown("the newest"),
            mailbox,
            None,
            "when the bridge composed the newest mailbox that it has seen",
        ),
        setting(
            "policy",
            unknown("not told"),
            unknown("not told"),
            None,
            "relay.toml on the machine itself says what it refuses; relays tell it to nobody",
        ),
    ];
    items.extend(configured.assignments.iter().map(assignment));
    items.extend(configured.changes.iter().map(change));
    items.extend(configured.pushes.iter().map(push));
    items
}

fn assignment(view: &AssignmentView) -> Item {
    let (desired, applied) =
        if view.enabled { ("enabled", "counts") } else { ("disabled", "counts no more") };
    let how = format!("API key {}", text::line(&view.name));
    let item = setting(
        "assignment",
        Cell::Text(desired.to_owned()),
        Cell::Text(applied.to_owned()),
        Some(view.updated_at),
        how,
    );
    Item { key: format!("assignment\n{}", view.id), ..item }
}

/// A command that changed what its relay keeps: credentials, host keys.
fn change(view: &MachineRunView) -> Item {
    let (command, run) = (&view.command, &view.run);
    let why = run.error.as_ref().map(|error| text::line(&error.message));
    let how = why.unwrap_or_else(|| format!("by {}", text::line(&command.by)));
    let since = run.ended_at.or(Some(command.created_at));
    let item = setting("change", Cell::foreign(&command.command), state(run.state), since, how);
    Item { key: command.id.to_string(), ..item }
}

fn push(view: &ConfigPushView) -> Item {
    let severity = match view.state {
        PushState::Acked => Severity::Good,
        PushState::Pending | PushState::Sent => Severity::Warn,
        PushState::Failed => Severity::Bad,
    };
    let desired = format!("{} {}", view.push_type.as_str(), json(&view.payload));
    let how =
        view.error.as_deref().map_or_else(|| format!("by {}", text::line(&view.created_by)), text::line);
    let applied = Cell::Word(severity, view.state.as_str().to_owned());
    let since = view.acked_at.or(view.sent_at).or(Some(view.created_at));
    let item = setting("push", Cell::Text(desired), applied, since, how);
    Item { key: format!("push\n{}", view.id), ..item }
}

fn said_by(source: LabelSource) -> &'static str {
    match source {
        LabelSource::Operator => "an operator",
        LabelSource::Enrolment => "its assignment",
        LabelSource::Relay => "its relay",
    }
}

fn fact(what: &str, is: Cell, more: impl Into<String>) -> Item {
    let more = more.into();
    let mut details = vec![
        ("what", what.to_owned()),
        (
            "is",
            match is.plain(0) {
                plain if plain.is_empty() => "not known".to_owned(),
                plain => plain,
            },
        ),
    ];
    if !more.is_empty() {
        details.push(("more", more.clone()));
    }
    let cells = vec![
        Cell::Text(what.to_owned()),
        is,
        if more.is_empty() { Cell::Text(String::new()) } else { Cell::Quiet(more) },
    ];
    Item { key: what.to_owned(), cells, details, machine: None }
}

fn text_or_nothing(text: &str) -> Cell {
    if text.is_empty() { Cell::Nothing } else { Cell::Text(text.to_owned()) }
}

/// What is known of a machine: its texts are clean already.
fn facts(machine: &Machine) -> Vec<Item> {
    let known = machine.facts.clone().unwrap_or_default();
    let mut items = vec![
        fact("id", Cell::Text(machine.name.clone()), ""),
        fact("token", Cell::Text(machine.token.to_string()), "what subjects call it"),
        fact("host name", text_or_nothing(&known.hostname), ""),
        fact("system", text_or_nothing(&known.os), ""),
        fact("kernel", text_or_nothing(&known.kernel), ""),
        fact("architecture", text_or_nothing(&known.arch), ""),
        fact("relay", machine.relay.clone().map_or(Cell::Nothing, Cell::Text), ""),
        fact("runs", Cell::Text(format!("{} running, {} waiting", machine.running, machine.pending)), ""),
    ];
    items.extend(machine.labels.iter().map(|(key, label)| {
        let text = Cell::Text(format!("{key}={}", text::line(label.value.as_str())));
        let item = fact("label", text, format!("said by {}", said_by(label.source)));
        Item { key: format!("label\n{key}"), ..item }
    }));
    if machine.outbox > 0 {
        let waiting = format!("{} facts wait for their acknowledgement", machine.outbox);
        items.push(fact("outbox", Cell::Word(Severity::Warn, waiting), ""));
    }
    let Some(metrics) = &machine.metrics else {
        items.push(fact("figures", Cell::Nothing, "none were told"));
        items.push(not_told());
        return items;
    };
    let [one, five, fifteen] = metrics.load;
    let of_total = |used: u64, total: u64| format!("{} of {}", amount::bytes(used), amount::bytes(total));
    items.extend([
        fact("up", Cell::Text(amount::age(metrics.uptime_secs.saturating_mul(1_000))), ""),
        fact("cpus", Cell::Number(u64::from(metrics.cpus)), ""),
        fact("load", Cell::Text(format!("{one:.1} {five:.1} {fifteen:.1}")), "over 1, 5 and 15 minutes"),
        fact("memory", Cell::Text(of_total(metrics.memory_used_bytes, metrics.memory_total_bytes)), ""),
        fact("swap", Cell::Text(of_total(metrics.swap_used_bytes, metrics.swap_total_bytes)), ""),
    ]);
    items.extend(metrics.disks.iter().map(|disk| {
        let percent = machine::disk_percent(disk).unwrap_or(0);
        let item = fact(
            "disk",
            Cell::Text(format!("{} {percent}%", disk.mount)),
            of_total(disk.used_bytes, disk.total_bytes),
        );
        Item { key: format!("disk\n{}", disk.mount), ..item }
    }));
    items.push(not_told());
    items
}

fn not_told() -> Item {
    fact("interfaces", Cell::Nothing, "relays do not tell them")
}
