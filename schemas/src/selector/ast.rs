//! A selector as a tree, and its canonical text.

use std::fmt;

use super::{
    choose::{Amount, Sample},
    field::{Field, Value},
    lex::Sign,
    pattern::Pattern,
};

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    All,
    /// The id or the token.
    Name(Pattern),
    Compare(Box<Compare>),
    Not(Box<Node>),
    /// Two or more, none of them an [`Node::And`].
    And(Vec<Node>),
    /// Two or more, none of them an [`Node::Or`].
    Or(Vec<Node>),
}

/// A comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Compare {
    pub(super) field: Field,
    pub(super) sign: Sign,
    pub(super) value: Value,
    /// The value as it is written.
    pub(super) written: String,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    pub(super) root: Node,
    pub(super) sample: Option<Sample>,
    pub(super) limit: Option<Amount>,
}

impl Node {
    /// One condition of several, which are joined by `and`.
    pub(super) fn every(parts: Vec<Node>) -> Node {
        join(parts, Node::And, |node| match node {
            Node::And(parts) => Ok(parts),
            other => Err(other),
        })
    }

    /// One condition of several, which are joined by `or`.
    pub(super) fn any(parts: Vec<Node>) -> Node {
        join(parts, Node::Or, |node| match node {
            Node::Or(parts) => Ok(parts),
            other => Err(other),
        })
    }

    fn is_term(&self) -> bool {
        matches!(self, Self::All | Self::Name(_) | Self::Compare(_))
    }
}

fn join(parts: Vec<Node>, with: fn(Vec<Node>) -> Node, open: fn(Node) -> Result<Vec<Node>, Node>) -> Node {
    let mut flat: Vec<Node> = Vec::with_capacity(parts.len());
    for part in parts {
        match open(part) {
            Ok(inner) => flat.extend(inner),
            Err(part) => flat.push(part),
        }
    }
    match (flat.pop(), flat.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            flat.push(last);
            with(flat)
        }
        (None, _) => with(flat),
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)?;
        if let Some(Sample { amount, seed }) = self.sample {
            write!(f, " sample {amount}")?;
            if seed != 0 {
                write!(f, " seed {seed}")?;
            }
        }
        self.limit.map_or(Ok(()), |limit| write!(f, " limit {limit}"))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Name(pattern) => f.write_str(pattern.written()),
            Self::Compare(compare) => {
                write!(f, "{}{}{}", compare.field.written(), compare.sign.as_str(), compare.written)
            }
            Self::Not(inner) if matches!(**inner, Self::And(_) | Self::Or(_)) => write!(f, "not ({inner})"),
            Self::Not(inner) => write!(f, "not {inner}"),
            Self::And(parts) => list(f, parts, " and ", |part| matches!(part, Self::Or(_))),
            // A list of names is written as one.
            Self::Or(parts) if parts.iter().all(Self::is_term) => list(f, parts, ",", |_| false),
            Self::Or(parts) => list(f, parts, " or ", |_| false),
        }
    }
}

fn list(
    f: &mut fmt::Formatter<'_>,
    parts: &[Node],
    between: &str,
    is_bracketed: fn(&Node) -> bool,
) -> fmt::Result {
    for (n, part) in parts.iter().enumerate() {
        f.write_str(if n == 0 { "" } else { between })?;
        if is_bracketed(part) { write!(f, "({part})")? } else { write!(f, "{part}")? }
    }
    Ok(())
}
