//! Runs, and commands that are answered with their end.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_schemas::{
    id::CommandId,
    output::OutputStream,
    run::{Start, Via},
    signed::Signed,
};
use signalbox_testkit::{eventually, http::run_on, old_relay::Connection};

use super::{
    ask, assign,
    bench::{Bench, TOKEN},
    listed, post, show, text,
};

#[tokio::test]
async fn a_run_is_claimed_and_ended_in_the_name_of_a_relay() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let (one, two) = (assign(&bench, "old", "one").await?, assign(&bench, "old", "two").await?);
    let id = bench.submit("old").await?;
    let step =
        async |verb: &str, body: Value| post(&bench, &format!("/commands/{id}/{verb}"), &body, 200).await;
    let result = |assignment: &str| {
        json!({"assignment_id": assignment, "success": false, "exit_code": 7,
        "output": "half", "stderr": "why", "duration_ms": 12})
    };
    assert_eq!(step("complete", result(&one)).await?, json!({"accepted": false}), "nobody has claimed it");
    let by = |assignment: &str| json!({"assignment_id": assignment});
    assert_eq!(step("start", by(&one)).await?, json!({"started": false}), "nobody has claimed it");
    assert_eq!(step("claim", json!({"assignment_id": one})).await?, json!({"claimed": true}));
    assert_eq!(step("start", by(&two)).await?, json!({"started": false}), "it is another one's");
    for _ in 0..2 {
        assert_eq!(step("start", by(&one)).await?, json!({"started": true}));
    }
    let subject = format!("run.main.old.{id}.start");
    let stored = bench.link.last_from_leader("RUN", &subject).await?.context("no start is stored")?;
    let start = Signed::<Start>::from_json(&stored.payload)?.peek()?;
    assert_eq!(start.via, Some(Via::Legacy(one.clone())));
    assert_eq!(bench.view.counters().get("refused.RUN.untrusted"), None, "it is not believed");
    assert_eq!(step("claim", json!({"assignment_id": two})).await?, json!({"claimed": false}));
    assert_eq!(step("complete", result(&two)).await?, json!({"accepted": false}), "it is another one's");
    assert_eq!(step("complete", result(&one)).await?, json!({"accepted": true}));
    assert_eq!(step("start", by(&one)).await?, json!({"started": true}), "it changes nothing any more");
    let command = bench.http.settled(&id.to_string()).await?;
    let run = run_on(&command, "old")?;
    assert_eq!(
        (&run["state"], &run["exit_code"], &run["duration_ms"]),
        (&json!("failed"), &json!(7), &json!(12))
    );
    assert_eq!(bench.http.output(&id.to_string(), "old", "stderr").await?, b"why");
    // Whose key does not count, takes nothing.
    ask(&bench, "PATCH", &format!("/assignments/{two}"), &json!({"enabled": false}), 200).await?;
    let next = bench.submit("old").await?;
    let claim = json!({"assignment_id": two});
    let refused = ask(&bench, "POST", &format!("/commands/{next}/claim"), &claim, 403).await?.json()?;
    assert_eq!(refused["detail"], "Relay assignment is disabled");
    Ok(())
}

#[tokio::test]
async fn a_run_is_ended_with_as_much_output_as_old_relays_send() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let assignment = assign(&bench, "old", "one").await?;
    let id = bench.submit("old").await?;
    let by = json!({"assignment_id": assignment});
    assert_eq!(post(&bench, &format!("/commands/{id}/claim"), &by, 200).await?, json!({"claimed": true}));
    let output = "o\0\u{e9}\n".repeat(600_000);
    let ended = |more: Value| {
        let mut ended =
            json!({"assignment_id": assignment, "success": true, "output": output, "exit_code": 0});
        let (ended_members, more) = (ended.as_object_mut(), more.as_object().cloned());
        ended_members.expect("an object").extend(more.expect("an object"));
        ended
    };
    let path = format!("/commands/{id}/complete");
    let wrong = ask(&bench, "POST", &path, &ended(json!({"exitCode": 1})), 422).await?.json()?;
    assert!(wrong["detail"].as_str().is_some_and(|detail| detail.contains("exitCode")), "{wrong}");
    ask(&bench, "POST", &path, &ended(json!({"id": "another"})), 422).await?;
    ask(&bench, "POST", &path, &json!([id.to_string(), assignment, true]), 422).await?;
    let much = json!({"assignment_id": assignment, "success": true, "output": "x".repeat(16 << 20)});
    ask(&bench, "POST", &path, &much, 413).await?;
    let accepted = post(&bench, &path, &ended(json!({"id": id.to_string()})), 200).await?;
    assert_eq!(accepted, json!({"accepted": true}));
    assert!(bench.http.output(&id.to_string(), "old", "stdout").await? == output.as_bytes());
    Ok(())
}

