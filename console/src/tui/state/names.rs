//! What a filter looks into: the names of all machines, one after the other.
//!
//! Each letter of a filter looks at every machine. Where their names lie next to each other that is one walk through some
//! megabytes of a large fleet; each at its machine, it is as many waits for memory as there are machines.

use std::ops::Range;

use memchr::memmem::Finder;

use crate::tui::needle::Needle;

/// Bytes that may lie there for nothing, whatever the rest has.
const SPARE_BYTES: usize = 64 * 1024;

/// Texts in lower case, each at a place.
#[derive(Debug, Default)]
pub struct Names {
    text: String,
    /// Where each of them is.
    spans: Vec<Range<usize>>,
    /// Bytes of those that are gone.
    gone_bytes: usize,
}

impl Names {
    /// Another one, at the next place.
    pub fn push(&mut self, name: &str) {
        let span = self.append(name);
        self.spans.push(span);
    }

    /// The one at a place is called otherwise.
    pub fn set(&mut self, place: usize, name: &str) {
        let span = self.append(name);
        if let Some(known) = self.spans.get_mut(place) {
            self.gone_bytes += std::mem::replace(known, span).len();
        }
        self.tidy();
    }

    /// Takes one away: the last one takes its place.
    pub fn swap_remove(&mut self, place: usize) {
        self.gone_bytes += self.spans.swap_remove(place).len();
        self.tidy();
    }

    /// All of them, by place.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.spans.iter().map(|span| self.text.get(span.clone()).unwrap_or_default())
    }

    /// Whether each of them is meant, by place.
    pub fn meant(&self, needle: &Needle) -> Vec<bool> {
        match needle.plain() {
            Some(text) => self.with(text).map(|has_it| has_it != needle.is_inverse()).collect(),
            None => self.iter().map(|name| needle.is_in([name])).collect(),
        }
    }

    /// Whether each of them has a text, by place. That is one search through all of them, as far as they lie in the order
    /// of their places; who lies elsewhere is searched alone.
    fn with(&self, text: &str) -> impl Iterator<Item = bool> {
        let finder = Finder::new(text);
        let all = self.text.as_bytes();
        // Where the last one in order ends, and where the text is found next; `None` = nowhere behind.
        let (mut end, mut next) = (0, Some(0));
        let mut is_first = true;
        self.spans.iter().map(move |span| {
            if span.start < end || span.start - end > SPARE_BYTES {
                return finder.find(all.get(span.clone()).unwrap_or_default()).is_some();
            }
            end = span.end;
            if std::mem::take(&mut is_first) || next.is_some_and(|at| at < span.start) {
                let rest = all.get(span.start..).unwrap_or_default();
                next = finder.find(rest).map(|at| span.start + at);
            }
            next.is_some_and(|at| at + text.len() <= span.end)
        })
    }

    fn append(&mut self, name: &str) -> Range<usize> {
        let begin = self.text.len();
        self.text.push_str(name);
        begin..self.text.len()
    }

    /// Lays them next to each other again, once more than a quarter of what lies there is of nobody: who was
    /// renamed lies out of order, and is searched alone.
    fn tidy(&mut self) {
        if self.gone_bytes > self.text.len() / 4 + SPARE_BYTES {
            let mut tidy = Self::default();
            self.iter().for_each(|name| tidy.push(name));
            *self = tidy;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(String),
        Set(usize, String),
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            "[abä\n]{0,9}".prop_map(Step::Push),
            (any::<usize>(), "[ab]{0,9}").prop_map(|(at, name)| Step::Set(at, name)),
            any::<usize>().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn each_is_found_at_its_place(steps in prop::collection::vec(step(), 0..60)) {
            let (mut names, mut expected) = (Names::default(), Vec::<String>::new());
            for step in steps {
                let len = expected.len();
                match step {
                    Step::Push(name) => {
                        names.push(&name);
                        expected.push(name);
                    }
                    Step::Set(at, name) if len > 0 => {
                        names.set(at % len, &name);
                        expected[at % len] = name;
                    }
                    Step::Remove(at) if len > 0 => {
                        names.swap_remove(at % len);
                        expected.swap_remove(at % len);
                    }
                    Step::Set(..) | Step::Remove(_) => {}
                }
                prop_assert_eq!(names.iter().collect::<Vec<_>>(), expected.clone());
            }
        }
    }

    proptest! {
        #[test]
        fn those_that_have_a_text_are_those_in_which_it_is_found(
            steps in prop::collection::vec(step(), 0..40),
            needle in prop_oneof![
                "[abAB]{1,4}".boxed(),
                "![abAB]{1,3}".boxed(),
                prop::sample::select(vec!["", "ä", "/^a|b$/", "!/b$/", "/("]).prop_map(str::to_owned).boxed(),
            ],
        ) {
            let mut names = Names::default();
            for step in steps {
                let len = names.iter().count();
                match step {
                    Step::Push(name) => names.push(&name),
                    Step::Set(at, name) if len > 0 => names.set(at % len, &name),
                    Step::Remove(at) if len > 0 => names.swap_remove(at % len),
                    Step::Set(..) | Step::Remove(_) => {}
                }
            }
            let needle = Needle::new(&needle);
            let expected: Vec<bool> = names.iter().map(|name| needle.is_in([name])).collect();
            prop_assert_eq!(names.meant(&needle), expected);
        }
    }

    #[test]
    fn what_is_of_nobody_does_not_grow() {
        let mut names = Names::default();
        names.push("first");
        for n in 0..100_000 {
            names.set(0, &format!("machine-{n}"));
        }
        assert!(names.text.len() <= 2 * SPARE_BYTES + 100, "{} bytes", names.text.len());
        assert_eq!(names.iter().collect::<Vec<_>>(), ["machine-99999"]);
    }
}
