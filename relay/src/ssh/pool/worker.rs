//! The one task of a lane: it makes its connections, opens and closes their channels, and lets go of what nobody uses.

use std::{
    cell::Cell,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use russh::client::Msg;
use signalbox_schemas::{id::Sha256, ssh::SshFault};
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use super::{
    super::{dial::dial, failure::Failure, session::Session},
    Closing, Held, Lane, Lease, Pool, Using, Waiter,
    member::Member,
};

/// A connection that nobody uses is kept for so long.
const IDLE_KEEP: Duration = Duration::from_mins(1);
/// Connections of one route.
const MAX_PER_ROUTE: usize = 4;
/// A channel is opened within this time, or the connection is gone.
const OPEN_WAIT: Duration = Duration::from_secs(10);
/// A channel's end is said within this time, or with the connection's.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// A channel that was closed from here may count at the host for so long: until what ran on it has ended there.
const CLOSED_COUNTS: Duration = Duration::from_secs(1);
/// A connection that refused a channel because of such a one is left alone for so long.
const REST: Duration = Duration::from_millis(50);
/// While there is no room for a connection, those that nobody uses are asked for so often.
const PRESS_EVERY: Duration = Duration::from_millis(50);
/// Where a second connection was refused, it is tried again after so long.
const DIAL_AGAIN: Duration = Duration::from_secs(5);

/// What a job of a lane came to.
enum Done {
    /// With how often the known hosts had changed before.
    Dialled(Result<Box<Held>, Failure>, u64),
    Checked {
        member: u64,
        changes: u64,
        is_believed: bool,
    },
    Opened {
        member: u64,
        waiter: Waiter,
        result: Result<russh::Channel<Msg>, NotOpened>,
    },
    Closed,
}

/// Why a channel was not opened.
enum NotOpened {
    Refused(String),
    /// The connection is gone, or as good as that.
    Gone,
}

/// What is to be done next for those that wait.
enum Step {
    Open(usize),
    Dial,
    Nothing,
}

/// Serves one lane.
pub(super) struct Worker {
    lane: Rc<Lane>,
    pool: Weak<Pool>,
    room: Arc<Semaphore>,
    members: Vec<Member>,
    jobs: JoinSet<Done>,
    dialling: Option<AbortHandle>,
    /// No connection is made before this moment.
    dial_from: Instant,
    next_id: u64,
}

impl Worker {
    pub(super) fn new(lane: Rc<Lane>, pool: Weak<Pool>, room: Arc<Semaphore>) -> Self {
        let (members, jobs) = (Vec::new(), JoinSet::new());
        Self { lane, pool, room, members, jobs, dialling: None, dial_from: Instant::now(), next_id: 0 }
    }

    pub(super) async fn run(mut self, fingerprint: Sha256) {
        loop {
            self.tidy();
            self.serve_waiting();
            let is_over =
                self.members.is_empty() && self.jobs.is_empty() && self.lane.waiting.borrow().is_empty();
            if is_over && self.lane.to_close.borrow().is_empty() {
                // Nobody can come between the look and this: all of it is one thread's.
                if let Some(pool) = self.pool.upgrade() {
                    pool.lanes.borrow_mut().remove(&fingerprint);
                }
                return;
            }
            let due = self.next_due();
            tokio::select! {
                () = self.lane.ring.notified() => {}
                Some(done) = self.jobs.join_next() => self.take(done),
                () = sleep_until(due) => {}
            }
        }
    }

    /// Lets go of what is over: those that wait no more, connections that ended, or that nobody used for long.
    fn tidy(&mut self) {
        self.lane.waiting.borrow_mut().retain(|waiter| !waiter.answer.is_closed());
        if self.lane.waiting.borrow().is_empty()
            && let Some(dialling) = self.dialling.take()
        {
            dialling.abort();
        }
        let closing: Vec<Closing> = self.lane.to_close.borrow_mut().drain(..).collect();
        for Closing { write, using } in closing {
            let is_its = |member: &&mut Member| Rc::ptr_eq(&member.held, &using.held);
            if let Some(member) = self.members.iter_mut().find(is_its) {
                member.closed_at = Some(Instant::now());
            }
            self.jobs.spawn_local(async move {
                // russh does not tell that the host has closed it too, and until it has it counts there: what is answered
                // after it came after it. With a connection that is gone its channels are, too.
                let closed = async {
                    write.close().await?;
                    using.held.connection.handle.send_ping().await
                };
                drop(timeout(CLOSE_WAIT, closed).await);
                drop(using);
                Done::Closed
            });
        }
        let (now, is_pressed) = (Instant::now(), self.lane.is_pressed.take());
        for member in &mut self.members {
            if !member.is_unused() {
                member.idle_since = now;
            }
        }
        let goes = |member: &mut Member| {
            let is_idle = is_pressed || member.is_spent() || now >= member.idle_since + IDLE_KEEP;
            member.held.connection.is_closed() || (member.is_unused() && is_idle)
        };
        for member in self.members.extract_if(.., goes) {
            tracing::debug!(route = %self.lane.route.place(), "ssh connection given up");
            self.jobs.spawn_local(async move {
                member.held.connection.goodbye().await;
                Done::Closed
            });
        }
    }

    fn serve_waiting(&mut self) {
        if !self.lane.waiting.borrow().is_empty() {
            self.check();
        }
        loop {
            match self.next_step() {
                Step::Nothing => return,
                Step::Dial => self.dial(),
                Step::Open(index) => {
                    let Some(waiter) = self.lane.waiting.borrow_mut().pop_front() else { return };
                    self.open(index, waiter);
                }
            }
        }
    }

    /// Looks up again who has connections from before the known hosts changed.
    fn check(&mut self) {
        let changes = self.lane.changes();
        let is_due =
            |member: &&mut Member| !member.is_retired && !member.is_checked && member.believed_at != changes;
        for member in self.members.iter_mut().filter(is_due) {
            member.is_checked = true;
            let (id, held, lane) = (member.id, Rc::clone(&member.held), Rc::clone(&self.lane));
            self.jobs.spawn_local(async move {
                let is_believed = held.connection.is_believed(&lane.route).await;
                Done::Checked { member: id, changes, is_believed }
            });
        }
    }

    /// A connection to a host that is not believed any more takes no more commands. Those that it has go on.
    fn checked(&mut self, id: u64, changes: u64, is_believed: bool) {
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else { return };
        (member.is_checked, member.believed_at) = (false, changes);
        if !is_believed {
            tracing::info!(route = %self.lane.route.place(), "known hosts have changed, an ssh connection is given up");
            member.is_retired = true;
        }
    }

    fn next_step(&self) -> Step {
        if self.lane.waiting.borrow().is_empty() {
            return Step::Nothing;
        }
        if let Some(index) = self.members.iter().position(Member::has_room) {
            return Step::Open(index);
        }
        let may_dial = self.dialling.is_none() && Instant::now() >= self.dial_from;
        let in_use = self.members.iter().filter(|member| !member.is_retired).count();
        if may_dial && in_use < MAX_PER_ROUTE && self.members.iter().all(Member::is_full) {
            return Step::Dial;
        }
        Step::Nothing
    }

    fn dial(&mut self) {
        let (lane, room, pool) = (Rc::clone(&self.lane), Arc::clone(&self.room), self.pool.clone());
        tracing::debug!(route = %lane.route.place(), "dialling");
        let changes = lane.changes();
        self.dialling = Some(self.jobs.spawn_local(async move {
            let permit = loop {
                if let Ok(Ok(permit)) = timeout(PRESS_EVERY, Arc::clone(&room).acquire_owned()).await {
                    break permit;
                }
                if let Some(pool) = pool.upgrade() {
                    pool.press();
                }
            };
            let dialled = dial(&lane.route, &lane.ring).await;
            Done::Dialled(dialled.map(|connection| Box::new(Held { connection, _permit: permit })), changes)
        }));
    }

    fn open(&mut self, index: usize, waiter: Waiter) {
        let Some(member) = self.members.get_mut(index) else { return };
        member.opening += 1;
        let (id, held) = (member.id, Rc::clone(&member.held));
        self.jobs.spawn_local(async move {
            let opened = timeout(OPEN_WAIT, held.connection.handle.channel_open_session()).await;
            let result = match opened {
                Ok(Ok(channel)) => Ok(channel),
                Ok(Err(russh::Error::ChannelOpenFailure(why))) => Err(NotOpened::Refused(format!("{why:?}"))),
                Ok(Err(_)) | Err(_) => Err(NotOpened::Gone),
            };
            Done::Opened { member: id, waiter, result }
        });
    }

    fn take(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Checked { member, changes, is_believed }) => self.checked(member, changes, is_believed),
            Ok(Done::Dialled(dialled, changes)) => {
                self.dialling = None;
                match dialled {
                    Ok(held) => self.add(*held, changes),
                    Err(failure) => self.dial_failed(&failure),
                }
            }
            Ok(Done::Opened { member, waiter, result }) => self.opened(member, waiter, result),
            Ok(Done::Closed) => {}
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                tracing::error!(%error, "job of an ssh connection panicked");
                // Which one is not known: none of them is waited for.
                self.dialling = None;
                self.members.clear();
            }
        }
    }

    fn add(&mut self, held: Held, believed_at: u64) {
        self.members.push(Member::new(self.next_id, held, believed_at));
        self.next_id += 1;
    }

    /// Those that wait hear why, unless they can wait for a connection that is there.
    fn dial_failed(&mut self, failure: &Failure) {
        if self.has_usable() {
            tracing::debug!(%failure, "no further ssh connection");
            self.dial_from = Instant::now() + DIAL_AGAIN;
            return;
        }
        self.fail_waiting(failure);
    }

    /// Whether there is a connection that takes commands, now or later.
    fn has_usable(&self) -> bool {
        self.members.iter().any(|member| !member.is_retired)
    }

    fn fail_waiting(&self, failure: &Failure) {
        for waiter in self.lane.waiting.borrow_mut().drain(..) {
            // Who waits no more needs no answer.
            drop(waiter.answer.send(Err(failure.clone())));
        }
    }

    fn opened(&mut self, id: u64, waiter: Waiter, result: Result<russh::Channel<Msg>, NotOpened>) {
        // A connection that has gone meanwhile has no channels.
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else {
            return self.wait_again(waiter);
        };
        member.opening -= 1;
        match result {
            Ok(channel) => {
                member.opened += 1;
                member.open.update(|open| open + 1);
                member.limit = member.limit.map(|limit| limit.max(member.open.get()));
                let using = Using {
                    held: Rc::clone(&member.held),
                    open: Rc::clone(&member.open),
                    lane: Rc::clone(&self.lane),
                };
                let (read, write) = channel.split();
                let write = Arc::new(write);
                let closing = Some(Closing { write: Arc::clone(&write), using });
                let lease = Lease { closing, write, is_closed: Cell::new(false) };
                // Where nobody waits any more it is dropped here, and closed with that.
                drop(waiter.answer.send(Ok(Session::new(lease, read))));
            }
            Err(NotOpened::Refused(why)) => self.refused(id, waiter, &why),
            Err(NotOpened::Gone) => {
                member.is_retired = true;
                self.wait_again(waiter);
            }
        }
    }

    /// The connection has as many channels as it takes, or takes none.
    fn refused(&mut self, id: u64, waiter: Waiter, why: &str) {
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else { return };
        let (open, was_good, now) = (member.open.get(), member.opened > 0, Instant::now());
        if member.closed_at.is_some_and(|at| now < at + CLOSED_COUNTS) {
            // That one may still count there, and says nothing of how many there may be.
            member.rests_until = Some(now + REST);
            self.lane.waiting.borrow_mut().push_front(waiter);
            return;
        }
        if open > 0 || member.opening > 0 {
            member.limit = Some(open.max(1));
            self.lane.waiting.borrow_mut().push_front(waiter);
            return;
        }
        member.is_retired = true;
        if was_good {
            // What was closed here still runs there, and counts: a new connection has all of its channels.
            self.lane.waiting.borrow_mut().push_front(waiter);
            return;
        }
        // A login for each of those that wait would come to the same, and hosts lock out who logs in so often.
        if self.has_usable() {
            self.dial_from = Instant::now() + DIAL_AGAIN;
            self.lane.waiting.borrow_mut().push_front(waiter);
            return;
        }
        let message = format!(
            "{} let the login in and opened no session ({why}); is the user allowed commands (MaxSessions, the account's shell)?",
            self.lane.route.place()
        );
        let failure = Failure::new(SshFault::ChannelRefused, message);
        drop(waiter.answer.send(Err(failure.clone())));
        self.fail_waiting(&failure);
    }

    /// Nothing was said of the command yet, so it may go over another connection; once.
    fn wait_again(&mut self, mut waiter: Waiter) {
        if waiter.retried {
            let message = format!(
                "{} closed the connection before it took the command; try again",
                self.lane.route.place()
            );
            drop(waiter.answer.send(Err(Failure::new(SshFault::Protocol, message))));
            return;
        }
        waiter.retried = true;
        self.lane.waiting.borrow_mut().push_front(waiter);
    }

    /// When a connection has been idle for long enough, or another one may be made.
    fn next_due(&self) -> Instant {
        let idle = self
            .members
            .iter()
            .filter(|member| member.is_unused())
            .map(|member| member.idle_since + IDLE_KEEP);
        let now = Instant::now();
        let dial = (self.dial_from > now && !self.lane.waiting.borrow().is_empty()).then_some(self.dial_from);
        let rest = self.members.iter().filter_map(|member| member.rests_until).filter(|until| *until > now);
        idle.chain(dial).chain(rest).min().unwrap_or(now + IDLE_KEEP)
    }
}
