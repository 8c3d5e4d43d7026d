//! What is known of a run, and who hears of it when: the same for one on this machine and one on another host.

use std::{rc::Rc, time::Duration};

use signalbox_link::crash::{Part, Point, hit};
use signalbox_schemas::output::OutputStream;
use tokio::time::Instant;

use super::{
    protocol::{Cause, End, Fault, Phase, RunStatus},
    run::Shared,
    spool::RunSpool,
};
use crate::clock::unix_ms;

/// While output flows, the relay is told at most this often per run.
const TELL_EVERY: Duration = Duration::from_millis(5);

/// A run's status and output.
pub(crate) struct Record {
    pub(crate) shared: Rc<Shared>,
    pub(crate) status: RunStatus,
    pub(crate) spool: RunSpool,
    pub(crate) started: Instant,
    /// When the relay was told last, and whether there is something new since.
    told: Option<Instant>,
    untold: bool,
}

impl Record {
    pub(crate) fn new(shared: Rc<Shared>, status: RunStatus, spool: RunSpool, started: Instant) -> Self {
        Self { shared, status, spool, started, told: None, untold: false }
    }

    /// Keeps what a run printed.
    pub(crate) fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        self.spool.write(stream, bytes);
        if self.told.is_none() && !self.untold {
            hit(Part::Keeper, Point::OutputHalf);
        }
        self.untold = true;
    }

    /// A stream ends here, and something that was printed on it did not come.
    pub(crate) fn cut(&mut self, stream: OutputStream) {
        self.spool.cut(stream);
    }

    /// Something else changed that the relay is to hear.
    pub(crate) fn changed(&mut self) {
        self.untold = true;
    }

    /// Tells the relay what is new, if it was not told just before.
    pub(crate) fn tell_when_due(&mut self, now: Instant) {
        if self.untold && self.told.is_none_or(|told| now >= told + TELL_EVERY) {
            self.refresh();
            self.shared.board.record(self.status.clone());
            self.shared.board.tell(self.status.cid);
            self.told = Some(now);
            self.untold = false;
        }
    }

    /// When the relay is to be told next, where that is not at once.
    pub(crate) fn tell_due(&self) -> Option<Instant> {
        self.told.filter(|_| self.untold).map(|told| told + TELL_EVERY)
    }

    fn refresh(&mut self) {
        self.status.stdout = self.spool.status(OutputStream::Stdout);
        self.status.stderr = self.spool.status(OutputStream::Stderr);
    }

    /// Writes down how it ended and tells it. It was over when this says.
    pub(crate) fn end(mut self, over: Over, cause: Cause, group_dead: bool, fault: Option<Fault>) {
        self.spool.finish();
        self.refresh();
        self.status.phase = Phase::Ended;
        let duration_ms = u64::try_from(over.duration.as_millis()).unwrap_or(u64::MAX);
        self.status.end = Some(End { ended_at_ms: over.at_ms, duration_ms, cause, group_dead, fault });
        let cid = self.status.cid;
        tracing::debug!(%cid, group_dead, "run ended");
        self.shared.board.record(self.status);
        hit(Part::Keeper, Point::ExitWritten);
        self.shared.open.remove(cid);
        self.shared.board.tell(cid);
    }

    /// It is over now.
    pub(crate) fn over(&self) -> Over {
        Over { at_ms: unix_ms(), duration: self.started.elapsed() }
    }
}

/// When a run was over, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Over {
    at_ms: u64,
    duration: Duration,
}
