//! Which operation a request names, how its arguments come, and what is answered.

use serde::{Serialize, de::DeserializeOwned};
use signalbox_schemas::{
    api::{AckConfigPush, ById, Cancel, Get, Page, Preview, Request, SteerRollout, Submit, op},
    command::Part,
    error::{ErrorCode, Problem},
    rollout::Steer,
    signed::Signed,
};

use super::{Asked, Reply, output};
use crate::api::{
    Api, Caller, assignments, audit, commands, credentials, events, health, history, inventory, labels,
    machines, operators, pushes, relays, runs, shared,
};

/// Largest body of a request that only reads.
const READ_BYTES: usize = 16 * 1024;

/// Does what a request asks for.
pub(super) async fn perform(api: &Api, asked: &Asked) -> Result<Reply, Problem> {
    let caller = api.operator(&asked.operator)?;
    let noun = asked.op.split_once('.').map_or("", |(noun, _)| noun);
    match noun {
        "machines" | "labels" | "commands" | "runs" => Box::pin(work(api, &caller, asked)).await,
        "assignments" | "relays" => Box::pin(assignment(api, &caller, asked)).await,
        "events" | "history" | "operators" | "health" => Box::pin(system(api, &caller, asked)).await,
        _ => Box::pin(given(api, &caller, asked)).await,
    }
}

/// Machines, commands and runs.
async fn work(api: &Api, caller: &Caller, asked: &Asked) -> Result<Reply, Problem> {
    match asked.op.as_str() {
        op::MACHINES_LIST => json(&machines::list(api, caller, &arguments(asked)?).await?),
        op::LABELS_SET => json(&labels::set(api, caller, signed(api, caller, asked)?).await?.0),
        op::COMMANDS_PREVIEW => json(&commands::preview(api, caller, &arguments::<Preview>(asked)?).await?),
        op::COMMANDS_LIST => json(&commands::list(api, caller, &arguments::<Page>(asked)?).await?),
        op::COMMANDS_GET => json(&commands::get(api, caller, arguments::<Get>(asked)?).await?),
        op::COMMANDS_OUTPUT => Ok(Reply::Output(Box::new(output(api, caller, arguments(asked)?).await?))),
        op::COMMANDS_SUBMIT => {
            let args: Submit = signed(api, caller, asked)?;
            json(&commands::submit(api, caller, args).await?.0)
        }
        op::COMMANDS_CANCEL => {
            let (args, signed): (Cancel, _) = signed_arguments(api, caller, asked)?;
            json(&commands::cancel_signed(api, caller, args, &signed).await?.0)
        }
        op::COMMANDS_PAUSE => steer(api, caller, asked, Steer::Pause).await,
        op::COMMANDS_RESUME => steer(api, caller, asked, Steer::Resume).await,
        op::COMMANDS_ABORT => steer(api, caller, asked, Steer::Abort).await,
        op::COMMANDS_PART => {
            let args: Part = signed(api, caller, asked)?;
            json(&commands::part(api, caller, args).await?)
        }
        op::RUNS_LIST => json(&runs::list(api, caller, &arguments(asked)?).await?),
        op::RUNS_CLAIM => json(&runs::claim(api, caller, signed(api, caller, asked)?).await?.0),
        op::RUNS_START => json(&runs::start(api, caller, signed(api, caller, asked)?).await?.0),
        op::RUNS_COMPLETE => json(&runs::complete(api, caller, signed(api, caller, asked)?).await?.0),
        _ => Err(no_such_operation()),
    }
}

async fn steer(api: &Api, caller: &Caller, asked: &Asked, steer: Steer) -> Result<Reply, Problem> {
    let SteerRollout { id } = signed(api, caller, asked)?;
    json(&commands::steer(api, caller, id, steer).await?.0)
}

/// Assignments and their relays.
async fn assignment(api: &Api, caller: &Caller, asked: &Asked) -> Result<Reply, Problem> {
    match asked.op.as_str() {
        op::ASSIGNMENTS_LIST => json(&assignments::list(api, caller, &arguments(asked)?)?),
        op::ASSIGNMENTS_GET => json(&assignments::get(api, caller, &named(asked)?).await?),
        op::ASSIGNMENTS_CREATE => {
            json(&assignments::create(api, caller, signed(api, caller, asked)?).await?.0)
        }
        op::ASSIGNMENTS_UPDATE => {
            json(&assignments::update(api, caller, signed(api, caller, asked)?).await?.0)
        }
        op::ASSIGNMENTS_REMOVE => {
            json(&assignments::remove(api, caller, signed(api, caller, asked)?).await?.0)
        }
        op::ASSIGNMENTS_HEARTBEAT => {
            let ById { id } = signed(api, caller, asked)?;
            json(&assignments::heartbeat(api, caller, &id).await?)
        }
        op::RELAYS_LIST => json(&relays::list(api, caller, &arguments(asked)?)?),
        op::RELAYS_GET => json(&relays::get(api, caller, &named(asked)?).await?),
        op::RELAYS_REPORT => json(&relays::report_for(api, caller, signed(api, caller, asked)?).await?.0),
        _ => Err(no_such_operation()),
    }
}

