//! Connections that are kept, and the channels on them.
//!
//! All commands with the same route share a *lane*: up to four connections, and those that wait for a channel, in their order. A
//! server lets so many channels be open on one connection (`MaxSessions`, 10 by default) and says so only by refusing one more:
//! that number is then the connection's limit, the next connection is made, and what finds no room waits. Where the known hosts
//! have changed, a connection gets no more commands before its hosts were looked up again. One task per lane decides and does all
//! of this; whoever waits can go away at any moment and leaves nothing open.

mod member;
mod worker;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    future::pending,
    rc::Rc,
    sync::Arc,
};

use russh::{ChannelWriteHalf, client::Msg};
use signalbox_schemas::{id::Sha256, ssh::SshFault};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    task::{JoinSet, spawn_blocking},
};

use worker::Worker;

use super::{
    dial::Connection,
    failure::Failure,
    known_hosts::file::{KnownHosts, Stamp},
    route::Route,
    session::Session,
};

/// Connections of all routes.
const MAX_CONNECTIONS: usize = 64;

/// All lanes.
pub(crate) struct Pool {
    lanes: RefCell<HashMap<Sha256, Rc<Lane>>>,
    tasks: RefCell<JoinSet<()>>,
    /// One permit for each connection that may be.
    room: Arc<Semaphore>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            lanes: RefCell::default(),
            tasks: RefCell::default(),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }
}

/// What commands with one route share.
struct Lane {
    route: Route,
    waiting: RefCell<VecDeque<Waiter>>,
    /// Channels whose end is still to be said.
    to_close: RefCell<Vec<Closing>>,
    /// Rung when there is something to do, also by a connection that ended.
    ring: Arc<Notify>,
    /// What the file of known hosts was when a channel was wanted last, and how often it was seen to be another one.
    known_hosts: Cell<(Stamp, u64)>,
    /// Somebody else needs room: connections that nobody uses go now.
    is_pressed: Cell<bool>,
}

impl Lane {
    /// Takes the stamp of the known hosts. Where it is another one, connections are looked at anew before they are used.
    fn see(&self, stamp: Stamp) {
        let (seen, changes) = self.known_hosts.get();
        if seen != stamp {
            self.known_hosts.set((stamp, changes + 1));
        }
    }

    fn changes(&self) -> u64 {
        self.known_hosts.get().1
    }
}

/// Somebody who waits for a channel.
struct Waiter {
    answer: oneshot::Sender<Result<Session, Failure>>,
    /// Whether a connection was found dead for it already.
    retried: bool,
}

/// A connection, and the permit to have it.
struct Held {
    connection: Connection,
    _permit: OwnedSemaphorePermit,
}

/// A channel whose end is to be said.
struct Closing {
    write: Arc<ChannelWriteHalf<Msg>>,
    /// Its connection stays until then.
    using: Using,
}

/// One use of a connection.
struct Using {
    held: Rc<Held>,
    open: Rc<Cell<usize>>,
    lane: Rc<Lane>,
}

impl Drop for Using {
    fn drop(&mut self) {
        self.open.update(|open| open.saturating_sub(1));
        self.lane.ring.notify_one();
    }
}

/// A channel that was opened for a command. Its end is said when this is dropped, unless the host did.
pub(crate) struct Lease {
    closing: Option<Closing>,
    write: Arc<ChannelWriteHalf<Msg>>,
    is_closed: Cell<bool>,
}

impl Lease {
    pub(crate) fn write(&self) -> Arc<ChannelWriteHalf<Msg>> {
        Arc::clone(&self.write)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// The host has said its end, or is gone.
    pub(crate) fn set_closed(&self) {
        self.is_closed.set(true);
    }

    /// Asks the host for an answer: what it said before, it has said then. Never ends where the connection is gone.
    pub(crate) fn ask(&self) -> impl Future<Output = ()> + 'static {
        let held = self.closing.as_ref().map(|closing| Rc::clone(&closing.using.held));
        async move {
            let asked = async { held?.connection.handle.send_ping().await.ok() };
            if asked.await.is_none() {
                pending::<()>().await;
            }
        }
    }

    /// What is known of the end of its connection.
    pub(crate) fn last_words(&self) -> String {
        let last = self.closing.as_ref().and_then(|closing| closing.using.held.connection.last_words());
        last.unwrap_or_else(|| "it was closed".to_owned())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(closing) = self.closing.take() else { return };
        if !self.is_closed.get() {
            let lane = Rc::clone(&closing.using.lane);
            lane.to_close.borrow_mut().push(closing);
            lane.ring.notify_one();
        }
    }
}

/// A wish for a channel. Who drops it does not wait any more.
struct Ticket {
    lane: Rc<Lane>,
    answered: oneshot::Receiver<Result<Session, Failure>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.answered.close();
        self.lane.ring.notify_one();
    }
}

impl Pool {
    /// Opens a channel to the last host of a route, over a connection that is there or a new one. Whoever drops the future
    /// leaves nothing behind.
    pub(crate) async fn open(self: &Rc<Self>, route: Route) -> Result<Session, Failure> {
        let file = KnownHosts::at(&route.known_hosts);
        let stamp = spawn_blocking(move || file.stamp()).await.unwrap_or_default();
        let lane = self.lane(route);
        lane.see(stamp);
        let (answer, answered) = oneshot::channel();
        lane.waiting.borrow_mut().push_back(Waiter { answer, retried: false });
        lane.ring.notify_one();
        let mut ticket = Ticket { lane, answered };
        let answered = (&mut ticket.answered).await;
        // Its task panicked: the next command makes another one.
        answered.unwrap_or_else(|_| {
            let is_its = |lane: &Rc<Lane>| Rc::ptr_eq(lane, &ticket.lane);
            self.lanes.borrow_mut().retain(|_, lane| !is_its(lane));
            Err(Failure::new(
                SshFault::Protocol,
                "the keeper lost the connection by a fault of its own; try again",
            ))
        })
    }

    fn lane(self: &Rc<Self>, route: Route) -> Rc<Lane> {
        let fingerprint = route.fingerprint();
        if let Some(lane) = self.lanes.borrow().get(&fingerprint) {
            return Rc::clone(lane);
        }
        let lane = Rc::new(Lane {
            route,
            waiting: RefCell::default(),
            to_close: RefCell::default(),
            ring: Arc::default(),
            known_hosts: Cell::default(),
            is_pressed: Cell::default(),
        });
        self.lanes.borrow_mut().insert(fingerprint, Rc::clone(&lane));
        let mut tasks = self.tasks.borrow_mut();
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "task of ssh connections panicked");
            }
        }
        let worker = Worker::new(Rc::clone(&lane), Rc::downgrade(self), Arc::clone(&self.room));
        tasks.spawn_local(worker.run(fingerprint));
        lane
    }

    /// Has connections that nobody uses closed, when there is no room for another one.
    fn press(&self) {
        for lane in self.lanes.borrow().values() {
            lane.is_pressed.set(true);
            lane.ring.notify_one();
        }
    }
}
