//! One run on another host, from the dial to its recorded end.
//!
//! ```text
//!                        timeout, cancel: TERM ── 5 s ── KILL ── 5 s ── give up
//!                            │
//! dial ── channel ── exec ── hear ── over ── record ── tell        the channel is closed with the session
//!   │                         ▲
//!   └─ timeout, cancel: over  the host said how it ended, and closed the channel or is silent, see [`Rest`]
//! ```
//!
//! OpenSSH sends no signal to what root runs, nor where a command is forced. So where one changes nothing, the processes there are
//! searched for the run's mark, a variable that the host was asked to set, over a channel of its own. A host that takes no
//! variables (`AcceptEnv`), or has no `/proc`, confirms nothing then, and that is said.
//!
//! What is left there in the background when the command is over is left alone: it is nobody's group any more.

use std::{
    future::{Future, pending},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use signalbox_schemas::{output::OutputStream, ssh::SshFault};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    ending::{Ending, Forced, Step},
    protocol::{Cause, Fault, ShellEnd},
    record::Record,
    rest::Rest,
};
use crate::{
    clock::unix_ms,
    ssh::{Event, Failure, Pool, Session, route::Route},
};

/// Names the run in the environment of its processes, where the host takes variables that begin so, as most do.
pub(crate) const REMOTE_RUN_VARIABLE: &str = "LC_SIGNALBOX_RUN";

/// A command that is still there this long after its KILL is given up.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// A signal has so long before the processes are searched for.
const SEARCH_AFTER: Duration = Duration::from_millis(300);
/// Messages of the host before other runs get their turn.
const EVENTS_PER_TURN: u32 = 8;

/// A run on another host.
pub(crate) struct RemoteRun {
    pub(crate) record: Record,
    pub(crate) timeout: Duration,
    /// Whether it goes on for as long as somebody there holds a pipe open.
    pub(crate) await_pipes: bool,
    /// Tells its processes from all others on the host, also from those of the same command by way of another machine.
    pub(crate) mark: String,
    pub(crate) cancel: Rc<Notify>,
}

/// How the command ended, as the host said.
enum Told {
    Status(u32),
    Signal(String),
}

/// What is known to have come of the output when the run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// All of it, or what there was until the run was ended.
    All,
    /// More still came of what came last.
    Part,
    /// The connection broke, or the host gave no answer, before it had said that this is all.
    Unsure,
}

/// What is known while the host is heard.
struct Progress {
    /// The host took the command.
    begun: bool,
    /// How the command ended, and what came since.
    told: Option<(Told, Rest)>,
    /// The host prints no more, or has closed the channel.
    silent: bool,
    closed: bool,
    /// Why nothing more is to be heard.
    failure: Option<Failure>,
    forced: Option<Forced>,
    ending: Ending,
    /// When the processes are to be searched for, and for which signal.
    search: Option<(Instant, &'static str)>,
    searching: Option<Searching>,
}

type Searching = Pin<Box<dyn Future<Output = ()>>>;

/// How a run comes to its end.
struct Result {
    cause: Cause,
    is_dead: bool,
    fault: Option<Fault>,
}

impl RemoteRun {
    /// Follows the run to its end.
    pub(crate) async fn follow(mut self, route: Route, command: String) {
        let result = match self.reach(route.clone()).await {
            Ok(session) => self.hear(session, &command, &route).await,
            Err(result) => result,
        };
        let Result { cause, is_dead, fault } = result;
        let over = self.record.over();
        self.record.end(over, cause, is_dead, fault);
    }

    fn deadline(&self) -> Instant {
        self.record.started + self.timeout
    }

    /// Comes as far as a channel on the host.
    async fn reach(&self, route: Route) -> std::result::Result<Session, Result> {
        let pool = Rc::clone(&self.record.shared.pool);
        let not_begun = |cause| Err(Result { cause, is_dead: true, fault: None });
        tokio::select! {
            biased;
            () = self.cancel.notified() => not_begun(Cause::Cancelled { shell: None }),
            () = sleep_until(self.deadline()) => not_begun(Cause::Timeout { shell: None }),
            opened = pool.open(route) => opened.or_else(|failure| {
                tracing::info!(cid = %self.record.status.cid, %failure, "run not begun");
                not_begun(Cause::Fault(failure.into()))
            }),
        }
    }

