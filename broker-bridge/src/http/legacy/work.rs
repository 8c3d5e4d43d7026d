//! The list of commands, claims and results.

use std::{sync::Arc, time::Instant};

use axum::{body::Body, http::request::Parts};
use serde::Serialize;
use serde_json::Value;
use signalbox_schemas::{
    command::{CommandSpec, SSH_PORT, Target},
    id::{CommandId, MachineToken},
    record::AssignmentRecord,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Shared,
        bodies::{LARGEST, Reading},
    },
    answer::{Answer, Failure, Refused, Success},
    body::{Parsed, Wanted, client, optional_number, optional_text, parse, required_text, small},
    key::identify,
};
use crate::{
    api::work::{self, Claimed, Ended},
    core::now_ms,
};

/// Commands of one list.
const LISTED: usize = 10;

/// A command as relays know it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Work<'a> {
    #[serde(rename = "_id")]
    id: CommandId,
    command: &'a str,
    target_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_host: Option<&'a str>,
    target_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_username: Option<&'a str>,
    timeout_ms: u64,
    /// Not in the answer to a claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<u64>,
}

impl<'a> Work<'a> {
    fn of(spec: &'a CommandSpec) -> Self {
        let ssh = spec.target.as_ref().map(|Target::Ssh(ssh)| ssh);
        Self {
            id: spec.cid,
            command: &spec.command,
            target_type: if ssh.is_some() { "ssh" } else { "local" },
            target_host: ssh.map(|ssh| ssh.host.as_str()),
            // Old centers store one for local commands, too.
            target_port: ssh.map_or(SSH_PORT, |ssh| ssh.port),
            target_username: ssh.and_then(|ssh| ssh.username.as_deref()),
            timeout_ms: spec.timeout_ms,
            created_at: Some(spec.created_at),
        }
    }
}

#[derive(Serialize)]
struct Commands<'a> {
    commands: Vec<Work<'a>>,
}

/// `GET /relay/commands`: held until there is something, a little less than until the client asks again, and no longer when
/// it does.
pub(super) fn list(
    shared: Arc<Shared>,
    head: Parts,
) -> impl Future<Output = Result<Answer, Refused>> + Send + 'static {
    // With it goes the head, and the buffer that it was read into.
    let asking = Box::pin({
        let shared = Arc::clone(&shared);
        async move { identify(&shared, &head.headers).await }
    });
    async move {
        let assignment = asking.await?.enabled()?;
        let hold = shared.legacy.paces.arrives(&assignment.id, Instant::now());
        let mid = assignment.machine_id.token();
        let waiter = shared.front.api.view().wait_for_work(&mid);
        let found = tokio::select! {
            biased;
            found = waiter.until(|| look(&shared, &assignment, &mid)) => found?,
            () = hold.over() => Vec::new(),
            () = shared.stop.cancelled() => Vec::new(),
        };
        let commands = found.iter().map(|spec| Work::of(spec)).collect();
        Ok(Answer::ok(&Commands { commands }))
    }
}

/// What waits for the machine, or that its assignment does not count any more; nothing when there is nothing to say.
fn look(
    shared: &Shared,
    assignment: &AssignmentRecord,
    mid: &MachineToken,
) -> Option<Result<Vec<Arc<CommandSpec>>, Refused>> {
    let view = shared.front.api.view();
    match view.assignment(&assignment.id) {
        None => return Some(Err(Refused::Unassigned)),
        Some(known) if !known.enabled => return Some(Err(Refused::Disabled)),
        Some(_) => {}
    }
    if !view.takes_legacy(mid) {
        return None;
    }
    let waiting = view.waiting_work(mid, LISTED, now_ms());
    (!waiting.is_empty()).then_some(Ok(waiting))
}

#[derive(Serialize)]
struct Won<'a> {
    success: bool,
    command: Work<'a>,
}

/// `POST /relay/commands/claim`
pub(super) async fn claim(shared: &Shared, head: &Parts, body: Body) -> Result<Answer, Refused> {
    let parsed = small(shared, &head.headers, body, Wanted(&["commandId"])).await?;
    let missing = || Refused::Malformed("commandId is required".to_owned());
    let id = required_text(&parsed.members, "commandId", missing)?;
    let assignment = identify(shared, &head.headers).await?.enabled()?;
    let mid = assignment.machine_id.token();
    let Some(cid) = command_id(&id) else { return Ok(Failure::bad_request(NOT_FOUND)) };
    if !shared.front.api.view().takes_legacy(&mid) {
        return Ok(Failure::bad_request(NOT_PENDING));
    }
    Ok(match work::claim(&shared.front.api, &assignment.id, &mid, cid).await? {
        Claimed::Won(spec) => {
            let command = Work { created_at: None, ..Work::of(&spec) };
            Answer::ok(&Won { success: true, command })
        }
        Claimed::NotPending => Failure::bad_request(NOT_PENDING),
        Claimed::NotFound => Failure::bad_request(NOT_FOUND),
    })
}

const NOT_FOUND: &str = "Command not found";
const NOT_PENDING: &str = "Command is not pending";

