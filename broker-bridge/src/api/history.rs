//! `history.fleet`, `history.machine`: read from the frames in HIST, of which no bridge keeps a copy.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use signalbox_link::{Message, ReadError};
use signalbox_schemas::{
    api::{
        FiguresView, FleetAt, FleetThen, Kept, MOST_POINTS, MachineOver, MachineSeries, MomentView, PointView,
    },
    authors::Role,
    error::{ErrorCode, Problem, report},
    history::{BUCKETS, Figures, Frame, MOST_BUCKETS, bucket},
    id::{MachineId, MachineToken},
    stream::HIST,
    subject::{Subject, all_history},
};
use tokio::{sync::Semaphore, time::timeout};
use tracing::warn;

use super::{Api, Caller, page};
use crate::chronicle::frames;

/// Points when nobody says how many.
const POINTS: u32 = 120;
/// Frames that are asked for at once.
const IN_FLIGHT: usize = 8;
/// Questions that are answered at once: each holds up to as many frames as there are buckets.
const AT_ONCE: usize = 2;
/// How long one may take, waiting for its turn included.
const PATIENCE: Duration = Duration::from_secs(4);
/// Frames are not closer than this, ms.
const LEAST_STEP_MS: u64 = 60_000;

/// Turns of those who ask.
#[derive(Debug)]
pub(crate) struct Readers(Semaphore);

impl Default for Readers {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

/// A page of the fleet at an earlier moment, sorted by token: of each bucket the newest frame at or before that moment.
///
/// # Errors
/// `forbidden`, `not_caught_up` also when the broker does not answer, or `invalid` for a limit out of range or a place that
/// is none.
pub async fn fleet(api: &Api, caller: &Caller, args: &FleetAt) -> Result<FleetThen, Problem> {
    caller.require(Role::Viewer, "look at the history")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), |after| MachineToken::new(after).is_ok())?;
    in_turn(api, async {
        let frames = at(api, args.at).await?;
        let newest = frames.iter().map(|(at, _)| *at).max();
        let mut moments: Vec<(u64, u64, Figures)> = Vec::new();
        for (stored_at, frame) in frames {
            let behind = |token: &str| args.after.as_deref().is_none_or(|after| token > after);
            let machines = frame.machines.into_iter().filter(|machine| behind(machine.token.as_str()));
            moments.extend(machines.map(|machine| (stored_at, frame.at, machine)));
        }
        // Where the number of buckets has grown, the frame before may still name a machine.
        moments.sort_by(|a, b| a.2.token.cmp(&b.2.token).then(b.0.cmp(&a.0)));
        moments.dedup_by(|a, b| a.2.token == b.2.token);
        let views = moments.into_iter().map(|(stored, at, figures)| moment(api, stored, at, figures));
        let listed = page::cut(views, limit, |view| view.token.to_string());
        Ok(FleetThen { listed, at: newest, kept: kept(api).await? })
    })
    .await
}

/// The figures of one machine over time: the time is cut into parts of one length, and of each the first frame is read.
///
/// # Errors
/// `forbidden`, `not_caught_up` also when the broker does not answer, `not_found` for an unknown machine, or `invalid` for
/// times or points that make no sense.
pub async fn machine(api: &Api, caller: &Caller, args: &MachineOver) -> Result<MachineSeries, Problem> {
    caller.require(Role::Viewer, "look at the history")?;
    api.ready()?;
    let invalid = |what: &str| {
        Problem::new(ErrorCode::Invalid, format!("cannot look at the history of a machine: {what}"))
    };
    let points = args.points.unwrap_or(POINTS);
    if !(1..=MOST_POINTS).contains(&points) {
        return Err(invalid(&format!("points must be 1 to {MOST_POINTS}")));
    }
    if args.from >= args.to {
        return Err(invalid("`from` must lie before `to`"));
    }
    let Some(record) = api.view().machine(&args.machine) else {
        let message = "there is no such machine; `machines.list` names those that are known";
        return Err(Problem::new(ErrorCode::NotFound, message));
    };
    let (id, token) = (record.id, record.token);
    in_turn(api, async {
        let kept = kept(api).await?;
        let Some(has) = kept else {
            return Ok(MachineSeries { id, token, step_ms: LEAST_STEP_MS, points: Vec::new(), kept });
        };
        // Only what can be there is asked for.
        let (from, to) = (args.from.max(has.earliest), args.to.min(has.latest.saturating_add(1)));
        let step_ms = (to.saturating_sub(from)).div_ceil(u64::from(points)).max(LEAST_STEP_MS);
        let starts = (0..u64::from(points)).map(|n| from.saturating_add(n.saturating_mul(step_ms)));
        let starts = starts.take_while(|start| *start < to);
        let read = starts.map(|start| {
            let end = start.saturating_add(step_ms).min(to);
            point(api, &token, start, end)
        });
        let read: Vec<_> = read.collect();
        let points: Vec<Option<PointView>> = stream::iter(read).buffered(IN_FLIGHT).try_collect().await?;
        let points = points.into_iter().flatten().collect();
        Ok(MachineSeries { id, token: token.clone(), step_ms, points, kept })
    })
    .await
}

