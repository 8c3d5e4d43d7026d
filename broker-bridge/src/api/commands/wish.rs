//! What an application asks for over HTTP, and the spec that the bridge makes of it.

use serde::Deserialize;
use signalbox_schemas::{
    command::{CommandSpec, SSH_PORT, SshHop, SshTarget, Target},
    error::{ErrorCode, Problem},
    id::{CommandId, CredentialName, Workspace},
    limit::{
        COMMAND_TEXT_BYTES, DEFAULT_EXPIRES_IN_MS, DEFAULT_MAX_OUTPUT, DEFAULT_TIMEOUT_MS, MAX_EXPIRES_IN_MS,
    },
    rollout::Rollout,
    selector::Selector,
};

/// A command as an application asks for it. A member that is not known is refused: a mistyped `timeout_ms`
/// must not run with the default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCommand {
    /// Selector; this or `machine_id`.
    pub on: Option<String>,
    /// One machine by id or token; this or `on`.
    pub machine_id: Option<String>,
    /// Text for `sh -c`.
    pub command: String,
    /// How long it may run, ms; 30,000 when absent.
    pub timeout_ms: Option<u64>,
    /// How long it may wait to start, ms; a day when absent.
    pub expires_in_ms: Option<u64>,
    /// Output kept per machine, bytes; 128 MiB when absent.
    pub max_output: Option<u64>,
    /// Where the machine runs it: `local`, also when absent, or `ssh`.
    pub target_type: Option<TargetType>,
    /// The host; with `ssh` only. Empty: absent.
    pub target_host: Option<String>,
    /// Its port, 22 when absent.
    pub target_port: Option<u16>,
    /// The login name there; with `ssh` only. Empty: absent. A relay without keys needs one.
    pub target_username: Option<String>,
    /// Hosts to go through, the first one first; with `ssh` only, and for relays with keys.
    pub target_jump: Option<Vec<Hop>>,
    /// The credential to use, by its name; with `ssh` only, and for relays with keys.
    pub target_credential: Option<CredentialName>,
    /// How it spreads over its machines; to all at once when absent.
    pub rollout: Option<Rollout>,
    /// In whose name; for people.
    pub created_by: Option<String>,
    /// `expires_in_ms` is how long somebody waits, and no part of the wish: asked again with other patience it is the same.
    #[serde(skip)]
    pub(crate) expiry_is_patience: bool,
}

/// A host to go through.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hop {
    /// Name or address.
    host: String,
    /// Its port, 22 when absent.
    port: Option<u16>,
    /// The login name there; absent: the one that goes with the credential.
    username: Option<String>,
}

/// Where a machine runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetType {
    /// On itself.
    Local,
    /// On a host that it reaches by SSH.
    Ssh,
}

/// The same with every default in its place.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// The selector: as it was written, or one that means the machine.
    pub(super) on: String,
    pub(super) meant: Meant,
    command: String,
    timeout_ms: u64,
    expires_in_ms: u64,
    max_output: u64,
    target: Option<Target>,
    rollout: Option<Rollout>,
    created_by: Option<String>,
    expiry_is_patience: bool,
}

/// Which machines.
#[derive(Debug, Clone)]
pub(super) enum Meant {
    /// Those that a selector matches.
    Selected(Selector),
    /// One, by id or token, also when its id reads like a glob.
    Machine(String),
}

fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::Invalid, message)
}

/// The host behind the machine, when one is asked for.
fn target(asked: &NewCommand) -> Result<Option<Target>, Problem> {
    // Callers of the older system fill every member in: an empty one says nothing.
    let given = |member: &Option<String>| member.clone().filter(|text| !text.is_empty());
    let (host, username) = (given(&asked.target_host), given(&asked.target_username));
    let jump = asked.target_jump.clone().unwrap_or_default();
    let credential = asked.target_credential.clone();
    let none_is_given = host.is_none() && username.is_none() && jump.is_empty() && credential.is_none();
    match asked.target_type.unwrap_or(TargetType::Local) {
        // A port alone says nothing.
        TargetType::Local if none_is_given => Ok(None),
        TargetType::Local => Err(invalid(
            "cannot submit the command: target_host, target_username, target_jump and target_credential go with `\"target_type\": \"ssh\"`",
        )),
        TargetType::Ssh => {
            let Some(host) = host else {
                return Err(invalid(
                    "cannot submit the command: an SSH target requires target_host and target_username",
                ));
            };
            let port = asked.target_port.unwrap_or(SSH_PORT);
            let hop =
                |Hop { host, port, username }| SshHop { host, port: port.unwrap_or(SSH_PORT), username };
            let jump = jump.into_iter().map(hop).collect();
            Ok(Some(Target::Ssh(SshTarget { host, port, username, jump, credential })))
        }
    }
}

