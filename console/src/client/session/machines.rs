//! Machines: what a bridge says of all of them, and the signs of life that come from the broker.

use std::time::Duration;

use futures_util::FutureExt as _;
use signalbox_link::{Delivery, LinkState, Subscription};
use signalbox_schemas::{
    api::{MachineView, Page, op},
    heartbeat::Heartbeat,
    limit,
    subject::{self, Subject},
};
use tokio::{
    sync::{mpsc, watch},
    task::coop::unconstrained,
    time::{Instant, sleep, sleep_until},
};

use super::{Gone, RETRY};
use crate::client::{
    Client, ClientError, Heard, Stretch, Told,
    clock::steady_ms,
    list::{self, Pages},
};

/// The list is read anew in this time: it carries what heartbeats do not, such as runs that wait.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
/// Machines of the first page of the first reading: more than a screen has rows, and soon here.
const FIRST_PAGE: usize = 100;
/// Pages of a reading that nobody waits for, as far as they are not too large: each stops the keys while it is applied.
const SLICES: usize = 100;
/// Signs of life are told together, this often: each by itself would wake the terminal a thousand times a second.
const HEARD_EVERY: Duration = Duration::from_millis(100);
/// Most signs of life in one telling: keys wait while it is applied, some hundred microseconds.
const HEARD: usize = 256;

/// How the list is read.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// At once: somebody waits for it.
    Prompt { first_page: usize },
    /// In slices, evenly over the time until it is to be read anew.
    Even { machines: usize },
}

impl Pace {
    /// Machines of the first page, and of the others.
    fn pages(self) -> (usize, usize) {
        match self {
            Self::Prompt { first_page } => (first_page, list::PAGE),
            Self::Even { machines } => {
                let slice = machines.div_ceil(SLICES).clamp(FIRST_PAGE, list::PAGE);
                (slice, slice)
            }
        }
    }

    /// Between two pages.
    fn rest(self) -> Duration {
        let Self::Even { machines } = self else { return Duration::ZERO };
        let pages = machines.div_ceil(self.pages().1).max(1);
        SNAPSHOT_EVERY / u32::try_from(pages).unwrap_or(u32::MAX)
    }
}

/// Reads the list over and over, and tells each page as it comes.
pub(super) async fn tell_list(
    client: Client,
    told: mpsc::Sender<Told>,
    mut refresh: watch::Receiver<()>,
) -> Result<(), Gone> {
    let mut state = client.link().state();
    let mut pace = Pace::Prompt { first_page: FIRST_PAGE };
    loop {
        let reading = read(&client, &told, pace);
        let count = match pace {
            // To its end, however often it is wished for meanwhile.
            Pace::Prompt { .. } => reading.await,
            Pace::Even { .. } => tokio::select! {
                count = reading => count,
                () = wished(&mut refresh, &mut state) => {
                    pace = Pace::Prompt { first_page: list::PAGE };
                    continue;
                }
            },
        };
        let (next, rest) = match count? {
            Ok(machines) => (Pace::Even { machines }, Pace::Even { machines }.rest()),
            Err(error) => {
                tracing::debug!(error = signalbox_schemas::error::report(&error), "no snapshot");
                (pace, RETRY)
            }
        };
        pace = tokio::select! {
            () = sleep(rest) => next,
            () = wished(&mut refresh, &mut state) => Pace::Prompt { first_page: list::PAGE },
        };
    }
}

/// Waits until somebody wants the list, or the connection is another one.
async fn wished(refresh: &mut watch::Receiver<()>, state: &mut watch::Receiver<LinkState>) {
    tokio::select! {
        Ok(()) = refresh.changed() => {}
        Ok(()) = state.changed() => {}
        else => std::future::pending().await,
    }
}