#[tokio::test]
async fn runs_are_listed_by_machine_and_state() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(bench.submit("all").await?);
    }
    let relay = bench.relay("a-2")?;
    relay.claim(ids[1]).await?;
    relay.exit(ids[1], 0, false).await?;
    eventually("the run has ended", || async {
        ensure!(!listed(&bench, "/runs?state=completed", "machine").await?.is_empty());
        Ok(())
    })
    .await?;
    let runs = async |query: &str| {
        let page = show(&bench, &format!("/runs?{query}")).await?;
        let items = page["items"].as_array().context("items")?;
        let runs = items.iter().map(|run| {
            format!(
                "{} {}",
                run["command"]["id"].as_str().unwrap_or(""),
                run["machine"].as_str().unwrap_or("")
            )
        });
        Ok::<_, anyhow::Error>((runs.collect::<Vec<_>>(), page["next"].clone()))
    };
    let all: Vec<String> =
        ids.iter().rev().flat_map(|id| [format!("{id} a-1"), format!("{id} a-2")]).collect();
    assert_eq!(runs("").await?, (all.clone(), Value::Null));
    assert_eq!(runs("state=completed").await?.0, [format!("{} a-2", ids[1])]);
    let of_two: Vec<_> = all.iter().filter(|run| run.ends_with("a-2")).cloned().collect();
    assert_eq!(runs("machine_id=a-2").await?.0, of_two);
    assert_eq!(runs("machine_id=a-2&state=pending").await?.0, [of_two[0].clone(), of_two[2].clone()]);
    let of_machine = listed(&bench, "/machines/a-2/runs?state=completed", "state").await?;
    assert_eq!(of_machine, ["completed"]);
    // Pages of every size tell the same.
    for limit in 1..=7 {
        let (mut told, mut after) = (Vec::new(), String::new());
        loop {
            let (page, next) = runs(&format!("limit={limit}{after}")).await?;
            assert!(page.len() <= limit);
            told.extend(page);
            let Some(next) = next.as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(told, all, "limit {limit}");
    }
    Ok(())
}

/// Plays the relay of `a-1` for the next command: takes it and ends it with this output.
async fn play(bench: &Bench, stdout: &[u8]) -> Result<()> {
    let cid = waiting(bench).await?;
    let relay = bench.relay("a-1")?;
    relay.claim(cid).await?;
    relay.exit_inline(cid, stdout).await
}

#[tokio::test]
async fn a_command_is_answered_with_its_end_and_its_output() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let body = serde_json::to_vec(&json!({"machine_id": "a-1", "command": "true", "wait_ms": 20_000}))?;
    let key = [("idempotency-key", "k")];
    let exec = async || bench.http.request("POST", "/api/v1/exec", &key, body.clone()).await;
    let (answer, played) = tokio::join!(exec(), play(&bench, b"a\xffb\n"));
    played?;
    let done = answer?.json()?;
    for (member, expected) in [
        ("settled", json!(true)),
        ("state", json!("completed")),
        ("exit_code", json!(0)),
        ("machine", json!("a-1")),
        ("output", json!("a\u{fffd}b\n")),
        ("output_cut", json!(false)),
        ("stderr_output", json!("")),
        ("stderr_output_cut", json!(false)),
        ("error", Value::Null),
    ] {
        assert_eq!(done[member], expected, "{member}: {done}");
    }
    assert_eq!(exec().await?.json()?, done, "the same key is the same command");
    for wait_ms in [30_000, 0] {
        let asked = json!({"machine_id": "a-1", "command": "true", "wait_ms": wait_ms});
        let again = bench.http.request("POST", "/api/v1/exec", &key, serde_json::to_vec(&asked)?).await?;
        assert_eq!(again.json()?, done, "other patience is no other wish");
    }
    // It was not to start after its caller had left.
    let command = show(&bench, &format!("/commands/{}", text(&done, "id")?)).await?;
    let life =
        command["expires_at"].as_u64().zip(command["created_at"].as_u64()).map(|(end, start)| end - start);
    assert_eq!(life, Some(20_000));
    Ok(())
}

