//! What a filter or a search looks for in plain text: a text in any case, `/regex/`, or either turned around by `!`.

use regex::{Regex, RegexBuilder};

/// Largest compiled expression, bytes, and its caches.
const EXPRESSION_BYTES: usize = 256 * 1024;
/// What a byte of a plain text takes more when it is compiled, at most.
const LETTER_BYTES: usize = 1024;

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Needle {
    what: What,
    is_inverse: bool,
    /// What is looked for in texts that are in lower case, where that is plain text of ASCII.
    plain: Option<String>,
}

#[derive(Debug, Clone, Default)]
enum What {
    #[default]
    All,
    Expression(Regex),
    /// An expression that is not finished, or makes no sense: it is found nowhere.
    Broken(String),
}

impl Needle {
    /// What this text means. Without a closing `/` an expression is one all the same, so that rows go while it is written.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        let (is_inverse, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let what = match text.strip_prefix('/') {
            Some("" | "/") => What::All,
            Some(expression) => {
                expression_of(expression.strip_suffix('/').unwrap_or(expression), EXPRESSION_BYTES)
            }
            None if text.is_empty() => What::All,
            // It grows with the text alone, which is no longer than a line may be.
            None => expression_of(&regex::escape(text), EXPRESSION_BYTES + text.len() * LETTER_BYTES),
        };
        let is_inverse = is_inverse && !matches!(what, What::All | What::Broken(_));
        let is_plain = matches!(what, What::Expression(_)) && text.is_ascii() && !text.starts_with('/');
        Self { what, is_inverse, plain: is_plain.then(|| text.to_ascii_lowercase()) }
    }

    /// The text that is looked for, in lower case: where it is plain, texts in lower case are those that have it.
    pub fn plain(&self) -> Option<&str> {
        self.plain.as_deref()
    }

    /// Whether it is turned around.
    pub fn is_inverse(&self) -> bool {
        self.is_inverse
    }

    /// Whether it is found everywhere, as nothing is looked for.
    pub fn is_empty(&self) -> bool {
        matches!(self.what, What::All)
    }

    /// Why it is found nowhere, where it makes no sense.
    pub fn problem(&self) -> Option<&str> {
        match &self.what {
            What::Broken(why) => Some(why),
            What::All | What::Expression(_) => None,
        }
    }

    /// Whether it is in one of these texts; of a needle that is turned around: in none.
    pub fn is_in(&self, texts: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
        let found = texts.into_iter().any(|text| self.finds(text.as_ref()));
        found != self.is_inverse
    }

    /// Whether it is in a text, whatever is turned around.
    fn finds(&self, text: &str) -> bool {
        match &self.what {
            What::All => true,
            What::Expression(regex) => regex.is_match(text),
            What::Broken(_) => false,
        }
    }

    /// Where it is in a text: bytes from and to, in order, at most `most` of them.
    pub fn places(&self, text: &str, most: usize) -> Vec<(usize, usize)> {
        match &self.what {
            What::Expression(regex) => regex
                .find_iter(text)
                .filter(|found| !found.is_empty())
                .take(most)
                .map(|found| (found.start(), found.end()))
                .collect(),
            What::All | What::Broken(_) => Vec::new(),
        }
    }
}

fn expression_of(text: &str, most_bytes: usize) -> What {
    compile(text, most_bytes).map_or_else(What::Broken, What::Expression)
}

fn compile(expression: &str, most_bytes: usize) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(expression);
    builder.case_insensitive(true).size_limit(most_bytes).dfa_size_limit(EXPRESSION_BYTES);
    builder.build().map_err(|error| {
        // Its own text draws over several lines.
        let text = error.to_string();
        text.lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use signalbox_schemas::limit;

    #[rstest]
    #[case("", true)]
    #[case("web", true)]
    #[case("WEB-1", true)]
    #[case("db", false)]
    #[case("!db", true)]
    #[case("!web", false)]
    #[case("/^web-\\d+$/", true)]
    #[case("/^WEB", true)]
    #[case("/^eb/", false)]
    #[case("!/^eb/", true)]
    #[case("/web-(/", false)]
    #[case("!/web-(/", false)]
    #[case("/", true)]
    #[case("!", true)]
    fn finds(#[case] needle: &str, #[case] expected: bool) {
        assert_eq!(Needle::new(needle).is_in(["other", "web-12"]), expected);
    }

    #[test]
    fn what_makes_no_sense_is_told_in_one_line() {
        for expression in ["/web-(", "/a{99999999}", "/(a{500}){500}/"] {
            let needle = Needle::new(expression);
            let problem = needle.problem().unwrap();
            assert!(!problem.is_empty() && !problem.contains('\n'), "{problem}");
        }
        assert_eq!(Needle::new("/web-(a)").problem(), None);
    }

    #[test]
    fn places_are_those_of_the_text() {
        assert_eq!(Needle::new("ab").places("xABxab", 9), [(1, 3), (4, 6)]);
        assert_eq!(Needle::new("/a./").places("xABxab", 9), [(1, 3), (4, 6)]);
        assert_eq!(Needle::new("/a*/").places("xabx", 9), [(1, 2)]);
        assert_eq!(Needle::new("a").places("aaaa", 2).len(), 2);
        // `İ` has three bytes in lower case, and two in upper.
        assert_eq!(Needle::new("x").places("\u{130}x", 9), [(2, 3)]);
        let long = "äW ".repeat(limit::COMMAND_TEXT_BYTES / 4);
        assert_eq!(Needle::new(&long).problem(), None, "as long as a line may be");
        assert_eq!(Needle::new("a.b(").places("axb( A.B(", 9), [(5, 9)], "a text is no expression");
    }
}
