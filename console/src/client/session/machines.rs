//! Machines: what a bridge says of all of them, and the signs of life that come from the broker.

use std::time::Duration;

use futures_util::FutureExt as _;
use signalbox_link::{Delivery, Subscription};
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

/// The list is read anew this often: it carries what heartbeats do not, such as runs that wait.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
/// Machines of the first page of the first reading: more than a screen has rows, and soon here.
const FIRST_PAGE: usize = 100;
/// Signs of life are told together, this often: each by itself would wake the terminal a thousand times a second.
const HEARD_EVERY: Duration = Duration::from_millis(100);
/// Most signs of life in one telling: keys wait while it is applied, some hundred microseconds.
const HEARD: usize = 256;

/// Reads the list over and over, and tells each page as it comes.
pub(super) async fn tell_list(
    client: Client,
    told: mpsc::Sender<Told>,
    mut refresh: watch::Receiver<()>,
) -> Result<(), Gone> {
    let mut state = client.link().state();
    let mut first_page = FIRST_PAGE;
    loop {
        let next = match read(&client, &told, first_page).await? {
            Ok(()) => {
                first_page = list::PAGE;
                SNAPSHOT_EVERY
            }
            Err(error) => {
                tracing::debug!(error = signalbox_schemas::error::report(&error), "no snapshot");
                RETRY
            }
        };
        tokio::select! {
            () = sleep(next) => {}
            Ok(()) = refresh.changed() => {}
            Ok(()) = state.changed() => {}
        }
    }
}

/// Reads the list once.
async fn read(
    client: &Client,
    told: &mpsc::Sender<Told>,
    first_page: usize,
) -> Result<Result<(), ClientError>, Gone> {
    let mut pages = Pages::new(op::MACHINES_LIST, Page::default());
    let (mut after, mut limit, mut machines) = (None, first_page, 0);
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
        (after, limit) = (until, list::PAGE);
    }
    Ok(Ok(()))
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
