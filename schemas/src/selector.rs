//! Which machines are meant: one small language for the console, the command line and HTTP.
//!
//! A selector is a condition on machines: names (`web-01`), ranges (`web-[01-20]`), globs (`web-*`), regular expressions (`/^web/`),
//! comparisons (`os=debian`, `cpu>90`, `role=web`), joined by `,`, `and`, `or`, `not` and brackets; then, if wanted, `sample 10%` and
//! `limit 5`. `docs/selectors.md` has all of it.
//!
//! A glob knows `*` (any characters), `?` (one character), `[a-z]` and `{a,b}`; a name is matched against the machine's id
//! and against its token. A character is a Unicode scalar value, of whatever length in bytes.
//!
//! | room | holds |
//! |---|---|
//! | `lex` | words and signs |
//! | `parse` | from text to tree |
//! | `ast` | the tree, and its canonical text |
//! | `field` | what comparisons ask for, and how values are written |
//! | `pattern`, `glob`, `numbers` | what a text is compared with |
//! | `eval` | yes, no, or nobody knows |
//! | `choose` | samples, limits, the order of names |
//! | `names` | many names in few words |
//! | `error` | what is wrong, and where |

mod ast;
mod choose;
mod error;
mod eval;
mod field;
mod glob;
mod lex;
mod names;
mod numbers;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::id::{MachineId, MachineToken};

use self::{ast::Tree, choose::Amount};
pub use self::{
    choose::natural_order,
    error::SelectorError,
    eval::{Traits, Truth},
    names::{fold_names, fold_names_to},
};

/// A parsed selector. Its text is canonical: parsed again, it is the same selector, unless the text is longer than one may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector(Box<Tree>);

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// [`SelectorError`] saying where it is none: longer than 4 KiB, of more than 256 terms, nested deeper than 64 levels, malformed.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::parse(text).map(|tree| Self(Box::new(tree)))
    }

    /// The text that means the machine with this id, whatever the id reads like.
    pub fn of_machine(id: &str) -> String {
        lex::quoted(id)
    }

    /// What is known about whether a machine is meant, before `sample` and `limit`.
    pub fn truth(&self, of: &Traits<'_>) -> Truth {
        self.0.root.truth(of)
    }

    /// Whether a machine is meant by its names alone, before `sample` and `limit`.
    pub fn matches(&self, id: &MachineId, token: &MachineToken) -> bool {
        self.truth(&Traits::named(id, token)) == Truth::Yes
    }

    /// Whether a machine may be meant, for who knows its names only: `false` only if it certainly is not, whatever else is
    /// true of it. So can be checked what somebody else says is meant.
    pub fn could_mean(&self, id: &MachineId, token: &MachineToken) -> bool {
        self.truth(&Traits::named(id, token)) != Truth::No
    }

    /// Most machines that it means, when it says a number: for who checks what somebody else says is meant.
    pub fn most(&self) -> Option<u64> {
        let amounts = [self.0.sample.map(|sample| sample.amount), self.0.limit];
        amounts.into_iter().flatten().filter_map(Amount::count).min()
    }

    /// The machines that are meant, in the order in which they come. `sample` and `limit` are of all of them.
    pub fn select<M>(
        &self,
        machines: impl IntoIterator<Item = M>,
        traits: impl Fn(&M) -> Traits<'_>,
    ) -> Vec<M> {
        let meant = machines.into_iter().filter(|it| self.truth(&traits(it)) == Truth::Yes).collect();
        self.some_of(meant, |it| {
            let traits = traits(it);
            (traits.id, traits.token)
        })
    }

    /// Of machines that are meant before `sample` and `limit` those that are meant by them, too, in the order in which they come.
    pub fn some_of<M>(&self, mut meant: Vec<M>, names: impl Fn(&M) -> (&MachineId, &MachineToken)) -> Vec<M> {
        if let Some(sample) = self.0.sample {
            let count = sample.amount.of(meant.len());
            meant = first_of(meant, count, |it| sample.rank(names(it).1), Ord::cmp);
        }
        if let Some(limit) = self.0.limit {
            let count = limit.of(meant.len());
            // Two ids that are the same are one machine's.
            meant = first_of(
                meant,
                count,
                |it| names(it).0.clone(),
                |a, b| natural_order(a.as_str(), b.as_str()),
            );
        }
        meant
    }
}

/// The first so many by a key, in the order in which they came.
fn first_of<M, K>(
    all: Vec<M>,
    count: usize,
    key: impl Fn(&M) -> K,
    order: impl Fn(&K, &K) -> std::cmp::Ordering,
) -> Vec<M> {
    let mut ranked: Vec<(usize, K)> = all.iter().map(key).enumerate().collect();
    ranked.sort_by(|(_, a), (_, b)| order(a, b));
    let mut chosen: Vec<usize> = ranked.into_iter().take(count).map(|(at, _)| at).collect();
    chosen.sort_unstable();
    let mut chosen = chosen.into_iter().peekable();
    all.into_iter().enumerate().filter(|(at, _)| chosen.next_if_eq(at).is_some()).map(|(_, it)| it).collect()
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
