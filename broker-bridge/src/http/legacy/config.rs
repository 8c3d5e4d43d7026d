//! Configuration pushes and shared credentials: those of the relay whose key it is.

use axum::{
    body::Body,
    http::{Uri, request::Parts},
};
use serde::Serialize;
use serde_json::Value;
use signalbox_schemas::{
    config::ConfigPushRecord,
    credential::{CredentialType, SharedCredentialRecord},
};

use super::{
    super::Shared,
    Spelling,
    answer::{Answer, Refused, Success},
    body::{Wanted, optional_text, required_text, small},
    key::{Known, identify},
};
use crate::api::pushes;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Offered<'a> {
    #[serde(rename = "_id")]
    id: &'a str,
    push_type: &'static str,
    payload: &'a str,
    created_at: u64,
}

impl<'a> From<&'a ConfigPushRecord> for Offered<'a> {
    fn from(record: &'a ConfigPushRecord) -> Self {
        Self {
            id: &record.id,
            push_type: record.push_type.as_str(),
            payload: &record.payload,
            created_at: record.created_at,
        }
    }
}

/// Under both names: relays and centers never agreed on one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pushes<'a> {
    config_pushes: &'a [Offered<'a>],
    pushes: &'a [Offered<'a>],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Given<'a> {
    name: &'a str,
    credential_type: CredentialType,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_host: Option<&'a str>,
    encrypted_value: &'a str,
    updated_at: u64,
}

impl<'a> From<&'a SharedCredentialRecord> for Given<'a> {
    fn from(record: &'a SharedCredentialRecord) -> Self {
        Self {
            name: &record.name,
            credential_type: record.credential_type,
            target_host: record.target_host.as_deref(),
            encrypted_value: &record.encrypted_value,
            updated_at: record.updated_at,
        }
    }
}

#[derive(Serialize)]
struct Credentials<'a> {
    credentials: Vec<Given<'a>>,
}

/// The relay that a list is asked of.
enum Asked {
    /// The client's own assignment.
    Own(String),
    /// Somebody else's, or nobody's: of that there is nothing to see.
    Foreign,
}

async fn asked(shared: &Shared, head: &Parts, spelling: Spelling) -> Result<Asked, Refused> {
    let named = relay_id(&head.uri);
    if spelling == Spelling::Center && named.is_none() {
        return Err(Refused::Malformed("relayId query parameter is required".to_owned()));
    }
    let Known::Assigned(assignment) = identify(shared, &head.headers).await? else {
        return Ok(Asked::Foreign);
    };
    // A disabled one is given nothing, and is not told so.
    let is_own = named.is_none_or(|named| named == assignment.id) && assignment.enabled;
    Ok(if is_own { Asked::Own(assignment.id) } else { Asked::Foreign })
}

/// The first `relayId` of the query; the empty one is none.
fn relay_id(uri: &Uri) -> Option<String> {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?.0;
    let first = pairs.into_iter().find(|(name, _)| name == "relayId");
    first.map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// `GET /relay/config/pending`, `GET /relay/config-pushes?relayId=…`
pub(super) async fn pushes(shared: &Shared, head: &Parts, spelling: Spelling) -> Result<Answer, Refused> {
    let records = match asked(shared, head, spelling).await? {
        Asked::Own(assignment) => pushes::offered(&shared.front.api, &assignment).await,
        Asked::Foreign => Vec::new(),
    };
    let pushes: Vec<Offered<'_>> = records.iter().map(Offered::from).collect();
    Ok(Answer::ok(&Pushes { config_pushes: &pushes, pushes: &pushes }))
}

/// `POST /relay/config/ack`, `POST /relay/config-pushes/ack`
pub(super) async fn ack(shared: &Shared, head: &Parts, body: Body) -> Result<Answer, Refused> {
    let wanted = Wanted(&["pushId", "success", "errorMessage"]);
    let mut parsed = small(shared, &head.headers, body, wanted).await?;
    let members = &mut parsed.members;
    let missing = || Refused::Malformed("pushId and success are required".to_owned());
    let id = required_text(members, "pushId", missing)?;
    let Some(Value::Bool(success)) = members.get("success").cloned() else { return Err(missing()) };
    let error = optional_text(members, "errorMessage")?;
    let known = match identify(shared, &head.headers).await?.enabled() {
        Ok(assignment) => pushes::answered(&shared.front.api, &assignment, &id, success, error).await?,
        Err(_) => false,
    };
    Ok(Answer::ok(&Success { success: known }))
}

/// `GET /relay/credentials/shared`, `GET /relay/shared-credentials?relayId=…`
pub(super) async fn credentials(
    shared: &Shared,
    head: &Parts,
    spelling: Spelling,
) -> Result<Answer, Refused> {
    let records = match asked(shared, head, spelling).await? {
        Asked::Own(assignment) => shared.front.api.view().shared_with(&assignment),
        Asked::Foreign => Vec::new(),
    };
    let credentials = records.iter().map(Given::from).collect();
    Ok(Answer::ok(&Credentials { credentials }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_named_once() {
        let named = |query: &str| relay_id(&format!("/relay/config-pushes{query}").parse().unwrap());
        assert_eq!(named("?relayId=a&relayId=b"), Some("a".to_owned()));
        assert_eq!(named("?x=1&relayId=%61b"), Some("ab".to_owned()));
        for none in ["", "?", "?relayId=", "?relayId", "?relayid=a"] {
            assert_eq!(named(none), None, "{none}");
        }
    }
}
