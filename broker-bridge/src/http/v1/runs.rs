//! `/runs`, `/machines/{id}/runs`, what is said of a run in a relay's name, and `/exec`.

use std::{fmt, marker::PhantomData, sync::Arc};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{StatusCode, Uri},
    routing::{get, post},
};
use serde::{
    Deserialize, Deserializer as _,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};
use signalbox_schemas::{
    api::{CompleteRun, ListRuns},
    error::report,
    id::CommandId,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    super::{
        Shared,
        bodies::{Client, LARGEST, Reading},
        problem::Refusal,
    },
    Answer, At, Id, Named, Nothing, Who, body, cut, idempotency_key, invalid, json, query, same_id,
};
use crate::api::{
    exec::{NewExec, exec},
    runs,
};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/runs", get(list))
        .route("/machines/{id}/runs", get(of_machine))
        .route("/commands/{id}/claim", post(claim))
        .route("/commands/{id}/start", post(start))
        .route("/commands/{id}/complete", post(complete))
        .route("/exec", post(execute))
}

async fn list(State(shared): At, Extension(caller): Who, uri: Uri) -> Answer {
    let listed = runs::list(&shared.front.api, &caller, &query(&uri)?).await?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn of_machine(State(shared): At, Extension(caller): Who, Named(machine): Named, uri: Uri) -> Answer {
    let asked: ListRuns = query(&uri)?;
    if asked.machine_id.is_some() {
        return Err(invalid("the machine stands in the path; leave machine_id out"));
    }
    let asked = ListRuns { machine_id: Some(machine), ..asked };
    let listed = runs::list(&shared.front.api, &caller, &asked).await?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn claim(State(shared): At, Extension(caller): Who, Id(id): Id, request: Request) -> Answer {
    let (claimed, cursors) = runs::claim(&shared.front.api, &caller, of_command(id, request).await?).await?;
    Ok(json(StatusCode::OK, &claimed, Some(&cursors)))
}

async fn start(State(shared): At, Extension(caller): Who, Id(id): Id, request: Request) -> Answer {
    let (started, cursors) = runs::start(&shared.front.api, &caller, of_command(id, request).await?).await?;
    Ok(json(StatusCode::OK, &started, Some(&cursors)))
}

/// [`CompleteRun`] as it comes: the command stands in the path.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Completing {
    #[serde(default)]
    id: String,
    assignment_id: String,
    success: bool,
    #[serde(default)]
    output: String,
    #[serde(default)]
    stderr: String,
    exit_code: Option<i64>,
    error: Option<String>,
    #[serde(default)]
    duration_ms: u64,
}

/// Of what is as large as a result of an old relay, and kept as theirs are.
async fn complete(State(shared): At, Extension(caller): Who, Id(id): Id, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let (head, body) = request.into_parts();
    let reading = Reading::begin(&head.headers, body, LARGEST).await?;
    let room = shared.bodies.room(&reading, Client::Admin).await?;
    let mut arrived = shared.bodies.read_on(reading, room).await?;
    let read =
        arrived.parse(|source| read_object(&mut serde_json::Deserializer::from_reader(source))).await?;
    let Completing { id: in_body, assignment_id, success, output, stderr, exit_code, error, duration_ms } =
        read.map_err(|error| invalid(format!("cannot read the body as JSON: {}", cut(&error.to_string()))))?;
    same_id(&in_body, id.to_string())?;
    let asked = CompleteRun { id, assignment_id, success, output, stderr, exit_code, error, duration_ms };
    // Until it is stored.
    let _room = arrived.into_room();
    let (completed, cursors) = Box::pin(runs::complete(&shared.front.api, &caller, asked)).await?;
    Ok(json(StatusCode::OK, &completed, Some(&cursors)))
}

/// One object and nothing else: a plain parser would take an array for the members in their order.
fn read_object<'de, R: serde_json::de::Read<'de>, T: Deserialize<'de>>(
    parser: &mut serde_json::Deserializer<R>,
) -> serde_json::Result<T> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members))
        }
    }
    let read = parser.deserialize_map(Object(PhantomData))?;
    parser.end()?;
    Ok(read)
}

/// The body, with the command of the path as its `id`.
async fn of_command<T: DeserializeOwned>(id: CommandId, request: Request) -> Result<T, Refusal> {
    query::<Nothing>(request.uri())?;
    let mut members: Map<String, Value> = body(request).await?;
    let in_body = members.get("id").and_then(Value::as_str).unwrap_or_default();
    let id = same_id(in_body, id.to_string())?;
    members.insert("id".to_owned(), Value::String(id));
    serde_json::from_value(Value::Object(members))
        .map_err(|error| invalid(format!("cannot read the body: {}", cut(&error.to_string()))))
}

/// A command with two members more. The rest is read as a command, which refuses what it does not know.
#[derive(Deserialize)]
struct Executing {
    wait_ms: Option<u64>,
    #[serde(default)]
    cancel_on_give_up: bool,
    #[serde(flatten)]
    command: Map<String, Value>,
}

async fn execute(State(shared): At, Extension(caller): Who, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let key = idempotency_key(request.headers())?;
    let Executing { wait_ms, cancel_on_give_up, command } = body(request).await?;
    let command = serde_json::from_value(Value::Object(command))
        .map_err(|error| invalid(format!("cannot read the command: {}", cut(&error.to_string()))))?;
    let asked = NewExec { command, wait_ms, cancel_on_give_up };
    // Also a client that hangs up gives up, and then its wish is still to be taken back.
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    let executing = shared.lasting.spawn({
        let shared = Arc::clone(&shared);
        async move {
            let over = async {
                tokio::select! {
                    () = shared.stop.cancelled() => {}
                    () = gone.cancelled() => {}
                }
            };
            exec(&shared.front.api, &caller, asked, key.as_deref(), over).await
        }
    });
    let (executed, cursors) = executing.await.map_err(|error| {
        warn!(error = report(&error), "a command was not waited for to the end");
        Refusal::panicked()
    })??;
    Ok(json(StatusCode::OK, &executed, Some(&cursors)))
}
