//! One run, from its shell's start to its recorded end.
//!
//! ```text
//!            timeout, cancel: TERM ── 5 s ── KILL ── 10 s ── give up
//!                │
//! start ── read both pipes ── over ── end what is left in the group ── record ── tell
//!                              ▲
//!             shell reaped, and both pipes closed or 1 s passed
//! ```

use std::{cell::RefCell, future::pending, io, rc::Rc, time::Duration};

use signalbox_schemas::output::OutputStream;
use tokio::{
    net::unix::pipe,
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::{
    board::Board,
    ending::{Ending, Forced, Step},
    open::OpenRuns,
    process::{Exit, Group, Reaper},
    protocol::{Cause, ShellEnd},
    record::Record,
};
use crate::ssh::Pool;

/// A group that is not empty this long after its KILL is reported as not dead.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// Somebody else may hold a pipe open for this long after the shell is gone.
const PIPE_GRACE: Duration = Duration::from_secs(1);
/// How often an ending group is looked at; nothing reports that a group became empty.
const GROUP_POLL: Duration = Duration::from_millis(10);
/// A pipe holds this much by default (pipe(7)), so one read can take all of it.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// Reads per pipe before other runs get their turn; after the end, before a pipe is left that is still fed.
const READS_PER_TURN: usize = 4;

/// What all runs share.
pub(crate) struct Shared {
    pub(crate) board: Board,
    pub(crate) reaper: Reaper,
    pub(crate) open: OpenRuns,
    /// Connections to other hosts.
    pub(crate) pool: Rc<Pool>,
    /// One buffer of [`READ_BYTES`] is enough: no run keeps it while it waits.
    pub(crate) buffer: RefCell<Vec<u8>>,
}

/// A run whose shell was started.
pub(crate) struct Run {
    pub(crate) record: Record,
    pub(crate) timeout: Duration,
    pub(crate) leave_children: bool,
    /// Whether it goes on for as long as somebody holds a pipe open.
    pub(crate) await_pipes: bool,
    pub(crate) group: Group,
    pub(crate) exit: Rc<Exit>,
    pub(crate) cancel: Rc<Notify>,
    /// Standard output and standard error, until they are closed.
    pub(crate) pipes: [Option<pipe::Receiver>; 2],
}

/// What changes while a run is read.
struct Progress {
    shell: Option<(ShellEnd, Instant)>,
    forced: Option<Forced>,
    ending: Ending,
}

impl Run {
    /// Follows the run to its end.
    pub(crate) async fn follow(mut self) {
        let mut progress = Progress { shell: None, forced: None, ending: Ending::new(KILL_GRACE) };
        self.read_until_over(&mut progress).await;
        let over = self.record.over();
        // From here on nothing is read: what still writes gets a SIGPIPE.
        self.pipes = [None, None];
        let group_dead = self.end_group(&mut progress).await;
        self.record.end(over, cause(&progress), group_dead, None);
    }

    async fn read_until_over(&mut self, progress: &mut Progress) {
        loop {
            let now = Instant::now();
            if self.is_over(progress, now) {
                self.read_pipes(READS_PER_TURN);
                return;
            }
            self.act_on_time(progress, now);
            let due = self.next_due(progress);
            let [stdout, stderr] = &self.pipes;
            tokio::select! {
                biased;
                () = self.cancel.notified() => self.force(progress, Forced::Cancelled),
                shell = self.exit.reaped(), if progress.shell.is_none() => {
                    progress.shell = Some((shell, Instant::now()));
                }
                () = sleep_until(due) => {}
                () = readable(stdout.as_ref()) => self.take_output().await,
                () = readable(stderr.as_ref()) => self.take_output().await,
            }
        }
    }

    fn is_over(&self, progress: &Progress, now: Instant) -> bool {
        progress.ending.is_given_up(now)
            || progress.shell.as_ref().is_some_and(|(_, reaped)| {
                let grace_is_over = now >= *reaped + PIPE_GRACE && !self.waits_for_pipes(progress);
                grace_is_over || self.pipes.iter().all(Option::is_none)
            })
    }

    /// Whether the end of the shell is not the end of the run.
    fn waits_for_pipes(&self, progress: &Progress) -> bool {
        self.await_pipes && progress.forced.is_none()
    }

    /// Everything that is due by the clock.
    fn act_on_time(&mut self, progress: &mut Progress, now: Instant) {
        if now >= self.deadline() {
            self.force(progress, Forced::Timeout);
        }
        if progress.ending.has_begun() {
            self.advance(progress, now);
        }
        self.record.tell_when_due(now);
    }

    fn deadline(&self) -> Instant {
        self.record.started + self.timeout
    }

    /// Takes the step of ending that is due. `false` when there is none left.
    fn advance(&self, progress: &mut Progress, now: Instant) -> bool {
        match progress.ending.advance(now) {
            Step::Wait => {}
            Step::Terminate => self.group.terminate(),
            Step::Kill => self.group.kill(),
            Step::GiveUp => return false,
        }
        true
    }

    fn next_due(&self, progress: &Progress) -> Instant {
        let natural = match (&progress.shell, progress.forced) {
            (Some(_), _) if self.waits_for_pipes(progress) => Some(self.deadline()),
            (Some((_, reaped)), _) => Some(*reaped + PIPE_GRACE),
            (None, None) => Some(self.deadline()),
            (None, Some(_)) => None,
        };
        let due = [natural, progress.ending.due(), self.record.tell_due()].into_iter().flatten().min();
        due.unwrap_or_else(|| self.deadline())
    }

    /// Ends the run, unless it ended by itself or is being ended already.
    fn force(&mut self, progress: &mut Progress, forced: Forced) {
        let shell_is_gone = progress.shell.is_some() && !self.await_pipes;
        if shell_is_gone || progress.forced.is_some() {
            return;
        }
        // A shell that is dead but not reaped yet ended by itself.
        self.record.shared.reaper.collect();
        if self.exit.now().is_some() && !self.await_pipes {
            return;
        }
        progress.forced = Some(forced);
        self.advance(progress, Instant::now());
    }

    async fn take_output(&mut self) {
        self.read_pipes(READS_PER_TURN);
        // Other runs and the clock get their turn, however fast this one writes.
        tokio::task::yield_now().await;
    }

    /// Reads what is there, up to `reads` times per pipe.
    fn read_pipes(&mut self, reads: usize) {
        let shared = Rc::clone(&self.record.shared);
        let mut buffer = shared.buffer.borrow_mut();
        for (pipe, stream) in self.pipes.iter_mut().zip(OutputStream::ALL) {
            for _ in 0..reads {
                let Some(open) = pipe else { break };
                match open.try_read(&mut buffer) {
                    Ok(0) => *pipe = None,
                    Ok(read) => self.record.write(stream, buffer.get(..read).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::warn!(cid = %self.record.status.cid, %error, "pipe not read");
                        *pipe = None;
                    }
                }
            }
        }
    }

    /// Ends what is left in the group. Whether it was seen empty.
    async fn end_group(&self, progress: &mut Progress) -> bool {
        loop {
            if self.group.is_empty() {
                return true;
            }
            if self.leave_children && progress.forced.is_none() {
                return false;
            }
            if !self.advance(progress, Instant::now()) {
                return false;
            }
            sleep(GROUP_POLL).await;
        }
    }
}

fn cause(progress: &Progress) -> Cause {
    let shell = progress.shell.as_ref().map(|(end, _)| end.clone());
    match (progress.forced, shell) {
        (None, Some(shell)) => shell.into(),
        (Some(Forced::Cancelled), shell) => Cause::Cancelled { shell },
        // A run without a reaped shell is over only after it was forced.
        (Some(Forced::Timeout) | None, shell) => Cause::Timeout { shell },
    }
}

async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        // An error shows again at the read that follows.
        Some(pipe) => drop(pipe.readable().await),
        None => pending().await,
    }
}
