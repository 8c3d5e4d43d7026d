//! Every refusal, by its status and its code.

use anyhow::Result;
use serde_json::{Value, json};

use super::{NOBODY, ask, assign, bench::Bench, text};

/// A request and the status it is refused with. `ID` is an assignment of a machine with keys, `OLD` one of a machine without,
/// `COMMAND` a command, `NOBODY` an id that nothing has.
type Row = (&'static str, &'static str, Value, u16);

fn of_assignments() -> Vec<Row> {
    vec![
        ("POST", "/assignments", json!({"machine_id": "a-1", "name": "x", "api_key": "too short"}), 422),
        ("POST", "/assignments", json!({"machine_id": "a-1", "name": "x", "created_by": ""}), 422),
        ("POST", "/assignments", json!({"machine_id": "", "name": "x"}), 422),
        ("GET", "/assignments?after=x", Value::Null, 422),
        ("GET", "/assignments?machine=x", Value::Null, 422),
        ("GET", "/assignments/x", Value::Null, 404),
        ("GET", "/assignments/%2a", Value::Null, 404),
        ("GET", "/assignments/NOBODY", Value::Null, 404),
        ("PATCH", "/assignments/NOBODY", json!({"enabled": false}), 404),
        ("PATCH", "/assignments/ID", json!({"enabled": "no"}), 422),
        ("PATCH", "/assignments/ID", json!({"name": ""}), 422),
        ("PATCH", "/assignments/ID", json!({"machine_id": "a-2"}), 422),
        ("PATCH", "/assignments/ID", json!({"id": NOBODY}), 422),
        ("DELETE", "/assignments/NOBODY?cascade=true", Value::Null, 404),
        ("DELETE", "/assignments/ID?cascade=yes", Value::Null, 422),
        ("POST", "/assignments/NOBODY/heartbeat", Value::Null, 404),
    ]
}

fn of_relays_and_credentials() -> Vec<Row> {
    vec![
        ("GET", "/relays?online=yes", Value::Null, 422),
        ("GET", "/relays/ID", Value::Null, 404),
        ("GET", "/relays/NOBODY", Value::Null, 404),
        ("POST", "/relays/NOBODY/report", json!({"capabilities": []}), 404),
        ("POST", "/relays/ID/report", json!({}), 422),
        ("POST", "/relays/ID/report", json!({"capabilities": ["x".repeat(65)]}), 422),
        ("POST", "/relays/ID/report", json!({"capabilities": [], "metrics": {"cpu_percent": "much"}}), 422),
        ("POST", "/relays/ID/report", json!({"capabilities": [], "metrics": {"cpuPercent": 5}}), 422),
        (
            "POST",
            "/relays/ID/report",
            json!({"capabilities": [], "credentials": [{"credential_name": "a", "credential_type": "password",
                "storage_mode": "shared", "last_updated_at": 1, "value": "x"}]}),
            422,
        ),
        ("GET", "/relays/NOBODY/credentials", Value::Null, 404),
        ("GET", "/credentials", Value::Null, 422),
        ("GET", "/credentials?target_host=h&after=x", Value::Null, 422),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "", "credential_type": "password", "encrypted_value": "x"}),
            422,
        ),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "n", "credential_type": "pin", "encrypted_value": "x"}),
            422,
        ),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "n", "credential_type": "password", "encrypted_value": ""}),
            422,
        ),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "n", "credential_type": "password", "encrypted_value": "x".repeat(65_537)}),
            422,
        ),
        (
            "POST",
            "/shared-credentials",
            json!({"name": "n", "credential_type": "password", "encrypted_value": "x", "assigned": [NOBODY]}),
            422,
        ),
        ("GET", "/shared-credentials/NOBODY", Value::Null, 404),
        ("PATCH", "/shared-credentials/NOBODY", json!({"name": "n"}), 404),
        ("DELETE", "/shared-credentials/NOBODY", Value::Null, 404),
        ("GET", "/relays/NOBODY/shared-credentials", Value::Null, 404),
    ]
}

fn of_pushes() -> Vec<Row> {
    vec![
        (
            "POST",
            "/config-pushes",
            json!({"assignment_id": "ID", "push_type": "metrics_interval", "payload": [1]}),
            422,
        ),
        ("POST", "/config-pushes", json!({"assignment_id": "ID", "push_type": "metrics_interval"}), 422),
        (
            "POST",
            "/config-pushes",
            json!({"assignment_id": "ID", "push_type": "metrics_interval", "payload": {"x": "x".repeat(66_000)}}),
            413,
        ),
        (
            "POST",
            "/config-pushes",
            json!({"assignment_id": NOBODY, "push_type": "metrics_interval", "payload": {}}),
            404,
        ),
        ("GET", "/config-pushes?state=gone", Value::Null, 422),
        ("GET", "/config-pushes/NOBODY", Value::Null, 404),
        ("POST", "/config-pushes/NOBODY/sent", Value::Null, 404),
        ("POST", "/config-pushes/NOBODY/ack", json!({"success": true}), 404),
        ("POST", "/config-pushes/NOBODY/retry", Value::Null, 404),
    ]
}

