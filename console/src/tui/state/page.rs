//! Where the operator is on the page of one command.

use signalbox_schemas::id::MachineId;

use super::{command::Command, cursor::Cursor, scrollback::Scrollback};

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
}

impl CommandPage {
    /// Follows the runs of its command.
    pub fn settle(&mut self, command: Option<&Command>) {
        self.rows.clear();
        // One run alone is its own whole.
        let is_alone =
            command.is_some_and(|command| command.progress().1 == 1 && command.runs().count() == 1);
        self.rows.extend((!is_alone).then_some(Row::All));
        self.rows
            .extend(command.into_iter().flat_map(Command::runs).map(|run| Row::One(run.machine.clone())));
        if self.cursor.key().is_none() {
            self.cursor = Cursor::on(Row::All);
        }
        self.cursor.find(&self.rows);
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
        }
    }

    /// The lines of the row under the cursor.
    pub fn lines<'a>(&self, command: &'a Command) -> &'a Scrollback {
        match self.cursor.key() {
            Some(Row::One(machine)) => command.run_on(machine).map_or(&command.merged, |run| &run.lines),
            Some(Row::All) | None => &command.merged,
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
