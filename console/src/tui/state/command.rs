//! One command as it is shown: its runs and their output.

use std::collections::{HashMap, HashSet};

use signalbox_schemas::{
    api::{CommandSummary, Counts, RolloutView, RunView},
    command::{SshTarget, Target},
    id::{CommandId, MachineId, Sha256},
    limit,
    output::OutputStream,
    rollout::RolloutState,
    run::RunState,
    selector::{Selector, natural_order},
};

use super::{
    folds::{Fold, Folds, Print},
    scrollback::{Line, Scrollback},
};
use crate::{
    client::{digest::Digest, session::LARGE_BYTES},
    tui::text::{self, Lines, paint::Painted},
};

/// Output that is kept of one run, bytes: what a person may scroll through.
pub const RUN_OUTPUT_BYTES: usize = 2 * 1024 * 1024;
/// Output that is kept of all runs of a command in the order in which it came, bytes.
pub const MERGED_OUTPUT_BYTES: usize = 8 * 1024 * 1024;

/// Nobody says how long a command will take before it has taken so long, ms.
const SPENT_MS: u64 = 3_000;

/// What a run weighs beside its output, bytes.
const RUN_BYTES: usize = 1024;

/// One stream of a run.
#[derive(Debug, Clone, Default)]
struct Flow {
    lines: Lines,
    /// Offset of the byte that comes next.
    offset: u64,
    /// Number of the line that has begun and not ended.
    open: Option<u64>,
    /// What was told of it so far.
    digest: Digest,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Run {
    /// The machine.
    pub machine: MachineId,
    /// What the machine is called, clean.
    pub name: String,
    /// Its state.
    pub state: RunState,
    /// How it ended, in words: `exit 1`, `SIGKILL`, `keeper_gone`; empty before it did.
    pub outcome: String,
    /// Why, for people; empty when there is nothing to say.
    pub message: String,
    /// How long it ran, ms.
    pub duration_ms: Option<u64>,
    /// Whether something of it may still be alive although it ended.
    pub is_left_behind: bool,
    /// Whether the machine left out output.
    pub is_truncated: bool,
    /// Bytes of its streams as a bridge tells them: stdout, stderr. 0 before it has ended.
    pub sizes: [u64; 2],
    /// Its output.
    pub lines: Scrollback,
    stdout: Flow,
    stderr: Flow,
    /// What its machine says of all its bytes; `None` before it has ended.
    claim: Option<Sha256>,
    /// It was said that its output is not here.
    is_absence_said: bool,
}

impl Run {
    fn new(machine: MachineId, state: RunState) -> Self {
        Self {
            name: text::line(machine.as_str()),
            machine,
            state,
            outcome: String::new(),
            message: String::new(),
            duration_ms: None,
            is_left_behind: false,
            is_truncated: false,
            sizes: [0, 0],
            lines: Scrollback::new(RUN_OUTPUT_BYTES),
            stdout: Flow::default(),
            stderr: Flow::default(),
            claim: None,
            is_absence_said: false,
        }
    }

    fn refresh(&mut self, view: &RunView) {
        self.state = view.state;
        self.outcome = match (&view.signal, view.exit_code, &view.error) {
            (Some(signal), _, _) => text::line(signal),
            (None, Some(code), _) => format!("exit {code}"),
            (None, None, Some(error)) => text::line(&error.code),
            (None, None, None) => String::new(),
        };
        self.message = view.error.as_ref().map(|error| text::line(&error.message)).unwrap_or_default();
        self.duration_ms = view.duration_ms;
        self.is_left_behind = view.group_dead == Some(false);
        self.is_truncated = view.stdout.truncated || view.stderr.truncated;
        self.sizes = [view.stdout.bytes, view.stderr.bytes];
        let hashes = view.stdout.sha256.as_deref().zip(view.stderr.sha256.as_deref());
        self.claim = hashes.map(|(stdout, stderr)| Sha256::of(format!("{stdout}\n{stderr}").as_bytes()));
    }

    /// Bytes of its output that were received here, or are known to be there.
    pub fn output_bytes(&self) -> u64 {
        self.received_bytes().max(self.told_bytes())
    }

    fn received_bytes(&self) -> u64 {
        self.stdout.offset.saturating_add(self.stderr.offset)
    }

