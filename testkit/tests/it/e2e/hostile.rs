//! What a bare NATS client can do with somebody's credentials: nothing to anybody else.

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client, ConnectOptions};
use serde_json::json;
use signalbox_testkit::{eventually::eventually, stack::Stack};

use super::wire::administrator;

/// Everything stored in the streams that matter, as (stream, subject, sequence, payload length).
async fn stored(stack: &Stack) -> Result<Vec<(String, String, u64)>> {
    let (client, _) = administrator(stack).await?;
    let jetstream = async_nats::jetstream::new(client);
    let mut all = Vec::new();
    for name in ["CMD", "MBOX", "RUN", "OUT", "DOC", "KV_state", "DONE"] {
        let stream = jetstream.get_stream(name).await?;
        let mut subjects = stream.info_with_subjects(">").await?;
        while let Some(entry) = futures_util::StreamExt::next(&mut subjects).await {
            let (subject, count) = entry?;
            all.push((name.to_owned(), subject, u64::try_from(count)?));
        }
    }
    all.sort();
    Ok(all)
}

async fn relay_client(stack: &Stack, n: usize) -> Result<Client> {
    let machine = stack.machine(n)?;
    let options = ConnectOptions::with_credentials_file(&machine.creds).await?;
    let options = options.custom_inbox_prefix(format!("_INBOX_{}", machine.token));
    Ok(options.connect(&stack.ready().nats).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relays_credentials_touch_nothing_of_another_machine() -> Result<()> {
    let stack = Stack::demo().await?;
    let command = stack.http().run("all", "echo secret").await?;
    let id = command["id"].as_str().context("no id")?;
    let before = eventually("quiet mailboxes", || async {
        // Settled offers leave the mailboxes after some seconds; then nothing moves by itself.
        let machines = stack.http().json("/api/v1/machines").await?;
        ensure!(machines["items"][0]["pending"] == 0, "{machines}");
        stored(&stack).await
    })
    .await?;
    let evil = relay_client(&stack, 0).await?;
    let victim = "demo-2";
    for subject in [
        format!("$JS.API.DIRECT.GET.MBOX.mbox.main.{victim}"),
        "$JS.API.DIRECT.GET.MBOX.mbox.main.*".to_owned(),
        "$JS.API.DIRECT.GET.MBOX".to_owned(),
        format!("$JS.API.DIRECT.GET.RUN.run.main.{victim}.{id}.claim"),
        "$JS.API.STREAM.INFO.MBOX".to_owned(),
        "$JS.API.STREAM.MSG.GET.MBOX".to_owned(),
        "$JS.API.STREAM.PURGE.RUN".to_owned(),
        "$JS.API.CONSUMER.CREATE.MBOX".to_owned(),
        "$JS.API.CONSUMER.CREATE.MBOX.evil.mbox.main.demo-1".to_owned(),
        "$JS.API.CONSUMER.DURABLE.CREATE.MBOX.evil".to_owned(),
    ] {
        let body = json!({"last_by_subj": format!("mbox.main.{victim}"), "stream_name": "MBOX", "config": {"deliver_subject": "_INBOX_demo-1.x", "ack_policy": "none"}});
        let request = evil.request(subject.clone(), serde_json::to_vec(&body)?.into());
        let answer = tokio::time::timeout(std::time::Duration::from_millis(400), request).await;
        ensure!(!matches!(answer, Ok(Ok(_))), "{subject} answered {answer:?}");
    }
    // A body that asks for another subject than the permission speaks of.
    let body = serde_json::to_vec(&json!({"last_by_subj": format!("mbox.main.{victim}")}))?;
    let answer = evil.request("$JS.API.DIRECT.GET.MBOX.mbox.main.demo-1", body.into()).await?;
    ensure!(!String::from_utf8_lossy(&answer.payload).contains(victim), "got another's mailbox");
    for subject in [
        format!("mbox.main.{victim}"),
        format!("live.mbox.main.{victim}"),
        format!("run.main.{victim}.{id}.exit"),
        format!("out.main.{victim}.{id}"),
        format!("hb.main.{victim}"),
        "cmd.main.x.spec".to_owned(),
        "api.main.local.commands.submit.abcdefgh".to_owned(),
        "feed.main.local.abcdefgh".to_owned(),
    ] {
        evil.publish(subject, "evil".into()).await?;
    }
    // Its own subjects with somebody else's as the reply: the broker answers, and stores nothing there.
    for reply in [
        format!("mbox.main.{victim}"),
        format!("run.main.{victim}.{id}.lost"),
        format!("out.main.{victim}.{id}"),
        format!("live.mbox.main.{victim}"),
        "cmd.main.x.spec".to_owned(),
    ] {
        evil.publish_with_reply("$JS.API.DIRECT.GET.MBOX.mbox.main.demo-1", reply, "".into()).await?;
    }
    evil.flush().await?;
    eventually("all refused", || async {
        let after = stored(&stack).await?;
        ensure!(after == before, "before {before:?}\nafter {after:?}");
        Ok(())
    })
    .await?;
    let command = stack.http().run("all", "echo fine").await?;
    assert_eq!(command["counts"], json!({"completed": 3}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn message_ids_cannot_be_burnt() -> Result<()> {
    let stack = Stack::demo().await?;
    let evil = async_nats::jetstream::new(relay_client(&stack, 0).await?);
    let id = stack.http().submit("demo-2", "sleep 1; echo done").await?;
    for n in 0..20 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{id}.demo-2.{n}").as_str());
        let own = format!("out.main.demo-1.{id}");
        drop(evil.publish_with_headers(own, headers, "x".into()).await?.await);
    }
    let command = stack.http().settled(&id).await?;
    assert_eq!(command["counts"], json!({"completed": 1}));
    assert_eq!(stack.http().output(&id, "demo-2", "stdout").await?, b"done\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_credentials_reach_the_api_under_its_own_name_only() -> Result<()> {
    let stack = Stack::demo().await?;
    let creds = stack.ready().state_dir.join("creds/operator-local.creds");
    let operator = ConnectOptions::with_credentials_file(&creds).await?.connect(&stack.ready().nats).await?;
    let mut own = operator.subscribe("feed.main.local.abcdefgh").await?;
    let mut others = operator.subscribe("feed.main.other.>").await?;
    let mut all = operator.subscribe("feed.main.>").await?;
    let mut mailboxes = operator.subscribe("live.mbox.main.>").await?;
    operator.flush().await?;
    operator.publish("api.main.other.machines.list.abcdefgh", "{}".into()).await?;
    operator.publish("api.main.local.machines.list.abcdefgh", "{}".into()).await?;
    let answer =
        tokio::time::timeout(std::time::Duration::from_secs(5), futures_util::StreamExt::next(&mut own))
            .await?
            .context("no answer")?;
    assert!(String::from_utf8_lossy(&answer.payload).contains("demo-1"));
    stack.http().run("all", "true").await?;
    for subscription in [&mut others, &mut all, &mut mailboxes] {
        let next = futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(subscription));
        ensure!(!matches!(next, Some(Some(_))), "received {next:?}");
    }
    for subject in ["$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.RUN"] {
        let request = operator.request(subject, "".into());
        let answer = tokio::time::timeout(std::time::Duration::from_millis(400), request).await;
        ensure!(!matches!(answer, Ok(Ok(_))), "{subject} answered {answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_refuses_politely() -> Result<()> {
    let stack = Stack::demo().await?;
    let http = stack.http();
    assert_eq!(http.with_token("").get("/api/v1/machines").await?.status, 401);
    assert_eq!(http.with_token("sbt_wrong").get("/api/v1/machines").await?.status, 401);
    for (method, path, body, status) in [
        ("GET", "/api/v1/nothing", "", 404),
        ("GET", "/api/v1/commands/0193a2b4-0000-7000-8000-000000000000", "", 404),
        ("GET", "/api/v1/commands/nonsense", "", 404),
        ("POST", "/api/v1/commands", "{broken", 422),
        ("POST", "/api/v1/commands", r#"{"on":"nobody","command":"true"}"#, 422),
        ("POST", "/api/v1/commands", r#"{"on":"all"}"#, 422),
    ] {
        let answer = http.request(method, path, &[("content-type", "application/json")], body.into()).await?;
        assert_eq!(answer.status, status, "{method} {path}");
        let kind = answer.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{method} {path} answers {kind}");
        assert!(answer.json()?["code"].is_string());
    }
    let huge = vec![b' '; 10_000_000];
    match http.request("POST", "/api/v1/commands", &[("content-type", "application/json")], huge).await {
        Ok(answer) => assert_eq!(answer.status, 413),
        // The server may close while the body is still being sent.
        Err(error) => println!("closed: {error:#}"),
    }
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let one = br#"{"on":"all","command":"echo 1"}"#.to_vec();
    let first = http.request("POST", "/api/v1/commands", &headers, one.clone()).await?;
    let again = http.request("POST", "/api/v1/commands", &headers, one).await?;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.json()?, again.json()?);
    let other = br#"{"on":"all","command":"echo 2"}"#.to_vec();
    let conflict = http.request("POST", "/api/v1/commands", &headers, other).await?;
    assert_eq!((conflict.status, conflict.json()?["code"].as_str()), (409, Some("id_conflict")));
    stack.http().run("all", "echo fine").await?;
    Ok(())
}
