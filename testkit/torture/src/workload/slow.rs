//! An operator on a slow line: it takes output at a few KB/s.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use signalbox_schemas::id::CommandId;
use signalbox_testkit::operator::{FeedItem, Operator};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::told::{Piece, SlowRead};

/// Output that is asked for at once, bytes, and how often.
const CREDIT: u64 = 4 * 1024;
const EVERY: Duration = Duration::from_secs(1);
/// How long feeds are looked for.
const FIRST: Duration = Duration::from_secs(2);
/// Feeds at once.
const FEEDS: usize = 4;

/// Opens feeds of commands that were just accepted, and reads them until `over`.
pub(super) async fn read(
    operator: &Operator,
    mut latest: watch::Receiver<Vec<CommandId>>,
    over: &CancellationToken,
) -> Result<Vec<SlowRead>> {
    // A plan's first harm may come before its first command is accepted.
    let enough = async { latest.wait_for(|latest| latest.len() >= FEEDS).await.is_ok() };
    let _has_enough = timeout(FIRST, enough).await;
    let commands = latest.borrow().clone();
    let mut feeds = JoinSet::new();
    for command in commands.into_iter().take(FEEDS) {
        let (operator, over) = (operator.clone(), over.clone());
        feeds.spawn(async move { feed(&operator, command, &over).await });
    }
    let mut all = Vec::new();
    while let Some(read) = feeds.join_next().await {
        all.extend(read??);
    }
    Ok(all)
}

async fn feed(operator: &Operator, command: CommandId, over: &CancellationToken) -> Result<Vec<SlowRead>> {
    // Without a connection there is nothing to read, and what was read until it was lost counts.
    let Ok(mut feed) = operator.open(command, CREDIT).await else { return Ok(vec![]) };
    let mut clock = interval(EVERY);
    let mut read: BTreeMap<String, Vec<Piece>> = BTreeMap::new();
    loop {
        let item = tokio::select! {
            () = over.cancelled() => break,
            _ = clock.tick() => {
                if feed.credit(CREDIT).await.is_err() {
                    break;
                }
                continue;
            }
            item = feed.next() => item?,
        };
        match item {
            FeedItem::Output(chunk) => {
                let piece = Piece::of(chunk.stream, chunk.offset, &chunk.bytes);
                read.entry(chunk.machine).or_default().push(piece);
            }
            FeedItem::Event(_) => {}
            FeedItem::Over(_) => break,
        }
    }
    // Who cannot say that he closes it is forgotten by the bridge: he gives no credit any more.
    drop(feed.close().await);
    Ok(read.into_iter().map(|(machine, pieces)| SlowRead { command, machine, pieces }).collect())
}
