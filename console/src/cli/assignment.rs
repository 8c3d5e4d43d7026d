//! `signalbox assignments`, `assignment`, `relays` and `relay`.

use std::path::Path;

use serde::Serialize;
use signalbox_schemas::{
    api::{
        AssignmentView, ById, ListAssignments, ListRelays, NewAssignment, RelayView, RemoveAssignment,
        RemovedAssignment, Report, Reported, UpdateAssignment, op,
    },
    api_key::ApiKey,
    error::report,
    limit,
};

use super::{
    call::{Call, Row, print},
    card::{NOTHING, moment},
    clean,
    exit::{self, Failure},
    input, label,
    table::Column,
};
use crate::{
    args::assignment::{Assignment, AssignmentAction, AssignmentId, Assignments, Relay, RelayAction, Relays},
    client::clock::now_ms,
    config::Config,
};

/// Longest API key that a relay may bring, with a line end.
const KEY_FILE_BYTES: usize = 258;

impl Row for AssignmentView {
    const COLUMNS: &'static [Column] = &[
        ("ID", 0),
        ("MACHINE", 0),
        ("STATE", 0),
        ("KEY", 1),
        ("HEARD", 2),
        ("AGE", 4),
        ("BY", 3),
        ("NAME", 0),
    ];
    const FLEETING: &'static [&'static str] = &["last_seen_at"];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let now = now_ms();
        vec![
            clean::line(&self.id),
            clean::line(self.machine_id.as_str()),
            online(self.is_online),
            if self.enabled { "enabled" } else { "disabled" }.to_owned(),
            heard(self.last_seen_at, now),
            moment(self.created_at, now),
            self.created_by.as_deref().map_or_else(|| NOTHING.to_owned(), clean::line),
            clean::line(&self.name),
        ]
    }
}

impl Row for RelayView {
    const COLUMNS: &'static [Column] = &[
        ("ASSIGNMENT", 0),
        ("MACHINE", 0),
        ("STATE", 0),
        ("CPU", 1),
        ("MEMORY", 2),
        ("LOAD", 3),
        ("DISK", 4),
        ("HEARD", 0),
        ("SYSTEM", 6),
        ("VERSION", 7),
        ("CAN", 5),
    ];
    const FLEETING: &'static [&'static str] = &["last_heartbeat_at", "metrics"];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let metric = |of: fn(&signalbox_schemas::relay::LegacyMetrics) -> Option<f64>| {
            self.metrics.as_ref().and_then(of)
        };
        let percent =
            |value: Option<f64>| value.map_or_else(|| NOTHING.to_owned(), |value| format!("{value:.0} %"));
        let text = |value: &Option<String>| value.as_deref().map_or_else(|| NOTHING.to_owned(), clean::line);
        vec![
            clean::line(&self.assignment_id),
            clean::line(self.machine_id.as_str()),
            online(self.is_online),
            percent(metric(|m| m.cpu_percent)),
            percent(metric(|m| m.memory_percent)),
            metric(|m| m.load_avg_1m).map_or_else(|| NOTHING.to_owned(), |load| format!("{load:.2}")),
            percent(metric(|m| m.disk_percent)),
            heard(self.last_heartbeat_at, now_ms()),
            text(&self.platform),
            text(&self.version),
            clean::line(&self.capabilities.join(",")),
        ]
    }
}

fn online(is_online: bool) -> String {
    if is_online { "online" } else { "offline" }.to_owned()
}

fn heard(at: Option<u64>, now_ms: u64) -> String {
    at.map_or_else(|| "not lately".to_owned(), |at| moment(at, now_ms))
}

/// Lists assignments.
///
/// # Errors
/// [`Failure`].
pub async fn list(config: &Config, args: Assignments) -> Result<u8, Failure> {
    let call = Call::of(config, &args.listing, "list the assignments");
    let asked = ListAssignments { machine_id: args.machine, ..ListAssignments::default() };
    call.list::<_, AssignmentView>(op::ASSIGNMENTS_LIST, asked, None).await
}

