//! Connections that cannot hold the bridge up: bounded in number and in patience.
//!
//! | a client that | is cut off after |
//! |---|---|
//! | opens a connection, or begins a request, and does not finish its head | [`Patience::head`] |
//! | keeps a connection and asks for nothing | [`Patience::kept`] |
//! | does not take what it asked for | [`Patience::write`] |
//! | goes on sending a body that was refused | [`Patience::linger`], reading and forgetting it |
//!
//! The last one is why a 10 MB body gets its answer: closing a socket with unread bytes resets it, and the
//! client would see the reset instead of the refusal.
//!
//! A head that cannot be read reaches no handler: the server underneath answers it with a bare status. That answer goes
//! out as a problem document instead.

use std::{
    io,
    io::IoSlice,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use signalbox_schemas::error::ErrorCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tracing::warn;

use super::problem::Refusal;
use crate::descriptors;

/// Most connections at once; more wait in the listener's backlog. A relay of the old contract has two: a poll that is held,
/// and one for the rest.
const CONNECTIONS: usize = 16_384;
/// Descriptors that are left for everything else: the view, the broker, bodies on disk.
const OTHER_DESCRIPTORS: u64 = 256;
/// As many connections are taken whatever the limit of open files is.
const FEW_CONNECTIONS: usize = 64;

/// How many connections may be open at once where a process may have so many descriptors.
fn most_connections(descriptors: u64) -> usize {
    let most = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(CONNECTIONS);
    most.clamp(FEW_CONNECTIONS, CONNECTIONS)
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until a head is there: from the beginning of the connection, or from the first byte of a further head.
    head: Duration,
    /// Between two requests. Longer than relays of the old contract are silent, which is 30 s: what they post on a
    /// connection that is being closed is lost.
    kept: Duration,
    /// Taking nothing of an answer.
    write: Duration,
    /// Sending the rest of a refused body.
    linger: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let usual = Duration::from_secs(30);
        let (kept, linger) = (Duration::from_secs(75), Duration::from_secs(2));
        Self { head: usual, kept, write: usual, linger }
    }
}

/// Pause after a failed accept (out of file descriptors): it fails again at once otherwise.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Read at once. The server underneath begins with a buffer of 8 KiB and doubles it, up to 400 KiB that the connection
/// keeps, whenever one read fills it: so none does.
const READ_BYTES: usize = 8 * 1024 - 1;
/// Read at once while lingering.
const LINGER_BYTES: usize = 16 * 1024;

/// Hears of what was refused before any handler saw it.
type Refused = Arc<dyn Fn(ErrorCode) + Send + Sync>;

/// A listener with a bound.
pub(super) struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    patience: Patience,
    refused: Refused,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener, patience: Patience, refused: Refused) -> Self {
        let (descriptors, wanted) = (descriptors::allowed(), CONNECTIONS);
        let most = most_connections(descriptors);
        if most < wanted {
            warn!(most, wanted, descriptors, "few connections fit into the limit of open files; raise it");
        }
        Self { listener, permits: Arc::new(Semaphore::new(most)), patience, refused }
    }
}

impl Listener for Bounded {
    type Addr = SocketAddr;
    type Io = Guarded;

