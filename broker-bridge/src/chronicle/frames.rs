//! Frames: composed from memory, written to HIST, and the newest ones read again.

use signalbox_link::Store;
use signalbox_schemas::{
    history::{BUCKETS, Figures, Frame, MOST_BUCKETS, bucket, buckets},
    stream::HIST,
    subject::{Subject, all_history},
};
use tracing::warn;

use super::told::{Known, Told};
use crate::{
    broker_link::BrokerError,
    core::{Context, Shared},
    projection::memory::Machine,
};

/// Writes a frame for each bucket that has machines. Answers how many.
///
/// # Errors
/// [`BrokerError`]; what was written before stays.
pub(super) async fn write(context: &Context, told: &Told, now: u64) -> Result<usize, BrokerError> {
    let frames = compose(context, told, now);
    for (number, frame) in &frames {
        let subject = Subject::History(context.broker.ws().clone(), *number).to_string();
        let stored = context.shared.link.store(Store::new(subject.clone(), frame.to_json())).await;
        stored.map_err(|source| BrokerError::Store { what: subject, source })?;
    }
    Ok(frames.len())
}

fn compose(context: &Context, told: &Told, now: u64) -> Vec<(u32, Frame)> {
    let buckets = buckets(told.machines.len());
    let mut dealt: Vec<Vec<Figures>> = (0..buckets).map(|_| Vec::new()).collect();
    let memory = context.shared.memory();
    // Sorted, and so each bucket is.
    for (mid, known) in &told.machines {
        let Some(machine) = memory.machines.get(mid) else { continue };
        if let Some(dealt) = dealt.get_mut(bucket(mid, buckets) as usize) {
            dealt.push(figures(machine, known, now));
        }
    }
    drop(memory);
    let frame = |(number, machines): (u32, Vec<Figures>)| {
        let frame = Frame {
            ws: context.broker.ws().clone(),
            at: now,
            bridge: context.broker.bridge().clone(),
            buckets,
            events: told.events,
            told_runs: told.runs,
            machines,
        };
        (number, frame)
    };
    (0..).zip(dealt).filter(|(_, machines)| !machines.is_empty()).map(frame).collect()
}

fn figures(machine: &Machine, known: &Known, now: u64) -> Figures {
    let beat = machine.beat.as_ref();
    let metrics = beat.and_then(|beat| beat.beat.metrics.as_ref());
    let fullest = metrics.and_then(|metrics| {
        metrics.disks.iter().filter_map(|disk| percent(disk.used_bytes, disk.total_bytes)).max()
    });
    Figures {
        token: machine.record.token.clone(),
        state: known.state,
        is_skewed: known.is_skewed,
        cpu: metrics.map(|metrics| rounded(metrics.cpu_percent)),
        memory: metrics.and_then(|it| percent(it.memory_used_bytes, it.memory_total_bytes)),
        disk: fullest,
        load: metrics.map(|metrics| tenths(metrics.load[0])),
        running: machine.running,
        pending: machine.pending(),
        age: beat.map(|it| u32::try_from(now.saturating_sub(it.seen_at) / 1_000).unwrap_or(u32::MAX)),
        relay: known.relay.clone(),
        mark: known.mark,
    }
}

fn percent(used: u64, total: u64) -> Option<u8> {
    let percent = (u128::from(used) * 100).checked_div(u128::from(total))?;
    u8::try_from(percent.min(100)).ok()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
fn rounded(percent: f32) -> u8 {
    percent.clamp(0.0, 100.0).round() as u8
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and saturating")]
fn tenths(load: f64) -> u32 {
    (load * 10.0).clamp(0.0, f64::from(u32::MAX)).round() as u32
}

/// The newest frame of each bucket; none at all where none was ever written. What is no frame counts for none.
///
/// # Errors
/// [`BrokerError`].
pub(super) async fn newest(context: &Context) -> Result<Vec<Frame>, BrokerError> {
    let ws = context.broker.ws();
    let mut frames = Vec::new();
    let last = context.broker.last(HIST, &all_history(ws)).await?;
    let Some(last) = last else { return Ok(frames) };
    let buckets = read(&context.shared, &last).map_or(BUCKETS, |frame| frame.buckets).min(MOST_BUCKETS);
    for number in 0..buckets {
        let subject = Subject::History(ws.clone(), number).to_string();
        let last = context.broker.last(HIST, &subject).await?;
        frames.extend(last.and_then(|message| read(&context.shared, &message)));
    }
    Ok(frames)
}

/// A frame that was stored; `None`, counted, when it is none, or another workspace's.
pub(crate) fn read(shared: &Shared, message: &signalbox_link::Message) -> Option<Frame> {
    let frame = Frame::from_json(&message.payload).ok();
    let frame = frame.filter(|frame| message.subject.strip_prefix(&format!("hist.{}.", frame.ws)).is_some());
    if frame.is_none() {
        let count = shared.counters.add("refused.HIST.frame");
        if count.is_power_of_two() {
            warn!(sequence = message.sequence, count, "what stands in the history of figures is no frame");
        }
    }
    frame
}
