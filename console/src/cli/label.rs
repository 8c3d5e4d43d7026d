//! `signalbox label`: what machines are for.

use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    api::{LabelOutcome, Labelled, LabelsSet, ListMachines, MachineView, SetLabels, Target, op},
    label::{Label as Said, LabelMap, LabelViews},
    selector::Selector,
};

use super::{
    call::{Call, Row},
    clean,
    exit::{self, Failure},
    say,
    table::Column,
};
use crate::{
    args::label::{Label, LabelAction, Pair},
    client::ClientError,
    config::Config,
};

/// Machines of one request: a bridge has to ask the broker some times for each, and must be done before nobody waits any more.
const AT_ONCE: usize = 250;

/// One label of a machine.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    machine: String,
    key: String,
    #[serde(flatten)]
    said: Said,
    #[serde(default)]
    overruled: Vec<Said>,
}

impl Row for Line {
    const COLUMNS: &'static [Column] =
        &[("MACHINE", 0), ("LABEL", 0), ("VALUE", 0), ("BY", 1), ("OVERRULES", 2)];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let overruled: Vec<String> = self.overruled.iter().map(said).collect();
        vec![
            clean::line(&self.machine),
            clean::line(&self.key),
            clean::line(self.said.value.as_str()),
            self.said.source.as_str().to_owned(),
            overruled.join(", "),
        ]
    }
}

impl Row for Labelled {
    const COLUMNS: &'static [Column] = &[("MACHINE", 0), ("LABELS", 0), ("WHY", 0)];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let why = self.problem.as_ref().map_or("", |problem| problem.message.as_str());
        vec![clean::line(&self.machine), self.outcome.as_str().to_owned(), clean::line(why)]
    }
}

fn said(label: &Said) -> String {
    format!("{} ({})", clean::line(label.value.as_str()), label.source.as_str())
}

/// The labels that count, in one line.
pub(super) fn words(labels: &LabelViews) -> String {
    let pair = |(key, view): (_, &signalbox_schemas::label::LabelView)| {
        format!("{}={}", key, clean::line(view.label.value.as_str()))
    };
    labels.iter().map(pair).collect::<Vec<_>>().join(" ")
}

/// The labels of a machine with who says them, and what they overrule.
pub(super) fn page(labels: &LabelViews) -> String {
    let one = |(key, view): (_, &signalbox_schemas::label::LabelView)| {
        let overruled: Vec<String> = view.overruled.iter().map(said).collect();
        let rest =
            if overruled.is_empty() { String::new() } else { format!(", not {}", overruled.join(", ")) };
        format!("{}={}{rest}", key, said(&view.label))
    };
    labels.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Refuses what is no selector, and says where.
pub(super) fn check(call: &Call<'_>, on: &str) -> Result<(), Failure> {
    Selector::parse(on).map(drop).map_err(|error| Failure::selector(call.what(), &error))
}

/// Labels as they were typed.
pub(super) fn map(pairs: Vec<Pair>) -> Result<LabelMap, Failure> {
    let mut labels = LabelMap::new();
    for Pair { key, value } in pairs {
        if let Some((key, _)) = labels.remove_entry(&key) {
            return Err(Failure::new(exit::USAGE, format!("the label {key} is given twice; give it once")));
        }
        labels.insert(key, value);
    }
    Ok(labels)
}

/// Does one thing with labels.
///
/// # Errors
/// [`Failure`].
pub async fn act(config: &Config, args: Label) -> Result<u8, Failure> {
    let call = |what: &str| Call::new(config, args.within.json, what);
    match args.action {
        LabelAction::Ls { on } => {
            let call = call("list the labels");
            check(&call, &on)?;
            list(&call, on).await
        }
        LabelAction::Set { on, labels } => {
            let call = call("set the labels");
            check(&call, &on)?;
            let asked = SetLabels { set: map(labels)?, ..SetLabels::default() };
            set(&call, &on, asked).await
        }
        LabelAction::Rm { on, mut keys } => {
            let call = call("remove the labels");
            check(&call, &on)?;
            keys.sort();
            keys.dedup();
            let asked = SetLabels { remove: keys, ..SetLabels::default() };
            set(&call, &on, asked).await
        }
    }
}

/// Whether an answer is about these machines, in their order.
fn are_of(told: &[Labelled], targets: &[Target]) -> bool {
    let is_of = |(one, target): (&Labelled, &Target)| {
        one.machine == target.id.as_str() || one.machine == target.token.as_str()
    };
    told.len() == targets.len() && told.iter().zip(targets).all(is_of)
}

async fn list(call: &Call<'_>, on: String) -> Result<u8, Failure> {
    let client = call.connect().await?;
    let asked = ListMachines { on: Some(on), ..ListMachines::default() };
    let machines: Vec<MachineView> =
        client.list_all(op::MACHINES_LIST, asked).await.map_err(|error| call.failed(&error))?;
    let lines: Vec<Line> = machines
        .into_iter()
        .flat_map(|machine| {
            let id = machine.id.to_string();
            machine.labels.into_iter().map(move |(key, view)| Line {
                machine: id.clone(),
                key: key.to_string(),
                said: view.label,
                overruled: view.overruled,
            })
        })
        .collect();
    call.table(&lines).await
}

/// Asks which machines are meant, checks that they can be, and names them: a bridge that resolved the selector again could label
/// others. So many at a time; what was done is printed, whatever becomes of the rest.
async fn set(call: &Call<'_>, on: &str, asked: SetLabels) -> Result<u8, Failure> {
    let client = call.connect().await?;
    let targets = client.meant(on, false).await.map_err(|error| call.failed(&error))?;
    let mut done: Vec<Labelled> = Vec::new();
    for part in targets.chunks(AT_ONCE) {
        let machines = part.iter().map(|target| target.token.to_string()).collect();
        let asked = SetLabels { machines, ..asked.clone() };
        match client.change::<_, LabelsSet>(op::LABELS_SET, &asked).await {
            Ok(set) if are_of(&set.machines, part) => done.extend(set.machines),
            told => {
                let why = || ClientError::NotAsMeant("it tells of other machines than were named".to_owned());
                let error = told.err().unwrap_or_else(why);
                call.table(&done).await?;
                return Err(Failure::change(call.what(), &error));
            }
        }
    }
    let refused = done.iter().filter(|one| one.outcome == LabelOutcome::Refused).count();
    if call.is_json() || refused > 0 {
        call.table(&done).await?;
    }
    if refused > 0 {
        let line = format!("cannot {} of {refused} of {} machines", call.what(), done.len());
        return Err(Failure::new(exit::NOT_ACCEPTED, line));
    }
    let changed = done.iter().filter(|one| one.outcome == LabelOutcome::Changed).count();
    say(&format!("{changed} of {} machines changed", done.len()));
    Ok(exit::OK)
}
