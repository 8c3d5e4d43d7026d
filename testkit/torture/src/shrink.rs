//! The shortest beginning of a plan that still breaks something.

/// A search for the shortest prefix of harms that still fails, in so many runs at most. It halves: where five harms are
/// needed, four do not fail. Where chance decides, its answer may be longer than necessary, but is never one that was not seen
/// to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Search {
    /// Longest prefix that was seen to pass.
    passes: Option<usize>,
    /// Shortest prefix that was seen to fail.
    fails: usize,
    /// Runs until now.
    runs: u32,
    /// Most runs.
    most: u32,
}

impl Search {
    /// Of a plan with so many harms, which was seen to fail.
    pub(crate) fn new(harms: usize, most: u32) -> Self {
        Self { passes: None, fails: harms, runs: 0, most }
    }

    /// How many harms are to be tried next; none when the search is over.
    pub(crate) fn next(&self) -> Option<usize> {
        let next = match self.passes {
            // None at all first: then no harm is to blame.
            None => 0,
            Some(passes) => passes + self.fails.saturating_sub(passes) / 2,
        };
        let is_new = next < self.fails && self.passes.is_none_or(|passes| next > passes);
        (is_new && self.runs < self.most).then_some(next)
    }

    /// What came of a prefix.
    pub(crate) fn saw(&mut self, harms: usize, fails: bool) {
        self.runs += 1;
        if fails {
            self.fails = self.fails.min(harms);
        } else {
            self.passes = self.passes.max(Some(harms));
        }
    }

    /// The shortest prefix that was seen to fail.
    pub(crate) fn shortest(&self) -> usize {
        self.fails
    }

    /// Runs that it took.
    pub(crate) fn runs(&self) -> u32 {
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn search(harms: usize, most: u32, fails: impl Fn(usize) -> bool) -> Search {
        let mut search = Search::new(harms, most);
        while let Some(next) = search.next() {
            assert!(next < harms, "{next} of {harms}");
            search.saw(next, fails(next));
        }
        search
    }

    #[rstest]
    #[case(0, 1)]
    #[case(1, 5)]
    #[case(4, 5)]
    #[case(7, 5)]
    #[case(12, 5)]
    fn the_shortest_prefix_is_found(#[case] needed: usize, #[case] runs: u32) {
        let found = search(12, 10, |harms| harms >= needed);
        assert_eq!(found.shortest(), needed);
        assert!(found.runs() <= runs, "{} runs", found.runs());
    }

    #[test]
    fn a_plan_without_harms_is_its_shortest_prefix() {
        assert_eq!(Search::new(0, 10).next(), None);
        assert_eq!(Search::new(0, 10).shortest(), 0);
    }

    #[test]
    fn a_search_is_bounded_and_answers_what_it_saw_fail() {
        let found = search(12, 2, |harms| harms >= 1);
        assert_eq!((found.runs(), found.shortest()), (2, 6));
        assert_eq!(search(12, 0, |_| true).shortest(), 12);
    }
}
