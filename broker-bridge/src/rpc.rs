//! The NATS front: operators' requests from `api.<ws>.<op>.…`, answers on `feed.<ws>.<op>.<rid>`.
//!
//! Who is asking stands in the subject, where the broker's permissions put it, and so does where the answers
//! go: a reply subject is never looked at, because an operator could name somebody else's.
//!
//! Requests come to one bridge of the queue group. `feed.credit` and `feed.close` come to every bridge, since
//! only the one that serves the feed can act on them; in the queue group they are passed over.

mod permits;
mod table;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use signalbox_link::{Delivery, SubscribeError};
use signalbox_schemas::{
    api::{Credit, OpenFeed, ReadOutput, op},
    error::{ErrorCode, Problem},
    id::{MachineId, OperatorId, RequestId},
    output::OutputStream,
    subject::{BRIDGE_QUEUE, Subject, all_feed_control, all_requests},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::{
    permits::Permits,
    table::{arguments, perform},
};
use crate::{
    api::{
        Api, Caller,
        output::{self as ranges, PieceError},
    },
    feed::{Answers, Feeds},
};

/// Requests in work at once, in all and of one operator; above it the answer is `rate_limited`. Each is done in milliseconds, so this is
/// some 10,000 requests/s, and what they hold (a request is up to 1 MiB) stays at 64 MiB.
const IN_WORK: usize = 64;
const IN_WORK_OF_ONE: usize = 16;
/// Requests, refusals and feeds at once; above it a request is counted and dropped, and its console asks again. The
/// 1,024 feeds that there may be leave room for as many refusals, each of which waits for the broker in the worst case.
const TASKS: usize = 2_048;
/// Largest range of output in one answer.
const OUTPUT_BYTES: u32 = 512 * 1024;
/// After a stop, requests and feeds have this long to say their last word.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Serves operators until `stop`, then closes all feeds and ends within a second.
///
/// # Errors
/// [`SubscribeError`] when the connection takes no subscription; it can be called again.
pub async fn serve(api: Arc<Api>, stop: CancellationToken) -> Result<(), SubscribeError> {
    let link = api.operators().clone();
    let mut requests = link.queue_subscribe(&all_requests(api.ws()), BRIDGE_QUEUE).await?;
    let [credit, close] = all_feed_control(api.ws());
    let mut credit = link.subscribe(&credit).await?;
    let mut close = link.subscribe(&close).await?;
    let mut front = Front {
        feeds: Feeds::new(Arc::clone(&api), stop.child_token()),
        api,
        permits: Permits::new(IN_WORK, IN_WORK_OF_ONE),
        tasks: JoinSet::new(),
    };
    loop {
        let delivery = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = front.tasks.join_next(), if !front.tasks.is_empty() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    front.api.count("rpc", "panicked");
                    error!("a request or feed panicked");
                }
                continue;
            }
            delivery = requests.next() => delivery.map(|delivery| front.request(delivery)),
            delivery = credit.next() => delivery.map(|delivery| front.control(&delivery)),
            delivery = close.next() => delivery.map(|delivery| front.control(&delivery)),
        };
        if delivery.is_none() {
            debug!("the link was closed");
            break;
        }
    }
    let ended = async { while front.tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, ended).await.is_err() {
        warn!(tasks = front.tasks.len(), "requests and feeds did not end in time");
    }
    Ok(())
}

struct Front {
    api: Arc<Api>,
    feeds: Feeds,
    permits: Permits,
    tasks: JoinSet<()>,
}

/// One request, as its subject tells.
struct Asked {
    operator: OperatorId,
    rid: RequestId,
    op: String,
    body: Bytes,
}

impl Front {
    /// Takes one request of the queue group.
    fn request(&mut self, delivery: Delivery) {
        let Some(asked) = self.asked(delivery) else { return };
        match asked.op.as_str() {
            op::FEED_CREDIT | op::FEED_CLOSE => {}
            _ if self.tasks.len() >= TASKS => self.api.count("rpc", "dropped"),
            op::FEED_OPEN => self.open_feed(asked),
            _ => self.answer(asked),
        }
    }

    fn asked(&self, delivery: Delivery) -> Option<Asked> {
        let Ok(Subject::Api(_, operator, noun, verb, rid)) = Subject::parse(&delivery.subject) else {
            // Without a request id there is nowhere to answer.
            self.api.count("rpc", "subject");
            debug!("a request has a subject that cannot be answered");
            return None;
        };
        Some(Asked { operator, rid, op: format!("{noun}.{verb}"), body: delivery.payload })
    }

    fn answer(&mut self, mut asked: Asked) {
        let api = Arc::clone(&self.api);
        let permit = self.permits.take(&asked.operator);
        if permit.is_none() {
            // Up to 1 MiB that nobody is going to read.
            asked.body = Bytes::new();
        }
        self.tasks.spawn(async move {
            let mut answers = Answers::new(&api, &asked.operator, &asked.rid);
            let Some(_permit) = permit else {
                let message =
                    "this bridge has too many requests in work, of yours or in all; try again in a moment";
                return refuse(&api, &mut answers, &asked, Problem::new(ErrorCode::RateLimited, message))
                    .await;
            };
            match perform(&api, &asked).await {
                Ok(Reply::Json(result)) => answers.ok(&result).await,
                Ok(Reply::Output(range)) => answers.range(&range).await,
                Err(problem) => refuse(&api, &mut answers, &asked, problem).await,
            }
        });
    }

