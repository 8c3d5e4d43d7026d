//! Lets go of commands that were held back until their `not_before`: from then on they are offered.
//!
//! Every bridge does this for its own view; only the holder of the lease writes mailboxes.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    core::{Context, CoreError, now_ms},
    view::Change,
};

/// Longest sleep: clocks are set, and machines sleep.
const LONGEST: Duration = Duration::from_secs(30);

/// Releases what is due, until told to stop.
pub(crate) async fn run(context: Context) -> Result<(), CoreError> {
    let stop = context.stop.clone();
    let work = async {
        loop {
            release(&context);
            let next = context.shared.memory().held.first().map(|(at, _)| *at);
            let left =
                next.map_or(LONGEST, |at| Duration::from_millis(at.saturating_sub(now_ms())).min(LONGEST));
            tokio::select! {
                () = context.shared.held.notified() => {}
                () = sleep(left) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = work => Ok(()),
    }
}

fn release(context: &Context) {
    let released = {
        let now = now_ms();
        // Looked at after every batch: most find nothing, and should not keep others from reading.
        if context.shared.memory().held.first().is_none_or(|(at, _)| *at > now) {
            return;
        }
        let mut memory = context.shared.memory_mut();
        let released = memory.release(now);
        let woken = std::mem::take(&mut memory.woken);
        drop(memory);
        context.shared.waiters.wake(&woken);
        released
    };
    for (cid, machines) in released {
        let runs = machines.iter().map(|mid| Change::Run { cid, mid: mid.clone() });
        context.shared.tell(runs.chain([Change::Command { cid }]));
    }
    context.shared.dispatch.notify_one();
    context.shared.deadline.notify_one();
    context.shared.rollout.notify_one();
}
