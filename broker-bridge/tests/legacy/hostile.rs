//! Bodies that no relay sends: 400 as JSON, always, and the next request is served as ever.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use signalbox_testkit::{
    eventually,
    old_relay::{Connection, OldRelay},
};

use super::{
    routes::ALL,
    world::{World, is_json, said, says},
};

/// What is not JSON, or no value that a body may be.
fn broken() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "null",
        "{",
        "}",
        "[",
        "{]",
        "nul",
        "undefined",
        "NaN",
        "'x'",
        "{'commandId':'x'}",
        "{commandId:1}",
        r#"{"commandId"}"#,
        r#"{"commandId":}"#,
        r#"{"commandId":"x",}"#,
        r#"{"commandId":"x"}{"commandId":"x"}"#,
        r#"{"commandId":"x"} x"#,
        r#"{"commandId":1e999}"#,
        r#"{"commandId":"\ud800"}"#,
        r#"{"commandId":"\x41"}"#,
        "{\"commandId\":\"a\nb\"}",
        "\u{feff}{}",
        "commandId=x&success=true",
        "<x/>",
        "// no\n{}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    bodies.push(b"\xff\xfe{\0}\0".to_vec());
    bodies.push(b"{\"commandId\":\"\xc3\x28\"}".to_vec());
    bodies.push(b"\0\0\0\0".to_vec());
    bodies.push("[".repeat(60_000).into_bytes());
    bodies.push(format!(r#"{{"commandId":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000)).into_bytes());
    bodies.push(format!("{}\"x\"", r#"{"a":"#.repeat(10_000)).into_bytes());
    bodies
}

/// JSON whose members are of other types than they must be, for the route that has them.
const WRONG: &[(&str, &str)] = &[
    ("/relay/verify", r#"{"apiKey":7}"#),
    ("/relay/verify", r#"{"apiKey":["$KEY"]}"#),
    ("/relay/verify", r#"{"apiKey":{"$ne":""}}"#),
    ("/relay/verify", r#"{"apiKey":true}"#),
    ("/relay/commands/claim", r#"{"commandId":7}"#),
    ("/relay/commands/claim", r#"{"commandId":["x"]}"#),
    ("/relay/commands/claim", r#"{"commandId":{"$ne":""}}"#),
    ("/relay/commands/claim", r#"{"commandId":"x","commandId":7}"#),
    ("/relay/commands/result", r#"{"commandId":7,"success":true}"#),
    ("/relay/commands/result", r#"{"commandId":"x","success":[]}"#),
    ("/relay/commands/result", r#"{"commandId":"x","success":true,"output":7}"#),
    ("/relay/commands/result", r#"{"commandId":"x","success":true,"output":["a"]}"#),
    ("/relay/commands/result", r#"{"commandId":"x","success":true,"stderr":{}}"#),
    ("/relay/commands/result", r#"{"commandId":"x","success":true,"exitCode":"0"}"#),
    ("/relay/commands/result", r#"{"commandId":"x","success":true,"durationMs":"5"}"#),
    ("/relay/commands/result", r#"{"commandId":"x","success":true,"error":false}"#),
    ("/relay/status", r#"{"relayId":"x","capabilities":"ssh","credentials":[]}"#),
    ("/relay/status", r#"{"relayId":"x","capabilities":{"a":1},"credentials":[]}"#),
    ("/relay/status", r#"{"relayId":"x","capabilities":[7],"credentials":[]}"#),
    ("/relay/status", r#"{"relayId":"x","capabilities":[],"credentials":[7]}"#),
    ("/relay/status", r#"{"relayId":"x","capabilities":[],"credentials":[{}]}"#),
    (
        "/relay/status",
        r#"{"relayId":"x","capabilities":[],"credentials":[{"credentialName":"a","credentialType":"pin","storageMode":"shared","lastUpdatedAt":1}]}"#,
    ),
    ("/relay/status", r#"{"relayId":"x","capabilities":[],"credentials":[],"metrics":7}"#),
    ("/relay/status", r#"{"relayId":"x","capabilities":[],"credentials":[],"metrics":{"cpuPercent":"4"}}"#),
    ("/relay/status", r#"{"relayId":"x","capabilities":[],"credentials":[],"version":1}"#),
    ("/relay/config/ack", r#"{"pushId":7,"success":true}"#),
    ("/relay/config/ack", r#"{"pushId":"p","success":true,"errorMessage":7}"#),
    ("/relay/config-pushes/ack", r#"{"pushId":{},"success":true}"#),
    ("/relay/config-pushes/ack", r#"{"pushId":"p","success":"true"}"#),
];

/// 400, as JSON, with a text that says why.
async fn is_refused(world: &World, key: &str, path: &str, body: Vec<u8>) -> Result<()> {
    let shown: String = String::from_utf8_lossy(&body).chars().take(80).collect();
    let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
    let answer = world.bench.http.request("POST", path, &headers, body).await?;
    let text = answer.text();
    is_json(&answer).with_context(|| format!("{path} {shown}: {text}"))?;
    let error = answer.json()?.get("error").and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure!(answer.status == 400 && !error.is_empty(), "{path} {shown}: {} {text}", answer.status);
    ensure!(!error.contains(key), "{path} {shown} tells the key: {error}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_json_is_refused_as_json() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let mut wrong = Vec::new();
    for (method, path) in ALL {
        if method == "GET" || path == "/relay/heartbeat" {
            continue;
        }
        for body in broken() {
            wrong.extend(is_refused(&world, &assigned.key, path, body).await.err());
        }
    }
    for (path, body) in WRONG {
        let body = body.replace("$KEY", &assigned.key).into_bytes();
        wrong.extend(is_refused(&world, &assigned.key, path, body).await.err());
    }
    assert!(wrong.is_empty(), "{} bodies:\n{wrong:#?}", wrong.len());
    assert_eq!(said(&world.relay(&assigned).heartbeat().await?)?, says(200, r#"{"success":true}"#));
    Ok(())
}

#[tokio::test]
async fn values_without_members_have_none() -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    for body in ["[]", "7", "\"x\"", "true", "{}", r#"[{"commandId":"x"}]"#] {
        let answer = relay.ask("POST", "/relay/commands/claim", Some(body)).await?;
        assert_eq!(said(&answer)?, says(400, r#"{"error":"commandId is required"}"#), "{body}");
        let answer = relay.ask("POST", "/relay/verify", Some(body)).await?;
        assert_eq!(said(&answer)?, says(401, r#"{"error":"API key is required"}"#), "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn small_routes_take_small_bodies() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let large = format!(r#"{{"commandId":"x","pad":"{}"}}"#, "x".repeat(300 * 1024));
    for path in ["/relay/commands/claim", "/relay/verify", "/relay/status", "/relay/config/ack"] {
        let mut relay = world.relay(&assigned);
        let (status, text) = said(&relay.ask("POST", path, Some(&large)).await?)?;
        assert!(
            status == 413 && text.starts_with(r#"{"error":"the body is above"#),
            "{path}: {status} {text}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_report_out_of_bounds_is_refused_like_one_that_is_none() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let report = |capabilities: usize, hostname: usize| {
        let capabilities = vec!["ssh"; capabilities];
        serde_json::json!({"relayId": "x", "capabilities": capabilities, "credentials": [], "hostname": "h".repeat(hostname)})
    };
    for body in [report(65, 1), report(1, 257)] {
        is_refused(&world, &assigned.key, "/relay/status", body.to_string().into()).await?;
    }
    assert_eq!(world.bench.view.relay(&assigned.id), None);
    let (status, text) = said(
        &world.relay(&assigned).ask("POST", "/relay/status", Some(&report(64, 256).to_string())).await?,
    )?;
    assert_eq!(status, 200, "{text}");
    Ok(())
}

#[tokio::test]
async fn a_body_that_ends_early_costs_nobody_anything() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let relay = OldRelay::new(&world.bench.base, &assigned.key);
    let request = relay.request("POST", "/relay/commands/claim", Some(r#"{"commandId":"x"}"#))?;
    for length in 1..request.len() {
        let mut connection = Connection::open(&world.bench.base).await?;
        connection.send(&request[..length]).await?;
        drop(connection);
    }
    assert_eq!(said(&world.relay(&assigned).heartbeat().await?)?, says(200, r#"{"success":true}"#));
    eventually("the end of all connections", || async {
        let health = world.bench.http.json("/health").await?;
        ensure!(health["counters"].get("http.panicked").is_none(), "{health}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ids_may_be_any_text() -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    let long = "x".repeat(60_000);
    for id in ["\0", "*", ">", "a.b", "../../etc/passwd", "' or 1=1", "é", "\u{fffd}", "$KV", &long] {
        let answer = relay.claim(id).await?;
        assert_eq!(said(&answer)?, says(400, r#"{"success":false,"error":"Command not found"}"#), "{id:?}");
        let answer = relay.result(id, 0, "").await?;
        assert_eq!(said(&answer)?, says(200, r#"{"success":false}"#), "{id:?}");
        let body = serde_json::json!({"pushId": id, "success": true}).to_string();
        let answer = relay.ask("POST", "/relay/config/ack", Some(&body)).await?;
        assert_eq!(said(&answer)?, says(200, r#"{"success":false}"#), "{id:?}");
        if id.is_ascii() && !id.contains(['\0', ' ', '>']) && id.len() < 1_000 {
            let answer = relay.ask("GET", &format!("/relay/config-pushes?relayId={id}"), None).await?;
            assert_eq!(said(&answer)?, says(200, r#"{"configPushes":[],"pushes":[]}"#), "{id:?}");
        }
    }
    Ok(())
}
