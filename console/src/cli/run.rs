//! `signalbox run` and `signalbox exec`: preview, sign, submit, follow.
//!
//! Ctrl-C detaches: the command goes on without us. A second one within two seconds cancels it first. `exec` also
//! gives up when its wait is over.

use std::{pin::Pin, time::Duration};

use signalbox_schemas::{
    api::{Accepted, Target, Watch},
    error::{ErrorCode, report},
    id::CommandId,
    limit,
    selector::Selector,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Sleep, sleep, timeout},
};

use super::{
    clean,
    confirm::Question,
    event::Event,
    exit::{self, Failure},
    follow::{End, Follow, Manner},
    printer::{Hangup, Piece, Printer},
    quantity,
};
use crate::{
    args::order::{Exec, Order, Run},
    client::{
        Access, Client, ClientError,
        repeat::Repeated,
        sign::{Draft, DraftError, Prepared, prepare_aside},
    },
    config::Config,
    settings::{near, saved::SavedCommand},
};

/// A second Ctrl-C counts for so long after the first.
const SECOND_INTERRUPT: Duration = Duration::from_secs(2);
/// Beyond the moment at which every run must have settled, we wait so long for word of it.
const WORD_MS: u64 = 60_000;
/// How much longer than the command `exec` waits unless told otherwise: for the way there and back.
const WAY_MS: u64 = 5_000;
/// What was printed before the wait was over is still written for so long: nobody may be reading.
const LAST_WORDS: Duration = Duration::from_secs(2);
const WHAT: &str = "run the command";

/// What shall be done with a command.
pub(super) struct Plan {
    /// Completes «cannot …».
    pub(super) what: String,
    /// How long it may run, ms.
    pub(super) timeout_ms: u64,
    pub(super) manner: Manner,
    pub(super) no_wait: bool,
    /// One machine only, and no longer than this.
    pub(super) exec: Option<Patience>,
    /// What may have to be answered before.
    pub(super) asks: Option<Question>,
}

/// How long `exec` waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    wait_ms: u64,
    /// Whether the command is cancelled when it is over.
    cancels: bool,
}

/// Runs a command on the machines that a selector means, and waits for its end.
///
/// # Errors
/// [`Failure`] with the exit code of the table.
pub async fn run(config: &Config, args: Run) -> Result<u8, Failure> {
    let manner = manner(args.order.json);
    let saved = args.saved.as_deref().map(|name| saved(config, name)).transpose()?;
    let of_saved = || saved.and_then(|saved| saved.on.clone());
    let on = match (args.on, args.via) {
        (Some(on), _) => on.trim().to_owned(),
        (None, Some(via)) => Selector::of_machine(via.trim()),
        (None, None) => of_saved().ok_or_else(|| {
            Failure::new(
                exit::USAGE,
                format!("cannot {WHAT}: the saved command names no machines; name them with --on"),
            )
        })?,
    };
    let timeout_ms = saved.and_then(|saved| saved.timeout).unwrap_or(config.settings.run.timeout).ms;
    let mut draft = draft(args.order, on, (timeout_ms, config.settings.run.expires_in.ms), None);
    if let Some(saved) = saved {
        draft.command = saved.fill(&args.with.into_iter().collect()).map_err(|error| usage(&error))?;
    }
    draft.rollout = args.waves.plan();
    let asks = Some(Question::of(config, &args.sure, saved.is_some_and(|saved| saved.confirm)));
    let (timeout_ms, no_wait) = (draft.timeout_ms, args.no_wait);
    let plan = Plan { what: WHAT.to_owned(), timeout_ms, manner, no_wait, exec: None, asks };
    perform(config, &draft, &plan).await
}

fn saved<'a>(config: &'a Config, name: &str) -> Result<&'a SavedCommand, Failure> {
    config.settings.saved(name).ok_or_else(|| {
        let advice = near::advice(name, config.settings.commands.iter().map(|saved| saved.name.as_str()));
        let line = format!("cannot {WHAT}: there is no saved command {name:?}{advice}");
        Failure::new(exit::USAGE, clean::line(&line))
    })
}