    /// Has the command run and hears it to its end.
    async fn hear(&mut self, mut session: Session, command: &str, route: &Route) -> Result {
        let place = route.place();
        session.set_variable(REMOTE_RUN_VARIABLE, self.mark.clone());
        session.exec(command);
        let mut progress = Progress::new();
        let (mut events, mut is_idle) = (0_u32, false);
        loop {
            let now = Instant::now();
            self.act_on_time(&mut progress, &mut session, now, route);
            if let Some(heard) = self.over(&progress, now, is_idle) {
                self.mark_cut(heard, &progress);
                return result(progress, &place);
            }
            let due = self.next_due(&progress);
            is_idle = false;
            tokio::select! {
                biased;
                () = self.cancel.notified() => self.force(&mut progress, &mut session, Forced::Cancelled),
                () = searched(&mut progress.searching) => progress.searching = None,
                // Before the clock: what has arrived counts, however late it is taken.
                event = heard(&mut session, progress.closed) => {
                    self.take(&mut progress, event, &place);
                    events = events.wrapping_add(1);
                    if events.is_multiple_of(EVENTS_PER_TURN) {
                        tokio::task::yield_now().await;
                    }
                }
                () = sleep_until(due) => is_idle = true,
            }
        }
    }

    fn take(&mut self, progress: &mut Progress, event: Event, place: &str) {
        if let Some((_, rest)) = &mut progress.told {
            match &event {
                Event::Output(stream, bytes) => rest.take(*stream, bytes.len(), Instant::now()),
                Event::Eof => rest.heard(Instant::now()),
                Event::Answered => rest.answered(Instant::now()),
                // A host that says again and again how the command ended holds the run no longer for that.
                _ => {}
            }
        }
        match event {
            Event::Begun if progress.begun => {}
            Event::Begun => {
                progress.begun = true;
                self.record.status.begun_at_ms = Some(unix_ms());
                self.record.changed();
            }
            Event::Output(stream, bytes) => self.record.write(stream, &bytes),
            Event::Eof => progress.silent = true,
            Event::Answered => {}
            Event::Status(status) => progress.tell(Told::Status(status)),
            Event::Signal(name) => progress.tell(Told::Signal(name)),
            Event::Closed => (progress.silent, progress.closed) = (true, true),
            Event::Refused => progress.failure = Some(refusal(progress.begun, place)),
            Event::Lost(why) => {
                progress.closed = true;
                let message = format!(
                    "the connection to {place} ended while the command ran ({why}): whether it goes on there is not known"
                );
                progress.failure = Some(Failure::new(SshFault::ConnectionLost, message));
            }
        }
    }

    /// Whether the run is over, and what came of its output then. `is_idle`: nothing was to be heard just now.
    fn over(&self, progress: &Progress, now: Instant, is_idle: bool) -> Option<Heard> {
        if progress.failure.is_some() {
            let is_cut = progress.told.is_some() && !progress.silent;
            return Some(if is_cut { Heard::Unsure } else { Heard::All });
        }
        if progress.closed || progress.ending.is_given_up(now) {
            return Some(Heard::All);
        }
        let (_, rest) = progress.told.as_ref().filter(|_| !self.waits(progress))?;
        let is_all = rest.is_all(progress.silent, now);
        if is_all && is_idle {
            return Some(Heard::All);
        }
        let is_enough = now >= rest.patience_ends(self.deadline());
        let heard = match rest.silence_ends(progress.silent) {
            _ if is_all || progress.silent => Heard::All,
            Some(_) => Heard::Part,
            None => Heard::Unsure,
        };
        is_enough.then_some(heard)
    }

    /// Whether the end of the command is not the end of the run.
    fn waits(&self, progress: &Progress) -> bool {
        self.await_pipes && progress.forced.is_none() && !progress.silent
    }

