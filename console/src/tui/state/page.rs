//! Where the operator is on the page of one command.

use signalbox_schemas::id::MachineId;

use super::{
    command::{Command, Run},
    cursor::Cursor,
    diff::Diff,
    folds::Fold,
    scrollback::Scrollback,
};

/// Which half of the page the keys go to. On a narrow screen only this half is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Focus {
    /// The list of runs.
    #[default]
    Runs,
    /// The output.
    Output,
}

/// A row of the list of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// All runs, merged.
    All,
    /// Runs that ended alike.
    Group(Fold),
    /// One run.
    One(MachineId),
}

/// What part of the output is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scroll {
    /// The newest lines.
    #[default]
    Follow,
    /// From the line of this number on; it may have been dropped since.
    From(u64),
}

/// The page of one command.
#[derive(Debug, Clone, Default)]
pub struct CommandPage {
    /// The row the operator is on.
    pub cursor: Cursor<Row>,
    rows: Vec<Row>,
    /// Which half the keys go to.
    pub focus: Focus,
    /// What part of the output is seen.
    pub scroll: Scroll,
    /// Columns that are skipped at the left of the output.
    pub skipped: usize,
    /// Runs are shown one by one, not folded.
    pub is_unfolded: bool,
    /// The group whose runs are shown.
    pub within: Option<Fold>,
    /// Small groups come first.
    pub outliers_first: bool,
    /// The row that others are compared with.
    pub base: Option<Row>,
    /// Two outputs, compared: in place of the output.
    pub diff: Option<Diff>,
}

impl CommandPage {
    /// Follows the runs of its command.
    pub fn settle(&mut self, command: Option<&Command>) {
        self.rows.clear();
        if let Some(command) = command {
            self.rows = self.rows_of(command);
        }
        if self.cursor.key().is_none() {
            self.cursor = Cursor::on(Row::All);
        }
        self.cursor.find(&self.rows);
    }

    fn rows_of(&mut self, command: &Command) -> Vec<Row> {
        // A group is no more when its last run has moved on.
        self.within = self.within.take().filter(|fold| command.folds.get(fold).is_some());
        if let Some(fold) = &self.within {
            let members = command.machines_of(fold).into_iter().map(Row::One);
            return [Row::Group(fold.clone())].into_iter().chain(members).collect();
        }
        // One run alone is its own whole.
        let is_alone = command.progress().1 == 1 && command.runs().count() == 1;
        let all = (!is_alone).then_some(Row::All).into_iter();
        if self.is_unfolded || is_alone {
            return all.chain(command.runs().map(|run| Row::One(run.machine.clone()))).collect();
        }
        let groups = command.folds.groups(self.outliers_first);
        // A group of one is its run, so that it stays under the cursor whatever becomes of it.
        let row = |fold: &Fold| match command.folds.get(fold) {
            Some(group) if group.len == 1 => {
                command.run_of(fold).map_or(Row::All, |run| Row::One(run.machine.clone()))
            }
            _ => Row::Group(fold.clone()),
        };
        all.chain(groups.iter().map(|group| row(group.fold))).collect()
    }

    /// The run whose output a row shows; `None`: that of all, merged.
    pub fn run<'a>(command: &'a Command, row: &Row) -> Option<&'a Run> {
        match row {
            Row::All => None,
            Row::Group(fold) => command.run_of(fold),
            Row::One(machine) => command.run_on(machine),
        }
    }

    /// Machines of a row, in the order of their names.
    pub fn machines(command: &Command, row: &Row) -> Vec<MachineId> {
        match row {
            Row::All => command.runs().map(|run| run.machine.clone()).collect(),
            Row::Group(fold) => command.machines_of(fold),
            Row::One(machine) => vec![machine.clone()],
        }
    }

    /// The row that the one under the cursor is compared with: the one that was chosen, else the largest other group.
    pub fn other<'a>(&'a self, here: &Row) -> Option<&'a Row> {
        let is_other = |row: &&Row| *row != here && **row != Row::All;
        self.base.as_ref().filter(is_other).or_else(|| self.rows.iter().find(is_other))
    }

    /// All rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Moves the cursor; another run's output is followed from its end.
    pub fn go(&mut self, at: usize) {
        let before = self.cursor.key().cloned();
        self.cursor.go(&self.rows, at);
        if self.cursor.key() != before.as_ref() {
            self.scroll = Scroll::Follow;
            self.skipped = 0;
            self.diff = None;
        }
    }

    /// The lines of the row under the cursor.
    pub fn lines<'a>(&self, command: &'a Command) -> &'a Scrollback {
        match self.cursor.key() {
            Some(row) => Self::run(command, row).map_or(&command.merged, |run| &run.lines),
            None => &command.merged,
        }
    }

    /// Place of the first line that is seen, of `rows` rows.
    pub fn first_line(&self, lines: &Scrollback, rows: usize) -> usize {
        let last = lines.len().saturating_sub(rows);
        match self.scroll {
            Scroll::Follow => last,
            Scroll::From(number) => lines.position(number).min(last),
        }
    }

    /// Scrolls by lines. At the end it follows again.
    pub fn scroll_by(&mut self, command: &Command, rows: usize, by: isize) {
        let lines = self.lines(command);
        let first = self.first_line(lines, rows).saturating_add_signed(by);
        self.scroll = match lines.get(first) {
            Some(line) if first < lines.len().saturating_sub(rows) => Scroll::From(line.number),
            _ => Scroll::Follow,
        };
    }

    /// Stays where it is, or follows the newest lines again.
    pub fn toggle_follow(&mut self, command: &Command, rows: usize) {
        let lines = self.lines(command);
        self.scroll = match self.scroll {
            Scroll::Follow => {
                let first = lines.get(self.first_line(lines, rows));
                first.map_or(Scroll::Follow, |line| Scroll::From(line.number))
            }
            Scroll::From(_) => Scroll::Follow,
        };
    }
}
