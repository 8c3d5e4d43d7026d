//! What the center and this relay say to each other: bodies, as they are written and as they are read. Pure.
//!
//! What is absent is left out and never `null`; what comes as `null` counts as absent. Numbers are those of JavaScript.

use serde::{Deserialize, Serialize, Serializer};
use signalbox_schemas::{
    command::{SSH_PORT, SshTarget},
    credential::is_username,
    host::is_host,
    limit::{DEFAULT_TIMEOUT_MS, TIMEOUT_MS},
};

use crate::vault::seed::SharedCredential;

use super::{
    http::{Answer, HIDDEN, StatusCode},
    json::{Entries, Json, text_of},
};

/// Longest id of a command or of a push that is taken, bytes.
const MAX_ID_BYTES: usize = 1024;
/// Who logs in at a host where the center names nobody.
const DEFAULT_USER: &str = "root";
/// Longest text of the center's that is shown, characters.
const MAX_SHOWN_CHARS: usize = 200;

/// A number as JavaScript prints it: without a decimal point where there is nothing behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number(f64);

impl Number {
    /// Two decimals, rounded as JavaScript's `Math.round` does: half goes up.
    pub(crate) fn hundredths(value: f64) -> Self {
        Self((value * 100.0 + 0.5).floor() / 100.0)
    }

    /// A whole number, rounded the same way.
    pub(crate) fn whole(value: f64) -> Self {
        Self((value + 0.5).floor())
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[expect(clippy::cast_possible_truncation, reason = "compared with what it was made of")]
        let whole = self.0 as i64;
        #[expect(clippy::cast_precision_loss, reason = "compared with what it was made of")]
        let is_whole = (whole as f64).to_bits() == self.0.to_bits();
        if is_whole { serializer.serialize_i64(whole) } else { serializer.serialize_f64(self.0) }
    }
}

/// What the center says of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It knows it.
    Valid {
        /// What it calls this relay; empty when it does not say.
        relay_id: String,
        /// What it calls the machine, and what people do.
        machine_id: String,
        name: String,
    },
    /// It does not, or does not let it in.
    Invalid(String),
    /// It says nothing that can be relied on.
    Unclear(String),
}

/// Reads the answer to a question about a key. Its body counts and not its status, except that a plain refusal is one.
pub(crate) fn verdict(answer: &Answer) -> Verdict {
    let refused = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let body = text_of(&answer.body);
    let names = ["valid", "assignmentId", "machineId", "name", "error"];
    let members = says_json(answer).then(|| Json::new(&body).members(names)).flatten();
    let [valid, relay_id, machine_id, name, error] = members.unwrap_or_default();
    let text = |value: Option<Json<'_>>| {
        let hidden = || if answer.has_key { HIDDEN.to_owned() } else { String::new() };
        value.filter(|_| !answer.has_key).and_then(Json::text).map_or_else(hidden, |text| shown(&text))
    };
    match valid {
        Some(valid) if valid.is_truthy() => {
            let relay_id = relay_id.and_then(id).unwrap_or_default();
            Verdict::Valid { relay_id, machine_id: text(machine_id), name: text(name) }
        }
        Some(_) => Verdict::Invalid(text(error)),
        None if refused => Verdict::Invalid(text(error)),
        None => {
            let body = if answer.has_key { HIDDEN.to_owned() } else { shown(&body) };
            Verdict::Unclear(format!("{} {}: {body}", answer.status, shown(&answer.content_type)))
        }
    }
}

/// A command as the center offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) id: String,
    /// For `sh -c`.
    pub(crate) text: String,
    pub(crate) target: Target,
    /// 1 to 172,800,000.
    pub(crate) timeout_ms: u64,
}

/// Where a command is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// On this machine.
    Local,
    /// On a host that this machine reaches.
    Ssh(Box<SshTarget>),
    /// On a host that is not named. Absent and empty are the same.
    NoHost,
    /// On what can be no host.
    BadHost(String),
    /// On something that is not known here.
    Unknown(String),
    /// Nowhere, since there is nothing to run.
    NoText,
}