/// Does one thing with an assignment.
///
/// # Errors
/// [`Failure`].
pub async fn act(config: &Config, args: Assignment) -> Result<u8, Failure> {
    let call = |what: String| Call::new(config, args.within.json, what);
    match args.action {
        AssignmentAction::Create { machine, name, key_file, created_by, labels } => {
            let labels = label::map(labels)?;
            let key = match &key_file {
                Some(path) => Key::Brought(read_key(path).await?),
                None => Key::Drawn(draw_key()?),
            };
            let call = call(format!("make an assignment for {}", clean::line(&machine)));
            let key_hash = key.key().hash();
            let asked = NewAssignment { machine_id: machine, name, created_by, key_hash, labels };
            create(&call, &asked, key).await
        }
        AssignmentAction::Show(AssignmentId { id }) => {
            let call = call(format!("show assignment {}", clean::line(&id)));
            let view: AssignmentView = call.ask(op::ASSIGNMENTS_GET, &ById { id }).await?;
            call.show(&view).await
        }
        AssignmentAction::Rename { id, name } => {
            let what = format!("rename assignment {}", clean::line(&id));
            update(&call(what), UpdateAssignment { id, name: Some(name), enabled: None }).await
        }
        AssignmentAction::Enable(AssignmentId { id }) => {
            let what = format!("enable assignment {}", clean::line(&id));
            update(&call(what), UpdateAssignment { id, name: None, enabled: Some(true) }).await
        }
        AssignmentAction::Disable(AssignmentId { id }) => {
            let what = format!("disable assignment {}", clean::line(&id));
            update(&call(what), UpdateAssignment { id, name: None, enabled: Some(false) }).await
        }
        AssignmentAction::Remove { id, cascade } => {
            let call = call(format!("remove assignment {}", clean::line(&id)));
            let asked = RemoveAssignment { id, cascade };
            let removed: RemovedAssignment = call.change(op::ASSIGNMENTS_REMOVE, &asked).await?;
            call.show(&removed).await
        }
        AssignmentAction::Heartbeat(AssignmentId { id }) => {
            let call = call(format!("give a sign of life of assignment {}", clean::line(&id)));
            let view: AssignmentView = call.change(op::ASSIGNMENTS_HEARTBEAT, &ById { id }).await?;
            call.show(&view).await
        }
    }
}

/// The key of a new assignment. It stays here: the bridge is told its hash, since whoever runs the broker reads along.
enum Key {
    Drawn(ApiKey),
    Brought(ApiKey),
}

impl Key {
    fn key(&self) -> &ApiKey {
        let (Self::Drawn(key) | Self::Brought(key)) = self;
        key
    }
}

/// An assignment with its key, for programs.
#[derive(Serialize)]
struct Assigned<'a> {
    #[serde(flatten)]
    assignment: AssignmentView,
    api_key: &'a str,
}

fn draw_key() -> Result<ApiKey, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::system("draw an API key", &error))?;
    Ok(ApiKey::from_random(bytes))
}

async fn read_key(path: &Path) -> Result<ApiKey, Failure> {
    let text = input::text(path, KEY_FILE_BYTES, "the API key").await?;
    ApiKey::new(text)
        .map_err(|error| Failure::new(exit::USAGE, format!("cannot take the API key: {}", report(&error))))
}

/// Prints what the asker does not have yet: the key, or with a key of his own the id.
async fn create(call: &Call<'_>, asked: &NewAssignment, key: Key) -> Result<u8, Failure> {
    let assignment: AssignmentView = call.change(op::ASSIGNMENTS_CREATE, asked).await?;
    if call.is_json() {
        return call.show(&Assigned { assignment, api_key: key.key().reveal() }).await;
    }
    let (id, machine) = (clean::line(&assignment.id), clean::line(assignment.machine_id.as_str()));
    match key {
        Key::Brought(_) => print(format!("{id}\n")).await,
        Key::Drawn(key) => {
            super::say(&format!("assignment {id} of machine {machine}; its key is not shown again"));
            print(format!("{}\n", key.reveal())).await
        }
    }
}

async fn update(call: &Call<'_>, asked: UpdateAssignment) -> Result<u8, Failure> {
    let view: AssignmentView = call.change(op::ASSIGNMENTS_UPDATE, &asked).await?;
    call.show(&view).await
}

/// Lists relays of the older system.
///
/// # Errors
/// [`Failure`].
pub async fn relays(config: &Config, args: Relays) -> Result<u8, Failure> {
    let call = Call::of(config, &args.listing, "list the relays");
    let online = args.wanted_online();
    let asked = ListRelays { capability: args.capability, online, ..ListRelays::default() };
    call.list::<_, RelayView>(op::RELAYS_LIST, asked, None).await
}

/// Does one thing with a relay of the older system.
///
/// # Errors
/// [`Failure`].
pub async fn relay(config: &Config, args: Relay) -> Result<u8, Failure> {
    let call = |what: String| Call::new(config, args.within.json, what);
    match args.action {
        RelayAction::Show(AssignmentId { id }) => {
            let call = call(format!("show relay {}", clean::line(&id)));
            let view: RelayView = call.ask(op::RELAYS_GET, &ById { id }).await?;
            call.show(&view).await
        }
        RelayAction::Report { id, file } => {
            let text = input::text(&file, limit::RECORD_BYTES, "the report").await?;
            let report = read_report(&text, &id)?;
            let call = call(format!("report for relay {}", clean::line(&id)));
            let reported: Reported = call.change(op::RELAYS_REPORT, &report).await?;
            call.show(&reported).await
        }
    }
}

/// A report as it was written, for one relay. What would not be kept of it is refused.
fn read_report(text: &str, id: &str) -> Result<Report, Failure> {
    let wrong =
        |why: &str| Failure::new(exit::USAGE, format!("cannot read the report: {}", clean::line(why)));
    let report: Report = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
    if !report.id.is_empty() && report.id != id {
        return Err(wrong("its `id` is another relay's; leave it out"));
    }
    Ok(Report { id: id.to_owned(), ..report })
}