/// What happened, how it was, who may, and how the system itself is.
async fn system(api: &Api, caller: &Caller, asked: &Asked) -> Result<Reply, Problem> {
    match asked.op.as_str() {
        op::EVENTS_LIST => json(&events::list(api, caller, &arguments(asked)?).await?),
        op::HISTORY_FLEET => json(&history::fleet(api, caller, &arguments(asked)?).await?),
        op::HISTORY_MACHINE => json(&history::machine(api, caller, &arguments(asked)?).await?),
        op::HEALTH_GET => json(&health::get(api, caller).await?),
        op::OPERATORS_LIST => json(&operators::list(api, caller, &arguments(asked)?).await?),
        _ => Err(no_such_operation()),
    }
}

/// What is given to relays, credentials and configuration; and who did what.
async fn given(api: &Api, caller: &Caller, asked: &Asked) -> Result<Reply, Problem> {
    match asked.op.as_str() {
        op::AUDIT_LIST => json(&audit::list(api, caller, &arguments(asked)?).await?),
        op::CREDENTIALS_LIST => json(&credentials::list(api, caller, &arguments(asked)?).await?),
        op::CREDENTIALS_REACH => json(&inventory::reach(api, caller, arguments(asked)?).await?),
        op::INVENTORY_LIST => json(&inventory::list(api, caller, arguments(asked)?).await?),
        op::SHARED_LIST => json(&credentials::list_shared(api, caller, &arguments(asked)?)?),
        op::SHARED_GET => json(&credentials::get(api, caller, &named(asked)?).await?),
        op::SHARED_CREATE => json(&credentials::create(api, caller, signed(api, caller, asked)?).await?.0),
        op::SHARED_UPDATE => json(&credentials::update(api, caller, signed(api, caller, asked)?).await?.0),
        op::SHARED_REMOVE => {
            let ById { id } = signed(api, caller, asked)?;
            json(&credentials::remove(api, caller, &id).await?.0)
        }
        op::SHARED_KEEP => json(&shared::keep(api, caller, signed(api, caller, asked)?).await?.0),
        op::SHARED_KEPT => json(&shared::kept(api, caller, arguments(asked)?).await?),
        op::PUSHES_LIST => json(&pushes::list(api, caller, &arguments(asked)?).await?),
        op::PUSHES_GET => json(&pushes::get(api, caller, &named(asked)?).await?),
        op::PUSHES_CREATE => json(&pushes::create(api, caller, signed(api, caller, asked)?).await?.0),
        op::PUSHES_SENT => {
            let ById { id } = signed(api, caller, asked)?;
            json(&pushes::sent(api, caller, &id).await?.0)
        }
        op::PUSHES_ACK => {
            let args: AckConfigPush = signed(api, caller, asked)?;
            json(&pushes::ack(api, caller, args).await?.0)
        }
        op::PUSHES_RETRY => {
            let ById { id } = signed(api, caller, asked)?;
            json(&pushes::retry(api, caller, &id).await?.0)
        }
        _ => Err(no_such_operation()),
    }
}

fn no_such_operation() -> Problem {
    let message = "there is no such operation; this bridge may be older than the console";
    Problem::new(ErrorCode::Invalid, message)
}

fn json<T: Serialize>(value: &T) -> Result<Reply, Problem> {
    let result = serde_json::value::to_raw_value(value);
    let message = "the answer has no JSON form; ask for less";
    result.map(Reply::Json).map_err(|_| Problem::new(ErrorCode::Invalid, message))
}

/// The bare arguments of a request that only reads; nothing at all stands for none.
pub(super) fn arguments<T: DeserializeOwned>(asked: &Asked) -> Result<T, Problem> {
    if asked.body.len() > READ_BYTES {
        let message = format!("cannot do {}: its arguments are above {READ_BYTES} bytes", asked.op);
        return Err(Problem::new(ErrorCode::TooLarge, message));
    }
    let body: &[u8] = if asked.body.is_empty() { b"{}" } else { &asked.body };
    serde_json::from_slice(body).map_err(|error| malformed(&asked.op, &error))
}

/// The id of the one thing that is to be shown.
fn named(asked: &Asked) -> Result<String, Problem> {
    arguments::<ById>(asked).map(|args| args.id)
}

/// The arguments of a request that changes something, verified and counted once.
fn signed<T: DeserializeOwned>(api: &Api, caller: &Caller, asked: &Asked) -> Result<T, Problem> {
    signed_arguments(api, caller, asked).map(|(args, _)| args)
}

/// The same with the request as it was signed.
fn signed_arguments<T: DeserializeOwned>(
    api: &Api,
    caller: &Caller,
    asked: &Asked,
) -> Result<(T, Signed<Request>), Problem> {
    let signed = Signed::<Request>::from_json(&asked.body)
        .map_err(|error| Problem::new(ErrorCode::Invalid, format!("cannot do {}: {error}", asked.op)))?;
    let args = api.open_request(caller, &asked.op, &signed)?;
    let args = serde_json::from_value(args).map_err(|error| malformed(&asked.op, &error))?;
    Ok((args, signed))
}

fn malformed(op: &str, error: &serde_json::Error) -> Problem {
    let error: String = error.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
    Problem::new(ErrorCode::Invalid, format!("cannot do {op}: its arguments cannot be read: {error}"))
}