/// The commands in an answer, and how many entries are none or too many. `None` when it is no list.
pub(crate) fn commands(answer: &Answer) -> Option<(Vec<Command>, usize)> {
    let body = text_of(&answer.body);
    let [list] = Json::new(&body).members(["commands"])?;
    let Entries { first, more } = list?.entries()?;
    let commands: Vec<Command> = first.iter().filter_map(|entry| command(*entry)).collect();
    let broken = first.len() - commands.len() + more;
    Some((commands, broken))
}

/// Reads an entry. What can be named is a command, and is told why it cannot be run.
fn command(entry: Json<'_>) -> Option<Command> {
    let [name, text, target, host, port, user, timeout] = entry.members([
        "_id",
        "command",
        "targetType",
        "targetHost",
        "targetPort",
        "targetUsername",
        "timeoutMs",
    ])?;
    let text = text.and_then(Json::text);
    let target = match target.and_then(Json::text).as_deref() {
        _ if text.is_none() => Target::NoText,
        Some("local") => Target::Local,
        Some("ssh") => host_behind([host, port, user]),
        Some(other) => Target::Unknown(shown(other)),
        None => Target::Unknown(shown(target.map_or("undefined", Json::as_written))),
    };
    let timeout_ms = timeout.and_then(Json::number).map_or(DEFAULT_TIMEOUT_MS, clamped);
    Some(Command { id: id(name?)?, text: text.unwrap_or_default(), target, timeout_ms })
}

/// A host behind the machine: port 22 and `root` unless it says otherwise.
fn host_behind([host, port, user]: [Option<Json<'_>>; 3]) -> Target {
    let text = |member: Option<Json<'_>>| member.and_then(Json::text).filter(|text| !text.is_empty());
    let Some(host) = text(host) else { return Target::NoHost };
    let user = text(user).unwrap_or_else(|| DEFAULT_USER.to_owned());
    let port = port.and_then(Json::number).map_or(Some(SSH_PORT), whole_port);
    match port {
        Some(port) if is_host(&host) && is_username(&user) => {
            let (username, jump, credential) = (Some(user), Vec::new(), None);
            Target::Ssh(Box::new(SshTarget { host, port, username, jump, credential }))
        }
        _ => Target::BadHost(shown(&host)),
    }
}

fn whole_port(port: f64) -> Option<u16> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates"
    )]
    let whole = port as u16;
    (whole > 0 && port <= f64::from(u16::MAX) && port.fract() == 0.0).then_some(whole)
}

/// A time limit within what a keeper takes.
fn clamped(timeout_ms: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates"
    )]
    let timeout_ms = timeout_ms as u64;
    timeout_ms.clamp(*TIMEOUT_MS.start(), *TIMEOUT_MS.end())
}

/// Whether an answer grants what was asked for. Its status does not matter.
pub(crate) fn is_granted(answer: &Answer) -> bool {
    let body = text_of(&answer.body);
    let [success] = Json::new(&body).members(["success"]).unwrap_or_default();
    success.is_some_and(Json::is_truthy)
}

/// Whether pushes wait, as the answer to a report says.
pub(crate) fn pending_pushes(answer: &Answer) -> bool {
    let body = text_of(&answer.body);
    let [pending] = Json::new(&body).members(["pendingConfigPushes"]).unwrap_or_default();
    pending.and_then(Json::number).is_some_and(|pending| pending > 0.0)
}

/// Something that the center wants to be set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Push {
    pub(crate) id: String,
    /// Absent where the center does not say.
    pub(crate) kind: Option<String>,
    /// JSON. Absent where it is no text.
    pub(crate) payload: Option<String>,
}

