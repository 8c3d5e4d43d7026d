//! Commands: what is known of them and which are seen.

use std::collections::HashMap;

use bytes::Bytes;
use signalbox_schemas::{
    api::{CommandSummary, RunView},
    id::{CommandId, MachineId},
    output::OutputStream,
};

use super::{command::Command, cursor::Cursor};
use crate::tui::needle::Needle;

/// Most commands that are kept; the oldest are forgotten.
pub const MOST_COMMANDS: usize = 1_000;
/// Output that is kept of all commands, bytes.
pub const OUTPUT_BYTES: usize = 64 * 1024 * 1024;

/// All commands. `order` is what is seen, newest first, `cursor` a row of it.
#[derive(Debug, Default)]
pub struct Commands {
    all: HashMap<CommandId, Command>,
    order: Vec<CommandId>,
    filter: String,
    needle: Needle,
    /// Rows have come or gone since `order` was made.
    is_stirred: bool,
    /// Runs or output have come since their bounds were looked at.
    has_grown: bool,
    /// No bridge tells of new ones.
    is_stale: bool,
    /// The row the operator is on.
    pub cursor: Cursor<CommandId>,
}

impl Commands {
    /// Takes a line about a command.
    pub fn tell(&mut self, summary: CommandSummary) {
        self.is_stale = false;
        self.know(summary);
    }

    /// The same of one that a list was read for: whether the others are as they are is not said by that.
    pub fn know(&mut self, summary: CommandSummary) {
        if let Some(command) = self.all.get_mut(&summary.id) {
            command.refresh(summary);
            return;
        }
        self.all.insert(summary.id, Command::new(summary));
        self.is_stirred = true;
    }

    /// Takes a run of a command as it is now.
    pub fn tell_run(&mut self, id: CommandId, run: &RunView) {
        self.has_grown = true;
        if let Some(command) = self.all.get_mut(&id) {
            command.tell_run(run);
        }
    }

    /// Takes that no bridge tells any more of a command, or of any (`None`).
    pub fn tell_stale(&mut self, id: Option<CommandId>) {
        match id {
            None => self.is_stale = true,
            Some(id) => {
                if let Some(command) = self.all.get_mut(&id) {
                    command.is_stale = true;
                }
            }
        }
    }

    /// Whether what is shown may be old.
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Takes output of a command.
    pub fn tell_output(
        &mut self,
        id: CommandId,
        machine: &MachineId,
        stream: OutputStream,
        offset: u64,
        data: &Bytes,
        wall_ms: u64,
    ) {
        self.has_grown = true;
        if let Some(command) = self.all.get_mut(&id) {
            command.tell_output(machine, stream, offset, data, wall_ms);
        }
    }

    /// One command.
    pub fn get(&self, id: CommandId) -> Option<&Command> {
        self.all.get(&id)
    }

    /// One command, to be changed.
    pub fn get_mut(&mut self, id: CommandId) -> Option<&mut Command> {
        self.all.get_mut(&id)
    }

    /// What is seen, newest first.
    pub fn order(&self) -> &[CommandId] {
        &self.order
    }

    /// What is seen, newest first.
    pub fn seen(&self) -> impl Iterator<Item = &Command> {
        self.order.iter().filter_map(|id| self.all.get(id))
    }

    /// All, newest first.
    pub fn newest(&self) -> Vec<&Command> {
        let mut all: Vec<&Command> = self.all.values().collect();
        all.sort_by_key(|command| std::cmp::Reverse((command.created_at, command.id)));
        all
    }

    /// Moves the cursor by rows.
    pub fn step(&mut self, rows: isize) {
        self.cursor.step(&self.order, rows);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many have runs that have not settled.
    pub fn open(&self) -> usize {
        self.all.values().filter(|command| command.is_open()).count()
    }

    /// The filter as it was written; empty = none.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Why the filter is not understood, where it is not.
    pub fn filter_problem(&self) -> Option<&str> {
        self.needle.problem()
    }

    /// Shows only commands that have this text in them, in the place where they run or in their author.
    pub fn set_filter(&mut self, filter: &str) {
        filter.clone_into(&mut self.filter);
        self.needle = Needle::new(filter);
        self.is_stirred = true;
        self.arrange(None);
    }

    /// Puts rows in order and keeps within bounds; `shown` is on the screen and goes last.
    pub fn settle(&mut self, shown: Option<CommandId>, now_ms: u64) {
        self.arrange(shown);
        if let Some(command) = shown.and_then(|id| self.all.get_mut(&id)) {
            command.settle(now_ms);
        }
        self.bound_output(shown);
    }

    /// Puts rows in order, if any have come or gone.
    fn arrange(&mut self, shown: Option<CommandId>) {
        if !std::mem::take(&mut self.is_stirred) {
            return;
        }
        self.forget_oldest(shown);
        // Of a filter that makes no sense yet nobody knows what it hides.
        let is_all = self.needle.is_empty() || self.needle.problem().is_some();
        let seen = |c: &&Command| is_all || self.needle.is_in([&c.text, &c.place, &c.by]);
        self.order = self.newest().into_iter().filter(seen).map(|command| command.id).collect();
        self.cursor.find(&self.order);
    }

    fn forget_oldest(&mut self, shown: Option<CommandId>) {
        if self.all.len() <= MOST_COMMANDS {
            return;
        }
        let old: Vec<CommandId> = self.newest().into_iter().skip(MOST_COMMANDS).map(|c| c.id).collect();
        old.into_iter().filter(|id| Some(*id) != shown).for_each(|id| {
            self.all.remove(&id);
        });
    }

    fn bound_output(&mut self, shown: Option<CommandId>) {
        if !std::mem::take(&mut self.has_grown) {
            return;
        }
        while self.all.values().map(Command::weight).sum::<usize>() > OUTPUT_BYTES {
            let Some(command) = self.least_missed(shown).and_then(|id| self.all.get_mut(&id)) else { return };
            let before = command.weight();
            if Some(command.id) != shown && !command.is_watched {
                command.forget();
            } else {
                command.trim_output();
            }
            // Runs that are looked at stay, whatever they weigh.
            if command.weight() == before {
                return;
            }
        }
    }

    /// Whose output goes first: that of the command not looked at for longest; the largest when all are.
    fn least_missed(&self, shown: Option<CommandId>) -> Option<CommandId> {
        let kept = || self.all.values().filter(|command| command.weight() > 0);
        let left = kept().filter(|command| Some(command.id) != shown && !command.is_watched);
        let oldest = left.min_by_key(|command| command.looked_at);
        oldest.or_else(|| kept().max_by_key(|command| command.output_bytes())).map(|command| command.id)
    }
}
