//! Text that must not be seen: wiped when it is dropped, and never printed.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A secret text. It can be serialised, since that is how it is sealed: what it is serialised into is the caller's to wipe.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The same without the line end that editors put there: one, for a value may end with others.
    #[must_use]
    pub fn without_line_end(&self) -> Self {
        let text = self.0.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
        Self::new(text.unwrap_or(&self.0).to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("hunter2", "hunter2")]
    #[case("hunter2\n", "hunter2")]
    #[case("hunter2\r\n", "hunter2")]
    #[case("hunter2\n\n", "hunter2\n")]
    #[case("hunter2\r", "hunter2\r")]
    #[case("\n", "")]
    fn one_line_end_is_no_part_of_a_secret(#[case] read: &str, #[case] secret: &str) {
        assert_eq!(Secret::new(read.to_owned()).without_line_end().expose(), secret);
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret");
    }
}