/// Runs a command on one machine, and waits for its end so long.
///
/// # Errors
/// [`Failure`] with the exit code of the table.
pub async fn exec(config: &Config, args: Exec) -> Result<u8, Failure> {
    let manner = manner(args.order.json);
    let timeout_ms = args.order.timeout.unwrap_or(config.settings.run.timeout.ms);
    let wait_ms = args.wait.unwrap_or_else(|| timeout_ms.saturating_add(WAY_MS));
    let exec = Some(Patience { wait_ms, cancels: args.cancel_on_give_up });
    let waits = wait_ms > 0;
    // Nothing starts that nobody waits for; whoever does not wait at all gets what other commands get.
    let expires_in_ms =
        if waits { wait_ms.min(limit::MAX_EXPIRES_IN_MS) } else { config.settings.run.expires_in.ms };
    let on = Selector::of_machine(args.machine.trim());
    let draft = draft(args.order, on, (timeout_ms, expires_in_ms), args.idempotency_key);
    // To cancel it at once is to give it up.
    let no_wait = !waits && !args.cancel_on_give_up;
    let plan =
        Plan { what: WHAT.to_owned(), timeout_ms: draft.timeout_ms, manner, no_wait, exec, asks: None };
    perform(config, &draft, &plan).await
}

fn manner(json: bool) -> Manner {
    if json { Manner::Json } else { Manner::Output }
}

/// The times count unless the order says otherwise.
fn draft(
    order: Order,
    on: String,
    (timeout_ms, expires_in_ms): (u64, u64),
    idempotency_key: Option<String>,
) -> Draft {
    let ssh = order.target();
    let timeout_ms = order.timeout.unwrap_or(timeout_ms);
    let waits_ms = order.expires_in.unwrap_or(expires_in_ms);
    Draft {
        is_expiry_named: order.expires_in.is_some(),
        max_output_bytes: order.max_output,
        ssh,
        created_by: order.created_by,
        idempotency_key,
        ..Draft::new(on, order.command.join(" "), timeout_ms, waits_ms)
    }
}

/// A command that stands, and when it expires, Unix ms.
struct Standing {
    accepted: Accepted,
    expires_at: u64,
}

impl From<Repeated> for Standing {
    fn from(Repeated { id, expires_at, targets }: Repeated) -> Self {
        Self { accepted: Accepted { id, targets, cursor: String::new() }, expires_at }
    }
}

impl Standing {
    /// By then every run has settled, and somebody has had the time to say so. Unix ms.
    fn deadline(&self, timeout_ms: u64) -> u64 {
        let margin = limit::EXPIRY_GRACE_MS + limit::LOST_GRACE_MS + WORD_MS;
        self.expires_at.saturating_add(timeout_ms).saturating_add(margin)
    }
}

pub(super) async fn perform(config: &Config, draft: &Draft, plan: &Plan) -> Result<u8, Failure> {
    // What is wrong is wrong with or without a broker.
    draft.check().map_err(|error| match &error {
        DraftError::Selector(error) => Failure::selector(&plan.what, error),
        DraftError::Spec(_) | DraftError::Key => usage(&error),
    })?;
    let access = config.access().map_err(|error| plan.failed(&error))?;
    let mut interrupts = interrupts()?;
    let patience = sleep(plan.exec.map_or(Duration::MAX, |exec| Duration::from_millis(exec.wait_ms)));
    tokio::pin!(patience);
    let (client, begun) = tokio::select! {
        begun = begin(access, draft, plan) => begun?,
        _ = interrupts.recv() => return Err(nothing_submitted()),
    };
    let standing = match begun {
        Begun::Known(standing) => standing,
        Begun::New(prepared) => {
            let submitted = submit(&client, Some(draft), &prepared);
            match until_submitted(&client, plan, &prepared, submitted, &mut interrupts).await? {
                Ok(standing) => standing,
                Err(code) => return Ok(code),
            }
        }
    };
    follow_on(config, client, plan, &standing, &mut interrupts, patience).await
}

/// Does everything that comes before a submit, unless Ctrl-C comes first. Whatever fails on the way, nothing was accepted.
///
/// # Errors
/// [`Failure`] with the exit code of the table.
pub(super) async fn before_submit<T>(
    interrupts: &mut Signal,
    doing: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = tokio::select! {
        done = doing => done,
        _ = interrupts.recv() => return Err(nothing_submitted()),
    };
    done.map_err(|failure| match failure.code {
        exit::FAILED => Failure { code: exit::NOT_ACCEPTED, ..failure },
        _ => failure,
    })
}

