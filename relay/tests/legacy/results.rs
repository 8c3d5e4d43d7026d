//! Results until they are taken, and what a relay's own end changes.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::json;
use signalbox_testkit::{
    eventually_within,
    process::{Signal, is_alive, rss_bytes, signal},
};

use crate::{
    center::{Center, Reply},
    harness::{Machine, PATIENCE, lines},
};

const RESULT: &str = "POST /relay/commands/result";
const MIB: usize = 1024 * 1024;

#[rstest]
#[case::failing(Reply::Json(500, json!({"error": "x"})))]
#[case::away(Reply::Raw(502, "text/html", "bad gateway"))]
#[case::unknown(Reply::Json(401, json!({"error": "Invalid API key"})))]
#[case::busy(Reply::Raw(429, "text/plain", ""))]
#[case::dropped(Reply::Drop)]
#[case::taken_and_dropped(Reply::DoneAndDropped)]
#[tokio::test]
async fn a_result_is_sent_until_it_is_taken(#[case] reply: Reply) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "echo once");
    center.script(RESULT, [reply.clone(), reply]);
    let _relay = machine.relay(&center)?;
    let sent = center.asked(RESULT, 3, PATIENCE).await?;
    assert!(sent.iter().all(|request| request.body == sent[0].body), "it was not said in the same words");
    // The waits grow: 0.5 to 1 s, then 1 to 2 s.
    assert!(sent[1].at - sent[0].at >= Duration::from_millis(450));
    assert!(sent[2].at - sent[1].at >= Duration::from_millis(950));
    center.asked("POST /relay/heartbeat", 2, PATIENCE).await?;
    assert_eq!(center.requests_of(RESULT).len(), 3, "it was sent after it was taken");
    Ok(())
}

#[tokio::test]
async fn a_result_that_the_center_does_not_want_is_taken() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "true");
    center.script(RESULT, [Reply::Json(200, json!({"success": false}))]);
    let _relay = machine.relay(&center)?;
    center.asked(RESULT, 1, PATIENCE).await?;
    center.asked("POST /relay/heartbeat", 2, PATIENCE).await?;
    assert_eq!(center.requests_of(RESULT).len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_result_that_was_not_taken_survives_the_relay() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "echo kept; echo kept-too >&2; exit 3");
    center.always(RESULT, Reply::Json(503, json!({"error": "x"})));
    let relay = machine.relay(&center)?;
    let refused = center.asked(RESULT, 1, PATIENCE).await?;
    relay.kill()?;
    relay.wait(PATIENCE).await?;
    center.as_usual(RESULT);
    let _relay = machine.relay(&center)?;
    let result = center.result("c1", PATIENCE).await?;
    assert_eq!(result, refused[0].json()?);
    assert_eq!((&result["output"], &result["exitCode"]), (&json!("kept\n"), &json!(3)));
    eventually_within("its output is let go of", PATIENCE, || async {
        ensure!(fs::read_dir(machine.store().join("http/spool"))?.count() == 0, "it is still there");
        Ok(())
    })
    .await
}

#[rstest]
#[case::killed(Signal::KILL)]
#[case::terminated(Signal::TERM)]
#[case::interrupted(Signal::INT)]
#[tokio::test]
async fn a_command_goes_on_without_its_relay_and_is_reported_by_the_next_one(
    #[case] end: Signal,
) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let (runs, gate) = (machine.file("runs"), machine.file("gate"));
    let command = format!(
        "echo $$ >> {}; until [ -e {} ]; do sleep 0.05; done; echo end",
        runs.display(),
        gate.display()
    );
    center.queue("c1", &command);
    let relay = machine.relay(&center)?;
    let pid = eventually_within("it runs", PATIENCE, || async {
        lines(&runs)?.first().context("not yet")?.parse::<u32>().context("no pid")
    })
    .await?;
    relay.signal(end)?;
    let status = relay.wait(Duration::from_secs(3)).await?;
    assert_eq!(status.code(), (end != Signal::KILL).then_some(0));
    assert!(is_alive(pid), "it was ended with its relay");
    fs::write(&gate, "")?;
    eventually_within("it ends", PATIENCE, || async {
        ensure!(!is_alive(pid));
        Ok(())
    })
    .await?;
    assert!(center.results_of("c1").is_empty());
    let _relay = machine.relay(&center)?;
    let result = center.result("c1", PATIENCE).await?;
    assert_eq!((&result["output"], &result["success"]), (&json!("end\n"), &json!(true)));
    assert_eq!(lines(&runs)?.len(), 1, "it ran twice");
    Ok(())
}

