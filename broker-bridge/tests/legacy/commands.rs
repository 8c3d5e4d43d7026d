//! Lists, claims and results of one relay.

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_testkit::eventually;

use super::world::{World, said, says};

#[tokio::test]
async fn a_command_goes_from_the_list_through_a_claim_to_its_result() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let mut relay = world.relay(&assigned);
    let id = world.submit_with("m-1", &json!({"command": "echo \"hi\"", "timeout_ms": 5_000})).await?;
    let created = world.bench.http.json(&format!("/api/v1/commands/{id}")).await?["created_at"].clone();
    let listed = format!(
        r#"{{"commands":[{{"_id":"{id}","command":"echo \"hi\"","targetType":"local","targetPort":22,"timeoutMs":5000,"createdAt":{created}}}]}}"#
    );
    assert_eq!(said(&relay.poll().await?)?, says(200, &listed));
    // Listed again as long as nobody has it.
    assert_eq!(said(&relay.poll().await?)?, says(200, &listed));
    let won = format!(
        r#"{{"success":true,"command":{{"_id":"{id}","command":"echo \"hi\"","targetType":"local","targetPort":22,"timeoutMs":5000}}}}"#
    );
    assert_eq!(said(&relay.claim(&id).await?)?, says(200, &won));
    assert_eq!(
        said(&relay.claim(&id).await?)?,
        says(400, r#"{"success":false,"error":"Command is not pending"}"#)
    );
    assert_eq!(said(&relay.poll().await?)?, says(200, r#"{"commands":[]}"#));
    let run = world.run(&id, "m-1").await?;
    assert_eq!(run["state"], "executing", "{run}");
    assert_eq!(said(&relay.result(&id, 0, "hi\n").await?)?, says(200, r#"{"success":true}"#));
    // What was answered can be read.
    let run = world.run(&id, "m-1").await?;
    assert_eq!((&run["state"], &run["exit_code"]), (&json!("completed"), &json!(0)), "{run}");
    assert_eq!(world.bench.http.output(&id, "m-1", "stdout").await?, b"hi\n");
    assert_eq!(said(&relay.poll().await?)?, says(200, r#"{"commands":[]}"#));
    assert_eq!(
        said(&relay.claim(&id).await?)?,
        says(400, r#"{"success":false,"error":"Command is not pending"}"#)
    );
    Ok(())
}

#[tokio::test]
async fn what_is_held_is_in_no_list_and_cannot_be_claimed() -> Result<()> {
    let world = World::start().await?;
    let (first, second) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let (mut one, mut two) = (world.relay(&first), world.relay(&second));
    // They are there.
    tokio::try_join!(one.commands(), two.commands())?;
    let body = json!({"on": "{m-1,m-2}", "command": "true", "rollout": {"canary": 1}});
    let id = world.bench.http.submit_with(&body).await?;
    world.run_is(&id, "m-1", "pending").await?;
    assert_eq!(world.run(&id, "m-2").await?["state"], "held");
    let listed = |commands: Vec<Value>| commands.iter().any(|command| command["_id"] == id.as_str());
    assert!(!listed(two.commands().await?));
    let refused = says(400, r#"{"success":false,"error":"Command is not pending"}"#);
    assert_eq!(said(&two.claim(&id).await?)?, refused);
    assert!(listed(one.commands().await?) && one.wins(&id).await?);
    assert!(!listed(two.commands().await?));
    assert_eq!(said(&one.result(&id, 0, "").await?)?, says(200, r#"{"success":true}"#));
    world.run_is(&id, "m-2", "pending").await?;
    assert!(listed(two.commands().await?) && two.wins(&id).await?);
    Ok(())
}

#[tokio::test]
async fn a_command_for_a_host_behind_the_machine_has_its_members() -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    let ssh = |port: Option<u16>| {
        let mut body = json!({"command": "uptime", "target_type": "ssh", "target_host": "db-1", "target_username": "ops"});
        if let Some(port) = port {
            body["target_port"] = port.into();
        }
        body
    };
    for (port, expected) in [(Some(2222), 2222), (None, 22)] {
        let id = world.submit_with("m-1", &ssh(port)).await?;
        let text = relay.poll().await?.text();
        let members = format!(
            r#"{{"_id":"{id}","command":"uptime","targetType":"ssh","targetHost":"db-1","targetPort":{expected},"targetUsername":"ops","timeoutMs":30000,"createdAt":"#
        );
        assert!(text.starts_with(&format!(r#"{{"commands":[{members}"#)), "{text}");
        let (status, won) = said(&relay.claim(&id).await?)?;
        let command = members.trim_end_matches(r#","createdAt":"#);
        assert_eq!((status, won), (200, format!(r#"{{"success":true,"command":{command}}}}}"#)));
        let output = format!("up since {expected}\n");
        assert_eq!(said(&relay.result(&id, 0, &output).await?)?, says(200, r#"{"success":true}"#));
        let run = world.run(&id, "m-1").await?;
        assert_eq!((&run["state"], &run["exit_code"]), (&json!("completed"), &json!(0)), "{run}");
        assert_eq!(world.bench.http.output(&id, "m-1", "stdout").await?, output.as_bytes());
    }
    for wrong in [json!({"target_type": "ssh"}), json!({"target_type": "ssh", "target_host": "db-1"})] {
        let mut body = wrong;
        body["command"] = "true".into();
        assert!(world.submit_with("m-1", &body).await.is_err(), "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn ten_are_listed_and_the_oldest_first() -> Result<()> {
    let world = World::start().await?;
    let (mut relay, _other) = (world.relay(&world.assign("m-1").await?), world.assign("m-2").await?);
    let mut ids = Vec::new();
    for n in 0..13 {
        ids.push(world.submit("m-1", &format!("echo {n}")).await?);
        // Those of other machines are not in the list.
        world.submit("m-2", "true").await?;
    }
    let listed = |commands: &[Value]| -> Vec<String> {
        commands.iter().filter_map(|command| Some(command["_id"].as_str()?.to_owned())).collect()
    };
    let first = relay.commands().await?;
    assert_eq!(listed(&first), ids[..10]);
    let texts: Vec<_> = first.iter().map(|command| command["command"].as_str()).collect();
    assert_eq!(texts[..2], [Some("echo 0"), Some("echo 1")]);
    for id in &ids[..4] {
        assert!(relay.wins(id).await?);
    }
    assert_eq!(listed(&relay.commands().await?), ids[4..]);
    Ok(())
}

#[tokio::test]
async fn what_ended_before_it_was_claimed_is_not_to_be_had() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let mut relay = world.relay(&assigned);
    let cancelled = world.submit("m-1", "true").await?;
    let answer = world.bench.http.post(&format!("/api/v1/commands/{cancelled}/cancel"), &json!({})).await?;
    assert_eq!(answer.status, 202, "{}", answer.text());
    world.run_is(&cancelled, "m-1", "cancelled").await?;
    let expired = world.submit_with("m-1", &json!({"command": "true", "expires_in_ms": 300})).await?;
    eventually("an empty list", || async {
        let listed = world.relay(&assigned).commands().await?;
        ensure!(listed.is_empty(), "{listed:?}");
        Ok(())
    })
    .await?;
    // Not to be had from then on, also before that is written down.
    for id in [&cancelled, &expired] {
        let refused = says(400, r#"{"success":false,"error":"Command is not pending"}"#);
        assert_eq!(said(&relay.claim(id).await?)?, refused);
        assert_eq!(said(&relay.result(id, 0, "").await?)?, says(200, r#"{"success":false}"#));
    }
    world.run_is(&expired, "m-1", "expired").await?;
    assert_eq!(world.run(&cancelled, "m-1").await?["state"], "cancelled");
    Ok(())
}

/// Body without `commandId`, how the run ends, its exit code, the code of its error.
type Ending = (&'static str, &'static str, Option<i64>, Option<&'static str>);

const ENDINGS: &[Ending] = &[
    (r#""success":true,"output":"","stderr":"","exitCode":0,"durationMs":0"#, "completed", Some(0), None),
    (r#""success":true"#, "completed", Some(0), None),
    (
        r#""success":true,"output":null,"stderr":null,"exitCode":null,"error":null,"durationMs":null"#,
        "completed",
        Some(0),
        None,
    ),
    (r#""success":true,"exitCode":0.0,"durationMs":12.75"#, "completed", Some(0), None),
    (r#""success":true,"exitCode":0,"error":"","durationMs":1e3"#, "completed", Some(0), None),
    (r#""success":false,"output":"","stderr":"","exitCode":42,"durationMs":2"#, "failed", Some(42), None),
    (r#""success":false,"exitCode":127.0,"durationMs":-5"#, "failed", Some(127), None),
    // Exit code 0 and nothing else is completed.
    (r#""success":true,"exitCode":3"#, "failed", Some(3), None),
    (r#""success":false"#, "failed", None, Some("no_exit_code")),
    (r#""success":false,"exitCode":0"#, "failed", None, Some("no_exit_code")),
    (
        r#""success":false,"output":"before\n","stderr":"","exitCode":-1,"error":"Command timed out","durationMs":1502"#,
        "timeout",
        None,
        Some("timeout"),
    ),
    (
        r#""success":false,"output":"","stderr":"","exitCode":-1,"error":"SSH target host missing","durationMs":0"#,
        "failed",
        None,
        Some("relay_error"),
    ),
    (r#""success":false,"exitCode":1e300,"durationMs":1e300"#, "failed", None, Some("exit_code")),
    (r#""success":true,"exitCode":0,"unknown":{"a":[1]}"#, "completed", Some(0), None),
];

#[tokio::test]
async fn a_result_has_one_meaning() -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    for (body, state, exit_code, error) in ENDINGS {
        let id = world.submit("m-1", "true").await?;
        assert!(relay.wins(&id).await?);
        let body = format!(r#"{{"commandId":"{id}",{body}}}"#);
        let answer = relay.ask("POST", "/relay/commands/result", Some(&body)).await?;
        assert_eq!(said(&answer)?, says(200, r#"{"success":true}"#), "{body}");
        let run = world.run(&id, "m-1").await?;
        assert_eq!(&run["state"], state, "{body}: {run}");
        assert_eq!(run["exit_code"].as_i64(), *exit_code, "{body}: {run}");
        assert_eq!(run["error"]["code"].as_str(), *error, "{body}: {run}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_relay_says_of_a_timeout_can_be_read() -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    let id = world.submit("m-1", "sleep 60").await?;
    assert!(relay.wins(&id).await?);
    let body = format!(
        r#"{{"commandId":"{id}","success":false,"output":"before\n","stderr":"e\n","exitCode":-1,"error":"Command timed out","durationMs":1502}}"#
    );
    relay.ask("POST", "/relay/commands/result", Some(&body)).await?;
    let run = world.run(&id, "m-1").await?;
    assert_eq!((&run["state"], &run["error"]["message"]), (&json!("timeout"), &json!("Command timed out")));
    assert_eq!(run["duration_ms"], 1502, "{run}");
    assert_eq!(world.bench.http.output(&id, "m-1", "stdout").await?, b"before\n");
    assert_eq!(world.bench.http.output(&id, "m-1", "stderr").await?, b"e\n");
    Ok(())
}

#[rstest]
#[case::another_end(r#""success":false,"exitCode":9,"output":"later""#)]
#[case::the_same_end(r#""success":true,"exitCode":0,"output":"first""#)]
#[tokio::test]
async fn a_second_result_is_taken_and_changes_nothing(#[case] second: &str) -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    let id = world.submit("m-1", "true").await?;
    assert!(relay.wins(&id).await?);
    assert_eq!(said(&relay.result(&id, 0, "first").await?)?, says(200, r#"{"success":true}"#));
    let before = world.run(&id, "m-1").await?;
    let second = format!(r#"{{"commandId":"{id}",{second}}}"#);
    let answer = relay.ask("POST", "/relay/commands/result", Some(&second)).await?;
    assert_eq!(said(&answer)?, says(200, r#"{"success":true}"#));
    assert_eq!(world.run(&id, "m-1").await?, before);
    assert_eq!(world.bench.http.output(&id, "m-1", "stdout").await?, b"first");
    Ok(())
}

#[tokio::test]
async fn a_result_before_its_claim_does_not_count() -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    let id = world.submit("m-1", "true").await?;
    assert_eq!(said(&relay.result(&id, 0, "early").await?)?, says(200, r#"{"success":false}"#));
    assert_eq!(world.run(&id, "m-1").await?["state"], "pending");
    assert!(relay.wins(&id).await?, "it can still be had");
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_after_a_whole_round() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let mut relay = world.relay(&assigned);
    assert_eq!(relay.verify().await?.status, 200);
    assert_eq!(relay.status(&assigned.id).await?.status, 200);
    let id = world.submit("m-1", "echo hi").await?;
    let listed = relay.commands().await?;
    assert_eq!(listed.len(), 1);
    assert!(relay.wins(listed[0]["_id"].as_str().context("no id")?).await?);
    assert_eq!(relay.result(&id, 0, "hi\n").await?.status, 200);
    assert_eq!(relay.heartbeat().await?.status, 200);
    assert_eq!(relay.commands().await?, Vec::<Value>::new());
    let settled = world.bench.http.settled(&id).await?;
    assert_eq!(settled["counts"], json!({"completed": 1}), "{settled}");
    Ok(())
}