/// Reads the list once; how many machines there are.
async fn read(
    client: &Client,
    told: &mpsc::Sender<Told>,
    how: Pace,
) -> Result<Result<usize, ClientError>, Gone> {
    let mut pages = Pages::new(op::MACHINES_LIST, Page::default());
    let (mut limit, others) = how.pages();
    let (mut after, mut machines) = (None, 0);
    while !pages.is_over() {
        let page: Vec<MachineView> = match pages.next(client, limit).await {
            Ok(page) => page,
            Err(error) => return Ok(Err(error)),
        };
        machines += page.len();
        if machines > list::MOST {
            return Ok(Err(list::too_long(list::MOST)));
        }
        let until = match page.last() {
            Some(last) if !pages.is_over() => Some(last.token.clone()),
            // Nothing is said of anything.
            None if !pages.is_over() => continue,
            _ => None,
        };
        told.send(Told::Machines(Stretch { after, machines: page, until: until.clone() })).await?;
        (after, limit) = (until, others);
        if !pages.is_over() {
            sleep(how.rest()).await;
        }
    }
    Ok(Ok(machines))
}

/// Tells what is heard, until the connection is closed.
pub(super) async fn tell_heard(client: Client, told: mpsc::Sender<Told>) -> Result<(), Gone> {
    let ws = client.access().ws.clone();
    loop {
        let Ok(mut heard) = client.link().subscribe(&subject::all_live_heartbeats(&ws)).await else {
            sleep(RETRY).await;
            continue;
        };
        let mut next = Instant::now();
        while let Some(first) = heard.next().await {
            // Meanwhile more of them gather in the subscription, which wakes nobody.
            sleep_until(next).await;
            if let Some(signs) = gathered(&first, &mut heard) {
                // Those that are more than one telling has room for go on at once.
                let is_full = signs.len() >= HEARD;
                told.send(Told::Heartbeats(signs)).await?;
                next = if is_full { Instant::now() } else { Instant::now() + HEARD_EVERY };
            }
        }
        return Ok(());
    }
}

/// What has come until now, as much as one telling has room for; `None` when nothing of it can be read.
fn gathered(first: &Delivery, heard: &mut Subscription) -> Option<Vec<Heard>> {
    let mut signs: Vec<Heard> = sign(first).into_iter().collect();
    // Those that cannot be read take room too: a flood of them must end.
    for _ in 1..HEARD {
        // Without the budget of the runtime: it would show a full queue as empty after 128 messages.
        let Some(delivery) = unconstrained(heard.next()).now_or_never().flatten() else { break };
        signs.extend(sign(&delivery));
    }
    (!signs.is_empty()).then_some(signs)
}

/// A sign of life; `None` for one that is too large, makes no sense, or speaks of another machine.
fn sign(delivery: &Delivery) -> Option<Heard> {
    let Ok(Subject::LiveHeartbeat(_, token)) = Subject::parse(&delivery.subject) else { return None };
    if delivery.payload.len() > limit::HEARTBEAT_BYTES {
        return None;
    }
    match serde_json::from_slice::<Heartbeat>(&delivery.payload) {
        Ok(heartbeat) if heartbeat.mid == token => Some(Heard { token, at_ms: steady_ms(), heartbeat }),
        Ok(_) | Err(_) => {
            tracing::debug!(%token, "heartbeat cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_is_read_in_slices_over_the_whole_time() {
        for machines in [0, 1, 99, 100, 101, 9_999, 10_000, 54_321, list::MOST] {
            let pace = Pace::Even { machines };
            let (first, others) = pace.pages();
            assert_eq!(first, others);
            assert!((FIRST_PAGE..=list::PAGE).contains(&first), "{machines}: {first}");
            assert!(first == FIRST_PAGE || machines.div_ceil(first) <= SLICES, "{machines}: {first}");
            let pages = u32::try_from(machines.div_ceil(first).max(1)).unwrap();
            let whole = pace.rest() * pages;
            assert!(whole <= SNAPSHOT_EVERY && whole + pages * Duration::from_nanos(1) >= SNAPSHOT_EVERY);
        }
        let pace = Pace::Prompt { first_page: FIRST_PAGE };
        assert_eq!((pace.pages(), pace.rest()), ((FIRST_PAGE, list::PAGE), Duration::ZERO));
    }
}
