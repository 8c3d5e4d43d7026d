//! The machines as they were at an earlier moment.
//!
//! Moments are whole minutes, as the history has them. What was told of some is kept, so that going to and fro asks
//! nobody. One question is under way at a time; the moment that is wanted when its answer comes is asked for next.

use std::collections::{HashSet, VecDeque};

use signalbox_schemas::{
    api::{FleetThen, Kept, MachineView, MomentView},
    heartbeat::{Disk, Metrics},
    id::{MachineId, MachineToken},
};

use super::{Now, fleet::Fleet};
use crate::client::Stretch;

/// Moments that are kept.
pub const MOMENTS: usize = 16;
/// Machines of all of them together: some 40 MB.
const MACHINES: usize = 200_000;
/// Between two moments, ms.
pub const STEP_MS: u64 = 60_000;

/// The machines at one moment, as they were told.
#[derive(Debug)]
struct Moment {
    /// What was asked for, Unix ms.
    asked: u64,
    then: FleetThen,
}

/// What is shown.
#[derive(Debug)]
struct Shown {
    /// The moment that was asked for, Unix ms.
    asked: u64,
    /// When they really were so, Unix ms.
    at: u64,
    fleet: Fleet,
    /// How many machines are there now, and nothing is known of then.
    unknown: usize,
}

/// Looking back.
#[derive(Debug, Default)]
pub struct Past {
    /// The moment that is wanted, Unix ms; `None`: now.
    wanted: Option<u64>,
    /// The one that was asked for and is not answered.
    asked: Option<u64>,
    shown: Option<Box<Shown>>,
    /// The newest last.
    moments: VecDeque<Moment>,
    kept: Option<Kept>,
    /// The wanted one is the first that there is said to be, in place of an earlier one.
    is_first: bool,
    /// Why the wanted one is not shown; clean.
    problem: Option<String>,
}

impl Past {
    /// Whether an earlier moment is looked at, or waited for.
    pub fn is_looked_at(&self) -> bool {
        self.wanted.is_some()
    }

    /// The machines as they were, where they are shown.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.shown.as_ref().map(|shown| &shown.fleet)
    }

    /// The same, to be changed.
    pub fn fleet_mut(&mut self) -> Option<&mut Fleet> {
        self.shown.as_mut().map(|shown| &mut shown.fleet)
    }

    /// When the machines that are shown were so, Unix ms.
    pub fn shown_at(&self) -> Option<u64> {
        self.shown.as_ref().map(|shown| shown.at)
    }

    /// The moment that is wanted, Unix ms.
    pub fn wanted(&self) -> Option<u64> {
        self.wanted
    }

    /// Whether the wanted moment is not shown yet.
    pub fn is_awaited(&self) -> bool {
        self.wanted.is_some() && self.wanted != self.shown.as_ref().map(|shown| shown.asked)
    }

    /// Of how many machines nothing is known then.
    pub fn unknown(&self) -> usize {
        self.shown.as_ref().map_or(0, |shown| shown.unknown)
    }

    /// From when to when the history goes, as far as it was told.
    pub fn kept(&self) -> Option<Kept> {
        self.kept
    }

    /// Why the wanted moment is not shown.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Wants a moment, Unix ms, no earlier than the history goes. Answers whether that was too early.
    pub fn want(&mut self, at: u64) -> bool {
        let begins = self.kept.and_then(|kept| kept.earliest.checked_next_multiple_of(STEP_MS));
        let earliest = begins.unwrap_or(0);
        let at = at - at % STEP_MS;
        self.wanted = Some(at.max(earliest));
        self.problem = None;
        self.is_first = at < earliest;
        self.is_first
    }

    /// Whether the wanted moment is the first that the history is said to have.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// The wanted moment is to be asked for now; `None`: it is here, or something else is asked for still.
    pub fn to_ask(&mut self) -> Option<u64> {
        let wanted = self.wanted.filter(|_| self.asked.is_none() && self.problem.is_none())?;
        if self.moments.iter().any(|moment| moment.asked == wanted) {
            return None;
        }
        self.asked = Some(wanted);
        Some(wanted)
    }

    /// Takes an answer: keeps it, within bounds.
    pub fn tell(&mut self, asked: u64, then: FleetThen) {
        self.asked = None;
        self.kept = then.kept.or(self.kept);
        self.moments.retain(|moment| moment.asked != asked);
        self.moments.push_back(Moment { asked, then });
        let machines = |moments: &VecDeque<Moment>| -> usize {
            moments.iter().map(|moment| moment.then.listed.items.len()).sum()
        };
        while self.moments.len() > MOMENTS || (self.moments.len() > 1 && machines(&self.moments) > MACHINES) {
            self.moments.pop_front();
        }
    }

    /// Takes that a moment was not told.
    pub fn fail(&mut self, asked: u64, why: String) {
        self.asked = None;
        if self.wanted == Some(asked) {
            self.problem = Some(why);
        }
    }

    /// Takes that a question did not leave.
    pub fn unsent(&mut self, asked: u64, why: &str) {
        self.fail(asked, why.to_owned());
    }

    /// Shows the wanted moment, where it is here, looked at as the machines were until now. `false`: it is not.
    pub fn show(&mut self, now: &Fleet) -> bool {
        let Some(wanted) = self.wanted else { return false };
        if self.shown.as_ref().is_some_and(|shown| shown.asked == wanted) {
            return true;
        }
        let Some(place) = self.moments.iter().position(|moment| moment.asked == wanted) else { return false };
        let shown = self.moments.get(place).and_then(|moment| {
            let looked_at = self.fleet().unwrap_or(now);
            shown(moment, looked_at, now)
        });
        let is_shown = shown.is_some();
        if is_shown {
            self.shown = shown.map(Box::new);
        }
        is_shown
    }

    /// Back to now: answers the machines as they were looked at last.
    pub fn leave(&mut self) -> Option<Fleet> {
        (self.wanted, self.problem) = (None, None);
        self.shown.take().map(|shown| shown.fleet)
    }
}

