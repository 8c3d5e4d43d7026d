//! What stands in a body, parsed as the original's server would.

mod wanted;

use axum::{body::Body, http::HeaderMap};
use serde_json::{Map, Value};

pub(super) use self::wanted::Wanted;
use super::{
    super::{
        Shared,
        bodies::{Arrived, Client, NotTaken, Reading, Room, SMALL},
    },
    answer::Refused,
    key::{Known, identify},
};

/// A parsed object, and the room that it has.
pub(super) struct Parsed {
    pub(super) members: Map<String, Value>,
    _room: Room,
}

impl From<NotTaken> for Refused {
    fn from(refused: NotTaken) -> Self {
        match refused {
            NotTaken::TooLarge(message) => Self::TooLarge(message),
            NotTaken::Broken(message) => Self::Malformed(message),
            NotTaken::Problem(problem) => Self::Problem(problem),
        }
    }
}

/// Whose body it is. Who is not known fills neither memory nor disk: of a body that goes on after its first part, and of
/// no other, the key is looked at before the members are.
pub(super) async fn client(shared: &Shared, headers: &HeaderMap, goes_on: bool) -> Result<Client, Refused> {
    if !goes_on {
        return Ok(Client::Nobody);
    }
    Ok(match identify(shared, headers).await? {
        Known::Assigned(assignment) => Client::Assignment(assignment.id),
        Known::Unassigned => Client::Nobody,
    })
}

/// The members of an object that are `wanted`; of what is no text, number or truth value only that it is there. What is
/// JSON and no object has none; `null` is refused, as it always was.
pub(super) async fn members(arrived: &mut Arrived, wanted: Wanted) -> Result<Map<String, Value>, Refused> {
    match arrived.parse(move |source| wanted.read(source)).await? {
        Ok(Value::Object(members)) => Ok(members),
        Ok(Value::Null) | Err(_) => Err(Refused::Malformed("the body is not valid JSON".to_owned())),
        Ok(_) => Ok(Map::new()),
    }
}

/// The same, of a body that is not needed any more.
pub(super) async fn parse(mut arrived: Arrived, wanted: Wanted) -> Result<Parsed, Refused> {
    let members = members(&mut arrived, wanted).await?;
    Ok(Parsed { members, _room: arrived.into_room() })
}

/// A body of at most `largest` bytes, read to its end.
pub(super) async fn arrived(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
    largest: usize,
) -> Result<Arrived, Refused> {
    let reading = Reading::begin(headers, body, largest).await?;
    let client = client(shared, headers, reading.goes_on()).await?;
    let room = shared.bodies.room(&reading, client).await?;
    Ok(shared.bodies.read_on(reading, room).await?)
}

/// A small body, parsed.
pub(super) async fn small(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
    wanted: Wanted,
) -> Result<Parsed, Refused> {
    parse(arrived(shared, headers, body, SMALL).await?, wanted).await
}

/// A text that must be there and not be empty; `missing` is what is said otherwise.
pub(super) fn required_text(
    members: &Map<String, Value>,
    name: &str,
    missing: impl FnOnce() -> Refused,
) -> Result<String, Refused> {
    match members.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(value) if !is_falsy(value) => Err(Refused::Malformed(format!("{name} must be a string"))),
        _ => Err(missing()),
    }
}

/// A text that may be absent, or `null`.
pub(super) fn optional_text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refused> {
    match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refused::Malformed(format!("{name} must be a string"))),
    }
}

/// A number that may be absent, or `null`: `1` and `1.0` are the same.
pub(super) fn optional_number(members: &Map<String, Value>, name: &str) -> Result<Option<f64>, Refused> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(_) => Err(Refused::Malformed(format!("{name} must be a number"))),
    }
}

/// What counts as missing.
pub(super) fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn members_of(body: &'static str) -> Result<Map<String, Value>, Refused> {
        let bodies = super::super::super::bodies::Bodies::new(std::env::temp_dir());
        let reading = Reading::begin(&HeaderMap::new(), Body::from(body), SMALL).await?;
        let room = bodies.room(&reading, Client::Nobody).await?;
        members(&mut bodies.read_on(reading, room).await?, Wanted(&["a"])).await
    }

    #[tokio::test]
    async fn what_is_no_object_has_no_members_and_what_is_no_json_is_refused() {
        assert_eq!(members_of(r#"{"a":1}"#).await.unwrap().len(), 1);
        for body in ["[]", "7", "\"x\"", "true"] {
            assert!(members_of(body).await.unwrap().is_empty(), "{body}");
        }
        for body in ["", "null", "{", "{\"a\":1}x", "\u{feff}{}"] {
            assert!(matches!(members_of(body).await, Err(Refused::Malformed(_))), "{body}");
        }
    }

    #[test]
    fn what_is_empty_is_missing() {
        let members = serde_json::json!({"a": "", "b": 0, "c": false, "d": null, "e": 7, "f": "x"});
        let Value::Object(members) = members else { panic!("it is one") };
        let missing = || Refused::NoKey;
        for name in ["a", "b", "c", "d", "z"] {
            assert!(matches!(required_text(&members, name, missing), Err(Refused::NoKey)), "{name}");
        }
        assert!(matches!(required_text(&members, "e", missing), Err(Refused::Malformed(_))));
        assert_eq!(required_text(&members, "f", missing).unwrap(), "x");
    }
}
