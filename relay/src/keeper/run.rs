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

use signalbox_link::crash::{Part, Point, hit};
use signalbox_schemas::output::OutputStream;
use tokio::{
    net::unix::pipe,
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::{
    board::Board,
    open::OpenRuns,
    process::{Exit, Group, Reaper},
    protocol::{Cause, End, Phase, RunStatus, ShellEnd},
    spool::RunSpool,
};
use crate::clock::unix_ms;

/// A TERM has this long before it becomes a KILL.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// A group that is not empty this long after its KILL is reported as not dead.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// Somebody else may hold a pipe open for this long after the shell is gone.
const PIPE_GRACE: Duration = Duration::from_secs(1);
/// While output flows, the relay is told at most this often per run.
const TELL_EVERY: Duration = Duration::from_millis(5);
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
    /// One buffer of [`READ_BYTES`] is enough: no run keeps it while it waits.
    pub(crate) buffer: RefCell<Vec<u8>>,
}

/// What the keeper did to a run before it ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forced {
    Timeout,
    Cancelled,
}

/// How far the ending of a group has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotBegun,
    Terminated(Instant),
    Killed(Instant),
}

impl Ending {
    /// When the next step is due. Absent when nothing was begun.
    fn due(self) -> Option<Instant> {
        match self {
            Self::NotBegun => None,
            Self::Terminated(at) => Some(at + TERM_GRACE),
            Self::Killed(at) => Some(at + KILL_GRACE),
        }
    }

    /// Takes the step that is due. `false` when there is none left.
    fn advance(&mut self, group: Group, now: Instant) -> bool {
        if self.due().is_some_and(|due| now < due) {
            return true;
        }
        match self {
            Self::NotBegun => {
                group.terminate();
                *self = Self::Terminated(now);
            }
            Self::Terminated(_) => {
                group.kill();
                *self = Self::Killed(now);
            }
            Self::Killed(_) => return false,
        }
        true
    }
}

/// A run whose shell was started.
pub(crate) struct Run {
    pub(crate) shared: Rc<Shared>,
    pub(crate) status: RunStatus,
    pub(crate) started: Instant,
    pub(crate) timeout: Duration,
    pub(crate) leave_children: bool,
    /// Whether it goes on for as long as somebody holds a pipe open.
    pub(crate) await_pipes: bool,
    pub(crate) group: Group,
    pub(crate) exit: Rc<Exit>,
    pub(crate) cancel: Rc<Notify>,
    pub(crate) spool: RunSpool,
    /// Standard output and standard error, until they are closed.
    pub(crate) pipes: [Option<pipe::Receiver>; 2],
}

/// What changes while a run is read.
struct Progress {
    shell: Option<(ShellEnd, Instant)>,
    forced: Option<Forced>,
    ending: Ending,
    /// When the relay was told last, and whether there is something new since.
    told: Option<Instant>,
    untold: bool,
}

impl Run {
    /// Follows the run to its end.
    pub(crate) async fn follow(mut self) {
        let mut progress =
            Progress { shell: None, forced: None, ending: Ending::NotBegun, told: None, untold: false };
        self.read_until_over(&mut progress).await;
        let (ended_at_ms, duration) = (unix_ms(), self.started.elapsed());
        // From here on nothing is read: what still writes gets a SIGPIPE.
        self.pipes = [None, None];
        let group_dead = self.end_group(&mut progress).await;
        self.spool.finish();
        self.refresh_status();
        self.status.phase = Phase::Ended;
        self.status.end = Some(End {
            ended_at_ms,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            cause: cause(&progress),
            group_dead,
            fault: None,
        });
        let cid = self.status.cid;
        tracing::debug!(%cid, group_dead, "run ended");
        self.shared.board.record(self.status);
        hit(Part::Keeper, Point::ExitWritten);
        self.shared.open.remove(cid);
        self.shared.board.tell(cid);
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
                () = readable(stdout.as_ref()) => self.take_output(progress).await,
                () = readable(stderr.as_ref()) => self.take_output(progress).await,
            }
        }
    }

    fn is_over(&self, progress: &Progress, now: Instant) -> bool {
        let given_up = matches!(progress.ending, Ending::Killed(at) if now >= at + KILL_GRACE);
        given_up
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
        if now >= self.started + self.timeout {
            self.force(progress, Forced::Timeout);
        }
        if progress.ending != Ending::NotBegun {
            progress.ending.advance(self.group, now);
        }
        let rested = progress.told.is_none_or(|told| now >= told + TELL_EVERY);
        if progress.untold && rested {
            self.refresh_status();
            self.shared.board.record(self.status.clone());
            self.shared.board.tell(self.status.cid);
            progress.told = Some(now);
            progress.untold = false;
        }
    }

    fn next_due(&self, progress: &Progress) -> Instant {
        let natural = match (&progress.shell, progress.forced) {
            (Some(_), _) if self.waits_for_pipes(progress) => Some(self.started + self.timeout),
            (Some((_, reaped)), _) => Some(*reaped + PIPE_GRACE),
            (None, None) => Some(self.started + self.timeout),
            (None, Some(_)) => None,
        };
        let tell = progress.told.filter(|_| progress.untold).map(|told| told + TELL_EVERY);
        let due = [natural, progress.ending.due(), tell].into_iter().flatten().min();
        due.unwrap_or(self.started + self.timeout)
    }

    /// Ends the run, unless it ended by itself or is being ended already.
    fn force(&mut self, progress: &mut Progress, forced: Forced) {
        let shell_is_gone = progress.shell.is_some() && !self.await_pipes;
        if shell_is_gone || progress.forced.is_some() {
            return;
        }
        // A shell that is dead but not reaped yet ended by itself.
        self.shared.reaper.collect();
        if self.exit.now().is_some() && !self.await_pipes {
            return;
        }
        progress.forced = Some(forced);
        progress.ending.advance(self.group, Instant::now());
    }

    async fn take_output(&mut self, progress: &mut Progress) {
        let any = self.read_pipes(READS_PER_TURN);
        if any && progress.told.is_none() && !progress.untold {
            hit(Part::Keeper, Point::OutputHalf);
        }
        progress.untold |= any;
        // Other runs and the clock get their turn, however fast this one writes.
        tokio::task::yield_now().await;
    }

    /// Reads what is there, up to `reads` times per pipe. Whether anything was.
    fn read_pipes(&mut self, reads: usize) -> bool {
        let mut buffer = self.shared.buffer.borrow_mut();
        let mut any = false;
        for (pipe, stream) in self.pipes.iter_mut().zip(OutputStream::ALL) {
            for _ in 0..reads {
                let Some(open) = pipe else { break };
                match open.try_read(&mut buffer) {
                    Ok(0) => *pipe = None,
                    Ok(read) => {
                        self.spool.write(stream, buffer.get(..read).unwrap_or_default());
                        any = true;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::warn!(cid = %self.status.cid, %error, "pipe not read");
                        *pipe = None;
                    }
                }
            }
        }
        any
    }

    fn refresh_status(&mut self) {
        self.status.stdout = self.spool.status(OutputStream::Stdout);
        self.status.stderr = self.spool.status(OutputStream::Stderr);
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
            if !progress.ending.advance(self.group, Instant::now()) {
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
