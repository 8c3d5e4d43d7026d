//! What a screen looks at of one machine: read while it is on it, and kept nowhere else.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    api::{
        AssignmentView, AuditView, ConfigPushView, CredentialView, EventView, ListAssignments,
        ListConfigPushes, ListCredentials, ListEvents, ListRuns, MOST_POINTS, MachineOver, MachineRunView,
        MachineSeries, Page, op,
    },
    id::MachineToken,
    run::RunState,
    selector::Selector,
};

use super::{
    Client, ClientError,
    list::{Paged, Pages},
    look::KeptView,
};

/// Runs that are read of a machine, the newest.
pub const RUNS: usize = 200;
/// Events that are read of it, the newest.
pub const EVENTS: usize = 500;
/// Entries of the audit chain, the newest, among which those that are about it are looked for.
pub const ENTRIES: usize = 1_000;
/// Assignments of a machine that are read, and pushes of each.
const ASSIGNMENTS: usize = 8;
const PUSHES: usize = 100;
/// Credentials of an assignment.
const HELD: usize = 1_000;
/// Pages of one list: a bridge goes through all commands for the few of one machine, some thousands for each page.
const PAGES: usize = 8;

/// What there is of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tab {
    /// Its newest runs.
    #[default]
    Commands,
    /// Runs that wait for it, in the order in which they will begin.
    Inbox,
    /// What it should be like, and what it is like.
    Config,
    /// What its relay keeps.
    Credentials,
    /// What it is. Known here already: nobody is asked.
    Facts,
    /// What happened to it.
    Events,
    /// Who did what with it.
    Audit,
}

impl Tab {
    /// All of them, from left to right.
    pub const ALL: [Self; 7] = [
        Self::Commands,
        Self::Inbox,
        Self::Config,
        Self::Credentials,
        Self::Facts,
        Self::Events,
        Self::Audit,
    ];
}

/// What was read of a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// Of [`Tab::Commands`], newest first; of [`Tab::Inbox`], in the order in which they will begin.
    Runs(Vec<MachineRunView>),
    /// Of [`Tab::Config`].
    Config(Box<Configured>),
    /// Of [`Tab::Credentials`].
    Kept(Vec<KeptView>),
    /// The same of a relay of the older system.
    Held(Vec<CredentialView>),
    /// Of [`Tab::Events`], newest first.
    Events(Vec<EventView>),
    /// Of [`Tab::Audit`], newest first.
    Audit(Vec<AuditView>),
    /// Of [`Tab::Facts`].
    Nothing,
}

/// What was read, and whether that is all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Looked {
    /// What was read.
    pub part: Part,
    /// More of it may be there: a bridge went through as many commands as it is asked to, and was not at the end.
    pub is_cut: bool,
}

/// How a machine should be configured, as far as anybody says so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Configured {
    /// Assignments of the machine: whose pushes go to it.
    pub assignments: Vec<AssignmentView>,
    /// What was pushed to them, newest first.
    pub pushes: Vec<ConfigPushView>,
    /// Commands that changed what its relay keeps, newest first.
    pub changes: Vec<MachineRunView>,
}

/// A stretch of time, Unix ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its beginning.
    pub from: u64,
    /// Its end, above `from`.
    pub to: u64,
    /// Most points, at least 1.
    pub points: u32,
}

impl Client {
    /// Reads what there is of a machine.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn look_at(&self, machine: &MachineToken, tab: Tab) -> Result<Looked, ClientError> {
        let mut look = Look { client: self, machine, is_cut: false };
        let part = look.at(tab).await?;
        Ok(Looked { part, is_cut: look.is_cut })
    }

    /// The figures of a machine over time.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`ClientError::NotAsMeant`] for those of another machine, or more than were asked for.
    pub async fn figures(&self, machine: &MachineToken, time: Span) -> Result<MachineSeries, ClientError> {
        let points = time.points.clamp(1, MOST_POINTS);
        let asked = MachineOver {
            machine: machine.to_string(),
            from: time.from,
            to: time.to.max(time.from + 1),
            points: Some(points),
        };
        let series: MachineSeries = self.ask(op::HISTORY_MACHINE, &asked).await?;
        let is_meant = series.token == *machine && series.points.len() <= points as usize;
        if is_meant { Ok(series) } else { Err(other_machine()) }
    }
}

/// One look at a machine: some questions, each with pages.
struct Look<'a> {
    client: &'a Client,
    machine: &'a MachineToken,
    /// A list was not read to its end, nor to where it is not shown any more.
    is_cut: bool,
}