    fn told_bytes(&self) -> u64 {
        let [stdout, stderr] = self.sizes;
        stdout.saturating_add(stderr)
    }

    /// Bytes of its output that are not told with it: it has ended and wrote so much that they are read in ranges.
    pub fn absent_bytes(&self) -> u64 {
        let (received, told) = (self.received_bytes(), self.told_bytes());
        // What its machine cut is nowhere.
        let is_absent = self.claim.is_some() && told > LARGE_BYTES && (received == 0 || !self.is_truncated);
        if is_absent { told.saturating_sub(received) } else { 0 }
    }

    /// What its output comes to.
    fn print(&self) -> Print {
        if let Some(claim) = self.claim.filter(|_| self.absent_bytes() > 0) {
            return Print::Claimed(claim);
        }
        let [out, err] = [&self.stdout, &self.stderr].map(|flow| flow.digest.get());
        Print::Told(Sha256::of(&[out, err, [u8::from(self.is_truncated); 32]].concat()))
    }

    fn flow(&mut self, stream: OutputStream) -> &mut Flow {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// What of its output is not here although it was received, bytes.
    pub fn dropped_bytes(&self) -> u64 {
        self.lines.dropped_bytes()
    }

    /// What needs a look comes first, what is done well comes last.
    fn rank(&self) -> u8 {
        match self.state {
            RunState::Failed | RunState::Timeout | RunState::Lost | RunState::Rejected => 0,
            RunState::Claimed | RunState::Executing => 1,
            RunState::Held | RunState::Pending => 2,
            RunState::Expired | RunState::Cancelled => 3,
            RunState::Completed => 4,
        }
    }
}

/// One command.
#[expect(clippy::struct_excessive_bools, reason = "four facts that have nothing to do with each other")]
#[derive(Debug, Clone)]
pub struct Command {
    /// Its id.
    pub id: CommandId,
    /// Its text, clean.
    pub text: String,
    /// Its text as it was sent, to run it again.
    pub source: String,
    /// The selector as it was written, clean.
    pub on: String,
    /// Where it runs, clean.
    pub place: String,
    /// The host behind its machines that runs it; `None`: they themselves.
    pub ssh: Option<SshTarget>,
    /// Whether it changes what relays keep, and has no text for a shell.
    pub changes: bool,
    /// The selector, for guessing whom it concerns before its runs are known.
    selector: Option<Selector>,
    /// Who asked, clean.
    pub by: String,
    /// When it was made, Unix ms.
    pub created_at: u64,
    /// It does not start from this moment on, Unix ms.
    pub expires_at: u64,
    /// How long it may run, ms.
    pub timeout_ms: u64,
    /// How far it has spread; `None`: it went to all at once.
    pub rollout: Option<Box<RolloutView>>,
    /// The command whose runs it tried once more.
    pub retry_of: Option<CommandId>,
    /// Runs by state, as the bridge counts them.
    counts: Counts,
    /// Whether every run has settled and all output was told.
    pub is_complete: bool,
    /// Whether the session tells of its runs.
    pub is_watched: bool,
    /// Whether no bridge tells of its runs although they are watched.
    pub is_stale: bool,
    /// When it was last looked at: the order in which output is forgotten.
    pub looked_at: u64,
    runs: Vec<Run>,
    /// Those runs by state.
    told: Counts,
    /// Places in `runs` by the names of their machines.
    by_name: Vec<usize>,
    /// Its machines, where they are known for sure: those that were signed for here.
    targets: Option<HashSet<MachineId>>,
    by_machine: HashMap<MachineId, usize>,
    /// Places in `runs`, in the order in which they are shown.
    order: Vec<usize>,
    /// Its runs, folded.
    pub folds: Folds,
    /// Runs have come or changed since `order` was made.
    is_stirred: bool,
    /// Output of all runs in the order in which it came.
    pub merged: Scrollback,
    next_line: u64,
    /// When output was told last, Unix ms.
    told_ms: u64,
}

/// One run is in another state.
fn count(told: &mut Counts, from: RunState, to: RunState) {
    if let Some(n) = told.get_mut(&from) {
        *n = n.saturating_sub(1);
        if *n == 0 {
            told.remove(&from);
        }
    }
    *told.entry(to).or_default() += 1;
}

impl Command {
    /// A command of which no run is known.
    pub fn new(summary: CommandSummary) -> Self {
        let mut command = Self {
            id: summary.id,
            text: text::line(&summary.command),
            place: text::line(&summary.place()),
            ssh: summary.target.clone().map(|Target::Ssh(ssh)| ssh),
            changes: summary.changes,
            on: text::line(&summary.on),
            selector: Selector::parse(&summary.on).ok(),
            by: text::line(&summary.by),
            created_at: summary.created_at,
            expires_at: summary.expires_at,
            timeout_ms: summary.timeout_ms,
            rollout: None,
            retry_of: summary.retry_of,
            source: String::new(),
            counts: Counts::new(),
            is_complete: false,
            is_watched: false,
            is_stale: false,
            looked_at: 0,
            runs: Vec::new(),
            told: Counts::new(),
            by_name: Vec::new(),
            targets: None,
            by_machine: HashMap::new(),
            order: Vec::new(),
            folds: Folds::default(),
            is_stirred: false,
            merged: Scrollback::new(MERGED_OUTPUT_BYTES),
            next_line: 0,
            told_ms: 0,
        };
        command.refresh(summary);
        command
    }

