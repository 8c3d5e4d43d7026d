//! What a filter looks into: the names of all machines, one after the other.
//!
//! Each letter of a filter looks at every machine. Where their names lie next to each other that is one walk through some
//! megabytes of a large fleet; each at its machine, it is as many waits for memory as there are machines.

/// Texts, in an order that is somebody else's.
#[derive(Debug, Default)]
pub struct Names {
    text: String,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Names {
    /// Those of all machines, in their order.
    pub fn of(texts: impl Iterator<Item = String>) -> Self {
        let mut names = Self::default();
        for text in texts {
            names.text.push_str(&text);
            names.ends.push(names.text.len());
        }
        names
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).filter_map(|(begin, end)| self.text.get(*begin..*end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        let texts = ["web-1\nweb-1\nä", "", "db"];
        let names = Names::of(texts.into_iter().map(str::to_owned));
        assert_eq!(names.iter().collect::<Vec<_>>(), texts);
        assert_eq!(Names::default().iter().count(), 0);
    }
}
