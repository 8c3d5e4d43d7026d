//! Results: kept until the center takes them, over restarts of this relay.

use std::{path::Path, time::Duration};

use signalbox_link::crash::{Part, Point, hit};
use signalbox_schemas::{Base64Url, id::CommandId};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    body::{MIN_OUTPUT_BYTES, OUTPUT_BYTES, compose},
    http::{Center, StatusCode},
    kept::{Kept, Origin},
    runs::REMEMBERED_MS,
    wire::{Ended, is_object},
    worker::{Done, Worker},
};
use crate::{
    backoff::Backoff,
    clock::unix_ms,
    journal::{Entry, Report},
};

/// First and longest wait before a result is sent again. The first is drawn from half of this.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// So many refusals of the result itself are its end. They are [`LONGEST_RETRY`] apart: one that comes from a proxy whose
/// center is being replaced passes.
const MAX_REFUSALS: u32 = 3;

/// What became of a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The center has it.
    Yes,
    /// It is given up.
    Never(String),
}

/// What was answered to one attempt.
#[derive(Debug, Clone, Copy)]
struct Heard {
    status: StatusCode,
    /// Whether a center speaks, and not a server before it.
    is_json: bool,
}

/// What follows from one attempt.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    End(Taken),
    /// Try again, in a while that grows.
    Again,
    /// Try again after the longest wait.
    AgainLate,
    /// Try again at once, with less output.
    Smaller,
}

/// How the sending of one result goes. Pure.
#[derive(Debug)]
struct Sending {
    expires_at: u64,
    refusals: u32,
    most_output: u64,
}

impl Sending {
    fn new(expires_at: u64) -> Self {
        Self { expires_at, refusals: 0, most_output: OUTPUT_BYTES }
    }

    /// Takes what one attempt came to: an answer, or why there is none.
    fn tried(&mut self, attempt: Result<Heard, String>, now_ms: u64) -> Next {
        let why = match attempt {
            // Whatever the body says: the center has heard it.
            Ok(Heard { status, .. }) if status.is_success() => return Next::End(Taken::Yes),
            Ok(Heard { status: StatusCode::PAYLOAD_TOO_LARGE, .. })
                if self.most_output > MIN_OUTPUT_BYTES =>
            {
                self.most_output = (self.most_output / 4).max(MIN_OUTPUT_BYTES);
                return Next::Smaller;
            }
            Ok(Heard { status, is_json }) if is_json && is_refusal(status) => {
                self.refusals += 1;
                if self.refusals >= MAX_REFUSALS {
                    return Next::End(Taken::Never(format!("the center refuses it with {status}")));
                }
                if now_ms < self.expires_at {
                    return Next::AgainLate;
                }
                status.to_string()
            }
            Ok(Heard { status, .. }) => status.to_string(),
            Err(error) => error,
        };
        if now_ms >= self.expires_at {
            return Next::End(Taken::Never(format!("it is too old; the last attempt failed with {why}")));
        }
        tracing::debug!(error = why, "Result not sent");
        Next::Again
    }
}

/// Whether a center that answers so says no to the result itself. Everything else is about this relay, this moment, or a
/// server on the way: a path that is not there now is there when the center is.
fn is_refusal(status: StatusCode) -> bool {
    let refusals = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
    refusals.contains(&status)
}

/// One attempt. Blocks.
fn send(
    center: &Center,
    folder: &Path,
    cid: CommandId,
    ended: &Ended,
    most_output: u64,
) -> Result<Heard, String> {
    let composed = compose(folder, cid, ended, most_output);
    let (mut body, length) = composed.map_err(|error| format!("its output cannot be read: {error}"))?;
    let answer = center.post_from("/relay/commands/result", length, &mut body);
    let heard = answer.map(|answer| Heard { status: answer.status, is_json: is_object(&answer) });
    heard.map_err(|error| error.to_string())
}

impl Worker {
    /// Sends what earlier processes of this relay could not.
    pub(super) fn send_waiting(&mut self) {
        let waiting: Vec<_> = self.journal.ledger().waiting().collect();
        let mut of_others = 0_usize;
        for fact in waiting {
            let expires_at = self.journal.ledger().expires_at(fact.cid);
            match serde_json::from_slice::<Kept>(&fact.body.0) {
                Ok(Kept { ended, origin }) if self.is_own(origin.as_ref()) => {
                    self.send(fact.cid, ended, expires_at);
                }
                Ok(_) => of_others += 1,
                Err(error) => {
                    tracing::error!(cid = %fact.cid, %error, "A result cannot be read back and is dropped");
                    self.note(Entry::Acked { cid: fact.cid });
                }
            }
        }
        if of_others > 0 {
            tracing::warn!(
                results = of_others,
                "Results wait that another center, or another assignment, is to hear: they are not sent to this one. \
                 Start the relay with that URL and key once, or they are dropped eight days after they were made"
            );
        }
        self.drop_expired();
    }

    /// Drops what nobody sends and is too old by now.
    pub(super) fn drop_expired(&mut self) {
        let (ledger, now_ms) = (self.journal.ledger(), unix_ms());
        let expired: Vec<CommandId> = ledger
            .waiting()
            .map(|fact| fact.cid)
            .filter(|cid| ledger.expires_at(*cid) <= now_ms && !self.unreported.contains(cid))
            .collect();
        for cid in expired {
            self.on_result(cid, &Taken::Never("it is too old, and another center's".to_owned()));
        }
    }

    /// Whether the center that is asked now is the one to hear of a command, as the same relay.
    fn is_own(&self, origin: Option<&Origin>) -> bool {
        origin.is_none_or(|origin| *origin == self.origin())
    }

