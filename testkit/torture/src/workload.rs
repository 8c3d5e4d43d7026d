//! Operators: they ask, hear or do not hear, and ask again as the console does.

mod by_http;
mod by_nats;
mod slow;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use signalbox_schemas::{
    error::{ErrorCode, Problem},
    id::{CommandId, MachineToken},
};
use signalbox_testkit::{
    http::Http,
    operator::{Heard, Operator, now_ms},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    plan::{Plan, Wish},
    script,
    told::{Said, SlowRead, Told, Word},
};

/// How long one answer is waited for: a bridge gives up on a submit a second before.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked for, as the console does.
const TRIES: u32 = 5;
/// Pause between two tries.
const STEP: Duration = Duration::from_millis(500);
/// Commands that a slow reader looks at, newest first.
const LATEST: usize = 16;

/// Where the world is for its operators.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    /// URLs of the broker's servers.
    pub(crate) nats: String,
    /// Keys and logins.
    pub(crate) state_dir: PathBuf,
    /// Base URLs of the bridges.
    pub(crate) bridges: Vec<String>,
    /// The bearer token.
    pub(crate) token: String,
    /// The machines, by number.
    pub(crate) machines: Vec<MachineToken>,
}

/// What all operators share.
struct Desk {
    doors: Doors,
    operator: Operator,
    http: Vec<Http>,
    latest: watch::Sender<Vec<CommandId>>,
}

/// Operators at work.
pub(crate) struct Workload {
    desk: Arc<Desk>,
    wishes: JoinSet<Result<Told>>,
    readers: JoinSet<Result<Vec<SlowRead>>>,
}

impl Workload {
    /// Connects, and lets each wish be asked for at its time after `since`.
    ///
    /// # Errors
    /// When there is no broker.
    pub(crate) async fn start(plan: &Plan, doors: &Doors, since: Instant) -> Result<Self> {
        let operator =
            Operator::connect(&doors.nats, &doors.state_dir).await.context("connecting an operator")?;
        let http = doors.bridges.iter().map(|url| Http::new(url, &doors.token).patient(PATIENCE)).collect();
        let (latest, _) = watch::channel(Vec::new());
        let desk = Arc::new(Desk { doors: doors.clone(), operator, http, latest });
        let mut wishes = JoinSet::new();
        // As many tasks as wishes: a plan is bounded.
        for (number, wish) in plan.wishes.iter().chain(&plan.chatter).cloned().enumerate() {
            let desk = Arc::clone(&desk);
            let key = format!("{}-{number}", plan.seed);
            wishes.spawn(async move {
                sleep_until(since + Duration::from_millis(wish.at_ms)).await;
                ask(&desk, &wish, number, &key).await
            });
        }
        Ok(Self { desk, wishes, readers: JoinSet::new() })
    }

    /// Opens feeds of the latest commands and reads them slowly, until `over`.
    pub(crate) fn read_slowly(&mut self, over: CancellationToken) {
        let desk = Arc::clone(&self.desk);
        self.readers.spawn(async move { slow::read(&desk.operator, desk.latest.subscribe(), &over).await });
    }

    /// Waits until every wish was heard of, or given up.
    ///
    /// # Errors
    /// When an operator could not ask at all, or what it heard has no meaning.
    pub(crate) async fn finish(mut self) -> Result<Said> {
        let mut said = Said::default();
        while let Some(told) = self.wishes.join_next().await {
            said.told.push(told??);
        }
        while let Some(read) = self.readers.join_next().await {
            said.slow.extend(read??);
        }
        said.told.sort_by_key(|told| (told.asked_at, told.command));
        Ok(said)
    }
}

/// One try's answer, with what it counts.
enum Try {
    Done(u64),
    Refused(Problem),
    Nothing,
}

async fn ask(desk: &Desk, wish: &Wish, number: usize, key: &str) -> Result<Told> {
    let machines: Vec<MachineToken> =
        wish.on.iter().filter_map(|n| desk.doors.machines.get(usize::from(*n))).cloned().collect();
    let text = script::text(&wish.work);
    let on = selector(&machines);
    let asked_at = now_ms()?;
    let (command, submit) = if wish.by_http {
        by_http::as_nobody(&desk.http, number).await;
        let asked = by_http::Asked::new(wish, &on, &text, number, key);
        (asked.command(), until_heard(|n| asked.submit(&desk.http, n)).await?)
    } else {
        let (spec, submit) = by_nats::signed(&desk.operator, wish, &on, &machines, &text)?;
        let tries = until_heard(|_| by_nats::submit(&desk.operator, &submit));
        (spec.cid, tries.await?)
    };
    if matches!(submit, Word::Accepted(_)) {
        desk.latest.send_modify(|latest| {
            latest.insert(0, command);
            latest.truncate(LATEST);
        });
    }
    let mut told = Told {
        command,
        machines,
        work: wish.work.clone(),
        text,
        timeout_ms: wish.timeout_ms,
        by_http: wish.by_http,
        asked_at,
        submit,
        cancel: None,
    };
    let is_refused = matches!(told.submit, Word::Refused(..));
    if let Some(after_ms) = wish.cancel_after_ms.filter(|_| !is_refused) {
        sleep(Duration::from_millis(after_ms)).await;
        told.cancel = Some(if wish.by_http {
            until_heard(|n| by_http::cancel(&desk.http, command, number, n)).await?
        } else {
            until_heard(|_| by_nats::cancel(&desk.operator, command)).await?
        });
    }
    Ok(told)
}

