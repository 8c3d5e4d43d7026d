//! The feed of all commands: a line for each, when it is new or changed.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use signalbox_schemas::{api::FeedEvent, error::report, id::CommandId};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{ALIVE, Answers, Batch, End, Listener, UNATTENDED, changed};
use crate::{
    api::Api,
    store::StoreError,
    view::{Change, View},
};

/// Commands told of at the start, the newest ones.
const SNAPSHOT: usize = 200;
/// Shortest time between two lines about one command: 20 a second are more than anybody reads.
const PACE: Duration = Duration::from_millis(50);

pub(super) async fn run(api: &Api, answers: &mut Answers, listener: Listener) -> End {
    let feed = CommandsFeed { api, answers, listener, due: BTreeSet::new(), unsettled: HashSet::new() };
    feed.go_on().await.err().unwrap_or(End::Closed)
}

struct CommandsFeed<'a> {
    api: &'a Api,
    answers: &'a mut Answers,
    listener: Listener,
    /// To be told next.
    due: BTreeSet<CommandId>,
    /// Last told with runs that had not settled.
    unsettled: HashSet<CommandId>,
}

impl CommandsFeed<'_> {
    async fn go_on(mut self) -> Result<(), End> {
        let mut changes = self.api.view().changes();
        let newest = self.read(|view| view.newest(SNAPSHOT)).await?;
        if newest.is_empty() {
            // Who opens a feed hears at once that somebody is there, also when there is nothing to tell.
            self.answers.event(&FeedEvent::Alive { position: None }).await?;
        }
        for id in newest.into_iter().rev() {
            self.tell(id).await?;
        }
        let mut told = Instant::now();
        loop {
            if let Some(end) = self.listener.end() {
                return Err(end);
            }
            let flush = told + PACE;
            if !self.due.is_empty() && Instant::now() >= flush {
                told = Instant::now();
                for id in std::mem::take(&mut self.due) {
                    self.tell(id).await?;
                }
                continue;
            }
            tokio::select! {
                batch = changed(&mut changes) => self.take(batch.ok_or(End::Stopped)?).await?,
                () = sleep_until(flush), if !self.due.is_empty() => {}
                () = self.listener.told() => {}
                () = sleep_until(self.listener.signed_at() + UNATTENDED) => {}
                () = sleep_until(self.answers.spoke_at() + ALIVE) => {
                    self.answers.event(&FeedEvent::Alive { position: None }).await?;
                }
            }
        }
    }

    async fn take(&mut self, batch: Batch) -> Result<(), End> {
        for change in batch.changes {
            if let Change::Run { cid, .. } | Change::Command { cid } = change {
                self.due.insert(cid);
            }
        }
        if batch.lagged {
            // What was missed concerns new commands, open ones, or such as settled meanwhile.
            let newest = self.read(|view| view.newest(SNAPSHOT)).await?;
            self.due.extend(newest);
            self.due.extend(self.api.view().open_commands());
            self.due.extend(&self.unsettled);
        }
        Ok(())
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, End> {
        self.api.read(read).await.map_err(|_| End::Unreadable)
    }

    /// One at a time: a line can hold 64 KiB of text.
    async fn tell(&mut self, id: CommandId) -> Result<(), End> {
        let summary = self.api.view().summary(id).map_err(|error| {
            warn!(error = report(&error), "the store cannot be read");
            End::Unreadable
        })?;
        if summary.as_ref().is_some_and(|summary| !summary.settled) {
            self.unsettled.insert(id);
        } else {
            self.unsettled.remove(&id);
        }
        match summary {
            Some(summary) => self.answers.event(&FeedEvent::Command(summary)).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use signalbox_link::Subscription;
    use signalbox_schemas::{
        api::{Answer, AnswerBody, Counts},
        id::{OperatorId, RequestId},
        limit::FIRST_ANSWER_MS,
        run::RunState,
    };
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;
    use uuid::Uuid;

    use super::{super::Control, *};
    use crate::{
        stage::{Stage, spec},
        store::{Txn, key},
    };

    /// The nth command there is.
    fn command(n: u64) -> CommandId {
        CommandId::new(Uuid::from_u128(0x0193_a2b4_0000_7000_8000_0000_0000_0000 + u128::from(n))).unwrap()
    }

    /// Puts it there, with its only run in a state.
    fn put(on: &Stage, n: u64, state: RunState) {
        let mut txn = Txn::new(&on.still.context.shared.store);
        txn.put(key::order(n, n), command(n).uuid().as_bytes().to_vec());
        txn.put(key::spec(command(n)), spec(command(n), "true").into());
        txn.put_json(key::counts(command(n)), &Counts::from([(state, 1)]));
        txn.commit().unwrap();
    }

    async fn next(feed: &mut Subscription) -> (CommandId, bool) {
        let told = tokio::time::timeout(Duration::from_secs(10), feed.next()).await.unwrap().unwrap();
        match serde_json::from_slice::<Answer>(&told.payload).unwrap().body {
            AnswerBody::Event(event) => match *event {
                FeedEvent::Command(summary) => (summary.id, summary.settled),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// Opens a feed; it ends with the task.
    async fn open(stage: &Stage) -> (Subscription, JoinSet<End>) {
        let operators = stage.api.operators().clone();
        let feed = operators.subscribe("feed.main.local.request-1").await.unwrap();
        operators.flush().await;
        let mut tasks = JoinSet::new();
        let api = Arc::clone(&stage.api);
        tasks.spawn(async move {
            let stop = CancellationToken::new();
            let listener = Listener::new(Arc::new(Control::new(0, stop.child_token())), stop);
            let (operator, rid) = (OperatorId::new("local").unwrap(), RequestId::new("request-1").unwrap());
            run(&api, &mut Answers::new(&api, &operator, &rid), listener).await
        });
        (feed, tasks)
    }

    #[tokio::test]
    async fn where_there_is_nothing_to_tell_the_opening_is_answered_all_the_same() {
        let stage = Stage::start().await;
        let (mut feed, _tasks) = open(&stage).await;
        let patience = Duration::from_millis(FIRST_ANSWER_MS / 2);
        let told = tokio::time::timeout(patience, feed.next()).await.expect("in time").unwrap();
        let AnswerBody::Event(event) = serde_json::from_slice::<Answer>(&told.payload).unwrap().body else {
            panic!("{told:?}")
        };
        assert!(matches!(*event, FeedEvent::Alive { .. }), "{event:?}");
    }

    #[tokio::test]
    async fn what_was_open_is_told_again_when_changes_were_missed() {
        let stage = Stage::start().await;
        let snapshot = SNAPSHOT as u64;
        put(&stage, 0, RunState::Executing);
        let (mut feed, _tasks) = open(&stage).await;
        assert_eq!(next(&mut feed).await, (command(0), false));
        // It settles, and so many new ones come that it is none of the newest; the feed hears nothing of all that.
        put(&stage, 0, RunState::Completed);
        for n in 1..=snapshot {
            put(&stage, n, RunState::Completed);
        }
        for _ in 0..10_000 {
            stage.still.context.shared.tell([Change::Output { cid: stage.id, mid: stage.mid.clone() }]);
        }
        assert_eq!(next(&mut feed).await, (command(0), true));
        for n in 1..=snapshot {
            assert_eq!(next(&mut feed).await, (command(n), true));
        }
    }
}