    /// A command is over: keeps how, and tells the center.
    pub(super) fn finish(&mut self, cid: CommandId, ended: Ended) {
        self.runs.remove(&cid);
        let origin = self.granted_as(cid).and_then(|granted| granted.origin);
        let is_own = self.is_own(origin.as_ref());
        let Ended { command_id, success, exit_code, duration_ms, .. } = &ended;
        tracing::info!(command = command_id, success, exit_code, duration_ms, "Command ended");
        let expires_at = unix_ms().saturating_add(REMEMBERED_MS);
        // Strings and numbers always have a JSON form.
        let kept = Kept { ended: ended.clone(), origin: origin.or_else(|| Some(self.origin())) };
        let body = Base64Url(serde_json::to_vec(&kept).unwrap_or_default());
        // Until that is written, a process after this one hears of it from the keeper.
        self.note(Entry::Fact { cid, report: Report::Exit, expires_at, body });
        hit(Part::Relay, Point::ExitWritten);
        if is_own {
            self.send(cid, ended, expires_at);
        } else {
            tracing::warn!(%cid, "Result kept for the center that granted the command; it is not this one");
        }
    }

    fn send(&mut self, cid: CommandId, ended: Ended, expires_at: u64) {
        if !self.unreported.insert(cid) {
            return;
        }
        let (center, folder) = (self.center.clone(), self.place.folder.clone());
        let (senders, ended) = (self.senders.clone(), std::sync::Arc::new(ended));
        self.jobs.spawn_local(async move {
            let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
            let mut sending = Sending::new(expires_at);
            loop {
                let attempt = {
                    // It is never closed.
                    let _turn = senders.acquire().await;
                    let (center, folder, ended) = (center.clone(), folder.clone(), ended.clone());
                    let most_output = sending.most_output;
                    spawn_blocking(move || send(&center, &folder, cid, &ended, most_output)).await
                };
                let attempt = attempt.unwrap_or_else(|error| Err(error.to_string()));
                match sending.tried(attempt, unix_ms()) {
                    Next::End(taken) => return Done::Result(cid, taken),
                    Next::Smaller => {}
                    Next::Again => sleep(backoff.delay()).await,
                    Next::AgainLate => sleep(LONGEST_RETRY).await,
                }
            }
        });
    }

    pub(super) fn on_result(&mut self, cid: CommandId, taken: &Taken) {
        hit(Part::Relay, Point::ExitUnacked);
        match taken {
            Taken::Yes => tracing::debug!(%cid, "Result taken"),
            Taken::Never(why) => tracing::error!(%cid, why, "Result dropped"),
        }
        self.unreported.remove(&cid);
        // Remembered for a day from now on: long enough for a center to hear of it. Until that is written it can be sent once
        // more by a process after this one; keeper and spool are kept for it, so that it says the same.
        self.note(Entry::Known { cid, expires_at: unix_ms() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn tried(sending: &mut Sending, code: u16, now_ms: u64) -> Next {
        sending.tried(Ok(Heard { status: StatusCode::from_u16(code).unwrap(), is_json: true }), now_ms)
    }

    #[rstest]
    #[case(200, Next::End(Taken::Yes))]
    #[case(204, Next::End(Taken::Yes))]
    #[case(302, Next::Again)]
    #[case(401, Next::Again)]
    #[case(403, Next::Again)]
    #[case(408, Next::Again)]
    #[case(429, Next::Again)]
    #[case(500, Next::Again)]
    #[case(503, Next::Again)]
    #[case(400, Next::AgainLate)]
    #[case(422, Next::AgainLate)]
    #[case(404, Next::Again)]
    #[case(405, Next::Again)]
    #[case(409, Next::Again)]
    #[case(413, Next::Smaller)]
    fn answers_say_how_to_go_on(#[case] code: u16, #[case] next: Next) {
        assert_eq!(tried(&mut Sending::new(100), code, 1), next);
    }

    #[test]
    fn what_is_refused_again_and_again_or_is_too_old_is_given_up() {
        let mut sending = Sending::new(100);
        assert_eq!(tried(&mut sending, 400, 1), Next::AgainLate);
        assert_eq!(tried(&mut sending, 500, 1), Next::Again);
        assert_eq!(tried(&mut sending, 422, 1), Next::AgainLate);
        assert!(matches!(tried(&mut sending, 400, 1), Next::End(Taken::Never(_))));
        assert!(matches!(tried(&mut Sending::new(100), 500, 100), Next::End(Taken::Never(_))));
        assert!(matches!(Sending::new(100).tried(Err("no".into()), 100), Next::End(Taken::Never(_))));
        assert_eq!(tried(&mut Sending::new(100), 200, 100), Next::End(Taken::Yes));
    }

    #[test]
    fn only_a_center_can_refuse_a_result() {
        let mut sending = Sending { most_output: MIN_OUTPUT_BYTES, ..Sending::new(100) };
        for status in [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE].repeat(4) {
            assert_eq!(sending.tried(Ok(Heard { status, is_json: false }), 1), Next::Again);
        }
    }

    #[test]
    fn what_is_too_large_is_cut_to_a_floor() {
        let mut sending = Sending::new(100);
        let sizes: Vec<u64> = (0..3)
            .map(|_| {
                assert_eq!(tried(&mut sending, 413, 1), Next::Smaller);
                sending.most_output
            })
            .collect();
        assert_eq!(sizes, [OUTPUT_BYTES / 4, OUTPUT_BYTES / 16, MIN_OUTPUT_BYTES]);
        assert_eq!(tried(&mut sending, 413, 1), Next::AgainLate);
    }
}
