//! A connection of a lane, and how much it is used.

use std::{cell::Cell, rc::Rc};

use tokio::time::Instant;

use super::Held;

/// Channels that are being opened on a connection at once: so many are refused at most when its limit is met.
const OPENING_AT_ONCE: usize = 8;
/// A connection is used for so many channels: russh keeps a little of each that was closed from here.
const MAX_CHANNELS: usize = 4096;

/// A connection, and its channels.
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) held: Rc<Held>,
    /// Channels that are open.
    pub(super) open: Rc<Cell<usize>>,
    pub(super) opening: usize,
    /// Most channels that it takes, once that is known.
    pub(super) limit: Option<usize>,
    /// Channels that were opened on it so far.
    pub(super) opened: usize,
    /// No more channels are opened on it.
    pub(super) is_retired: bool,
    /// How often the known hosts had changed when its hosts were believed.
    pub(super) believed_at: u64,
    /// Its hosts are being looked up again.
    pub(super) is_checked: bool,
    pub(super) idle_since: Instant,
    /// When a channel was last closed from here.
    pub(super) closed_at: Option<Instant>,
    /// Nothing is opened on it before.
    pub(super) rests_until: Option<Instant>,
}

impl Member {
    pub(super) fn new(id: u64, held: Held, believed_at: u64) -> Self {
        Self {
            id,
            held: Rc::new(held),
            open: Rc::default(),
            opening: 0,
            limit: None,
            opened: 0,
            is_retired: false,
            believed_at,
            is_checked: false,
            idle_since: Instant::now(),
            closed_at: None,
            rests_until: None,
        }
    }

    fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn has_room(&self) -> bool {
        let used = self.open.get() + self.opening;
        let in_limit = self.limit.is_none_or(|limit| used < limit);
        !self.is_retired
            && !self.is_checked
            && !self.rests()
            && in_limit
            && self.opening < OPENING_AT_ONCE
            && self.opened + self.opening < MAX_CHANNELS
    }

    /// Whether it is known to take no more, and not just busy opening.
    pub(super) fn is_full(&self) -> bool {
        let is_at_limit = self.limit.is_some_and(|limit| self.open.get() + self.opening >= limit);
        self.is_retired || self.opened + self.opening >= MAX_CHANNELS || is_at_limit && !self.rests()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.open.get() == 0 && self.opening == 0
    }

    /// Whether nothing will be opened on it any more.
    pub(super) fn is_spent(&self) -> bool {
        self.is_retired || self.opened >= MAX_CHANNELS
    }
}