fn selector(machines: &[MachineToken]) -> String {
    match machines {
        [one] => one.to_string(),
        some => {
            let names: Vec<&str> = some.iter().map(MachineToken::as_str).collect();
            format!("{{{}}}", names.join(","))
        }
    }
}

/// Asks until there is an answer that promises something. Only a refusal of the first try says that nothing is stored.
async fn until_heard<F: Future<Output = Result<Try>>>(mut ask: impl FnMut(u32) -> F) -> Result<Word> {
    for n in 0..TRIES {
        match ask(n).await? {
            Try::Done(count) => return Ok(Word::Accepted(count)),
            Try::Refused(problem) if n == 0 && is_final(problem.code) => {
                return Ok(Word::Refused(problem.code, problem.to_string()));
            }
            Try::Refused(_) | Try::Nothing => sleep(STEP).await,
        }
    }
    Ok(Word::Unknown(TRIES))
}

/// Whether a refusal says that nothing is stored.
fn is_final(code: ErrorCode) -> bool {
    !matches!(code, ErrorCode::NotAccepted | ErrorCode::NotCaughtUp | ErrorCode::NotFound)
}

/// How a thing that was heard counts, where `count` reads the number in it.
fn counted(heard: Heard, count: impl FnOnce(&serde_json::Value) -> Option<u64>) -> Result<Try> {
    Ok(match heard {
        Heard::Ok(value) => {
            Try::Done(count(&value).with_context(|| format!("{value} is no answer to what was asked"))?)
        }
        Heard::Refused(problem) => Try::Refused(problem),
        Heard::Nothing(_) => Try::Nothing,
    })
}

/// Machines of an answer to a submit.
fn targets(value: &serde_json::Value) -> Option<u64> {
    Some(value.get("targets")?.as_array()?.len() as u64)
}

/// Runs of an answer to a cancel.
fn cancelling(value: &serde_json::Value) -> Option<u64> {
    value.get("cancelling")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn refused(code: ErrorCode) -> Try {
        Try::Refused(Problem::new(code, "no"))
    }

    /// What is made of these answers, and how many of them were asked for.
    async fn hear(answers: Vec<Try>) -> (Word, usize) {
        let (mut answers, mut asked) = (answers.into_iter(), 0);
        let word = until_heard(|_| {
            asked += 1;
            let answer = answers.next().unwrap_or(Try::Nothing);
            async { Ok(answer) }
        });
        (word.await.unwrap(), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_promise_is_the_last_word() {
        assert_eq!(hear(vec![Try::Done(2)]).await, (Word::Accepted(2), 1));
        assert_eq!(hear(vec![Try::Nothing, Try::Done(2)]).await, (Word::Accepted(2), 2));
        assert_eq!(hear(vec![refused(ErrorCode::NotAccepted), Try::Done(2)]).await, (Word::Accepted(2), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_first_refusal_says_that_nothing_is_stored() {
        let (word, asked) = hear(vec![refused(ErrorCode::Invalid)]).await;
        assert!(matches!(word, Word::Refused(ErrorCode::Invalid, _)), "{word:?}");
        assert_eq!(asked, 1);
        // The lost answer may have been another.
        let answers = vec![Try::Nothing, refused(ErrorCode::IdConflict)];
        assert_eq!(hear(answers).await, (Word::Unknown(TRIES), TRIES as usize));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_answered_is_unknown() {
        assert_eq!(hear(vec![]).await, (Word::Unknown(TRIES), TRIES as usize));
    }

    #[rstest]
    #[case(&["m1"], "m1")]
    #[case(&["m0", "m2"], "{m0,m2}")]
    fn a_selector_means_the_machines(#[case] machines: &[&str], #[case] text: &str) {
        let machines: Vec<MachineToken> =
            machines.iter().map(|name| MachineToken::new(*name).unwrap()).collect();
        assert_eq!(selector(&machines), text);
    }

    #[test]
    fn an_answer_that_counts_nothing_is_an_error() {
        let done = counted(Heard::Ok(json!({"targets": ["m0", "m1"]})), targets).unwrap();
        assert!(matches!(done, Try::Done(2)));
        let done = counted(Heard::Ok(json!({"cancelling": 3})), cancelling).unwrap();
        assert!(matches!(done, Try::Done(3)));
        assert!(counted(Heard::Ok(json!({"targets": 2})), targets).is_err());
    }
}