/// The pushes in an answer, whatever the center calls them. No list is an empty one.
pub(crate) fn pushes(answer: &Answer) -> Vec<Push> {
    let body = text_of(&answer.body);
    let lists = Json::new(&body).members(["pushes", "configPushes"]).unwrap_or_default();
    let list = lists.into_iter().flatten().find_map(Json::entries);
    let push = |entry: Json<'_>| {
        let [name, kind, payload] = entry.members(["_id", "pushType", "payload"])?;
        let [kind, payload] = [kind, payload].map(|member| member.and_then(Json::text));
        Some(Push { id: id(name?)?, kind, payload })
    };
    list.map(|list| list.first.into_iter().filter_map(push).collect()).unwrap_or_default()
}

/// The credentials in an answer that are meant for this relay. What is none is passed over.
pub(crate) fn shared_credentials(answer: &Answer) -> Vec<SharedCredential> {
    let body = text_of(&answer.body);
    let list = Json::new(&body).members(["credentials"]).and_then(|[list]| list?.entries());
    let credential = |entry: Json<'_>| serde_json::from_str(entry.as_written()).ok();
    list.map(|list| list.first.into_iter().filter_map(credential).collect()).unwrap_or_default()
}

/// `{"apiKey"}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verify<'a> {
    pub(crate) api_key: &'a str,
}

/// `{"commandId"}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Claim<'a> {
    pub(crate) command_id: &'a str,
}

/// What became of a push.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ack<'a> {
    pub(crate) push_id: &'a str,
    pub(crate) success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_message: Option<String>,
}

/// How a command ended, but for its output; that is put in between. Also what the journal keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// The center's id of the command.
    pub(crate) command_id: String,
    pub(crate) success: bool,
    pub(crate) exit_code: i32,
    /// Absent where the exit code says it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) duration_ms: u64,
    /// Bytes that were written to stdout and stderr, kept or not.
    pub(crate) bytes: [u64; 2],
    /// Whether the error stands in `stderr` too, as of a host that was not reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_told_twice: bool,
    /// What went wrong beside the error, as where a host did not confirm that the command ended. It stands at the end of
    /// `stderr`: centers know a timeout by its `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<String>,
}

impl Ended {
    /// The end of a command that did not come to an end of its own.
    pub(crate) fn without_a_run(command_id: &str, error: impl Into<String>) -> Self {
        let (command_id, error) = (command_id.to_owned(), Some(error.into()));
        Self {
            command_id,
            success: false,
            exit_code: -1,
            error,
            duration_ms: 0,
            bytes: [0; 2],
            is_told_twice: false,
            fault: None,
        }
    }
}

/// Whether the body is a JSON object, and said to be: what a center says, and hardly a server before it.
pub(crate) fn is_object(answer: &Answer) -> bool {
    says_json(answer) && Json::new(&text_of(&answer.body)).members([]).is_some()
}

/// Whether an answer says that it is JSON. Centers need not: it counts where it tells them from a server before them.
fn says_json(answer: &Answer) -> bool {
    answer.content_type.contains("application/json")
}

fn id(value: Json<'_>) -> Option<String> {
    value.text().filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()))
}

