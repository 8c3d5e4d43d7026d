//! The feed of all commands: a line for each, when it is new or changed.

use std::{collections::BTreeSet, time::Duration};

use signalbox_schemas::{
    api::{FeedEvent, Page},
    error::report,
    id::CommandId,
};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{ALIVE, Answers, End, Listener, UNATTENDED, changed};
use crate::{api::Api, view::Change};

/// Commands told of at the start, the newest ones.
const SNAPSHOT: u32 = 200;
/// Shortest time between two lines about one command: 20 a second are more than anybody reads.
const PACE: Duration = Duration::from_millis(50);

pub(super) async fn run(api: &Api, answers: &mut Answers, mut listener: Listener) -> End {
    let mut changes = api.view().changes();
    let mut due = BTreeSet::new();
    let mut told = match snapshot(api, answers).await {
        Ok(()) => Instant::now(),
        Err(end) => return end,
    };
    loop {
        if let Some(end) = listener.end() {
            return end;
        }
        let flush = told + PACE;
        if !due.is_empty() && Instant::now() >= flush {
            told = Instant::now();
            if let Err(end) = tell(api, answers, std::mem::take(&mut due)).await {
                return end;
            }
            continue;
        }
        tokio::select! {
            batch = changed(&mut changes) => {
                let Some(batch) = batch else { return End::Stopped };
                for change in batch.changes {
                    if let Change::Run { cid, .. } | Change::Command { cid } = change {
                        due.insert(cid);
                    }
                }
                // What was missed concerns the newest commands: tell of them all again.
                if batch.lagged && let Err(end) = snapshot(api, answers).await {
                    return end;
                }
            }
            () = sleep_until(flush), if !due.is_empty() => {}
            () = listener.told() => {}
            () = sleep_until(listener.signed_at() + UNATTENDED) => {}
            () = sleep_until(answers.spoke_at() + ALIVE) => {
                if let Err(end) = answers.event(&FeedEvent::Alive { position: None }).await {
                    return end;
                }
            }
        }
    }
}

/// The newest commands, oldest first.
async fn snapshot(api: &Api, answers: &mut Answers) -> Result<(), End> {
    let page = Page { limit: Some(SNAPSHOT), after: None };
    let listed = api.read(move |view| view.commands(&page)).await.map_err(|_| End::Unreadable)?;
    for summary in listed.items.into_iter().rev() {
        answers.event(&FeedEvent::Command(summary)).await?;
    }
    Ok(())
}

async fn tell(api: &Api, answers: &mut Answers, due: BTreeSet<CommandId>) -> Result<(), End> {
    for id in due {
        let summary = api.view().summary(id).map_err(|error| {
            warn!(error = report(&error), "the store cannot be read");
            End::Unreadable
        })?;
        if let Some(summary) = summary {
            answers.event(&FeedEvent::Command(summary)).await?;
        }
    }
    Ok(())
}
