//! `signalbox pushes` and `signalbox push`.

use serde::Serialize;
use serde_json::Value;
use signalbox_schemas::{
    api::{AckConfigPush, ById, ConfigPushView, ListConfigPushes, NewConfigPush, op},
    config::PushType,
};

use super::{
    call::{Call, Row},
    card::{NOTHING, moment},
    clean,
    exit::{self, Failure},
    input,
    table::Column,
};
use crate::{
    args::push::{Push, PushAction, PushId, Pushes},
    client::clock::now_ms,
    config::Config,
};

/// Largest payload.
const PAYLOAD_BYTES: usize = 64 * 1024;

impl Row for ConfigPushView {
    const COLUMNS: &'static [Column] =
        &[("ID", 0), ("ASSIGNMENT", 1), ("TYPE", 0), ("STATE", 0), ("AGE", 2), ("BY", 3), ("ERROR", 0)];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        vec![
            clean::line(&self.id),
            clean::line(&self.assignment_id),
            self.push_type.as_str().to_owned(),
            self.state.as_str().to_owned(),
            moment(self.created_at, now_ms()),
            clean::line(&self.created_by),
            self.error.as_deref().map_or_else(|| NOTHING.to_owned(), clean::line),
        ]
    }
}

/// Lists pushes, oldest first.
///
/// # Errors
/// [`Failure`].
pub async fn list(config: &Config, args: Pushes) -> Result<u8, Failure> {
    let call = Call::of(config, &args.listing, "list the pushes");
    let asked =
        ListConfigPushes { assignment_id: args.relay, state: args.state, ..ListConfigPushes::default() };
    call.list::<_, ConfigPushView>(op::PUSHES_LIST, asked, None).await
}

/// Does one thing with a push.
///
/// # Errors
/// [`Failure`].
pub async fn act(config: &Config, args: Push) -> Result<u8, Failure> {
    let call =
        |what: &str, id: &str| Call::new(config, args.within.json, format!("{what} {}", clean::line(id)));
    match args.action {
        PushAction::Create { assignment, push_type, payload, payload_file } => {
            if payload.is_some() && push_type == PushType::Credential {
                let line = "cannot push a credential that everybody on this machine can read on the command line: give it \
                            with --payload-file FILE, or with --payload-file - on stdin";
                return Err(Failure::new(exit::USAGE, line));
            }
            let text = match (payload, payload_file) {
                (_, Some(path)) => input::text(&path, PAYLOAD_BYTES, "the payload").await?,
                (payload, None) => payload.unwrap_or_default(),
            };
            let call = call("push configuration to", &assignment);
            let payload = read_payload(&text)?;
            let asked = NewConfigPush { assignment_id: assignment, push_type, payload };
            change(&call, op::PUSHES_CREATE, &asked).await
        }
        PushAction::Show(PushId { id }) => {
            let call = call("show push", &id);
            let view: ConfigPushView = call.ask(op::PUSHES_GET, &ById { id }).await?;
            call.show(&view).await
        }
        PushAction::Sent(PushId { id }) => {
            change(&call("mark as sent push", &id), op::PUSHES_SENT, &ById { id }).await
        }
        PushAction::Ack(PushId { id }) => {
            let asked = AckConfigPush { id, success: true, error: None };
            change(&call("acknowledge push", &asked.id), op::PUSHES_ACK, &asked).await
        }
        PushAction::Fail { id, message } => {
            let asked = AckConfigPush { id, success: false, error: message };
            change(&call("mark as failed push", &asked.id), op::PUSHES_ACK, &asked).await
        }
        PushAction::Retry(PushId { id }) => {
            change(&call("retry push", &id), op::PUSHES_RETRY, &ById { id }).await
        }
    }
}

async fn change<A: Serialize + Sync>(call: &Call<'_>, op: &'static str, asked: &A) -> Result<u8, Failure> {
    let view: ConfigPushView = call.change(op, asked).await?;
    call.show(&view).await
}

/// A payload as it was written: one JSON object.
fn read_payload(text: &str) -> Result<Value, Failure> {
    let wrong =
        |why: &str| Failure::new(exit::USAGE, format!("cannot push configuration: the payload {why}"));
    if text.len() > PAYLOAD_BYTES {
        return Err(wrong(&format!("has more than the {PAYLOAD_BYTES} bytes that are allowed")));
    }
    let payload: Value = serde_json::from_str(text)
        .map_err(|error| wrong(&format!("is no JSON: {}", clean::line(&error.to_string()))))?;
    if payload.is_object() {
        Ok(payload)
    } else {
        Err(wrong("must be a JSON object, such as '{\"targets\": []}'"))
    }
}