/// Submits a change, and waits for its end.
///
/// # Errors
/// [`Failure`] with the exit code of the table.
pub(super) async fn carry_out(
    config: &Config,
    client: Client,
    prepared: &Prepared,
    plan: &Plan,
    interrupts: &mut Signal,
) -> Result<u8, Failure> {
    let submitted = submit(&client, None, prepared);
    match until_submitted(&client, plan, prepared, submitted, interrupts).await? {
        Ok(standing) => {
            let patience = sleep(Duration::MAX);
            tokio::pin!(patience);
            follow_on(config, client, plan, &standing, interrupts, patience).await
        }
        Err(code) => Ok(code),
    }
}

/// From now on Ctrl-C ends nothing by itself.
pub(super) fn interrupts() -> Result<Signal, Failure> {
    signal(SignalKind::interrupt()).map_err(|error| Failure::system("listen to Ctrl-C", &error))
}

/// Ctrl-C came first.
pub(super) fn nothing_submitted() -> Failure {
    Failure::new(exit::INTERRUPTED, "interrupted; nothing was submitted")
}

/// What stands then; the exit code, if it was interrupted.
async fn until_submitted(
    client: &Client,
    plan: &Plan,
    prepared: &Prepared,
    submitted: impl Future<Output = Result<Standing, ClientError>>,
    interrupts: &mut Signal,
) -> Result<Result<Standing, u8>, Failure> {
    tokio::select! {
        standing = submitted => standing.map(Ok).map_err(|error| plan.failed(&error)),
        _ = interrupts.recv() => {
            super::say(&format!(
                "interrupted while {} was submitted: whether it was accepted is not known",
                prepared.id
            ));
            Ok(Err(detach(client, prepared.id, interrupts).await))
        }
    }
}

async fn follow_on(
    config: &Config,
    client: Client,
    plan: &Plan,
    standing: &Standing,
    interrupts: &mut Signal,
    mut patience: Pin<&mut Sleep>,
) -> Result<u8, Failure> {
    let printer = Printer::start().map_err(|error| Failure::system("print", &error))?;
    let mut follow = Follow::new(config, plan.manner, plan.no_wait, &standing.accepted);
    let code = tokio::select! {
        followed = follow_it(&mut follow, &client, &printer, plan, standing) => match followed {
            Err(End::Hangup(Hangup)) => {
                // The writer knows why it stopped.
                return Err(printer.finish().await.err().map_or_else(Failure::hangup, |error| Failure::written(&error)));
            }
            Err(End::Failure(failure)) => Err(failure),
            Ok(code) => Ok(code),
        },
        _ = interrupts.recv() => return Ok(detach(&client, standing.accepted.id, interrupts).await),
        () = &mut patience, if plan.exec.is_some() && !plan.no_wait => return give_up(&client, standing.accepted.id, plan, printer).await,
    };
    tokio::select! {
        done = printer.finish() => done.map_err(|error| Failure::written(&error))?,
        // Nobody reads what is left, and nobody wants to wait for it.
        _ = interrupts.recv() => {}
    }
    client.link().close().await;
    code
}

impl Plan {
    /// Whatever it is, also with one's own identity: the command line is right and nothing was accepted.
    pub(super) fn failed(&self, error: &ClientError) -> Failure {
        Failure { code: exit::NOT_ACCEPTED, ..Failure::client(&self.what, error) }
    }
}

/// A command before it is submitted, or one that stands already.
enum Begun {
    New(Prepared),
    Known(Standing),
}

async fn begin(access: Access, draft: &Draft, plan: &Plan) -> Result<(Client, Begun), Failure> {
    let failed = |error: ClientError| plan.failed(&error);
    let client = Client::connect(access, false).await.map_err(failed)?;
    let begun = if let Some(known) = client.repeated(draft).await.map_err(failed)? {
        Begun::Known(known.into())
    } else {
        let targets = wanted(&client, draft, plan).await?;
        if let Some(question) = &plan.asks {
            question.settle(&client, &targets, draft, plan).await?;
        }
        Begun::New(prepare_aside(draft, client.access(), targets).await.map_err(failed)?)
    };
    let machines = match &begun {
        Begun::New(prepared) => prepared.targets.len(),
        Begun::Known(standing) => standing.accepted.targets.len(),
    };
    if plan.exec.is_some() && machines != 1 {
        let error = ClientError::NotAsMeant(format!("it names {machines} machines where one is meant"));
        return Err(failed(error));
    }
    Ok((client, begun))
}