/// The next command that waits.
async fn waiting(bench: &Bench) -> Result<CommandId> {
    eventually("a command waits", || async {
        let waiting = listed(bench, "/runs?state=pending", "command").await?;
        Ok(text(waiting.first().context("none waits")?, "id")?.parse()?)
    })
    .await
}

/// `POST /exec` on a machine whose relay, of this assignment, ends it like that.
async fn ended_by_an_old_relay(bench: &Bench, machine: &str, id: &str, end: &Value) -> Result<Value> {
    let body = json!({"machine_id": machine, "command": "true", "wait_ms": 20_000});
    let playing = async {
        let cid = waiting(bench).await?;
        let claim = json!({"assignment_id": id});
        let claimed = post(bench, &format!("/commands/{cid}/claim"), &claim, 200).await?;
        ensure!(claimed == json!({"claimed": true}), "{claimed}");
        let mut end = end.clone();
        end["assignment_id"] = id.into();
        let accepted = post(bench, &format!("/commands/{cid}/complete"), &end, 200).await?;
        ensure!(accepted == json!({"accepted": true}), "{accepted}");
        Ok(())
    };
    let (done, played) = tokio::join!(post(bench, "/exec", &body, 200), playing);
    played?;
    done
}

#[tokio::test]
async fn a_command_that_fails_is_answered_with_why() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = assign(&bench, "old", "one").await?;
    let end = json!({"success": false, "exit_code": 127, "stderr": "why"});
    let done = ended_by_an_old_relay(&bench, "old", &id, &end).await?;
    for (member, expected) in [
        ("settled", json!(true)),
        ("state", json!("failed")),
        ("exit_code", json!(127)),
        ("output", json!("")),
        ("stderr_output", json!("why")),
        ("error", Value::Null),
        ("claimed_by", json!(id)),
    ] {
        assert_eq!(done[member], expected, "{member}: {done}");
    }
    let moments = ["claimed_at", "ended_at"].map(|member| done[member].as_u64());
    assert!(moments[0].is_some() && moments[0] <= moments[1], "{done}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_took_too_long_is_answered_with_its_relays_words_or_ours() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = assign(&bench, "old", "one").await?;
    let end = json!({"success": false, "exit_code": -1, "error": "Command timed out"});
    let told = ended_by_an_old_relay(&bench, "old", &id, &end).await?;
    let body = json!({"machine_id": "a-1", "command": "true", "wait_ms": 20_000});
    let playing = async {
        let cid = waiting(&bench).await?;
        let relay = bench.relay("a-1")?;
        relay.claim(cid).await?;
        relay.time_out(cid).await
    };
    let (silent, played) = tokio::join!(post(&bench, "/exec", &body, 200), playing);
    played?;
    let silent = silent?;
    for (done, words) in [(&told, "Command timed out"), (&silent, "Command execution timed out on relay")] {
        assert_eq!((&done["settled"], &done["state"]), (&json!(true), &json!("timeout")), "{done}");
        assert_eq!(done["error"], json!({"code": "timeout", "message": words}), "{done}");
        assert!(done["claimed_at"].is_u64() && done["ended_at"].is_u64(), "{done}");
    }
    assert!(silent.get("claimed_by").is_none(), "its own relay has it: {silent}");
    Ok(())
}

