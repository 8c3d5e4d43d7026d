//! `labels.set`: what operators say machines are for.
//!
//! Each machine's record is an edition behind the newest one, as the leader has it: so of two bridges that label one machine at
//! once, each keeps what the other has set. Machines are independent of each other: what is refused for one is done for the
//! others, and the answer says which.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use signalbox_schemas::{
    api::{LABELLED, Labelled, LabelsSet, SetLabels},
    authors::Role,
    error::{ErrorCode, Problem},
    id::MachineToken,
    label::{LABELS, LabelMap},
    record::{MachineRecord, table},
    selector::Selector,
    stream::STATE,
};
use tokio::time::{Instant, timeout_at};

use super::{Api, Caller, locked};
use crate::view::Cursors;

const DOING: &str = "set labels";
/// Records that are changed at once: each change asks the broker four times.
const AT_ONCE: usize = 16;
/// Longest time for all of them: a client gives up after 5 s.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// Gives labels to machines, and takes them away.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid` for a request that says nothing, too much, or no machines; `no_targets` for a
/// selector that means none. What becomes of each machine stands in the answer.
pub async fn set(api: &Api, caller: &Caller, asked: SetLabels) -> Result<(LabelsSet, Cursors), Problem> {
    caller.require(Role::Admin, DOING)?;
    api.ready()?;
    check(&asked)?;
    let until = Instant::now() + PATIENCE;
    let named = machines(api, &asked).await?;
    if named.iter().any(|name| api.view().machine(name).is_none()) {
        // That there is no such machine must not depend on the bridge that was asked.
        api.read_through(STATE).await?;
    }
    let one = |name: String| one(api, caller, &asked, name, until);
    let done: Vec<(Labelled, Option<Cursors>)> =
        stream::iter(named).map(one).buffered(AT_ONCE).collect().await;
    let mut cursors = Cursors::default();
    for at in done.iter().filter_map(|(_, at)| at.as_ref()) {
        cursors.advance(at);
    }
    api.settle_write(&cursors).await;
    let machines = done.into_iter().map(|(labelled, _)| labelled).collect();
    Ok((LabelsSet { machines, cursor: cursors.to_string() }, cursors))
}

/// Refuses labels that are more than one source gives.
pub(super) fn check_count(doing: &str, labels: &LabelMap) -> Result<(), Problem> {
    if labels.len() <= LABELS {
        return Ok(());
    }
    Err(invalid(doing, &format!("{} labels are more than the {LABELS} of one machine", labels.len())))
}

fn check(asked: &SetLabels) -> Result<(), Problem> {
    check_count(DOING, &asked.set)?;
    let invalid = |why: String| Err(invalid(DOING, &why));
    if asked.set.is_empty() && asked.remove.is_empty() {
        return invalid("name a label in `set` or in `remove`".to_owned());
    }
    if asked.remove.len() > LABELS {
        return invalid(format!("`remove` names more than {LABELS}"));
    }
    if let Some(both) = asked.remove.iter().find(|key| asked.set.contains_key(*key)) {
        return invalid(format!("`{both}` is in `set` and in `remove`"));
    }
    match (&asked.on, asked.machines.len()) {
        (Some(_), 0) | (None, 1..=LABELLED) => Ok(()),
        (Some(_), _) => invalid("give either `on` or `machines`".to_owned()),
        (None, 0) => invalid("name the machines in `machines`, or a selector in `on`".to_owned()),
        (None, count) => invalid(format!("{count} machines are more than the {LABELLED} of one request")),
    }
}

fn invalid(doing: &str, why: &str) -> Problem {
    Problem::new(ErrorCode::Invalid, format!("cannot {doing}: {why}"))
}

/// The machines that are meant, each once, as they are named.
async fn machines(api: &Api, asked: &SetLabels) -> Result<Vec<String>, Problem> {
    let Some(on) = &asked.on else {
        let mut seen = BTreeSet::new();
        return Ok(asked.machines.iter().filter(|name| seen.insert(*name)).cloned().collect());
    };
    let selector = Selector::parse(on).map_err(|error| invalid(DOING, &format!("`on` is {error}")))?;
    let targets = api.meant(&selector, false).await?;
    match targets.len() {
        0 => Err(Problem::new(
            ErrorCode::NoTargets,
            format!("cannot {DOING}: `on` means no machine for certain"),
        )),
        1..=LABELLED => Ok(targets.into_iter().map(|target| target.token.to_string()).collect()),
        count => Err(invalid(
            DOING,
            &format!(
                "`on` means {count} machines, more than the {LABELLED} of one request; use narrower selectors"
            ),
        )),
    }
}

/// Changes one machine's labels, in the time that is left.
async fn one(
    api: &Api,
    caller: &Caller,
    asked: &SetLabels,
    name: String,
    until: Instant,
) -> (Labelled, Option<Cursors>) {
    let Some(machine) = api.view().machine(&name) else {
        let message = format!("there is no machine `{}`; list them to see their names", short(&name));
        return (Labelled::refused(short(&name), Problem::new(ErrorCode::NotFound, message)), None);
    };
    let refused = |problem| (Labelled::refused(machine.id.to_string(), problem), None);
    match timeout_at(until, write(api, caller, asked, &machine.token)).await {
        Ok(Ok((is_changed, at))) => (Labelled::done(&machine.id, is_changed), Some(at)),
        Ok(Err(problem)) => refused(problem),
        Err(_) => {
            let message = "the broker was too slow for all of them, and nothing is promised of this one; look, then try again";
            refused(Problem::new(ErrorCode::NotAccepted, message))
        }
    }
}

/// A name as it was sent may be anything.
fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// What was seen while a record was changed, perhaps in several tries.
#[derive(Default)]
struct Seen {
    /// The operator's labels as they stood at first: an own try whose acknowledgement was lost is a change, too.
    first: Option<LabelMap>,
    refused: Option<Problem>,
}

/// The next edition of a machine's record; whether it is another one.
async fn write(
    api: &Api,
    caller: &Caller,
    asked: &SetLabels,
    mid: &MachineToken,
) -> Result<(bool, Cursors), Problem> {
    let seen = Mutex::new(Seen::default());
    let edit = |stands: Option<MachineRecord>| {
        let mut record = stands?;
        let mut seen = locked(&seen);
        seen.first.get_or_insert_with(|| record.labels.operator.clone());
        let next = next(&record.labels.operator, asked);
        seen.refused = next.as_ref().err().cloned();
        record.labels.operator = next.ok()?;
        Some(record)
    };
    let edited = api.edit_unread(caller.principal(), DOING, table::MACHINES, mid.as_str(), edit).await;
    let (stands, at) = edited?;
    let Seen { first, refused } = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(problem) = refused {
        return Err(problem);
    }
    let Some(stands) = stands else {
        let message =
            format!("cannot {DOING}: its record is not in the stream; look whether it is still there");
        return Err(Problem::new(ErrorCode::NotFound, message));
    };
    Ok((first.as_ref() != Some(&stands.labels.operator), at))
}

/// An operator's labels with what is set and without what is removed.
fn next(stands: &LabelMap, asked: &SetLabels) -> Result<LabelMap, Problem> {
    let mut labels = stands.clone();
    for key in &asked.remove {
        labels.remove(key);
    }
    labels.extend(asked.set.iter().map(|(key, value)| (key.clone(), value.clone())));
    check_count(DOING, &labels)?;
    Ok(labels)
}
