//! Connections that cannot hold the bridge up: bounded in number and in patience.
//!
//! | a client that | is cut off after |
//! |---|---|
//! | opens a connection, or keeps one, and does not finish a request's head | [`Patience::head`] |
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

/// Most connections at once; more wait in the listener's backlog.
const CONNECTIONS: usize = 1024;
/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Without a request in progress: covers a slow head and an idle kept connection alike.
    head: Duration,
    /// Taking nothing of an answer.
    write: Duration,
    /// Sending the rest of a refused body.
    linger: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let usual = Duration::from_secs(30);
        Self { head: usual, write: usual, linger: Duration::from_secs(2) }
    }
}

/// Pause after a failed accept (out of file descriptors): it fails again at once otherwise.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
        Self { listener, permits: Arc::new(Semaphore::new(CONNECTIONS)), patience, refused }
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
                self.ended = ended;
                self.idle_from = Instant::now();
            }
            ready!(self.idle.as_mut().poll(cx));
            let deadline = self.idle_from + self.patience.head;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.idle.as_mut().reset(deadline);
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
        Pin::new(&mut self.stream).poll_read(cx, buf)
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
mod tests {
    use super::*;
    use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
    use std::future::IntoFuture as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinSet,
        time::timeout,
    };

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(5);

    /// A server with little patience: `/slow` works longer than it has, `/big` answers 64 MiB.
    async fn server() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = |ConnectInfo(pace): ConnectInfo<Pace>| async move {
            let _guard = pace.begin();
            sleep(SHORT * 3).await;
            "done"
        };
        let big = |ConnectInfo(pace): ConnectInfo<Pace>| async move {
            let _guard = pace.begin();
            Body::from(vec![0; 64 << 20])
        };
        let router = Router::new().route("/slow", get(slow)).route("/big", get(big));
        let service = router.into_make_service_with_connect_info::<Pace>();
        let bounded =
            Bounded::new(listener, Patience { head: SHORT, write: SHORT, linger: SHORT }, Arc::new(|_| {}));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(bounded, service).into_future().await.unwrap() });
        (address, tasks)
    }

    /// Everything until the server closes, in bounded time.
    async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is a close too.
        let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server does not close");
        bytes
    }

    #[test]
    fn only_bare_statuses_are_exchanged() {
        let bare =
            "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(bare_status(bare.as_bytes()), Some(431));
        for other in [
            "HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK",
            "content-length: 0\r\n\r\n",
            "",
        ] {
            assert_eq!(bare_status(other.as_bytes()), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_head_that_drips_is_cut_off() {
        let (address, _tasks) = server().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut read, mut write) = stream.split();
        let drip = async {
            for byte in b"GET /slow HTTP/1.1\r\nhost: x\r\nx-long: ".iter().chain([b'a'; 1_000].iter()) {
                if write.write_all(&[*byte]).await.is_err() {
                    return;
                }
                sleep(SHORT / 20).await;
            }
        };
        let mut bytes = Vec::new();
        let closed = timeout(LONG, read.read_to_end(&mut bytes));
        tokio::select! {
            closed = closed => drop(closed.expect("the server does not close")),
            () = drip => panic!("the server listens for ever"),
        }
        assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
    }

    #[tokio::test]
    async fn a_request_in_progress_is_not_idle_and_a_kept_connection_is() {
        let (address, _tasks) = server().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let answer = String::from_utf8(until_closed(&mut stream).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off_and_a_slow_one_is_not() {
        let (address, _tasks) = server().await;
        let request = b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        sleep(SHORT * 3).await;
        assert!(until_closed(&mut stream).await.len() < 64 << 20, "it was sent all");
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let (mut space, mut len) = (vec![0; 8 << 20], 0);
        loop {
            sleep(SHORT / 10).await;
            match timeout(LONG, stream.read(&mut space)).await.unwrap().unwrap() {
                0 => break,
                n => len += n,
            }
        }
        assert!(len > 64 << 20, "{len}");
    }
}