    /// Takes what a line about it says.
    pub fn refresh(&mut self, summary: CommandSummary) {
        // A lost run may yet end: what was complete is told again when it is looked at again.
        if !self.is_watched && summary.counts != self.counts {
            self.is_complete = false;
        }
        self.counts = summary.counts;
        self.source = summary.command;
        self.rollout = summary.rollout;
    }

    /// Its machines are these and no others.
    pub fn bind(&mut self, targets: &[MachineId]) {
        self.targets = Some(targets.iter().cloned().collect());
    }

    /// Its runs, in the order in which they are shown.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.order.iter().filter_map(|at| self.runs.get(*at))
    }

    /// The run at a place as lines name it.
    pub fn run_at(&self, at: usize) -> Option<&Run> {
        self.runs.get(at)
    }

    /// The run on a machine.
    pub fn run_on(&self, machine: &MachineId) -> Option<&Run> {
        self.by_machine.get(machine).and_then(|at| self.runs.get(*at))
    }

    /// Whether it is meant for a machine, as far as is known.
    pub fn concerns(&self, id: &MachineId) -> bool {
        if self.by_machine.is_empty() {
            return self.selector.as_ref().is_some_and(|selector| selector.matches(id, &id.token()));
        }
        self.by_machine.contains_key(id)
    }

    /// Runs by state: from the runs themselves while all of them are told, as they are newer.
    pub fn counts(&self) -> Counts {
        let told: u32 = self.counts.values().sum();
        if !self.is_watched || self.runs.is_empty() || self.runs.len() < told as usize {
            return self.counts.clone();
        }
        self.told.clone()
    }

    /// Runs that have settled, and all.
    pub fn progress(&self) -> (u32, u32) {
        let counts = self.counts();
        let settled = counts.iter().filter(|(state, _)| state.is_settled()).map(|(_, n)| n).sum();
        (settled, counts.values().sum())
    }

    /// Machines that were not let go yet.
    pub fn held(&self) -> u32 {
        self.counts().get(&RunState::Held).copied().unwrap_or(0)
    }

    /// How long it will take until all has ended, ms, if it goes on as it did; `None`: too little has ended, or it does not go on.
    pub fn left_ms(&self, wall_ms: u64) -> Option<u64> {
        let (settled, all) = self.progress();
        let is_going = self.rollout.as_ref().is_none_or(|rollout| rollout.state == RolloutState::Going);
        let spent_ms = wall_ms.saturating_sub(self.created_at);
        if !is_going || settled == 0 || settled == all || spent_ms < SPENT_MS {
            return None;
        }
        Some(spent_ms.saturating_mul(u64::from(all - settled)) / u64::from(settled))
    }

    /// Whether nothing about it is told any more that is not here.
    pub fn is_final(&self) -> bool {
        self.is_complete && self.runs.iter().all(|run| run.state != RunState::Lost)
    }

    /// Whether something of it may still change.
    pub fn is_open(&self) -> bool {
        let (settled, all) = self.progress();
        settled < all || all == 0
    }