/// Any text may come as an id; what names no command is found nowhere.
fn command_id(text: &str) -> Option<CommandId> {
    text.parse().ok().filter(|id: &CommandId| id.to_string() == text)
}

/// Members of a result.
const RESULT: Wanted =
    Wanted(&["commandId", "success", "output", "stderr", "exitCode", "error", "durationMs"]);

/// `POST /relay/commands/result`: answered when the broker has acknowledged how the run ended.
pub(super) async fn result(
    shared: &Shared,
    head: &Parts,
    body: Body,
    gone: CancellationToken,
) -> Result<Answer, Refused> {
    let reading = Reading::begin(&head.headers, body, LARGEST).await?;
    let client = client(shared, &head.headers, reading.goes_on()).await?;
    let room = tokio::select! {
        biased;
        room = shared.bodies.room(&reading, client) => room?,
        // What waits for room has not arrived, and nothing will.
        () = gone.cancelled() => return Err(Refused::Malformed("the body ended early".to_owned())),
    };
    let mut parsed = parse(shared.bodies.read_on(reading, room).await?, RESULT).await?;
    let missing = || Refused::Malformed("commandId and success are required".to_owned());
    let id = required_text(&parsed.members, "commandId", missing)?;
    let Some(Value::Bool(success)) = parsed.members.get("success").cloned() else { return Err(missing()) };
    let ended = ended(&mut parsed, success)?;
    let known = identify(shared, &head.headers).await?;
    // Here the old contract never told why a result does not count.
    let (Ok(assignment), Some(cid)) = (known.enabled(), command_id(&id)) else {
        return Ok(Answer::ok(&Success { success: false }));
    };
    let mid = assignment.machine_id.token();
    let counts = work::complete(&shared.front.api, &assignment.id, &mid, cid, ended).await?;
    // Only now: with it goes the room of its body.
    drop(parsed);
    Ok(Answer::ok(&Success { success: counts }))
}

/// How the run ended, as the body says.
fn ended(parsed: &mut Parsed, success: bool) -> Result<Ended, Refused> {
    let members = &mut parsed.members;
    let [exit_code, duration_ms] = ["exitCode", "durationMs"].map(|name| optional_number(members, name));
    Ok(Ended {
        success,
        output: optional_text(members, "output")?.unwrap_or_default(),
        stderr: optional_text(members, "stderr")?.unwrap_or_default(),
        exit_code: exit_code?.map(whole),
        error: optional_text(members, "error")?,
        duration_ms: u64::try_from(duration_ms?.map_or(0, whole)).unwrap_or_default(),
    })
}

/// A number without what stands behind its point.
#[expect(clippy::cast_possible_truncation, reason = "what is too large becomes the largest")]
fn whole(number: f64) -> i64 {
    number as i64
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::command::SshTarget;

    use super::*;

    fn spec(target: Option<Target>) -> CommandSpec {
        CommandSpec {
            ws: signalbox_schemas::id::Workspace::main(),
            cid: "0193a2b4-0000-7000-8000-00000000c1d1".parse().unwrap(),
            command: "echo \"hi\"".to_owned(),
            timeout_ms: 30_000,
            created_at: 1_795_000_000_000,
            expires_at: 1_795_000_000_001,
            not_before: None,
            rollout: None,
            retry_of: None,
            purpose: None,
            leave_children: false,
            max_output: 1,
            on: "a".to_owned(),
            targets: 1,
            by: "token:admin".to_owned(),
            created_by: None,
            target,
            crit: Vec::new(),
            change: None,
        }
    }

    #[test]
    fn commands_have_these_members_in_this_order() {
        let json = |command: &Work<'_>| serde_json::to_string(command).unwrap();
        let local = spec(None);
        assert_eq!(
            json(&Work::of(&local)),
            r#"{"_id":"0193a2b4-0000-7000-8000-00000000c1d1","command":"echo \"hi\"","targetType":"local","targetPort":22,"timeoutMs":30000,"createdAt":1795000000000}"#
        );
        let ssh = SshTarget {
            host: "db-1".to_owned(),
            port: 2222,
            username: Some("root".to_owned()),
            jump: Vec::new(),
            credential: None,
        };
        let ssh = spec(Some(Target::Ssh(ssh)));
        let claimed = Work { created_at: None, ..Work::of(&ssh) };
        assert_eq!(
            json(&claimed),
            r#"{"_id":"0193a2b4-0000-7000-8000-00000000c1d1","command":"echo \"hi\"","targetType":"ssh","targetHost":"db-1","targetPort":2222,"targetUsername":"root","timeoutMs":30000}"#
        );
    }

    #[test]
    fn an_id_has_one_spelling() {
        assert!(command_id("0193a2b4-0000-7000-8000-00000000c1d1").is_some());
        for other in ["0193A2B4-0000-7000-8000-00000000C1D1", "0193a2b40000700080000000000000c1d1", "c01", ""]
        {
            assert!(command_id(other).is_none(), "{other}");
        }
    }
}