fn of_runs() -> Vec<Row> {
    vec![
        ("GET", "/runs?state=gone", Value::Null, 422),
        ("GET", "/runs?after=1", Value::Null, 422),
        ("GET", "/runs?machine_id=a-9", Value::Null, 404),
        ("GET", "/machines/a-9/runs", Value::Null, 404),
        ("GET", "/machines/a-1/runs?machine_id=a-1", Value::Null, 422),
        ("POST", "/commands/NOBODY/claim", json!({"assignment_id": NOBODY}), 404),
        ("POST", "/commands/COMMAND/claim", json!({"assignment_id": NOBODY}), 404),
        ("POST", "/commands/COMMAND/claim", json!({"assignment_id": "ID"}), 403),
        ("POST", "/commands/COMMAND/claim", json!({"assignment_id": "OLD"}), 404),
        ("POST", "/commands/COMMAND/claim", json!({}), 422),
        ("POST", "/commands/COMMAND/claim", json!({"id": NOBODY, "assignment_id": "ID"}), 422),
        ("POST", "/commands/x/claim", json!({"assignment_id": "ID"}), 404),
        ("POST", "/commands/NOBODY/start", json!({"assignment_id": "OLD"}), 404),
        ("POST", "/commands/COMMAND/start", json!({"assignment_id": NOBODY}), 404),
        ("POST", "/commands/COMMAND/start", json!({}), 422),
        ("POST", "/commands/NOBODY/complete", json!({"assignment_id": "OLD", "success": true}), 404),
        ("POST", "/commands/COMMAND/complete", json!({"assignment_id": "OLD"}), 422),
        ("POST", "/exec", json!({"on": "a-1", "command": "true"}), 422),
        ("POST", "/exec", json!({"machine_id": "a-1", "command": "true", "wait_ms": 600_001}), 422),
        ("POST", "/exec", json!({"machine_id": "a-1", "command": "true", "wait": 1}), 422),
        ("POST", "/exec", json!({"machine_id": "a-9", "command": "true"}), 422),
    ]
}

#[tokio::test]
async fn every_refusal_has_its_status_and_its_code() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let (id, old) = (assign(&bench, "a-1", "one").await?, assign(&bench, "old", "two").await?);
    let command = bench.submit("a-1").await?.to_string();
    let rows = [of_assignments(), of_relays_and_credentials(), of_pushes(), of_runs()].concat();
    for (method, path, body, status) in rows {
        let meant = |text: &str| {
            let text = text.replace("COMMAND", &command).replace("NOBODY", NOBODY);
            text.replace("OLD", &old).replace("ID", &id)
        };
        let body: Value = serde_json::from_str(&meant(&body.to_string()))?;
        let answer = ask(&bench, method, &meant(path), &body, status).await?;
        let codes: &[&str] = match status {
            403 => &["forbidden"],
            404 => &["not_found"],
            413 => &["too_large"],
            _ => &["invalid", "no_targets"],
        };
        let problem = answer.json()?;
        assert!(codes.contains(&text(&problem, "code")?), "{method} {path}: {problem}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let unknown = json!({"assignment_id": id, "push_type": "firmware", "payload": {}});
    let problem = ask(&bench, "POST", "/config-pushes", &unknown, 422).await?.json()?;
    for known in ["credential", "ssh_targets", "allowed_commands", "metrics_interval"] {
        assert!(text(&problem, "detail")?.contains(known), "{problem}");
    }
    for path in ["/commands", "/exec"] {
        let half =
            json!({"machine_id": "a-1", "command": "true", "target_type": "ssh", "target_username": "ops"});
        let mut empty = half.clone();
        empty["target_host"] = json!("");
        for body in [half, empty] {
            let problem = ask(&bench, "POST", path, &body, 422).await?.json()?;
            let why = "cannot submit the command: an SSH target requires target_host and target_username";
            assert_eq!(
                (text(&problem, "code")?, text(&problem, "detail")?),
                ("invalid", why),
                "{path} {body}"
            );
        }
    }
    let gone = ask(&bench, "GET", &format!("/assignments/{NOBODY}"), &Value::Null, 404).await?;
    assert_eq!(gone.json()?["detail"], "Relay assignment not found");
    Ok(())
}
