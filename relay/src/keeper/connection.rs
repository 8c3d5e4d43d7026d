//! One relay's connection, as the keeper sees it.
//!
//! Reading and writing go on side by side: a relay that does not read its answers is still heard, until it has
//! [`UNREAD_ANSWERS`] of them open.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use rustix::process::geteuid;
use signalbox_schemas::id::Nonce;
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::timeout,
};

use super::{
    board::Watcher,
    protocol::{FrameError, FrameReader, Greeting, PROTOCOL_VERSION, ToKeeper, ToRelay, encode},
    run::Shared,
};
use crate::clock::unix_ms;

/// A relay says hello at once; whoever does not in this time is let go.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// Answers that a relay may leave unread before it is no longer listened to.
const UNREAD_ANSWERS: usize = 64;

/// Who this keeper is.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) nonce: Nonce,
    pub(crate) instance: Nonce,
}

/// Something a relay asked for, with the room its answer will take.
pub(crate) struct Asked {
    pub(crate) message: ToKeeper,
    pub(crate) answer: mpsc::OwnedPermit<ToRelay>,
}

/// Serves one connection until it ends.
pub(crate) async fn serve(
    stream: UnixStream,
    identity: Identity,
    shared: Rc<Shared>,
    asked_tx: mpsc::Sender<Asked>,
) {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == geteuid().as_raw() => {}
        _ => {
            tracing::warn!("connection of another user refused");
            return;
        }
    }
    if let Err(error) = talk(stream, identity, &shared, asked_tx).await {
        tracing::debug!(%error, "relay connection ended");
    }
}

async fn talk(
    stream: UnixStream,
    identity: Identity,
    shared: &Shared,
    asked_tx: mpsc::Sender<Asked>,
) -> Result<(), FrameError> {
    let (read_half, write_half) = stream.into_split();
    let mut reader = FrameReader::new(read_half);
    // A hello of another version is welcomed too: the relay decides what to make of it.
    let Ok(Ok(Some(ToKeeper::Hello { version }))) = timeout(HELLO_WAIT, reader.next()).await else {
        tracing::warn!("connection without a hello refused");
        return Ok(());
    };
    tracing::info!(version, "relay connected");
    let (answer_tx, answer_rx) = mpsc::channel(UNREAD_ANSWERS);
    tokio::select! {
        heard = hear(reader, answer_tx, asked_tx) => heard,
        told = tell(write_half, identity, shared, answer_rx) => told,
    }
}

async fn hear(
    mut reader: FrameReader<OwnedReadHalf>,
    answer_tx: mpsc::Sender<ToRelay>,
    asked_tx: mpsc::Sender<Asked>,
) -> Result<(), FrameError> {
    while let Some(message) = reader.next().await? {
        let Ok(answer) = answer_tx.clone().reserve_owned().await else { return Ok(()) };
        if asked_tx.send(Asked { message, answer }).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn tell(
    mut write_half: OwnedWriteHalf,
    identity: Identity,
    shared: &Shared,
    mut answer_rx: mpsc::Receiver<ToRelay>,
) -> Result<(), FrameError> {
    let watcher = greet(&mut write_half, identity, shared).await?;
    loop {
        let mut frames = Vec::new();
        tokio::select! {
            biased;
            Some(answer) = answer_rx.recv() => encode(&answer, &mut frames)?,
            changed = watcher.changed() => encode_newest(shared, &changed, &mut frames)?,
        }
        write_half.write_all(&frames).await.map_err(FrameError::Io)?;
    }
}

/// Says who the keeper is and what it runs; from then on the watcher hears of every change.
async fn greet(
    write_half: &mut OwnedWriteHalf,
    identity: Identity,
    shared: &Shared,
) -> Result<Rc<Watcher>, FrameError> {
    shared.board.prune_when_short(unix_ms());
    let (runs, watcher) = shared.board.watch();
    let Identity { nonce, instance } = identity;
    let count = u32::try_from(runs.len()).unwrap_or(u32::MAX);
    let free = Some(u32::try_from(shared.board.free()).unwrap_or(u32::MAX));
    let (version, pid) = (PROTOCOL_VERSION, std::process::id());
    let greeting = Greeting { version, nonce, instance, pid, runs: count, free, remote: true };
    let mut frames = Vec::new();
    encode(&ToRelay::Welcome(greeting), &mut frames)?;
    for run in runs {
        encode(&ToRelay::Status(Box::new(run)), &mut frames)?;
    }
    write_half.write_all(&frames).await.map_err(FrameError::Io)?;
    Ok(watcher)
}

fn encode_newest(
    shared: &Shared,
    changed: &BTreeSet<signalbox_schemas::id::CommandId>,
    frames: &mut Vec<u8>,
) -> Result<(), FrameError> {
    shared
        .board
        .newest(changed)
        .into_iter()
        .try_for_each(|run| encode(&ToRelay::Status(Box::new(run)), frames))
}
