//! By HTTP with the bearer token; a bridge grants it.

use anyhow::Result;
use serde_json::{Value, json};
use signalbox_schemas::{error::Problem, id::CommandId};
use signalbox_testkit::{
    http::{Answer, Http},
    operator::Heard,
};

use super::{Try, cancelling, counted, targets};
use crate::plan::Wish;

/// Whose the bearer token is.
const PRINCIPAL: &str = "token:admin";

/// A wish that can be repeated, at any bridge.
pub(super) struct Asked {
    body: Value,
    key: String,
    /// Which bridge is asked first.
    first: usize,
}

impl Asked {
    pub(super) fn new(wish: &Wish, on: &str, text: &str, number: usize, key: &str) -> Self {
        let mut body = json!({
            "on": on, "command": text, "timeout_ms": wish.timeout_ms, "expires_in_ms": wish.expires_in_ms,
        });
        if let (Some(members), Some(bytes)) = (body.as_object_mut(), wish.max_output) {
            members.insert("max_output".to_owned(), bytes.into());
        }
        Self { body, key: key.to_owned(), first: number }
    }

    /// Known before it is accepted.
    pub(super) fn command(&self) -> CommandId {
        CommandId::from_idempotency_key(PRINCIPAL, &self.key)
    }

    /// One try.
    pub(super) async fn submit(&self, bridges: &[Http], n: u32) -> Result<Try> {
        let Some(http) = bridge(bridges, self.first, n) else { return Ok(Try::Nothing) };
        let headers = [("content-type", "application/json"), ("idempotency-key", &*self.key)];
        let body = serde_json::to_vec(&self.body)?;
        counted(heard(http.request("POST", "/api/v1/commands", &headers, body).await), targets)
    }
}

/// Somebody without a token asks for something. He is told that he may not, or nothing: no promise is made to him.
pub(super) async fn as_nobody(bridges: &[Http], first: usize) {
    let Some(http) = bridge(bridges, first, 0) else { return };
    let _ = http.with_token("none").get("/api/v1/commands").await;
}

/// One try.
pub(super) async fn cancel(bridges: &[Http], command: CommandId, first: usize, n: u32) -> Result<Try> {
    let Some(http) = bridge(bridges, first, n) else { return Ok(Try::Nothing) };
    let path = format!("/api/v1/commands/{command}/cancel");
    counted(heard(http.request("POST", &path, &[], Vec::new()).await), cancelling)
}

/// Each try asks the next one.
fn bridge(bridges: &[Http], first: usize, n: u32) -> Option<&Http> {
    let turn = first + usize::try_from(n).ok()?;
    bridges.get(turn.checked_rem(bridges.len())?)
}

/// An answer that breaks off, or is none, promises nothing.
fn heard(answer: Result<Answer>) -> Heard {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Heard::Nothing(format!("{error:#}")),
    };
    let none = || Heard::Nothing(format!("{} with {:?}", answer.status, answer.text()));
    match answer.status {
        202 => answer.json().map_or_else(|_| none(), Heard::Ok),
        _ => serde_json::from_slice::<Problem>(&answer.body).map_or_else(|_| none(), Heard::Refused),
    }
}