    fn open_feed(&mut self, asked: Asked) {
        let opened = arguments::<OpenFeed>(&asked).and_then(|args| {
            let caller = self.api.operator(&asked.operator)?;
            self.feeds.open(&caller, asked.operator.clone(), asked.rid.clone(), args)
        });
        let api = Arc::clone(&self.api);
        match opened {
            Ok(Some(feed)) => drop(self.tasks.spawn(feed.run())),
            // The same request twice: the feed is there, and a second answer would break its numbering.
            Ok(None) => api.count("rpc", "feed_repeated"),
            Err(problem) => drop(self.tasks.spawn(async move {
                let asked = Asked { body: Bytes::new(), ..asked };
                let mut answers = Answers::new(&api, &asked.operator, &asked.rid);
                refuse(&api, &mut answers, &asked, problem).await;
            })),
        }
    }

    /// Takes one `feed.credit` or `feed.close`; feeds of other bridges are passed over.
    fn control(&mut self, delivery: &Delivery) {
        let Ok(Subject::Api(_, operator, _, verb, rid)) = Subject::parse(&delivery.subject) else {
            return self.api.count("rpc", "subject");
        };
        if verb == "close" {
            return self.feeds.close(&operator, &rid);
        }
        match serde_json::from_slice::<Credit>(&delivery.payload) {
            Ok(credit) => self.feeds.credit(&operator, &rid, credit.bytes),
            Err(_) => self.api.count("rpc", "credit"),
        }
    }
}

async fn refuse(api: &Api, answers: &mut Answers, asked: &Asked, problem: Problem) {
    let (operator, op, code) = (&asked.operator, &asked.op, problem.code);
    api.view().shared().refusals.add(&format!("operator:{operator}"), op, code);
    if let Some(count) = api.refused("rpc", code) {
        info!(%operator, ?op, %code, count, "request refused");
    } else {
        debug!(%operator, ?op, %code, "request refused");
    }
    answers.refuse(problem).await;
}

/// The answer to a request.
enum Reply {
    Json(Box<RawValue>),
    Output(Box<OutputAnswer>),
}

/// A range of output with its bytes.
pub(crate) struct OutputAnswer {
    pub(crate) machine: MachineId,
    pub(crate) stream: OutputStream,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) truncated: bool,
    pub(crate) bytes: Bytes,
}

async fn output(api: &Api, caller: &Caller, args: ReadOutput) -> Result<OutputAnswer, Problem> {
    if !(1..=OUTPUT_BYTES).contains(&args.limit) {
        let message =
            format!("cannot read {} bytes of output at once: limit must be 1 to {OUTPUT_BYTES}", args.limit);
        return Err(Problem::new(ErrorCode::Invalid, message));
    }
    let stream = args.stream;
    let mut range = ranges::range(api, caller, &args).await?;
    if let Some(offset) = range.next_offset.filter(|offset| *offset < range.total) {
        // Behind a gap: the answer's own offset says where it begins.
        range = ranges::range(api, caller, &ReadOutput { offset, ..args }).await?;
    }
    let mut pieces = range.take_pieces();
    let mut bytes = BytesMut::new();
    let (mut offset, mut truncated) = (range.offset, range.truncated);
    while let Some(piece) = pieces.next(api.view()).await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            // Dropped by the broker for good: the answer begins behind it, empty if nothing follows.
            Err(PieceError::Gone { len }) if bytes.is_empty() => (offset, truncated) = (offset + len, true),
            // What follows is another range.
            Err(PieceError::Gone { .. }) => {
                truncated = true;
                break;
            }
            Err(error) => return Err(error.problem()),
        }
    }
    Ok(OutputAnswer {
        machine: range.machine,
        stream,
        offset,
        total: range.total,
        truncated,
        bytes: bytes.freeze(),
    })
}

#[cfg(test)]
mod tests {
    use signalbox_link::Headers;

    use super::*;
    use crate::{core::still::Still, stage::Stage};

    #[tokio::test]
    async fn a_flood_of_requests_is_dropped_and_counted() {
        let still = Still::start().await.unwrap();
        let api = still.api();
        let mut front = Front {
            feeds: Feeds::new(Arc::clone(&api), CancellationToken::new()),
            api,
            // None are left: every request is to be refused, and nobody takes the refusals.
            permits: Permits::new(0, 1),
            tasks: JoinSet::new(),
        };
        let extra = 10;
        for i in 0..TASKS + extra {
            front.request(Delivery {
                subject: format!("api.main.local.commands.submit.request-{i}"),
                headers: Headers::new(),
                payload: Bytes::from_static(b"{}"),
                has_reply: false,
            });
        }
        assert_eq!(front.tasks.len(), TASKS);
        assert_eq!(front.api.counters().get("rpc.dropped"), Some(&(extra as u64)));
    }

    #[tokio::test]
    async fn output_that_the_broker_dropped_is_passed_over() {
        let stage = Stage::start().await;
        stage.single_bytes(10).await;
        let link = stage.api.link();
        for sequence in [1, 2, 3, 7] {
            link.delete_message(signalbox_schemas::stream::OUT, sequence).await.unwrap();
        }
        let read = async |offset, limit| {
            let (id, machine) = (stage.id, "web-1".to_owned());
            let args = ReadOutput { id, machine, stream: OutputStream::Stdout, offset, limit };
            let answer = output(&stage.api, &Caller::admin_token(), args).await.unwrap();
            (answer.offset, answer.bytes.len(), answer.truncated)
        };
        // A range that is gone, one that begins in it, one that ends before the next hole, and one without any.
        assert_eq!(read(0, 2).await, (2, 0, true));
        assert_eq!(read(1, 100).await, (3, 3, true));
        assert_eq!(read(3, 3).await, (3, 3, false));
        assert_eq!(read(6, 100).await, (7, 3, true));
        assert_eq!(read(7, 100).await, (7, 3, false));
    }
}