pub(crate) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    /// A JSON answer.
    pub(crate) fn json_answer(status: u16, body: &Value) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: "application/json; charset=utf-8".to_owned(),
            body: body.to_string().into_bytes(),
            has_key: false,
        }
    }

    #[rstest]
    #[case(0.0, "0")]
    #[case(100.0, "100")]
    #[case(4.3, "4.3")]
    #[case(17.515, "17.52")]
    #[case(17.514_999, "17.51")]
    #[case(251.97, "251.97")]
    #[case(0.005, "0.01")]
    fn numbers_print_as_in_javascript(#[case] value: f64, #[case] text: &str) {
        assert_eq!(serde_json::to_string(&Number::hundredths(value)).unwrap(), text);
    }

    #[rstest]
    #[case(24_106.5, "24107")]
    #[case(24_106.49, "24106")]
    fn whole_numbers_have_no_point(#[case] value: f64, #[case] text: &str) {
        assert_eq!(serde_json::to_string(&Number::whole(value)).unwrap(), text);
    }

    #[rstest]
    #[case(200, json!({"valid": true, "assignmentId": "a", "machineId": "m", "name": "n"}), "valid")]
    #[case(500, json!({"valid": true, "assignmentId": "a", "machineId": "m", "name": "n"}), "valid")]
    #[case(200, json!({"valid": false, "error": "no"}), "invalid")]
    #[case(403, json!({"valid": false, "error": "no"}), "invalid")]
    #[case(200, json!({"valid": null, "error": "no"}), "invalid")]
    #[case(401, json!({"error": "no"}), "invalid")]
    #[case(500, json!({"error": "no"}), "unclear")]
    #[case(404, json!({}), "unclear")]
    #[case(200, json!([true]), "unclear")]
    fn a_key_is_judged_by_the_body(#[case] status: u16, #[case] body: Value, #[case] expected: &str) {
        let [relay_id, machine_id, name] = ["a", "m", "n"].map(str::to_owned);
        match verdict(&json_answer(status, &body)) {
            valid @ Verdict::Valid { .. } => {
                assert_eq!((expected, valid), ("valid", Verdict::Valid { relay_id, machine_id, name }));
            }
            Verdict::Invalid(error) => assert_eq!((expected, error.as_str()), ("invalid", "no")),
            Verdict::Unclear(_) => assert_eq!(expected, "unclear"),
        }
    }

    #[test]
    fn what_is_no_json_is_unclear_unless_it_is_a_refusal() {
        let html = |status| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: "text/html".to_owned(),
            body: br#"{"valid": true}"#.to_vec(),
            has_key: false,
        };
        assert!(matches!(verdict(&html(200)), Verdict::Unclear(_)));
        assert!(matches!(verdict(&html(401)), Verdict::Invalid(_)));
    }

    #[test]
    fn a_body_with_the_key_in_it_is_not_shown() {
        for body in [json!({"valid": false, "error": "no sk_1"}), json!({"error": "no sk_1"})] {
            let answer = Answer { has_key: true, ..json_answer(400, &body) };
            let (Verdict::Invalid(text) | Verdict::Unclear(text)) = verdict(&answer) else {
                panic!("{body} is taken")
            };
            assert!(!text.contains("sk_1"), "{text}");
        }
    }

    fn host_on(host: &str, port: u16, user: &str) -> Target {
        let (host, username) = (host.to_owned(), Some(user.to_owned()));
        Target::Ssh(Box::new(SshTarget { host, port, username, jump: Vec::new(), credential: None }))
    }

    #[test]
    fn commands_are_read_strictly_one_by_one() {
        let body = json!({"commands": [
            {"_id": "c1", "command": "true", "targetType": "local", "timeoutMs": 1500.0, "createdAt": 1, "targetPort": 22},
            {"_id": "c2", "command": "true", "targetType": "ssh", "targetHost": null, "timeoutMs": 0},
            {"_id": "c3", "command": "true", "targetType": "ssh", "targetHost": "h", "targetUsername": "ops", "targetPort": 2222, "timeoutMs": 1e12},
            {"_id": "c9", "command": "true", "targetType": "ssh", "targetHost": "h", "targetUsername": ""},
            {"_id": "c10", "command": "true", "targetType": "ssh", "targetHost": "h h"},
            {"_id": "c11", "command": "true", "targetType": "ssh", "targetHost": "h", "targetPort": 22.5},
            {"_id": "c4", "command": "true", "targetType": "winrm", "timeoutMs": -3},
            {"_id": "c5", "command": "true", "targetType": "local"},
            {"_id": "", "command": "true", "targetType": "local"},
            {"_id": "c6", "command": 7, "targetType": "local"},
            {"_id": "c7", "command": "true"},
            {"_id": "c8", "command": "true", "targetType": ["x"]},
            null,
        ]});
        let (read, broken) = commands(&json_answer(200, &body)).unwrap();
        let read: Vec<_> =
            read.into_iter().map(|command| (command.id, command.target, command.timeout_ms)).collect();
        let expected = [
            ("c1", Target::Local, 1500),
            ("c2", Target::NoHost, 1),
            ("c3", host_on("h", 2222, "ops"), 172_800_000),
            ("c9", host_on("h", 22, "root"), 30_000),
            ("c10", Target::BadHost("h h".to_owned()), 30_000),
            ("c11", Target::BadHost("h".to_owned()), 30_000),
            ("c4", Target::Unknown("winrm".to_owned()), 1),
            ("c5", Target::Local, 30_000),
            ("c6", Target::NoText, 30_000),
            ("c7", Target::Unknown("undefined".to_owned()), 30_000),
            ("c8", Target::Unknown("[\"x\"]".to_owned()), 30_000),
        ];
        assert_eq!(read, expected.map(|(id, target, timeout)| (id.to_owned(), target, timeout)));
        assert_eq!(broken, 2);
        assert_eq!(commands(&json_answer(200, &json!({}))), None);
        assert_eq!(commands(&json_answer(200, &json!({"commands": 1}))), None);
    }

    #[rstest]
    #[case(json!({"success": true}), true)]
    #[case(json!({"success": 1}), true)]
    #[case(json!({"success": false}), false)]
    #[case(json!({"success": null}), false)]
    #[case(json!({"error": "x"}), false)]
    #[case(json!("success"), false)]
    fn a_grant_is_a_yes(#[case] body: Value, #[case] granted: bool) {
        assert_eq!(is_granted(&json_answer(400, &body)), granted);
    }

    #[test]
    fn what_a_reader_of_this_house_refuses_spoils_nothing_beside_it() {
        let body = br#"{"commands":[
            {"_id":"c1","command":"echo \ud83d \\ud83d","targetType":"local","timeoutMs":1e999,"createdAt":-1e999},
            {"_id":"c2","command":"true","targetType":"local"},
            {"_id":"c3","command":"\ud83d\ude00","targetType":"local"}
        ],"at":1e999}"#;
        let answer = Answer { body: body.to_vec(), ..json_answer(200, &json!({})) };
        let (read, broken) = commands(&answer).unwrap();
        let read: Vec<_> = read.iter().map(|command| (command.text.as_str(), command.timeout_ms)).collect();
        let expected = [("echo \u{fffd} \\ud83d", 172_800_000), ("true", 30_000), ("\u{1f600}", 30_000)];
        assert_eq!((read.as_slice(), broken), (expected.as_slice(), 0));
    }

    #[rstest]
    #[case("")]
    #[case("text/plain")]
    #[case("text/html; charset=utf-8")]
    fn work_is_read_whatever_type_it_has(#[case] content_type: &str) {
        let says = |body: &Value| Answer { content_type: content_type.to_owned(), ..json_answer(200, body) };
        assert!(is_granted(&says(&json!({"success": true}))));
        assert!(pending_pushes(&says(&json!({"pendingConfigPushes": 1}))));
        let entry = json!({"_id": "c", "command": "true", "targetType": "local"});
        assert_eq!(commands(&says(&json!({"commands": [entry]}))).map(|(read, _)| read.len()), Some(1));
        assert_eq!(pushes(&says(&json!({"pushes": [{"_id": "p"}]}))).len(), 1);
        assert!(!is_object(&says(&json!({}))), "a page would be a refusal");
    }

    #[test]
    fn pushes_are_read_under_both_names() {
        let push = json!({"_id": "p", "pushType": "t", "payload": "{}", "createdAt": 1});
        for name in ["pushes", "configPushes"] {
            let read =
                pushes(&json_answer(200, &json!({name: [push, {"_id": "q", "payload": {}}, {"_id": 1}]})));
            let [kind, payload] = ["t", "{}"].map(|text| Some(text.to_owned()));
            let push = Push { id: "p".to_owned(), kind, payload };
            assert_eq!(read, [push, Push { id: "q".to_owned(), kind: None, payload: None }]);
        }
        assert_eq!(pushes(&json_answer(200, &json!({}))), []);
    }
}