#[tokio::test]
async fn everything_that_is_asked_for_stands_in_the_command() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let asked = json!({"machine_id": "a-1", "command": "uptime", "wait_ms": 0, "timeout_ms": 1_234, "max_output": 77,
        "target_type": "ssh", "target_host": "db-1", "target_port": 2222, "target_username": "ops",
        "created_by": "ann"});
    let done = post(&bench, "/exec", &asked, 200).await?;
    let stored = bench.link.last_from_leader("CMD", &format!("cmd.main.{}.spec", text(&done, "id")?)).await?;
    let spec: Value = serde_json::from_slice(&stored.context("no spec is stored")?.payload)?;
    for (member, expected) in [
        ("command", json!("uptime")),
        ("timeout_ms", json!(1_234)),
        ("max_output", json!(77)),
        ("created_by", json!("ann")),
        ("target", json!({"ssh": {"host": "db-1", "port": 2222, "username": "ops"}})),
        ("crit", json!(["target"])),
        ("by", json!("token:admin")),
    ] {
        assert_eq!(spec[member], expected, "{member}: {spec}");
    }
    Ok(())
}

#[tokio::test]
async fn a_caller_who_gives_up_is_told_so_and_can_take_its_wish_back() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let asked = json!({"machine_id": "a-1", "command": "true", "wait_ms": 100, "expires_in_ms": 60_000});
    let waits = post(&bench, "/exec", &asked, 200).await?;
    assert_eq!((&waits["settled"], &waits["state"]), (&json!(false), &json!("pending")));
    assert_eq!(waits["error"]["code"], "wait_over");
    assert_eq!(waits["error"]["message"], "RPC timeout: command did not complete within 100ms");
    let mut asked = asked;
    asked["cancel_on_give_up"] = json!(true);
    let cancelled = post(&bench, "/exec", &asked, 200).await?;
    assert_eq!(cancelled["settled"], false);
    let command = bench.http.settled(text(&cancelled, "id")?).await?;
    assert_eq!(command["counts"], json!({"cancelled": 1}));
    assert_eq!(
        show(&bench, &format!("/commands/{}", text(&waits, "id")?)).await?["counts"],
        json!({"pending": 1})
    );
    // Not to wait at all is no reason to have nothing started.
    let at_once =
        post(&bench, "/exec", &json!({"machine_id": "a-1", "command": "true", "wait_ms": 0}), 200).await?;
    let command = show(&bench, &format!("/commands/{}", text(&at_once, "id")?)).await?;
    let life =
        command["expires_at"].as_u64().zip(command["created_at"].as_u64()).map(|(end, start)| end - start);
    assert_eq!(life, Some(86_400_000));
    Ok(())
}

#[tokio::test]
async fn who_hangs_up_gives_up() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    for (cancels, state) in [(true, "cancelled"), (false, "pending")] {
        let command = format!("echo {cancels}");
        let body = json!({"machine_id": "a-1", "command": command, "wait_ms": 60_000, "expires_in_ms": 60_000,
            "cancel_on_give_up": cancels});
        let body = body.to_string();
        let request = format!(
            "POST /api/v1/exec HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = Connection::open(&bench.base).await?;
        connection.send(request.as_bytes()).await?;
        let waits = async || {
            let listed = listed(&bench, "/runs", "command").await?;
            let found = listed.into_iter().find(|it| it["command"] == command.as_str());
            text(&found.context("it is not there")?, "id").map(str::to_owned)
        };
        let id = eventually("the command", || async { waits().await }).await?;
        drop(connection);
        eventually("what becomes of it", || async {
            let counts = show(&bench, &format!("/commands/{id}")).await?["counts"].clone();
            ensure!(counts == json!({state: 1}), "{counts}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn long_output_is_cut_and_said_to_be() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let body = json!({"machine_id": "a-1", "command": "true", "wait_ms": 20_000});
    let long = 1024 * 1024 + 1;
    let playing = async {
        let cid = waiting(&bench).await?;
        let relay = bench.relay("a-1")?;
        relay.claim(cid).await?;
        let whole = vec![b'x'; long];
        for (n, bytes) in whole.chunks(100_000).enumerate() {
            relay.output(cid, OutputStream::Stdout, n as u64 * 100_000, bytes.to_vec()).await?;
        }
        relay.exit(cid, long as u64, false).await
    };
    let (done, played) = tokio::join!(post(&bench, "/exec", &body, 200), playing);
    played?;
    let done = done?;
    assert_eq!((text(&done, "output")?.len(), &done["output_cut"]), (long - 1, &json!(true)));
    assert_eq!(done["stdout"]["bytes"], long);
    Ok(())
}
