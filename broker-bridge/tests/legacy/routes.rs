//! Every route, and every answer that it has: one row each.

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use signalbox_testkit::{http::Answer, old_relay::OldRelay};

use super::world::{Assigned, World, is_json};

/// A well-formed id that no command and no push has.
const NOBODY: &str = "0193a2b4-0000-7000-8000-00000000c1d1";

/// Whose key a request brings.
#[derive(Debug, Clone, Copy)]
enum Key {
    No,
    Empty,
    /// Nobody's.
    Unknown,
    Good,
    Disabled,
    Removed,
}

/// A request and its answer. `$ID` is the id of the good assignment, `$OTHER` that of the disabled one; `$GOOD`,
/// `$DISABLED` and `$REMOVED` are the keys.
type Row = (&'static str, Key, &'static str, u16, &'static str);

const NO_KEY: &str = r#"{"error":"API key is required"}"#;
const UNKNOWN: &str = r#"{"error":"Invalid API key"}"#;
const REMOVED: &str = r#"{"error":"No relay assignment found for this API key"}"#;
const DISABLED: &str = r#"{"error":"Relay assignment is disabled"}"#;
const NO: &str = r#"{"success":false}"#;
const YES: &str = r#"{"success":true}"#;

const VERIFY: &[Row] = &[
    (
        "POST /relay/verify",
        Key::No,
        r#"{"apiKey":"$GOOD"}"#,
        200,
        r#"{"valid":true,"assignmentId":"$ID","machineId":"good","name":"Relay of good"}"#,
    ),
    ("POST /relay/verify", Key::No, "{}", 401, NO_KEY),
    ("POST /relay/verify", Key::No, r#"{"apiKey":""}"#, 401, NO_KEY),
    ("POST /relay/verify", Key::No, r#"{"apiKey":null}"#, 401, NO_KEY),
    // The header is not looked at.
    ("POST /relay/verify", Key::Good, "{}", 401, NO_KEY),
    ("POST /relay/verify", Key::No, r#"{"apiKey":"sk_nobody"}"#, 401, UNKNOWN),
    (
        "POST /relay/verify",
        Key::No,
        r#"{"apiKey":"$REMOVED"}"#,
        403,
        r#"{"valid":false,"error":"No relay assignment found for this API key"}"#,
    ),
    (
        "POST /relay/verify",
        Key::No,
        r#"{"apiKey":"$DISABLED"}"#,
        403,
        r#"{"valid":false,"error":"Relay assignment is disabled"}"#,
    ),
];

const COMMANDS: &[Row] = &[
    ("GET /relay/commands", Key::Good, "", 200, r#"{"commands":[]}"#),
    ("GET /relay/commands?any=thing", Key::Good, "", 200, r#"{"commands":[]}"#),
    ("GET /relay/commands", Key::No, "", 401, NO_KEY),
    ("GET /relay/commands", Key::Empty, "", 401, NO_KEY),
    ("GET /relay/commands", Key::Unknown, "", 401, UNKNOWN),
    ("GET /relay/commands", Key::Removed, "", 403, REMOVED),
    ("GET /relay/commands", Key::Disabled, "", 403, DISABLED),
];

const NO_COMMAND: &str = r#"{"error":"commandId is required"}"#;
const CLAIM: &[Row] = &[
    // What is missing is said before the key is looked at.
    ("POST /relay/commands/claim", Key::No, "{}", 400, NO_COMMAND),
    ("POST /relay/commands/claim", Key::Unknown, r#"{"commandId":""}"#, 400, NO_COMMAND),
    ("POST /relay/commands/claim", Key::Disabled, r#"{"commandId":null}"#, 400, NO_COMMAND),
    ("POST /relay/commands/claim", Key::Good, "[]", 400, NO_COMMAND),
    ("POST /relay/commands/claim", Key::No, r#"{"commandId":"x"}"#, 401, NO_KEY),
    ("POST /relay/commands/claim", Key::Empty, r#"{"commandId":"x"}"#, 401, NO_KEY),
    ("POST /relay/commands/claim", Key::Unknown, r#"{"commandId":"x"}"#, 401, UNKNOWN),
    ("POST /relay/commands/claim", Key::Removed, r#"{"commandId":"x"}"#, 403, REMOVED),
    ("POST /relay/commands/claim", Key::Disabled, r#"{"commandId":"x"}"#, 403, DISABLED),
    (
        "POST /relay/commands/claim",
        Key::Good,
        r#"{"commandId":"0193a2b4-0000-7000-8000-00000000c1d1"}"#,
        400,
        r#"{"success":false,"error":"Command not found"}"#,
    ),
    (
        "POST /relay/commands/claim",
        Key::Good,
        r#"{"commandId":"c01","more":1}"#,
        400,
        r#"{"success":false,"error":"Command not found"}"#,
    ),
];

const NO_RESULT: &str = r#"{"error":"commandId and success are required"}"#;
const RESULT: &[Row] = &[
    ("POST /relay/commands/result", Key::Unknown, "{}", 400, NO_RESULT),
    ("POST /relay/commands/result", Key::No, r#"{"success":true}"#, 400, NO_RESULT),
    ("POST /relay/commands/result", Key::No, r#"{"commandId":"","success":true}"#, 400, NO_RESULT),
    ("POST /relay/commands/result", Key::No, r#"{"commandId":"x"}"#, 400, NO_RESULT),
    ("POST /relay/commands/result", Key::No, r#"{"commandId":"x","success":"true"}"#, 400, NO_RESULT),
    ("POST /relay/commands/result", Key::No, r#"{"commandId":"x","success":1}"#, 400, NO_RESULT),
    ("POST /relay/commands/result", Key::No, r#"{"commandId":"x","success":null}"#, 400, NO_RESULT),
    ("POST /relay/commands/result", Key::No, r#"{"commandId":"x","success":true}"#, 401, NO_KEY),
    ("POST /relay/commands/result", Key::Unknown, r#"{"commandId":"x","success":true}"#, 401, UNKNOWN),
    ("POST /relay/commands/result", Key::Good, r#"{"commandId":"x","success":true}"#, 200, NO),
    // There is no 403 here: it only does not count.
    ("POST /relay/commands/result", Key::Disabled, r#"{"commandId":"x","success":true}"#, 200, NO),
    ("POST /relay/commands/result", Key::Removed, r#"{"commandId":"x","success":true}"#, 200, NO),
    (
        "POST /relay/commands/result",
        Key::Good,
        r#"{"commandId":"0193a2b4-0000-7000-8000-00000000c1d1","success":true,"output":null,"stderr":null,"exitCode":null,"error":null,"durationMs":null}"#,
        200,
        NO,
    ),
];

const HEARTBEAT: &[Row] = &[
    ("POST /relay/heartbeat", Key::Good, "", 200, YES),
    ("POST /relay/heartbeat", Key::Good, "no JSON at all", 200, YES),
    ("POST /relay/heartbeat", Key::Disabled, "", 200, YES),
    ("POST /relay/heartbeat", Key::Removed, "", 200, NO),
    ("POST /relay/heartbeat", Key::No, "", 401, NO),
    ("POST /relay/heartbeat", Key::Empty, "", 401, NO),
    ("POST /relay/heartbeat", Key::Unknown, "", 401, NO),
];

const NO_REPORT: &str = r#"{"success":false,"error":"relayId, capabilities, and credentials are required"}"#;
const REPORT: &str = r#"{"relayId":"x","capabilities":[],"credentials":[]}"#;
const REPORTED: &str = r#"{"success":true,"pendingConfigPushes":0,"sharedCredentialsCount":0}"#;
const STATUS: &[Row] = &[
    ("POST /relay/status", Key::Unknown, "{}", 400, NO_REPORT),
    ("POST /relay/status", Key::No, r#"{"capabilities":[],"credentials":[]}"#, 400, NO_REPORT),
    ("POST /relay/status", Key::No, r#"{"relayId":"","capabilities":[],"credentials":[]}"#, 400, NO_REPORT),
    ("POST /relay/status", Key::No, r#"{"relayId":"x","credentials":[]}"#, 400, NO_REPORT),
    ("POST /relay/status", Key::No, r#"{"relayId":"x","capabilities":[]}"#, 400, NO_REPORT),
    (
        "POST /relay/status",
        Key::No,
        r#"{"relayId":"x","capabilities":null,"credentials":[]}"#,
        400,
        NO_REPORT,
    ),
    ("POST /relay/status", Key::No, REPORT, 401, NO_KEY),
    ("POST /relay/status", Key::Unknown, REPORT, 401, UNKNOWN),
    ("POST /relay/status", Key::Good, REPORT, 200, REPORTED),
    ("POST /relay/status", Key::Disabled, REPORT, 200, REPORTED),
    ("POST /relay/status", Key::Removed, REPORT, 200, REPORTED),
    // Absent and null are the same; what is not known is passed over; a number is a number.
    (
        "POST /relay/status",
        Key::Good,
        r#"{"relayId":"x","capabilities":["brand_new"],"credentials":[],"metrics":null,"version":null,"hostname":null,"platform":null,"x":{}}"#,
        200,
        REPORTED,
    ),
    (
        "POST /relay/status",
        Key::Good,
        r#"{"relayId":"x","capabilities":[],"credentials":[],"metrics":{"cpuPercent":4,"memoryTotalMb":24106.0,"loadAvg1m":null,"gpu":1}}"#,
        200,
        REPORTED,
    ),
];

const NO_RELAY: &str = r#"{"error":"relayId query parameter is required"}"#;
const NO_PUSHES: &str = r#"{"configPushes":[],"pushes":[]}"#;
const PUSHES: &[Row] = &[
    ("GET /relay/config/pending", Key::Good, "", 200, NO_PUSHES),
    ("GET /relay/config/pending?relayId=$ID", Key::Good, "", 200, NO_PUSHES),
    ("GET /relay/config/pending", Key::No, "", 401, NO_KEY),
    ("GET /relay/config/pending", Key::Unknown, "", 401, UNKNOWN),
    ("GET /relay/config/pending", Key::Disabled, "", 200, NO_PUSHES),
    ("GET /relay/config/pending", Key::Removed, "", 200, NO_PUSHES),
    ("GET /relay/config-pushes", Key::No, "", 400, NO_RELAY),
    ("GET /relay/config-pushes?relayId=", Key::Unknown, "", 400, NO_RELAY),
    ("GET /relay/config-pushes?relayId=$ID", Key::No, "", 401, NO_KEY),
    ("GET /relay/config-pushes?relayId=$ID", Key::Unknown, "", 401, UNKNOWN),
    ("GET /relay/config-pushes?relayId=$ID", Key::Good, "", 200, NO_PUSHES),
    ("GET /relay/config-pushes?relayId=$OTHER", Key::Good, "", 200, NO_PUSHES),
];

const NO_ACK: &str = r#"{"error":"pushId and success are required"}"#;
/// In both spellings.
const ACK: &[Row] = &[
    ("POST ", Key::Unknown, "{}", 400, NO_ACK),
    ("POST ", Key::No, r#"{"success":true}"#, 400, NO_ACK),
    ("POST ", Key::No, r#"{"pushId":"","success":true}"#, 400, NO_ACK),
    ("POST ", Key::No, r#"{"pushId":"p"}"#, 400, NO_ACK),
    ("POST ", Key::No, r#"{"pushId":"p","success":"yes"}"#, 400, NO_ACK),
    ("POST ", Key::No, r#"{"pushId":"p","success":true}"#, 401, NO_KEY),
    ("POST ", Key::Unknown, r#"{"pushId":"p","success":true}"#, 401, UNKNOWN),
    ("POST ", Key::Good, r#"{"pushId":"p","success":true}"#, 200, NO),
    ("POST ", Key::Good, r#"{"pushId":"p","success":false,"errorMessage":"Processing failed"}"#, 200, NO),
    ("POST ", Key::Good, r#"{"pushId":"p","success":true,"errorMessage":null}"#, 200, NO),
    ("POST ", Key::Disabled, r#"{"pushId":"p","success":true}"#, 200, NO),
    ("POST ", Key::Removed, r#"{"pushId":"p","success":true}"#, 200, NO),
];

const NO_CREDENTIALS: &str = r#"{"credentials":[]}"#;
const CREDENTIALS: &[Row] = &[
    ("GET /relay/credentials/shared", Key::Good, "", 200, NO_CREDENTIALS),
    ("GET /relay/credentials/shared", Key::No, "", 401, NO_KEY),
    ("GET /relay/credentials/shared", Key::Unknown, "", 401, UNKNOWN),
    ("GET /relay/credentials/shared", Key::Disabled, "", 200, NO_CREDENTIALS),
    ("GET /relay/shared-credentials", Key::No, "", 400, NO_RELAY),
    ("GET /relay/shared-credentials?relayId=", Key::Good, "", 400, NO_RELAY),
    ("GET /relay/shared-credentials?relayId=$ID", Key::No, "", 401, NO_KEY),
    ("GET /relay/shared-credentials?relayId=$ID", Key::Unknown, "", 401, UNKNOWN),
    ("GET /relay/shared-credentials?relayId=$ID", Key::Good, "", 200, NO_CREDENTIALS),
    ("GET /relay/shared-credentials?relayId=$OTHER", Key::Good, "", 200, NO_CREDENTIALS),
];

/// All paths, with the method that each has.
pub(super) const ALL: [(&str, &str); 12] = [
    ("POST", "/relay/verify"),
    ("GET", "/relay/commands"),
    ("POST", "/relay/commands/claim"),
    ("POST", "/relay/commands/result"),
    ("POST", "/relay/heartbeat"),
    ("POST", "/relay/status"),
    ("GET", "/relay/config/pending"),
    ("GET", "/relay/config-pushes"),
    ("POST", "/relay/config/ack"),
    ("POST", "/relay/config-pushes/ack"),
    ("GET", "/relay/credentials/shared"),
    ("GET", "/relay/shared-credentials"),
];

/// The assignments of the rows.
struct Cast {
    world: World,
    good: Assigned,
    disabled: Assigned,
    removed: Assigned,
}

impl Cast {
    async fn start() -> Result<Self> {
        let world = World::start().await?;
        let (good, disabled) = (world.assign("good").await?, world.assign("disabled").await?);
        let removed = world.assign("removed").await?;
        world.disable(&disabled).await?;
        world.remove(&removed).await?;
        Ok(Self { world, good, disabled, removed })
    }

    fn fill(&self, text: &str) -> String {
        let text = text.replace("$ID", &self.good.id).replace("$OTHER", &self.disabled.id);
        let text = text.replace("$GOOD", &self.good.key).replace("$DISABLED", &self.disabled.key);
        text.replace("$REMOVED", &self.removed.key)
    }

    async fn ask(&self, key: Key, method: &str, path: &str, body: &str) -> Result<Answer> {
        let key = match key {
            Key::No => None,
            Key::Empty => Some(""),
            Key::Unknown => Some("sk_nobody"),
            Key::Good => Some(self.good.key.as_str()),
            Key::Disabled => Some(self.disabled.key.as_str()),
            Key::Removed => Some(self.removed.key.as_str()),
        };
        let mut headers = Vec::from_iter(key.map(|key| ("X-API-Key", key)));
        headers.extend((!body.is_empty()).then_some(("Content-Type", "application/json")));
        let nobody = self.world.bench.http.with_token("");
        nobody.request(method, path, &headers, self.fill(body).into_bytes()).await
    }

    async fn check(&self, row: &Row, path: &str) -> Result<()> {
        let (request, key, body, status, text) = *row;
        let (method, own) = request.split_once(' ').context("no path")?;
        let answer = self.ask(key, method, &format!("{path}{}", self.fill(own)), body).await?;
        let row = format!("{request}{path} {key:?} {body}");
        is_json(&answer).with_context(|| row.clone())?;
        let (found, expected) = ((answer.status, answer.text()), (status, self.fill(text)));
        ensure!(found == expected, "{row}: {found:?} and not {expected:?}");
        Ok(())
    }
}

#[rstest]
#[case::verify(VERIFY, "")]
#[case::commands(COMMANDS, "")]
#[case::claim(CLAIM, "")]
#[case::result(RESULT, "")]
#[case::heartbeat(HEARTBEAT, "")]
#[case::status(STATUS, "")]
#[case::pushes(PUSHES, "")]
#[case::ack_as_relays_spell_it(ACK, "/relay/config/ack")]
#[case::ack_as_centers_spell_it(ACK, "/relay/config-pushes/ack")]
#[case::credentials(CREDENTIALS, "")]
#[tokio::test]
async fn every_row_is_answered_so(#[case] rows: &[Row], #[case] path: &str) -> Result<()> {
    let cast = Cast::start().await?;
    let mut wrong = Vec::new();
    for row in rows {
        if let Err(error) = cast.check(row, path).await {
            wrong.push(format!("{error:#}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn anybody_may_ask_what_is_allowed() -> Result<()> {
    let cast = Cast::start().await?;
    for (_, path) in ALL {
        let answer = cast.ask(Key::No, "OPTIONS", path, "").await?;
        assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST, OPTIONS"), "{path}");
        let headers = answer.header("access-control-allow-headers");
        assert_eq!(headers, Some("Content-Type, X-API-Key, Authorization"), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn there_is_nothing_at_other_paths_and_with_other_methods() -> Result<()> {
    let cast = Cast::start().await?;
    let mut nowhere = Vec::new();
    for (method, path) in ALL {
        let other = if method == "GET" { "POST" } else { "GET" };
        nowhere.extend([(other, path.to_owned()), ("PUT", path.to_owned()), ("DELETE", path.to_owned())]);
        nowhere.push((method, format!("{path}/")));
    }
    let others = ["/relay", "/relay/", "/relay/nothing", "/relay/Commands", "/relay/commands/claim/x"];
    for path in others.into_iter().chain(["/relay//commands"]) {
        nowhere.extend([("GET", path.to_owned()), ("OPTIONS", path.to_owned())]);
    }
    for (method, path) in nowhere {
        let answer = cast.ask(Key::Good, method, &path, "").await?;
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        assert_eq!(answer.text(), format!("No HttpAction routed for {path}"), "{method}");
        let kind = answer.header("content-type").context("no type")?;
        assert!(kind.starts_with("text/plain"), "{method} {path}: {kind}");
    }
    // HEAD has no body, and is no GET.
    assert_eq!(cast.ask(Key::Good, "HEAD", "/relay/commands", "").await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn a_key_is_one_header_and_no_other() -> Result<()> {
    let cast = Cast::start().await?;
    let key = cast.good.key.as_str();
    let http = cast.world.bench.http.with_token(key);
    let answer = http.get("/relay/commands").await?;
    assert_eq!((answer.status, answer.text().as_str()), (401, NO_KEY), "a bearer token");
    let http = http.with_token("");
    let twice = [("X-API-Key", key), ("X-API-Key", key)];
    let answer = http.request("GET", "/relay/commands", &twice, vec![]).await?;
    assert_eq!((answer.status, answer.text().as_str()), (401, UNKNOWN));
    let answer = http.get(&format!("/relay/commands?X-API-Key={key}")).await?;
    assert_eq!((answer.status, answer.text().as_str()), (401, NO_KEY), "a query");
    // The spelling of a header's name is free.
    let answer = http.request("GET", "/relay/commands", &[("x-api-key", key)], vec![]).await?;
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"commands":[]}"#));
    Ok(())
}

#[tokio::test]
async fn the_type_of_a_body_does_not_matter() -> Result<()> {
    let cast = Cast::start().await?;
    let http = cast.world.bench.http.with_token("");
    let body = format!(r#"{{"apiKey":"{}"}}"#, cast.good.key).into_bytes();
    for headers in [vec![], vec![("Content-Type", "text/plain")], vec![("Content-Type", "application/xml")]] {
        let answer = http.request("POST", "/relay/verify", &headers, body.clone()).await?;
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text());
    }
    let typed = [("X-API-Key", cast.good.key.as_str()), ("Content-Type", "application/json")];
    let answer = http.request("POST", "/relay/heartbeat", &typed, vec![]).await?;
    assert_eq!((answer.status, answer.text().as_str()), (200, YES));
    Ok(())
}

#[tokio::test]
async fn a_relay_speaks_on_one_connection() -> Result<()> {
    let cast = Cast::start().await?;
    let mut connection = signalbox_testkit::old_relay::Connection::open(&cast.world.bench.base).await?;
    let relay = OldRelay::new(&cast.world.bench.base, &cast.good.key);
    let heartbeat = relay.request("POST", "/relay/heartbeat", None)?;
    let poll = relay.request("GET", "/relay/commands", None)?;
    let result = format!(r#"{{"commandId":"{NOBODY}","success":true}}"#);
    let result = relay.request("POST", "/relay/commands/result", Some(&result))?;
    let rounds = [(&heartbeat, YES), (&poll, r#"{"commands":[]}"#), (&result, NO), (&heartbeat, YES)];
    for (request, text) in rounds {
        connection.send(request).await?;
        let answer = connection.answer().await?;
        is_json(&answer)?;
        assert_eq!((answer.status, answer.text().as_str()), (200, text));
    }
    Ok(())
}