/// Waits for a turn, and ends what takes too long.
async fn in_turn<T>(api: &Api, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let turn = async {
        let _turn = api.history.0.acquire().await.map_err(|error| unreadable(&error))?;
        work.await
    };
    timeout(PATIENCE, turn).await.map_err(|late| unreadable(&late))?
}

/// The newest frame of each bucket that was stored at or before a moment, with when that was, Unix ms.
async fn at(api: &Api, moment: u64) -> Result<Vec<(u64, Frame)>, Problem> {
    let mut frames = some_at(api, moment, 0..BUCKETS).await?;
    // Buckets are dealt anew when a fleet grows: how many there are is said by the newest frame.
    let newest = frames.iter().max_by_key(|(at, _)| *at);
    let buckets = newest.map_or(BUCKETS, |(_, frame)| frame.buckets).min(MOST_BUCKETS);
    frames.extend(some_at(api, moment, BUCKETS..buckets).await?);
    Ok(frames)
}

async fn some_at(
    api: &Api,
    moment: u64,
    buckets: std::ops::Range<u32>,
) -> Result<Vec<(u64, Frame)>, Problem> {
    let read = buckets.map(|number| async move {
        let subject = Subject::History(api.ws().clone(), number).to_string();
        api.link().last_at(HIST, moment, &subject).await
    });
    let read: Vec<_> = read.collect();
    let read: Result<Vec<Option<Message>>, ReadError> =
        stream::iter(read).buffered(IN_FLIGHT).try_collect().await;
    let messages = read.map_err(|error| unreadable(&error))?.into_iter().flatten();
    Ok(messages.filter_map(|message| Some((message.time_ms, frame(api, &message)?))).collect())
}

/// The first frame with a machine that was stored from `start` on, before `end`.
async fn point(api: &Api, token: &MachineToken, start: u64, end: u64) -> Result<Option<PointView>, Problem> {
    let mut buckets = BUCKETS;
    // Once more where there were more buckets then than what was looked for.
    for _ in 0..2 {
        let subject = Subject::History(api.ws().clone(), bucket(token, buckets)).to_string();
        let found = api.link().next_at(HIST, start, &subject).await.map_err(|error| unreadable(&error))?;
        let Some(message) = found.filter(|message| message.time_ms < end) else { return Ok(None) };
        let Some(frame) = frame(api, &message) else { return Ok(None) };
        if let Some(figures) = frame.of(token) {
            let figures_view = view(figures);
            let (at, state) = (message.time_ms, figures.state);
            return Ok(Some(PointView { at, state, figures: figures_view }));
        }
        if frame.buckets == buckets {
            return Ok(None);
        }
        buckets = frame.buckets;
    }
    Ok(None)
}

fn frame(api: &Api, message: &Message) -> Option<Frame> {
    frames::read(api.view().shared(), message).filter(|frame| frame.ws == *api.ws())
}

/// From when to when there are frames.
async fn kept(api: &Api) -> Result<Option<Kept>, Problem> {
    let all = all_history(api.ws());
    let first = api.link().next_at(HIST, 0, &all).await.map_err(|error| unreadable(&error))?;
    let last = api.link().last(HIST, &all).await.map_err(|error| unreadable(&error))?;
    Ok(first.zip(last).map(|(first, last)| Kept { earliest: first.time_ms, latest: last.time_ms }))
}

/// `at` is by the clock of who wrote the frame, as the age is.
fn moment(api: &Api, stored_at: u64, at: u64, figures: Figures) -> MomentView {
    let record = api.view().machine(figures.token.as_str());
    let heard = |age: u32| at.saturating_sub(u64::from(age) * 1_000);
    MomentView {
        id: record.map_or_else(|| unnamed(&figures.token), |record| record.id),
        at: stored_at,
        state: figures.state,
        last_seen_at: figures.age.map(heard),
        figures: view(&figures),
        relay: figures.relay,
        token: figures.token,
    }
}

#[expect(clippy::expect_used, reason = "the rule of tokens is narrower than that of ids")]
fn unnamed(token: &MachineToken) -> MachineId {
    MachineId::new(token.as_str()).expect("invariant: every token has the spelling of an id")
}

fn view(figures: &Figures) -> FiguresView {
    FiguresView {
        cpu_percent: figures.cpu,
        memory_percent: figures.memory,
        disk_percent: figures.disk,
        load_tenths: figures.load,
        running: figures.running,
        pending: figures.pending,
    }
}

fn unreadable(error: &dyn std::error::Error) -> Problem {
    warn!(error = report(error), "the history of figures cannot be read");
    let message = "cannot read the history: the broker does not answer in time; try again, or ask for less";
    Problem::new(ErrorCode::NotCaughtUp, message)
}