impl Wish {
    /// Puts defaults in place and checks what needs no machine and no clock.
    pub(super) fn try_new(asked: NewCommand) -> Result<Self, Problem> {
        let (on, meant) = match (asked.on.clone(), asked.machine_id.clone()) {
            (Some(on), None) => {
                let selector = Selector::parse(&on)
                    .map_err(|error| invalid(format!("cannot submit the command: `on` is {error}")))?;
                (on, Meant::Selected(selector))
            }
            (None, Some(id)) => (Selector::of_machine(&id), Meant::Machine(id)),
            _ => return Err(invalid("cannot submit the command: give either `on` or `machine_id`")),
        };
        if asked.command.len() > COMMAND_TEXT_BYTES {
            let message = format!(
                "cannot submit a command of {} bytes: at most {COMMAND_TEXT_BYTES} are allowed; put the rest into a file",
                asked.command.len()
            );
            return Err(Problem::new(ErrorCode::TooLarge, message));
        }
        let expires_in_ms = asked.expires_in_ms.unwrap_or(DEFAULT_EXPIRES_IN_MS);
        if !(1..=MAX_EXPIRES_IN_MS).contains(&expires_in_ms) {
            let message = format!(
                "cannot submit the command: expires_in_ms must be 1 to {MAX_EXPIRES_IN_MS}, not {expires_in_ms}"
            );
            return Err(invalid(message));
        }
        let target = target(&asked)?;
        Ok(Self {
            on,
            meant,
            target,
            rollout: asked.rollout,
            created_by: asked.created_by,
            expiry_is_patience: asked.expiry_is_patience,
            command: asked.command,
            timeout_ms: asked.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS),
            expires_in_ms,
            max_output: asked.max_output.unwrap_or(DEFAULT_MAX_OUTPUT),
        })
    }

    /// The spec, made at `now_ms` for so many targets.
    pub(super) fn spec(
        &self,
        ws: &Workspace,
        cid: CommandId,
        by: &str,
        now_ms: u64,
        targets: usize,
    ) -> Result<CommandSpec, Problem> {
        let spec = CommandSpec {
            ws: ws.clone(),
            cid,
            command: self.command.clone(),
            timeout_ms: self.timeout_ms,
            created_at: now_ms,
            expires_at: now_ms.saturating_add(self.expires_in_ms),
            not_before: None,
            rollout: self.rollout.clone(),
            retry_of: None,
            purpose: None,
            leave_children: false,
            max_output: self.max_output,
            on: self.on.clone(),
            targets: u32::try_from(targets).unwrap_or(u32::MAX),
            by: by.to_owned(),
            created_by: self.created_by.clone(),
            crit: self.target.iter().map(|_| "target".to_owned()).collect(),
            target: self.target.clone(),
            change: None,
        };
        spec.validate().map_err(|error| invalid(format!("cannot submit the command: {error}")))?;
        Ok(spec)
    }

    /// Whether a stored spec is this very wish, of the same principal: what a repeated idempotency key must say again.
    pub(super) fn is_of(&self, spec: &CommandSpec, by: &str) -> bool {
        // Nobody can wish for these over HTTP: a spec that has one was not made here.
        let plain = spec.not_before.is_none()
            && spec.purpose.is_none()
            && !spec.leave_children
            && spec.retry_of.is_none();
        plain
            && self.on == spec.on
            && by == spec.by
            && self.command == spec.command
            && self.timeout_ms == spec.timeout_ms
            && self.max_output == spec.max_output
            && self.target == spec.target
            && self.rollout == spec.rollout
            && self.created_by == spec.created_by
            && (self.expiry_is_patience
                || spec.expires_at.checked_sub(spec.created_at) == Some(self.expires_in_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn wish(body: Value) -> Result<Wish, ErrorCode> {
        let asked = serde_json::from_value(body).map_err(|_| ErrorCode::Invalid)?;
        Wish::try_new(asked).map_err(|problem| problem.code)
    }

    fn spec_of(wish: &Wish) -> Result<CommandSpec, ErrorCode> {
        let id = CommandId::from_idempotency_key("token:admin", "k");
        wish.spec(&Workspace::main(), id, "token:admin", 1_000, 1).map_err(|problem| problem.code)
    }

    #[test]
    fn absent_members_have_their_defaults() {
        let spec = spec_of(&wish(json!({"on": "all", "command": "true"})).unwrap()).unwrap();
        assert_eq!((spec.timeout_ms, spec.max_output), (30_000, 128 << 20));
        assert_eq!((spec.created_at, spec.expires_at), (1_000, 1_000 + 86_400_000));
    }

    #[rstest]
    #[case(json!({"command": "true"}), ErrorCode::Invalid)]
    #[case(json!({"on": "all"}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "machine_id": "a", "command": "true"}), ErrorCode::Invalid)]
    #[case(json!({"on": "[", "command": "true"}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "true", "timout_ms": 1}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "true", "timeout_ms": "1"}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "true", "timeout_ms": -1}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "true", "timeout_ms": 0}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "true", "timeout_ms": 172_800_001}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "true", "expires_in_ms": 0}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "true", "expires_in_ms": 604_800_001}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "true", "max_output": 4_294_967_297_u64}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "a\u{0}b"}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": ""}), ErrorCode::Invalid)]
    #[case(json!({"on": "all", "command": "x".repeat(65_537)}), ErrorCode::TooLarge)]
    #[case(json!({"on": "a", "command": "true", "target_type": "ssh", "target_username": "ops"}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_credential": "db"}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_jump": [{"host": "gate"}]}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_type": "ssh", "target_host": "db-1", "target_jump": [{"host": "a b"}]}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_type": "ssh", "target_host": "db-1", "target_jump": [{"host": "gate", "key": "x"}]}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_type": "ssh", "target_host": "db-1", "target_jump": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}, {"host": "e"}]}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_type": "ssh", "target_host": "db-1", "target_credential": ""}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_type": "ssh", "target_host": "", "target_username": "ops"}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_type": "local", "target_host": "db-1"}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_username": "ops"}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "target_type": "telnet"}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "rollout": {"canary": 0}}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "rollout": {"waves": ["5%", "1%"]}}), ErrorCode::Invalid)]
    #[case(json!({"on": "a", "command": "true", "rollout": {"wave": [1]}}), ErrorCode::Invalid)]
    fn refuses(#[case] body: Value, #[case] code: ErrorCode) {
        let refused = wish(body).and_then(|wish| spec_of(&wish)).unwrap_err();
        assert_eq!(refused, code);
    }

    #[test]
    fn empty_members_of_a_target_are_as_good_as_absent() {
        let body = json!({"on": "all", "command": "true", "target_type": "local", "target_host": "", "target_port": 22,
            "target_username": ""});
        let spec = spec_of(&wish(body).unwrap()).unwrap();
        assert_eq!((spec.target, spec.crit.len()), (None, 0));
    }

    #[test]
    fn a_target_has_hosts_to_go_through_and_a_credential() {
        let body = json!({"on": "all", "command": "true", "target_type": "ssh", "target_host": "db-1",
            "target_jump": [{"host": "gate"}, {"host": "10.0.0.7", "port": 2222, "username": "ops"}], "target_credential": "db"});
        let wish = wish(body).unwrap();
        let spec = spec_of(&wish).unwrap();
        let Some(Target::Ssh(ssh)) = &spec.target else { panic!("no target") };
        assert_eq!(ssh.to_string(), "db-1 through gate, ops@10.0.0.7:2222 with credential db");
        assert_eq!(ssh.credential.as_ref().map(CredentialName::as_str), Some("db"));
        assert!(!spec.is_of_old_contract() && wish.is_of(&spec, "token:admin"));
    }

    #[rstest]
    #[case(json!({"on": "all", "command": "true"}), true)]
    #[case(json!({"on": "all", "command": "true", "timeout_ms": 30_000}), true)]
    #[case(json!({"on": "a*", "command": "true"}), false)]
    #[case(json!({"on": "all", "command": "false"}), false)]
    #[case(json!({"on": "all", "command": "true", "timeout_ms": 30_001}), false)]
    #[case(json!({"on": "all", "command": "true", "expires_in_ms": 1}), false)]
    #[case(json!({"on": "all", "command": "true", "max_output": 0}), false)]
    #[case(json!({"on": "all", "command": "true", "rollout": {"canary": 1}}), false)]
    fn a_repeated_key_must_ask_for_the_same(#[case] body: Value, #[case] same: bool) {
        let first = spec_of(&wish(json!({"on": "all", "command": "true"})).unwrap()).unwrap();
        assert_eq!(wish(body).unwrap().is_of(&first, "token:admin"), same);
    }

    #[test]
    fn what_somebody_else_stored_is_not_the_same() {
        let wish = wish(json!({"on": "all", "command": "true"})).unwrap();
        let first = spec_of(&wish).unwrap();
        assert!(!wish.is_of(&first, "token:other"));
        for (what, spec) in [
            ("later", CommandSpec { not_before: Some(1_001), ..first.clone() }),
            ("for a reason", CommandSpec { purpose: Some("because".into()), ..first.clone() }),
            ("with children", CommandSpec { leave_children: true, ..first.clone() }),
        ] {
            assert!(!wish.is_of(&spec, "token:admin"), "{what}");
        }
    }

    #[test]
    fn a_machine_is_no_glob() {
        let [machine, glob] =
            [json!({"machine_id": "a*", "command": "true"}), json!({"on": "a*", "command": "true"})]
                .map(|body| wish(body).unwrap());
        let by = "token:admin";
        assert!(machine.is_of(&spec_of(&machine).unwrap(), by) && glob.is_of(&spec_of(&glob).unwrap(), by));
        assert!(!machine.is_of(&spec_of(&glob).unwrap(), by) && !glob.is_of(&spec_of(&machine).unwrap(), by));
    }
}