    /// When the rest of the output is to be looked at again. Absent: there is none yet, or it has all the time.
    fn rest_due(&self, progress: &Progress) -> Option<Instant> {
        let (_, rest) = progress.told.as_ref().filter(|_| !self.waits(progress))?;
        let patience = rest.patience_ends(self.deadline());
        Some(rest.silence_ends(progress.silent).map_or(patience, |silence| silence.min(patience)))
    }

    /// Has the status say that output is missing, where some may be.
    fn mark_cut(&mut self, heard: Heard, progress: &Progress) {
        let came = progress.told.as_ref().map(|(_, rest)| rest.came()).unwrap_or_default();
        for (stream, came) in OutputStream::ALL.into_iter().zip(came) {
            if heard == Heard::Unsure || heard == Heard::Part && came {
                self.record.cut(stream);
            }
        }
    }

    fn act_on_time(&mut self, progress: &mut Progress, session: &mut Session, now: Instant, route: &Route) {
        if now >= self.deadline() {
            self.force(progress, session, Forced::Timeout);
        }
        if progress.ending.has_begun() {
            advance(progress, session, now);
        }
        if let Some((due, signal)) = progress.search.filter(|_| progress.told.is_none())
            && now >= due
        {
            progress.search = None;
            let pool = Rc::clone(&self.record.shared.pool);
            tracing::debug!(cid = %self.record.status.cid, signal, "a signal changed nothing, processes are searched for");
            progress.searching = Some(Box::pin(search(pool, route.clone(), self.mark.clone(), signal)));
        }
        let waits = self.waits(progress);
        if let Some((_, rest)) = progress.told.as_mut().filter(|_| !waits && !progress.closed)
            && rest.asks(progress.silent, now)
        {
            session.ask();
        }
        self.record.tell_when_due(now);
    }

    fn next_due(&self, progress: &Progress) -> Instant {
        let timeout = progress.forced.is_none().then(|| self.deadline());
        let natural = self.rest_due(progress).or(timeout);
        let search = progress.search.filter(|_| progress.told.is_none()).map(|(due, _)| due);
        let due =
            [natural, progress.ending.due(), search, self.record.tell_due()].into_iter().flatten().min();
        due.unwrap_or_else(|| self.deadline())
    }

    /// Ends the run, unless it ended by itself or is being ended already. One that goes on because somebody there holds a pipe
    /// open has not ended by itself, although its command has. Of one whose output still comes, who cancels it wants no more.
    fn force(&self, progress: &mut Progress, session: &mut Session, forced: Forced) {
        if progress.forced.is_some() || progress.closed {
            return;
        }
        if let Some((_, rest)) = &mut progress.told {
            if self.await_pipes || forced == Forced::Cancelled {
                rest.want_no_more();
            }
            if !self.await_pipes {
                return;
            }
        }
        progress.forced = Some(forced);
        advance(progress, session, Instant::now());
    }
}

impl Progress {
    fn new() -> Self {
        Self {
            begun: false,
            told: None,
            silent: false,
            closed: false,
            failure: None,
            forced: None,
            ending: Ending::new(KILL_GRACE),
            search: None,
            searching: None,
        }
    }