impl Look<'_> {
    async fn at(&mut self, tab: Tab) -> Result<Part, ClientError> {
        Ok(match tab {
            Tab::Commands => Part::Runs(self.runs_of(None).await?),
            Tab::Inbox => {
                // They come newest first, and the oldest begins first; what is held begins when it is let go.
                let mut waiting = self.runs_of(Some(RunState::Pending)).await?;
                waiting.reverse();
                let held = self.runs_of(Some(RunState::Held)).await?;
                waiting.extend(held.into_iter().rev());
                Part::Runs(waiting)
            }
            Tab::Config => Part::Config(Box::new(self.configured().await?)),
            Tab::Credentials => {
                let kept = self.client.kept(Selector::of_machine(self.machine.as_str())).await?;
                // A relay of the older system signs nothing: what it holds is told with its assignment.
                if kept.is_empty() { Part::Held(self.held_by().await?) } else { Part::Kept(kept) }
            }
            Tab::Facts => Part::Nothing,
            Tab::Events => {
                let asked = ListEvents { machine: Some(self.machine.to_string()), ..ListEvents::default() };
                let events: Vec<EventView> = self.newest(op::EVENTS_LIST, asked, EVENTS).await?;
                let is_meant = events.iter().all(|view| view.event.machine.as_ref() == Some(self.machine));
                if !is_meant {
                    return Err(other_machine());
                }
                Part::Events(events)
            }
            Tab::Audit => Part::Audit(self.audit_of().await?),
        })
    }

    async fn runs_of(&mut self, state: Option<RunState>) -> Result<Vec<MachineRunView>, ClientError> {
        let asked = ListRuns { machine_id: Some(self.machine.to_string()), state, ..ListRuns::default() };
        let runs: Vec<MachineRunView> = self.newest(op::RUNS_LIST, asked, RUNS).await?;
        let is_meant = runs.iter().all(|run| run.run.machine.token() == *self.machine);
        if is_meant { Ok(runs) } else { Err(other_machine()) }
    }

    async fn held_by(&mut self) -> Result<Vec<CredentialView>, ClientError> {
        let mut held: Vec<CredentialView> = Vec::new();
        for assignment in self.assignments_of().await? {
            let asked = ListCredentials { assignment_id: Some(assignment.id), ..ListCredentials::default() };
            held.extend(self.newest::<_, CredentialView>(op::CREDENTIALS_LIST, asked, HELD).await?);
        }
        let is_meant = held.iter().all(|view| view.machine_id.token() == *self.machine);
        if is_meant { Ok(held) } else { Err(other_machine()) }
    }

    async fn assignments_of(&mut self) -> Result<Vec<AssignmentView>, ClientError> {
        let asked =
            ListAssignments { machine_id: Some(self.machine.to_string()), ..ListAssignments::default() };
        self.newest(op::ASSIGNMENTS_LIST, asked, ASSIGNMENTS).await
    }

    async fn configured(&mut self) -> Result<Configured, ClientError> {
        let assignments = self.assignments_of().await?;
        let mut pushes = Vec::new();
        for assignment in &assignments {
            let assignment_id = Some(assignment.id.clone());
            let asked = ListConfigPushes { assignment_id, ..ListConfigPushes::default() };
            pushes.extend(self.newest::<_, ConfigPushView>(op::PUSHES_LIST, asked, PUSHES).await?);
        }
        let mut changes = self.runs_of(None).await?;
        changes.retain(|run| run.command.changes);
        Ok(Configured { assignments, pushes, changes })
    }

    /// Entries about the machine, or about a command that it had: the chain itself knows machines only where a record of
    /// one was written, so that they are looked for here, among the newest.
    async fn audit_of(&mut self) -> Result<Vec<AuditView>, ClientError> {
        let runs = self.runs_of(None).await?;
        let commands: std::collections::HashSet<String> =
            runs.iter().map(|run| run.command.id.to_string()).collect();
        let id = runs.first().map(|run| run.run.machine.as_str());
        let machine = self.machine.as_str();
        let is_of_it = |about: &str| about == machine || Some(about) == id || commands.contains(about);
        let mut entries: Vec<AuditView> = self.newest(op::AUDIT_LIST, Page::default(), ENTRIES).await?;
        entries.retain(|view| view.entry.as_ref().is_some_and(|entry| is_of_it(&entry.about)));
        Ok(entries)
    }

    /// The first `most` items of a list, out of [`PAGES`] pages.
    async fn newest<A: Paged, R: DeserializeOwned>(
        &mut self,
        op: &'static str,
        args: A,
        most: usize,
    ) -> Result<Vec<R>, ClientError> {
        let mut pages = Pages::new(op, args);
        let mut items: Vec<R> = Vec::new();
        for _ in 0..PAGES {
            if items.len() >= most || pages.is_over() {
                break;
            }
            items.extend(pages.next(self.client, most - items.len()).await?);
        }
        self.is_cut |= items.len() < most && !pages.is_over();
        items.truncate(most);
        Ok(items)
    }
}

fn other_machine() -> ClientError {
    ClientError::NotAsMeant("it tells of another machine".to_owned())
}
