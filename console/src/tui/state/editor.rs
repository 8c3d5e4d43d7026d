//! A line that is being written. The cursor stands between characters, never within one.

use unicode_width::UnicodeWidthChar as _;

use crate::tui::text;

/// Most bytes in a line: the longest command.
const MOST_BYTES: usize = signalbox_schemas::limit::COMMAND_TEXT_BYTES;

/// What a key does to the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Puts a character before the cursor.
    Insert(char),
    /// One character back.
    Left,
    /// One character on.
    Right,
    /// To the beginning of the word.
    WordLeft,
    /// To the end of the word.
    WordRight,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// Removes the character before the cursor.
    Backspace,
    /// Removes the character behind the cursor.
    Delete,
    /// Removes the word before the cursor.
    DeleteWord,
    /// Removes all before the cursor.
    DeleteToHome,
    /// Removes all behind the cursor.
    DeleteToEnd,
}

/// One line and its cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Editor {
    text: String,
    /// Byte offset, always at a boundary.
    cursor: usize,
}

impl Editor {
    /// A line with its cursor at the end. Foreign and pasted text is cleaned here.
    pub fn new(text: &str) -> Self {
        let text = text::line(text);
        let text = text.get(..text.floor_char_boundary(MOST_BYTES)).unwrap_or_default().to_owned();
        Self { cursor: text.len(), text }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Puts text before the cursor; line ends in it become spaces.
    pub fn paste(&mut self, pasted: &str) {
        for c in text::line(pasted.trim_end_matches(['\r', '\n'])).chars() {
            self.edit(Edit::Insert(c));
        }
    }

    /// Changes the line.
    pub fn edit(&mut self, edit: Edit) {
        match edit {
            Edit::Insert(c) => {
                if !c.is_control() && self.text.len() + c.len_utf8() <= MOST_BYTES {
                    self.text.insert(self.cursor, c);
                    self.cursor += c.len_utf8();
                }
            }
            Edit::Left => self.cursor = self.left(),
            Edit::Right => self.cursor = self.right(),
            Edit::WordLeft => self.cursor = self.word_left(),
            Edit::WordRight => self.cursor = self.word_right(),
            Edit::Home => self.cursor = 0,
            Edit::End => self.cursor = self.text.len(),
            Edit::Backspace => self.remove(self.left(), self.cursor),
            Edit::Delete => self.remove(self.cursor, self.right()),
            Edit::DeleteWord => self.remove(self.word_left(), self.cursor),
            Edit::DeleteToHome => self.remove(0, self.cursor),
            Edit::DeleteToEnd => self.remove(self.cursor, self.text.len()),
        }
    }

    /// What of the line is shown in `columns`, and the column of the cursor in it.
    pub fn window(&self, columns: usize) -> (String, usize) {
        let columns = columns.max(1);
        let before: usize = self.before().chars().map(|c| c.width().unwrap_or(0)).sum();
        // The cursor may stand behind the last character and needs a column of its own.
        let skipped = (before + 1).saturating_sub(columns);
        let shown = text::skip(&self.text, skipped);
        (text::beginning(&shown, columns).to_owned(), before - skipped)
    }

    fn before(&self) -> &str {
        self.text.get(..self.cursor).unwrap_or_default()
    }

    fn behind(&self) -> &str {
        self.text.get(self.cursor..).unwrap_or_default()
    }

    /// One character with the marks stacked on it.
    fn left(&self) -> usize {
        let mut chars = self.before().char_indices().rev();
        chars.find(|(_, c)| c.width() != Some(0)).map_or(0, |(at, _)| at)
    }

    fn right(&self) -> usize {
        let mut chars = self.behind().char_indices().skip(1);
        chars.find(|(_, c)| c.width() != Some(0)).map_or(self.text.len(), |(at, _)| self.cursor + at)
    }

    fn word_left(&self) -> usize {
        let trimmed = self.before().trim_end();
        trimmed.rfind(char::is_whitespace).map_or(0, |at| {
            at + trimmed.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
        })
    }

    fn word_right(&self) -> usize {
        let behind = self.behind();
        let skipped = behind.len() - behind.trim_start().len();
        let word = behind.trim_start();
        self.cursor + skipped + word.find(char::is_whitespace).unwrap_or(word.len())
    }

    fn remove(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("echo hi", &[Edit::DeleteWord], "echo ")]
    #[case("echo hi  ", &[Edit::DeleteWord], "echo ")]
    #[case("echo hi", &[Edit::Home, Edit::Delete], "cho hi")]
    #[case("echo hi", &[Edit::WordLeft, Edit::DeleteToEnd], "echo ")]
    #[case("echo hi", &[Edit::WordLeft, Edit::DeleteToHome], "hi")]
    #[case("echo hi", &[Edit::Home, Edit::WordRight, Edit::Insert('x')], "echox hi")]
    #[case("e\u{301}", &[Edit::Backspace], "")]
    #[case("你好", &[Edit::Left, Edit::Backspace], "好")]
    #[case("ab", &[Edit::Home, Edit::Right, Edit::Right, Edit::Right, Edit::Backspace], "a")]
    #[case("", &[Edit::Backspace, Edit::Delete, Edit::DeleteWord, Edit::Left, Edit::Right], "")]
    fn a_line_is_edited(#[case] text: &str, #[case] edits: &[Edit], #[case] expected: &str) {
        let mut editor = Editor::new(text);
        for edit in edits {
            editor.edit(*edit);
        }
        assert_eq!(editor.text(), expected);
    }

    #[test]
    fn the_cursor_stays_in_sight() {
        let mut editor = Editor::new("0123456789");
        assert_eq!(editor.window(5), ("6789".to_owned(), 4));
        editor.edit(Edit::Home);
        assert_eq!(editor.window(5), ("01234".to_owned(), 0));
    }

    #[test]
    fn a_pasted_line_end_runs_nothing() {
        let mut editor = Editor::default();
        editor.paste("uptime\nreboot\n");
        assert_eq!(editor.text(), "uptime reboot");
    }
}