/// `None`: the history had not begun.
fn shown(moment: &Moment, looked_at: &Fleet, now: &Fleet) -> Option<Shown> {
    let at = moment.then.at?;
    let told = moment.then.listed.items.iter().filter(|view| view.id.token() == view.token);
    let mut views: Vec<MachineView> = told.map(view).collect();
    let known: HashSet<MachineToken> = views.iter().map(|view| view.token.clone()).collect();
    let others = now.all().filter(|machine| !known.contains(&machine.token));
    let others: Vec<MachineView> = others.map(|machine| unheard(&machine.id)).collect();
    let unknown: Vec<MachineToken> = others.iter().map(|view| view.token.clone()).collect();
    views.extend(others);
    views.sort_by(|a, b| a.token.cmp(&b.token));
    let mut fleet = Fleet::default();
    fleet.replace(Stretch::whole(views), false, Now { ms: at, wall_ms: at });
    fleet.set_unknown(&unknown);
    fleet.see_as(looked_at, at);
    Some(Shown { asked: moment.asked, at, fleet, unknown: unknown.len() })
}

fn unheard(id: &MachineId) -> MachineView {
    MachineView {
        id: id.clone(),
        token: id.token(),
        state: signalbox_schemas::api::Liveness::Offline,
        last_seen_at: None,
        running: 0,
        pending: 0,
        relay: None,
        facts: None,
        metrics: None,
        labels: signalbox_schemas::label::LabelViews::new(),
        // What it was for then nobody wrote down.
        labels_unheard: true,
    }
}

/// A machine as it was. The history has percents only: they are of a whole of a hundred here.
fn view(moment: &MomentView) -> MachineView {
    let figures = &moment.figures;
    let (cpu, memory, disk, load) =
        (figures.cpu_percent, figures.memory_percent, figures.disk_percent, figures.load_tenths);
    let is_measured = cpu.is_some() || memory.is_some() || disk.is_some() || load.is_some();
    let metrics = is_measured.then(|| Metrics {
        cpu_percent: cpu.map_or(f32::NAN, f32::from),
        memory_used_bytes: u64::from(memory.unwrap_or(0)),
        memory_total_bytes: if memory.is_some() { 100 } else { 0 },
        load: [load.map_or(f64::NAN, |load| f64::from(load) / 10.0), f64::NAN, f64::NAN],
        disks: disk
            .map(|disk| Disk { mount: String::new(), used_bytes: u64::from(disk), total_bytes: 100 })
            .into_iter()
            .collect(),
        ..Metrics::default()
    });
    MachineView {
        id: moment.id.clone(),
        token: moment.token.clone(),
        state: moment.state,
        last_seen_at: moment.last_seen_at,
        running: figures.running,
        pending: figures.pending,
        relay: moment.relay.clone(),
        facts: None,
        metrics,
        labels: signalbox_schemas::label::LabelViews::new(),
        labels_unheard: true,
    }
}