    /// Whether every run has settled, as a bridge counts them: also before their output was told.
    pub fn has_ended(&self) -> bool {
        !self.counts.is_empty() && self.counts.keys().all(|state| state.is_settled())
    }

    /// One state for all: what is unsettled first, then the worst.
    pub fn state(&self) -> RunState {
        const WORST_FIRST: [RunState; 11] = [
            RunState::Executing,
            RunState::Claimed,
            RunState::Pending,
            RunState::Held,
            RunState::Lost,
            RunState::Failed,
            RunState::Timeout,
            RunState::Rejected,
            RunState::Expired,
            RunState::Cancelled,
            RunState::Completed,
        ];
        let counts = self.counts();
        WORST_FIRST.into_iter().find(|state| counts.contains_key(state)).unwrap_or(RunState::Pending)
    }

    /// Takes a run as it is now.
    pub fn tell_run(&mut self, view: &RunView) {
        self.is_stale = false;
        let Some(at) = self.place(&view.machine, view.state) else { return };
        if let Some(run) = self.runs.get_mut(at) {
            count(&mut self.told, run.state, view.state);
            run.refresh(view);
            if run.state.is_settled() {
                self.end_lines(at);
                self.say_absence(at);
            }
        }
        self.fold(at);
        self.is_stirred = true;
    }