/// The machines that it is for now. Of those that it is for alone it is said how many a bridge does not name any more.
async fn wanted(client: &Client, draft: &Draft, plan: &Plan) -> Result<Vec<Target>, Failure> {
    let targets = match client.targets(draft).await {
        Err(ClientError::Refused(problem))
            if problem.code == ErrorCode::NoTargets && !draft.only.is_empty() =>
        {
            Vec::new()
        }
        targets => targets.map_err(|error| plan.failed(&error))?,
    };
    let (wanted, left) = (draft.only.len(), targets.len());
    let on = clean::line(&draft.on);
    if wanted > 0 && left == 0 {
        let line =
            format!("cannot {}: none of its {wanted} machines is there and meant by `{on}`", plan.what);
        return Err(Failure::new(exit::NOT_ACCEPTED, line));
    }
    if left < wanted {
        super::say(&format!(
            "{} of its {wanted} machines are left out: they are gone, or not meant by `{on}`",
            wanted - left
        ));
    }
    Ok(targets)
}

/// `draft`: what it was made of, if that may have been submitted before under its key.
async fn submit(
    client: &Client,
    draft: Option<&Draft>,
    prepared: &Prepared,
) -> Result<Standing, ClientError> {
    match client.submit(prepared).await {
        Ok(accepted) => Ok(Standing { accepted, expires_at: prepared.expires_at }),
        Err(error) => {
            let is_taken =
                matches!(&error, ClientError::Refused(problem) if problem.code == ErrorCode::IdConflict);
            // Somebody was faster under the same key.
            let known = match draft.filter(|_| is_taken) {
                Some(draft) => client.repeated(draft).await?,
                None => None,
            };
            known.map(Standing::from).ok_or(error)
        }
    }
}

async fn follow_it(
    follow: &mut Follow,
    client: &Client,
    printer: &Printer,
    plan: &Plan,
    standing: &Standing,
) -> Result<u8, End> {
    follow.accepted(printer, &standing.accepted).await?;
    if plan.no_wait {
        return Ok(exit::OK);
    }
    let mut feed = client.feed(Watch::Command { id: standing.accepted.id, output: true, ended_bytes: None });
    let code = follow.follow_to_end(printer, &mut feed, standing.deadline(plan.timeout_ms)).await?;
    feed.close().await;
    Ok(code)
}

fn usage(error: &dyn std::error::Error) -> Failure {
    Failure::new(exit::USAGE, format!("cannot {WHAT}: {}", clean::line(&report(error))))
}

/// The wait is over: leaves the command to itself, or cancels it.
async fn give_up(client: &Client, id: CommandId, plan: &Plan, printer: Printer) -> Result<u8, Failure> {
    let Some(Patience { wait_ms, cancels }) = plan.exec else { return Ok(exit::NOT_RUN) };
    let cancelled = if cancels { Some(client.cancel(id).await) } else { None };
    let event = Event::GaveUp {
        id,
        cancelling: cancelled.as_ref().and_then(|done| done.as_ref().ok()).copied(),
        exit: exit::NOT_RUN,
    };
    let last_words = async {
        if plan.manner == Manner::Json {
            // Why it cannot be written is asked next.
            let _ = printer.print(Piece::Out(event.line().into())).await;
        }
        printer.finish().await
    };
    if let Ok(written) = timeout(LAST_WORDS, last_words).await {
        written.map_err(|error| Failure::written(&error))?;
    }
    let what_of_it = match cancelled {
        None => format!(
            "what has begun goes on. See it with `signalbox show {id}`, end it with `signalbox cancel {id}`"
        ),
        Some(Ok(0)) => format!("it has ended meanwhile. See it with `signalbox show {id}`"),
        Some(Ok(_)) => "cancelling it".to_owned(),
        Some(Err(error)) => Failure::client("cancel it", &error).line.unwrap_or_default(),
    };
    super::say(&format!("gave up waiting for {id} after {}; {what_of_it}", quantity::show_ms(wait_ms)));
    Ok(exit::NOT_RUN)
}

/// Leaves the command to itself; cancels it when asked again at once.
async fn detach(client: &Client, id: CommandId, interrupts: &mut Signal) -> u8 {
    super::say(&format!(
        "detached from {id}; what was accepted goes on. See it with `signalbox show {id}`; Ctrl-C again cancels it"
    ));
    if timeout(SECOND_INTERRUPT, interrupts.recv()).await.is_ok() {
        match client.cancel(id).await {
            Ok(n) => super::say(&format!("cancelling {id}: {n} runs had not ended")),
            Err(error) => {
                let failure = Failure::client(&format!("cancel {id}"), &error);
                super::say(&failure.line.unwrap_or_default());
            }
        }
    }
    exit::INTERRUPTED
}