    /// Takes how the command ended. The first word counts: a host that says more of it holds the run no longer for that.
    fn tell(&mut self, told: Told) {
        self.told.get_or_insert_with(|| (told, Rest::new(Instant::now())));
    }
}

fn advance(progress: &mut Progress, session: &mut Session, now: Instant) {
    let signal = match progress.ending.advance(now) {
        Step::Terminate => {
            session.terminate();
            "TERM"
        }
        Step::Kill => {
            session.kill();
            "KILL"
        }
        Step::Wait | Step::GiveUp => return,
    };
    progress.search = Some((now + SEARCH_AFTER, signal));
}

/// Sends a signal to all processes on a host that carry a run's mark. What comes of it is heard from the command itself.
async fn search(pool: Rc<Pool>, route: Route, mark: String, signal: &'static str) {
    let mut session = match pool.open(route).await {
        Ok(session) => session,
        Err(failure) => {
            tracing::info!(mark, %failure, "processes of the run not searched for");
            return;
        }
    };
    session.exec(&format!(
        "for f in $(grep -lsaF {REMOTE_RUN_VARIABLE}={mark} /proc/[0-9]*/environ); do f=${{f#/proc/}}; kill -s {signal} \
         ${{f%/environ}}; done"
    ));
    while !matches!(session.next().await, Event::Closed | Event::Lost(_) | Event::Refused) {}
}

async fn searched(searching: &mut Option<Searching>) {
    match searching {
        Some(searching) => searching.await,
        None => pending().await,
    }
}

async fn heard(session: &mut Session, closed: bool) -> Event {
    if closed { pending().await } else { session.next().await }
}

/// What the run came to.
fn result(progress: Progress, place: &str) -> Result {
    let Progress { begun, told, failure, forced, .. } = progress;
    let told = told.map(|(told, _)| match told {
        Told::Signal(name) => Ok(ShellEnd::Signalled(name)),
        Told::Status(status) => match u8::try_from(status) {
            Ok(code) => Ok(ShellEnd::Exited(code)),
            Err(_) => Err(Failure::new(
                SshFault::ExitStatus,
                format!("{place} says that the command ended with {status}, which is no exit code"),
            )),
        },
    });
    let is_dead = told.is_some();
    let Some(forced) = forced else {
        let cause = match (told, failure) {
            (Some(Ok(end)), _) => end.into(),
            // A command that was refused runs nowhere.
            (None, Some(failure)) if failure.code == SshFault::ChannelRefused => {
                return Result { cause: Cause::Fault(failure.into()), is_dead: true, fault: None };
            }
            (Some(Err(failure)), _) | (None, Some(failure)) => Cause::Fault(failure.into()),
            (None, None) => Cause::Fault(unsaid(place).into()),
        };
        return Result { cause, is_dead, fault: None };
    };
    let (shell, fault) = match told {
        Some(Ok(end)) => (Some(end), None),
        Some(Err(failure)) => (None, Some(failure.into())),
        None => (None, Some(not_confirmed(begun, failure.as_ref(), place).into())),
    };
    let cause = match forced {
        Forced::Timeout => Cause::Timeout { shell },
        Forced::Cancelled => Cause::Cancelled { shell },
    };
    Result { cause, is_dead, fault }
}

/// Why a command was refused. A host that took it before may have begun it.
fn refusal(begun: bool, place: &str) -> Failure {
    if begun {
        let message = format!(
            "{place} took the command and refused it afterwards, which is against the protocol: whether it goes on there is not known"
        );
        return Failure::new(SshFault::Protocol, message);
    }
    let message = format!("{place} let the login in and refused the command; what may the user do there?");
    Failure::new(SshFault::ChannelRefused, message)
}

fn unsaid(place: &str) -> Failure {
    let message = format!("{place} closed the command's channel and did not say how it ended");
    Failure::new(SshFault::ExitStatus, message)
}

fn not_confirmed(begun: bool, failure: Option<&Failure>, place: &str) -> Failure {
    let taken = if begun { "" } else { " It had not said either that it took the command." };
    let message = match failure {
        Some(failure) => format!("the command was to be ended: {}", failure.message),
        None => format!(
            "TERM, KILL and the end of its channel were sent, and {place} did not confirm that the command ended: it may go on \
             there.{taken}"
        ),
    };
    Failure::new(SshFault::NotConfirmed, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::before_it_was_taken(false, SshFault::ChannelRefused, true)]
    #[case::after_it_was_taken(true, SshFault::Protocol, false)]
    fn a_command_is_known_not_to_run_only_where_it_was_refused_at_once(
        #[case] begun: bool,
        #[case] code: SshFault,
        #[case] is_dead: bool,
    ) {
        let failure = Some(refusal(begun, "a host"));
        let result = result(Progress { begun, failure, ..Progress::new() }, "a host");
        let Cause::Fault(fault) = result.cause else { panic!("no fault") };
        assert_eq!((fault.code.as_str(), result.is_dead), (code.as_str(), is_dead));
    }
}
