//! Doors for the fuzzer, of a build that only it makes (`cargo xtask fuzz`).

use crate::legacy_link::{
    http::{Answer, StatusCode},
    wire,
};

/// What a center may answer, read as the answer to every question.
pub fn center_answer(status: u16, content_type: &str, body: &[u8]) {
    let Ok(status) = StatusCode::from_u16(status) else { return };
    let answer = Answer {
        status,
        content_type: content_type.to_owned(),
        body: body.to_vec(),
        has_key: status.as_u16() % 2 == 0,
    };
    drop(wire::verdict(&answer));
    if let Some((commands, _)) = wire::commands(&answer) {
        for command in commands {
            assert!(!command.id.is_empty() && command.id.len() <= 1024, "an id that nobody can answer to");
            assert!((1..=172_800_000).contains(&command.timeout_ms), "a time limit out of its range");
        }
    }
    let _ = (wire::is_granted(&answer), wire::pending_pushes(&answer), wire::pushes(&answer).len());
}