    /// Takes output. Bytes that are here already are left out; a jump is said.
    pub fn tell_output(
        &mut self,
        machine: &MachineId,
        stream: OutputStream,
        offset: u64,
        data: &[u8],
        wall_ms: u64,
    ) {
        self.is_stale = false;
        self.told_ms = wall_ms;
        let Some(at) = self.place(machine, RunState::Executing) else { return };
        let Some(flow) = self.runs.get_mut(at).map(|run| run.flow(stream)) else { return };
        let known = usize::try_from(flow.offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(new) = data.get(known..).filter(|new| !new.is_empty()) else { return };
        let missing = offset.saturating_sub(flow.offset);
        flow.digest.take(offset, data);
        flow.offset = offset + data.len() as u64;
        if missing > 0 {
            self.end_line(at, stream);
            self.say(at, &format!("-- {} left out --", crate::tui::view::amount::bytes(missing)));
        }
        self.put(at, stream, new);
    }

    fn put(&mut self, at: usize, stream: OutputStream, data: &[u8]) {
        let Some(flow) = self.runs.get_mut(at).map(|run| run.flow(stream)) else { return };
        let mut lines = std::mem::take(&mut flow.lines);
        let mut open = flow.open.take();
        lines.push(data, |painted| {
            let number = open.take().unwrap_or_else(|| self.number());
            self.keep(Line::new(number, at, Some(stream), painted).received(self.told_ms));
        });
        // A line is shown before it has ended: who prints a question and waits is to be seen asking.
        if !lines.open().text.is_empty() {
            let number = open.take().unwrap_or_else(|| self.number());
            let line = Line::new(number, at, Some(stream), lines.open().clone());
            self.keep(line.received(self.told_ms));
            open = Some(number);
        }
        if let Some(flow) = self.runs.get_mut(at).map(|run| run.flow(stream)) {
            flow.lines = lines;
            flow.open = open;
        }
    }

    /// Ends the open lines of a run that has ended.
    fn end_lines(&mut self, at: usize) {
        for stream in OutputStream::ALL {
            self.end_line(at, stream);
        }
    }

    fn end_line(&mut self, at: usize, stream: OutputStream) {
        let Some(flow) = self.runs.get_mut(at).map(|run| run.flow(stream)) else { return };
        let painted = flow.lines.finish();
        let open = flow.open.take();
        if !painted.text.is_empty() {
            let number = open.unwrap_or_else(|| self.number());
            self.keep(Line::new(number, at, Some(stream), painted).received(self.told_ms));
        }
    }

    /// Says once that output of a run is not here.
    fn say_absence(&mut self, at: usize) {
        let Some(run) = self.runs.get_mut(at) else { return };
        let bytes = run.absent_bytes();
        if bytes > 0 && !std::mem::replace(&mut run.is_absence_said, true) {
            let bytes = crate::tui::view::amount::bytes(bytes);
            self.say(
                at,
                &format!("-- {bytes}, read when this output is opened; compared by the machine's word --"),
            );
        }
    }

    fn say(&mut self, at: usize, text: &str) {
        let number = self.number();
        let painted = Painted { text: text.to_owned(), strokes: Vec::new() };
        self.keep(Line::new(number, at, None, painted));
    }

    fn number(&mut self) -> u64 {
        self.next_line += 1;
        self.next_line
    }

    fn keep(&mut self, line: Line) {
        if let Some(run) = self.runs.get_mut(line.run) {
            run.lines.put(line.clone());
        }
        self.merged.put(line);
    }

    /// Puts a run into the group that it belongs to now.
    fn fold(&mut self, at: usize) {
        let Some(run) = self.runs.get(at) else { return };
        let output = run.state.is_settled().then(|| run.print());
        self.folds.put(at, Fold { state: run.state, outcome: run.outcome.clone(), output });
    }

    /// Machines of the runs of a group, in the order of their names.
    pub fn machines_of(&self, fold: &Fold) -> Vec<MachineId> {
        // Runs of one group have one rank: they are in the order of their names already.
        let places = self.order.iter().filter(|at| self.folds.has(fold, **at));
        places.filter_map(|at| self.runs.get(*at)).map(|run| run.machine.clone()).collect()
    }

    /// A run of a group: its output is that of all of them.
    pub fn run_of(&self, fold: &Fold) -> Option<&Run> {
        self.folds.places(fold).next().and_then(|at| self.runs.get(at))
    }

    /// The place of a machine's run; a run that was not known is added. `None`: the command has no such run, and a
    /// bridge that tells of it makes it up.
    fn place(&mut self, machine: &MachineId, state: RunState) -> Option<usize> {
        if let Some(at) = self.by_machine.get(machine) {
            return Some(*at);
        }
        let at = self.runs.len();
        if at >= limit::TARGETS || self.targets.as_ref().is_some_and(|targets| !targets.contains(machine)) {
            return None;
        }
        self.runs.push(Run::new(machine.clone(), state));
        *self.told.entry(state).or_default() += 1;
        self.by_machine.insert(machine.clone(), at);
        self.fold(at);
        self.is_stirred = true;
        Some(at)
    }

    /// Puts runs in order and names their groups. Cost: n log n when something changed, else a look at each group.
    pub fn settle(&mut self, now_ms: u64) {
        if std::mem::take(&mut self.is_stirred) {
            self.sort();
        }
        let runs = &self.runs;
        self.folds.settle(now_ms, |at| runs.get(at).map_or("", |run| run.name.as_str()));
    }

    fn sort(&mut self) {
        let runs = &self.runs;
        // Names stay; that runs end is most of what happens.
        if self.by_name.len() != runs.len() {
            let mut named: Vec<(&str, usize)> =
                runs.iter().enumerate().map(|(at, run)| (run.name.as_str(), at)).collect();
            named.sort_by(|(a, _), (b, _)| natural_order(a, b));
            self.by_name = named.into_iter().map(|(_, at)| at).collect();
        }
        self.order.clone_from(&self.by_name);
        self.order.sort_by_key(|at| runs.get(*at).map_or(0, Run::rank));
    }

    /// Bytes of output that are kept.
    pub fn output_bytes(&self) -> usize {
        self.merged.bytes() + self.runs.iter().map(|run| run.lines.bytes()).sum::<usize>()
    }

    /// What all that was told of it weighs, bytes: runs without output are not nothing.
    pub fn weight(&self) -> usize {
        self.output_bytes() + self.runs.len() * RUN_BYTES
    }

    /// Halves what is kept of the run that has most, and of all.
    pub fn trim_output(&mut self) {
        self.merged.trim(self.merged.bytes() / 2);
        if let Some(run) = self.runs.iter_mut().max_by_key(|run| run.lines.bytes()) {
            run.lines.trim(run.lines.bytes() / 2);
        }
    }

    /// Forgets runs and output; they are told again when it is watched again.
    pub fn forget(&mut self) {
        self.runs.clear();
        self.told.clear();
        self.by_name.clear();
        self.by_machine.clear();
        self.order.clear();
        self.folds = Folds::default();
        self.merged = Scrollback::new(MERGED_OUTPUT_BYTES);
        self.is_complete = false;
    }
}
