//! What two outputs have in common and what not, line by line.

use std::sync::Arc;

use similar::{Algorithm, ChangeTag, DiffOp, capture_diff_slices};

use super::scrollback::Scrollback;

/// Lines of each output that are compared, the first ones.
const MOST_LINES: usize = 20_000;
/// Lines around a difference that are shown.
const AROUND: usize = 3;
/// Lines of one output times lines of the other that are compared one by one, without what both begin and end with: more
/// of them are shown one after the other, so that the keys are not held up.
const MOST_PAIRS: usize = 4_000_000;

/// How a line differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// It is in both.
    Same,
    /// It is in the first one only.
    First,
    /// It is in the second one only.
    Second,
    /// Lines that are the same were left out here.
    Cut,
}

/// Two outputs, compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// What the first one is called.
    pub first: String,
    /// What the second one is called.
    pub second: String,
    /// Lines that differ, with some around them.
    pub lines: Vec<(Tag, Arc<str>)>,
    /// First line that is seen.
    pub top: usize,
}

impl Diff {
    /// Compares two outputs.
    pub fn new(first: (String, &Scrollback), second: (String, &Scrollback)) -> Self {
        let texts = |lines: &Scrollback| -> Vec<Arc<str>> {
            lines.window(0, MOST_LINES).map(|line| Arc::clone(&line.text)).collect()
        };
        let (a, b) = (texts(first.1), texts(second.1));
        let ops = compare(&a, &b);
        let mut lines = Vec::new();
        for group in similar::group_diff_ops(ops, AROUND) {
            if !lines.is_empty() {
                lines.push((Tag::Cut, Arc::from("")));
            }
            for change in group.iter().flat_map(|op| op.iter_changes(&a, &b)) {
                let tag = match change.tag() {
                    ChangeTag::Equal => Tag::Same,
                    ChangeTag::Delete => Tag::First,
                    ChangeTag::Insert => Tag::Second,
                };
                lines.push((tag, change.value()));
            }
        }
        Self { first: first.0, second: second.0, lines, top: 0 }
    }

    /// Scrolls by lines, of which `rows` are seen.
    pub fn scroll_by(&mut self, rows: usize, by: isize) {
        let last = self.lines.len().saturating_sub(rows);
        self.top = self.top.saturating_add_signed(by).min(last);
    }
}

fn compare(a: &[Arc<str>], b: &[Arc<str>]) -> Vec<DiffOp> {
    let before = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rest = a.len().min(b.len()) - before;
    let behind = a.iter().rev().zip(b.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let (a_len, b_len) = (a.len() - before - behind, b.len() - before - behind);
    if a_len.saturating_mul(b_len) <= MOST_PAIRS {
        return capture_diff_slices(Algorithm::Myers, a, b);
    }
    vec![
        DiffOp::Equal { old_index: 0, new_index: 0, len: before },
        DiffOp::Replace { old_index: before, old_len: a_len, new_index: before, new_len: b_len },
        DiffOp::Equal { old_index: before + a_len, new_index: before + b_len, len: behind },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::state::scrollback::Line;

    fn output(lines: impl IntoIterator<Item = String>) -> Scrollback {
        let mut kept = Scrollback::new(10_000_000);
        for (number, text) in (0..).zip(lines) {
            kept.put(Line {
                number,
                run: 0,
                stream: None,
                text: text.into(),
                strokes: None,
                received_ms: None,
            });
        }
        kept
    }

    #[test]
    fn what_differs_is_shown_with_what_is_around_it() {
        let lines = |other: usize| {
            (0..40).map(move |n| if n == other { "other".into() } else { format!("line {n}") })
        };
        let diff = Diff::new(("a".into(), &output(lines(10))), ("b".into(), &output(lines(30))));
        let of =
            |tag| diff.lines.iter().filter(|(t, _)| *t == tag).map(|(_, text)| &**text).collect::<Vec<_>>();
        assert_eq!(of(Tag::First), ["other", "line 30"]);
        assert_eq!(of(Tag::Second), ["line 10", "other"]);
        assert_eq!((of(Tag::Same).len(), of(Tag::Cut).len()), (12, 1));
    }

    #[test]
    fn what_is_too_much_to_compare_is_shown_one_after_the_other() {
        let lines = |word: &'static str| {
            let middle = (0..9_000).map(move |n| format!("{word} {n}"));
            ["begin".to_owned()].into_iter().chain(middle).chain(["end".to_owned()])
        };
        let diff = Diff::new(("a".into(), &output(lines("a"))), ("b".into(), &output(lines("b"))));
        let count = |tag| diff.lines.iter().filter(|(t, _)| *t == tag).count();
        assert_eq!([Tag::Same, Tag::First, Tag::Second, Tag::Cut].map(count), [2, 9_000, 9_000, 0]);
    }

    #[test]
    fn what_is_the_same_differs_in_nothing() {
        let same = output(["a".to_owned(), "b".to_owned()]);
        assert!(Diff::new(("a".into(), &same), ("b".into(), &same)).lines.is_empty());
    }
}