#[rstest]
#[case::same_process(false)]
#[case::next_process(true)]
#[tokio::test]
async fn what_is_granted_again_is_not_run_again(#[case] is_restarted: bool) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let runs = machine.file("runs");
    center.queue("c1", &format!("echo x >> {}", runs.display()));
    let mut relay = machine.relay(&center)?;
    center.result("c1", PATIENCE).await?;
    if is_restarted {
        relay.kill()?;
        relay.wait(PATIENCE).await?;
        relay = machine.relay(&center)?;
    }
    center.offer_again("c1");
    center.queue("c2", "true");
    center.result("c2", PATIENCE).await?;
    eventually_within("it is passed over", PATIENCE, || async {
        ensure!(relay.stdout()?.contains("Command is known already"));
        Ok(())
    })
    .await?;
    assert_eq!(lines(&runs)?.len(), 1, "it ran twice");
    Ok(())
}

#[tokio::test]
async fn what_ran_in_a_keeper_that_is_gone_has_a_result() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "echo half; exec sleep 300");
    let _relay = machine.relay(&center)?;
    let spool = machine.store().join("http/spool");
    eventually_within("it printed", PATIENCE, || async {
        let file = fs::read_dir(&spool)?.next().context("nothing")??;
        ensure!(fs::read(file.path())? == b"half\n");
        Ok(())
    })
    .await?;
    signal(machine.keeper_pid().await?, Signal::KILL)?;
    let result = center.result("c1", PATIENCE).await?;
    assert_eq!((&result["success"], &result["exitCode"]), (&json!(false), &json!(-1)));
    assert_eq!(result["output"], "half\n");
    assert!(result["error"].as_str().is_some_and(|error| error.contains("keeper ended")), "{result}");
    center.queue("c2", "echo on");
    assert_eq!(center.result("c2", PATIENCE).await?["output"], "on\n");
    Ok(())
}

#[tokio::test]
async fn five_mebibytes_arrive_whole_and_are_never_in_memory() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let relay = machine.relay(&center)?;
    center.queue("warm", "echo x");
    center.result("warm", PATIENCE).await?;
    let before = rss_bytes(relay.pid())?;
    center.queue("c1", "head -c 5242880 /dev/zero | tr '\\0' 'y'");
    let result = center.result("c1", PATIENCE).await?;
    let output = result["output"].as_str().context("no output")?;
    assert!(output.len() == 5 * MIB && output.bytes().all(|byte| byte == b'y'), "{} bytes", output.len());
    let grown = rss_bytes(relay.pid())?.saturating_sub(before);
    assert!(grown < 4 * MIB as u64, "the relay grew by {grown} bytes");
    Ok(())
}

#[tokio::test]
async fn a_body_stays_below_its_bound_and_says_what_is_missing() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    // As JSON each byte is six.
    center.queue("c1", "echo begin; head -c 20971520 /dev/zero; echo end; echo err >&2");
    let _relay = machine.relay(&center)?;
    let result = center.result("c1", PATIENCE).await?;
    let sent = center.requests_of(RESULT);
    assert!(sent[0].body.len() < 16 * MIB, "{} bytes", sent[0].body.len());
    assert!(sent[0].body.len() > 14 * MIB, "{} bytes", sent[0].body.len());
    let output = result["output"].as_str().context("no output")?;
    assert!(output.starts_with("begin\n\0") && output.ends_with("\0end\n"));
    let (head, rest) = output.split_once("\n[... ").context("no marker")?;
    let (missing, tail) = rest.split_once(" bytes left out ...]\n").context("no marker")?;
    assert_eq!(head.len() + missing.parse::<usize>()? + tail.len(), 6 + 20 * MIB + 4);
    assert_eq!((&result["stderr"], &result["success"]), (&json!("err\n"), &json!(true)));
    assert_eq!(result.get("error"), None);
    Ok(())
}

#[tokio::test]
async fn a_center_that_takes_less_gets_less() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "head -c 8388608 /dev/zero | tr '\\0' 'y'");
    center.script(RESULT, [Reply::Raw(413, "text/plain", "")]);
    let _relay = machine.relay(&center)?;
    center.result("c1", PATIENCE).await?;
    let sent = center.requests_of(RESULT);
    assert!(sent[0].body.len() > 8 * MIB && sent[1].body.len() < 4 * MIB);
    Ok(())
}

#[tokio::test]
async fn a_center_that_is_away_gets_everything_when_it_is_back() -> Result<()> {
    let machine = Machine::new()?;
    let center = Center::start().await?;
    let address = center.url.trim_start_matches("http://").to_owned();
    let gate = machine.file("gate");
    center.queue("c1", &format!("until [ -e {} ]; do sleep 0.05; done; echo late", gate.display()));
    let relay = machine.relay(&center)?;
    center.asked("POST /relay/commands/claim", 1, PATIENCE).await?;
    eventually_within("it is granted", PATIENCE, || async {
        ensure!(relay.stdout()?.contains("Command claimed"));
        Ok(())
    })
    .await?;
    drop(center);
    fs::write(&gate, "")?;
    eventually_within("it is over", PATIENCE, || async {
        ensure!(relay.stdout()?.contains("Command ended"));
        Ok(())
    })
    .await?;
    let center = Center::start_at(&address).await?;
    assert_eq!(center.result("c1", PATIENCE).await?["output"], "late\n");
    center.queue("c2", "true");
    center.result("c2", PATIENCE).await?;
    assert_eq!(
        center.requests_of("POST /relay/verify").len(),
        0,
        "a relay that is known introduces itself once"
    );
    Ok(())
}

