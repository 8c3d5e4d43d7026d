//! A slow link: a TCP way to a server that carries so many bytes per second, and those late.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Bytes carried at once: small beside a second of the slowest link.
const PIECE_BYTES: usize = 1024;
/// Pieces that wait on the link. Whoever sends more fills the buffers of the system, as on a real one.
const PIECES: usize = 64;

/// How slow.
#[derive(Debug, Clone, Copy)]
pub struct Slowness {
    /// Bytes per second, each way.
    pub rate: u32,
    /// How late each byte comes.
    pub delay: Duration,
}

/// A slow way to a server. It is cut when this is dropped.
#[derive(Debug)]
pub struct SlowLink {
    port: u16,
    carried: Arc<AtomicU64>,
    brought: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl SlowLink {
    /// Opens a way to a port of this machine.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn to(server_port: u16, slowness: Slowness) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("opening the slow link")?;
        let port = listener.local_addr().context("opening the slow link")?.port();
        let (carried, brought) = (Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        let counted = (Arc::clone(&carried), Arc::clone(&brought));
        tasks.spawn(accept(listener, server_port, slowness, counted));
        Ok(Self { port, carried, brought, _tasks: tasks })
    }

    /// Where the way begins.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes carried to the server so far.
    pub fn carried_bytes(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Bytes brought from the server so far.
    pub fn brought_bytes(&self) -> u64 {
        self.brought.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    server_port: u16,
    slowness: Slowness,
    (carried, brought): (Arc<AtomicU64>, Arc<AtomicU64>),
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (carried, brought) = (Arc::clone(&carried), Arc::clone(&brought));
        connections.spawn(async move {
            // Without a server the client's side is closed, as by a router that answers for it.
            let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // Either way's end is the end.
            tokio::select! {
                () = carry(from_client, to_server, slowness, carried) => {}
                () = carry(from_server, to_client, slowness, brought) => {}
            }
        });
    }
}

async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, slowness: Slowness, carried: Arc<AtomicU64>) {
    let (pieces, arriving) = mpsc::channel(PIECES);
    // What broke is seen by both ends, as on a real link.
    let _broken = tokio::join!(take_up(from, slowness, pieces), set_down(to, arriving, carried));
}

/// Reads as fast as the link carries, and says when each piece arrives.
async fn take_up(
    mut from: impl AsyncRead + Unpin,
    slowness: Slowness,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    let mut free = Instant::now();
    let mut buffer = [0; PIECE_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        let Some(piece) = buffer.get(..length).filter(|piece| !piece.is_empty()) else { return Ok(()) };
        let busy = Duration::from_secs(1) * u32::try_from(length).unwrap_or(u32::MAX) / slowness.rate;
        free = free.max(Instant::now()) + busy;
        sleep_until(free).await;
        if pieces.send((free + slowness.delay, piece.to_vec())).await.is_err() {
            return Ok(());
        }
    }
}

async fn set_down(
    mut to: impl AsyncWrite + Unpin,
    mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
    carried: Arc<AtomicU64>,
) -> io::Result<()> {
    while let Some((at, piece)) = arriving.recv().await {
        sleep_until(at).await;
        to.write_all(&piece).await?;
        carried.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_arrive_whole_and_late() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let slowness = Slowness { rate: 20_000, delay: Duration::from_millis(100) };
        let link = SlowLink::to(server.local_addr().unwrap().port(), slowness).await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        let began = Instant::now();
        client.write_all(&[7; 10_000]).await.unwrap();
        let mut read = vec![0; 10_000];
        accepted.read_exact(&mut read).await.unwrap();
        assert!(read.iter().all(|byte| *byte == 7));
        assert!(began.elapsed() >= Duration::from_millis(550), "{:?}", began.elapsed());
        assert_eq!((link.carried_bytes(), link.brought_bytes()), (10_000, 0));
        drop(client);
        assert_eq!(accepted.read(&mut [0]).await.unwrap(), 0);
    }
}