    async fn accept(&mut self) -> (Guarded, SocketAddr) {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let refused = Arc::clone(&self.refused);
                    return (Guarded::new(stream, permit, self.patience, refused), address);
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Tells a connection whether one of its requests is in progress.
#[derive(Clone, Default)]
pub(super) struct Pace(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicU32,
    ended: AtomicU32,
}

impl Pace {
    /// A request is in progress until the guard is dropped.
    pub(super) fn begin(&self) -> InProgress {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        InProgress(self.clone())
    }

    fn ended(&self) -> u32 {
        self.0.ended.load(Ordering::Acquire)
    }

    fn is_busy(&self) -> bool {
        self.0.begun.load(Ordering::Acquire) != self.ended()
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Pace {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        stream.io().pace.clone()
    }
}

/// Held while a request is in progress.
pub(super) struct InProgress(Pace);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

/// One connection.
pub(super) struct Guarded {
    stream: TcpStream,
    patience: Patience,
    pace: Pace,
    /// Requests that had ended when the clock below was last set.
    ended: u32,
    /// Since when it has neither worked nor taken anything.
    idle_from: Instant,
    /// Whether a request has ended, and nothing of another one has come.
    is_kept: bool,
    idle: Pin<Box<Sleep>>,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs while the rest of a body is forgotten.
    linger: Option<Pin<Box<Sleep>>>,
    /// What is left of a problem document that goes out instead of a bare status.
    instead: Option<Vec<u8>>,
    refused: Refused,
    _permit: OwnedSemaphorePermit,
}

impl Guarded {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, patience: Patience, refused: Refused) -> Self {
        // An answer is written at once; waiting for more of it would only cost time.
        if let Err(error) = stream.set_nodelay(true) {
            warn!(%error, "cannot set TCP_NODELAY");
        }
        Self {
            stream,
            patience,
            pace: Pace::default(),
            ended: 0,
            idle_from: Instant::now(),
            is_kept: false,
            idle: Box::pin(sleep(patience.head)),
            stalled: None,
            linger: None,
            instead: None,
            refused,
            _permit: permit,
        }
    }

    /// Ready when the client has used up its time without completing a request's head.
    ///
    /// The clock always runs, also while a request is in progress: nobody reads from a connection again only
    /// because its request has ended.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let ended = self.pace.ended();
            if ended != self.ended || self.pace.is_busy() {
                self.is_kept |= ended != self.ended;
                self.ended = ended;
                self.idle_from = Instant::now();
            }
            ready!(self.idle.as_mut().poll(cx));
            let patience = if self.is_kept { self.patience.kept } else { self.patience.head };
            let deadline = self.idle_from + patience;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.idle.as_mut().reset(deadline);
        }
    }

    /// Bytes have come. If they are the first of a head, its clock begins.
    fn hear(&mut self, cx: &mut Context<'_>) {
        if self.is_kept && !self.pace.is_busy() {
            self.is_kept = false;
            self.idle_from = Instant::now();
            self.idle.as_mut().reset(self.idle_from + self.patience.head);
            // Only so that it wakes this task: it is not over.
            let _ = self.idle.as_mut().poll(cx);
        }
    }

    /// Starts the write clock on `Pending`, stops it on progress.
    fn watch_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            self.idle_from = Instant::now();
            return written;
        }
        let write = self.patience.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The status of an answer without a body that the server underneath made itself: a handler's refusals have one.
fn bare_status(answer: &[u8]) -> Option<u16> {
    let answer = str::from_utf8(answer).ok()?;
    let (status, headers) = answer.strip_prefix("HTTP/1.1 ")?.split_once(' ')?;
    let is_bare = headers.ends_with("\r\n\r\n") && headers.contains("\r\ncontent-length: 0\r\n");
    status.parse().ok().filter(|_| is_bare)
}

impl Guarded {
    /// Writes `instead` in the place of an answer of `len` bytes.
    fn poll_instead(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<usize>> {
        while let Some(rest) = self.instead.as_mut().filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            rest.drain(..written);
        }
        self.instead = None;
        Poll::Ready(Ok(len))
    }

    /// Whether `answer` is a bare status that goes out as a problem document.
    fn replaces(&mut self, answer: &[u8]) -> bool {
        if self.instead.is_some() {
            return true;
        }
        let Some(refusal) = bare_status(answer).and_then(Refusal::bad_head) else { return false };
        (self.refused)(refusal.code());
        self.instead = Some(refusal.to_last_answer());
        true
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poll_idle(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(self.stream.poll_read_ready(cx))?;
        let mut space = [0; READ_BYTES];
        let mut read = ReadBuf::new(space.get_mut(..buf.remaining().min(READ_BYTES)).unwrap_or_default());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        if !read.filled().is_empty() {
            self.hear(cx);
            buf.put_slice(read.filled());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = if self.replaces(buf) {
            self.poll_instead(cx, buf.len())
        } else {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        };
        self.watch_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match bufs {
            [only] if self.replaces(only) => self.poll_instead(cx, only.len()),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.linger = Some(Box::pin(sleep(self.patience.linger)));
        }
        let this = &mut *self;
        if this.linger.as_mut().is_none_or(|linger| linger.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        let mut space = [0; LINGER_BYTES];
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