#[tokio::test]
async fn a_grant_that_is_on_its_way_when_the_relay_stops_is_not_lost() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "echo granted");
    // What the center decides at once comes a second later.
    let grant = Reply::Json(200, json!({"success": true}));
    center.script("POST /relay/commands/claim", [Reply::Held(Duration::from_secs(1), Box::new(grant))]);
    let relay = machine.relay(&center)?;
    center.asked("POST /relay/commands/claim", 1, PATIENCE).await?;
    relay.terminate()?;
    assert_eq!(relay.wait(Duration::from_secs(5)).await?.code(), Some(0));
    let _relay = machine.relay(&center)?;
    assert_eq!(center.result("c1", PATIENCE).await?["output"], "granted\n");
    assert_eq!(center.requests_of("POST /relay/commands/claim").len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_grant_that_is_heard_without_a_keeper_when_the_relay_stops_has_a_result() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "echo granted");
    let grant = Reply::Json(200, json!({"success": true}));
    center.script("POST /relay/commands/claim", [Reply::Held(Duration::from_millis(1500), Box::new(grant))]);
    let relay = machine.relay(&center)?;
    center.asked("POST /relay/commands/claim", 1, PATIENCE).await?;
    // No keeper can be started any more.
    let log = machine.store().join("http/keeper.log");
    fs::remove_file(&log)?;
    fs::create_dir(&log)?;
    signal(machine.keeper_pid().await?, Signal::KILL)?;
    eventually_within("its end is noticed", PATIENCE, || async {
        ensure!(relay.stderr()?.contains("Keeper is gone"));
        Ok(())
    })
    .await?;
    relay.terminate()?;
    assert_eq!(relay.wait(Duration::from_secs(5)).await?.code(), Some(0));
    fs::remove_dir(&log)?;
    let _relay = machine.relay(&center)?;
    let result = center.result("c1", PATIENCE).await?;
    assert_eq!(result["error"], "The relay was stopped before the command began");
    Ok(())
}

#[tokio::test]
async fn a_result_goes_to_the_center_that_granted_its_command_and_to_no_other() -> Result<()> {
    let machine = Machine::new()?;
    let (first, second) = (Center::start().await?, Center::start().await?);
    first.queue("c1", "echo secret");
    first.always(RESULT, Reply::Json(503, json!({"error": "x"})));
    let relay = machine.relay(&first)?;
    first.asked(RESULT, 1, PATIENCE).await?;
    relay.terminate()?;
    relay.wait(PATIENCE).await?;
    second.queue("c2", "echo other");
    let relay = machine.relay(&second)?;
    assert_eq!(second.result("c2", PATIENCE).await?["output"], "other\n");
    second.asked("POST /relay/heartbeat", 2, PATIENCE).await?;
    assert_eq!(second.requests_of(RESULT).len(), 1, "it heard of another center's command");
    assert!(relay.stderr()?.contains("they are not sent to this one"), "{}", relay.stderr()?);
    relay.terminate()?;
    relay.wait(PATIENCE).await?;
    first.as_usual(RESULT);
    let _relay = machine.relay(&first)?;
    assert_eq!(first.result("c1", PATIENCE).await?["output"], "secret\n");
    Ok(())
}

#[tokio::test]
async fn another_relays_command_of_the_same_name_is_another_command() -> Result<()> {
    let machine = Machine::new()?;
    for name in ["one", "two"] {
        let center = Center::start().await?;
        center.always("POST /relay/verify", Reply::Json(200, json!({"valid": true, "assignmentId": name})));
        center.queue("c1", &format!("echo {name}"));
        let relay = machine.relay(&center)?;
        assert_eq!(center.result("c1", PATIENCE).await?["output"], format!("{name}\n"));
        relay.terminate()?;
        relay.wait(PATIENCE).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_center_that_takes_no_results_gives_no_more_work_than_can_be_kept() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    for number in 0..70 {
        center.queue(&format!("c{number}"), "true");
    }
    center.always(RESULT, Reply::Json(503, json!({"error": "x"})));
    let relay = machine.relay(&center)?;
    eventually_within("it is said", PATIENCE, || async {
        ensure!(relay.stderr()?.contains("no more commands are claimed"));
        Ok(())
    })
    .await?;
    center.asked("POST /relay/heartbeat", 2, PATIENCE).await?;
    assert!(center.requests_of("POST /relay/commands/claim").len() <= 68);
    center.as_usual(RESULT);
    for number in 0..70 {
        center.result(&format!("c{number}"), 4 * PATIENCE).await?;
    }
    Ok(())
}
