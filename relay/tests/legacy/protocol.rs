//! What is said on the wire, in which order, and what follows from each answer.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually_within,
    process::{Daemon, is_alive},
};

use crate::{
    center::{Center, KEY, Reply, Request, member},
    harness::{Machine, PATIENCE},
};

const VERIFY: &str = "POST /relay/verify";
const STATUS: &str = "POST /relay/status";
const HEARTBEAT: &str = "POST /relay/heartbeat";
const COMMANDS: &str = "GET /relay/commands";
const CLAIM: &str = "POST /relay/commands/claim";
const RESULT: &str = "POST /relay/commands/result";
const PUSHES: &str = "GET /relay/config/pending";

/// Where each of these lines stands first among the requests.
fn places(requests: &[Request], lines: &[&str]) -> Result<Vec<usize>> {
    let place = |line: &&str| {
        requests.iter().position(|request| request.line == *line).with_context(|| (*line).to_owned())
    };
    lines.iter().map(place).collect()
}

#[tokio::test]
async fn a_relay_introduces_itself_in_order_and_with_the_right_headers() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "echo hello; echo err >&2");
    let _relay = machine.relay(&center)?;
    center.result("c1", PATIENCE).await?;
    center.asked(HEARTBEAT, 1, PATIENCE).await?;
    let requests = center.requests();
    let order = places(&requests, &["POST /enroll", VERIFY, STATUS, PUSHES, COMMANDS, CLAIM, RESULT])?;
    assert!(order.is_sorted(), "{:?}", requests.iter().map(|request| &request.line).collect::<Vec<_>>());
    let at = |line: &str| requests.iter().find(|request| request.line == line).map(|request| request.at);
    let pause =
        at(HEARTBEAT).zip(at(STATUS)).map(|(beat, status)| beat - status).context("no signs of life")?;
    assert!(pause < Duration::from_secs(3), "the first heartbeat came after {pause:?}");
    for request in &requests {
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        let is_verify = request.line == VERIFY;
        assert_eq!(header("x-api-key"), (!is_verify).then_some(KEY), "{}", request.line);
        let has_body = !request.body.is_empty();
        assert_eq!(header("content-type"), has_body.then_some("application/json"), "{}", request.line);
        if request.line.starts_with("POST ") {
            assert_eq!(
                header("content-length"),
                Some(request.body.len().to_string().as_str()),
                "{}",
                request.line
            );
        }
    }
    let body = |line: &str| -> Result<String> {
        let request = requests.iter().find(|request| request.line == line).context("no such request")?;
        Ok(String::from_utf8(request.body.clone())?)
    };
    assert_eq!(body(VERIFY)?, format!(r#"{{"apiKey":"{KEY}"}}"#));
    assert_eq!(body(HEARTBEAT)?, "");
    assert_eq!(body(CLAIM)?, r#"{"commandId":"c1"}"#);
    let result = body(RESULT)?;
    let begin =
        r#"{"commandId":"c1","success":true,"output":"hello\n","stderr":"err\n","exitCode":0,"durationMs":"#;
    assert!(result.starts_with(begin), "{result}");
    let status = body(STATUS)?;
    let begin =
        r#"{"relayId":"asg 1","capabilities":["local_cmd","ssh","perf_metrics"],"metrics":{"memoryTotalMb":"#;
    assert!(status.starts_with(begin) && status.ends_with(r#","credentials":[]}"#), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_center_that_is_spoken_to_by_http_is_not_asked_to_enrol() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let _relay = machine.relay_with(&center, &["--transport", "http"])?;
    center.asked(COMMANDS, 1, PATIENCE).await?;
    assert_eq!(center.requests()[0].line, VERIFY);
    Ok(())
}

#[rstest]
#[case::not_found(Reply::Raw(404, "text/plain", ""))]
#[case::not_allowed(Reply::Raw(405, "text/plain", ""))]
#[case::not_implemented(Reply::Raw(501, "text/plain", ""))]
#[case::a_page(Reply::Raw(200, "text/html", "<html>"))]
#[tokio::test]
async fn a_center_that_does_not_enrol_is_spoken_to_by_http(#[case] reply: Reply) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.script("POST /enroll", [reply]);
    let _relay = machine.relay(&center)?;
    center.asked(COMMANDS, 1, PATIENCE).await?;
    assert_eq!(center.requests_of("POST /enroll").len(), 1);
    Ok(())
}

#[rstest]
#[case::unknown(Reply::Json(401, json!({"error": "Invalid API key"})), "Invalid API key")]
#[case::missing(Reply::Json(401, json!({"error": "API key is required"})), "API key is required")]
#[case::no_assignment(Reply::Json(403, json!({"valid": false, "error": "none found"})), "none found")]
#[case::disabled(Reply::Json(403, json!({"valid": false, "error": "disabled"})), "disabled")]
#[case::not_valid(Reply::Json(200, json!({"valid": false, "error": "no"})), "no")]
#[case::page(Reply::Raw(403, "text/html", "<html>"), "API key verification failed")]
#[tokio::test]
async fn a_key_that_is_refused_ends_the_relay(#[case] reply: Reply, #[case] why: &str) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.always(VERIFY, reply);
    let relay = machine.relay(&center)?;
    assert_eq!(relay.wait(PATIENCE).await?.code(), Some(1));
    assert!(relay.stderr()?.contains(why), "{}", relay.stderr()?);
    assert_eq!(center.requests_of(VERIFY).len(), 1);
    assert!(!machine.store().exists());
    Ok(())
}

#[rstest]
#[case::dropped(Reply::Drop)]
#[case::failing(Reply::Json(500, json!({"error": "x"})))]
#[case::away(Reply::Raw(503, "text/plain", "away"))]
#[case::page(Reply::Raw(200, "text/html", "<html>"))]
#[case::no_json(Reply::Raw(200, "application/json", "{"))]
#[case::no_verdict(Reply::Json(200, json!({"ok": true})))]
#[tokio::test]
async fn a_center_that_says_nothing_about_the_key_is_asked_again(#[case] reply: Reply) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.script(VERIFY, [reply.clone(), reply]);
    let relay = machine.relay(&center)?;
    center.asked(COMMANDS, 1, PATIENCE).await?;
    assert_eq!(center.requests_of(VERIFY).len(), 3);
    assert!(relay.stderr()?.contains("is asked again"));
    Ok(())
}

#[tokio::test]
async fn a_failing_center_that_knows_the_key_is_believed() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.always(VERIFY, Reply::Json(500, json!({"valid": true, "assignmentId": "asg_1"})));
    let _relay = machine.relay(&center)?;
    center.asked(COMMANDS, 1, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn a_program_that_is_replaced_while_its_relay_waits_still_has_a_keeper() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let (program, newer) = (machine.file("program"), machine.file("newer"));
    for copy in [&program, &newer] {
        std::fs::copy(env!("CARGO_BIN_EXE_signalbox-relay"), copy)?;
    }
    center.always(VERIFY, Reply::Json(500, json!({"error": "x"})));
    let mut command = std::process::Command::new(&program);
    command.env("HOME", machine.home.path()).env_remove("SIGNALBOX_API_KEY");
    let _relay = Daemon::spawn(command.args([KEY, &center.url, "--store-dir"]).arg(machine.store()))?;
    center.asked(VERIFY, 1, PATIENCE).await?;
    std::fs::rename(&newer, &program)?;
    center.as_usual(VERIFY);
    center.queue("c1", "echo on");
    assert_eq!(center.result("c1", PATIENCE).await?["output"], "on\n");
    Ok(())
}

#[tokio::test]
async fn a_log_filter_that_is_none_keeps_nobody_from_work() -> Result<()> {
    for filter in ["[", "signalbox_relay=loud", "--store", ""] {
        let center = Center::start().await?;
        let machine = Machine::new()?;
        center.queue("c1", "echo ${RUST_LOG-none}");
        let mut command = machine.program();
        command.env("RUST_LOG", filter).args([KEY, &center.url, "--store-dir"]).arg(machine.store());
        let _relay = Daemon::spawn(&mut command)?;
        assert_eq!(center.result("c1", PATIENCE).await?["output"], format!("{filter}\n"));
    }
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_not_followed() -> Result<()> {
    let (center, other) = (Center::start().await?, Center::start().await?);
    let machine = Machine::new()?;
    center.always(COMMANDS, Reply::Elsewhere(format!("{}/relay/commands", other.url)));
    other.queue("c1", "true");
    let _relay = machine.relay(&center)?;
    center.asked(COMMANDS, 2, PATIENCE).await?;
    assert_eq!(other.requests().len(), 0, "the key went elsewhere");
    Ok(())
}

#[tokio::test]
async fn a_stop_before_the_center_knows_the_relay_is_a_stop() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.always(VERIFY, Reply::Held(Duration::from_secs(20), Box::new(Reply::Drop)));
    let relay = machine.relay(&center)?;
    center.asked(VERIFY, 1, PATIENCE).await?;
    relay.terminate()?;
    assert_eq!(relay.wait(Duration::from_secs(5)).await?.code(), Some(0));
    Ok(())
}

#[rstest]
#[case::failing(Reply::Json(500, json!({"error": "x"})))]
#[case::dropped(Reply::Drop)]
#[case::empty(Reply::Json(200, json!({})))]
#[case::page(Reply::Raw(200, "text/html", "<html>"))]
#[case::no_json(Reply::Raw(200, "application/json", "{\"commands\":["))]
#[tokio::test]
async fn commands_that_cannot_be_asked_for_are_asked_for_again(#[case] reply: Reply) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "true");
    center.script(COMMANDS, [reply.clone(), reply]);
    let _relay = machine.relay(&center)?;
    center.result("c1", PATIENCE).await?;
    let asked = center.requests_of(COMMANDS);
    let pause = asked[1].at - asked[0].at;
    assert!((900..2000).contains(&pause.as_millis()), "{pause:?}");
    Ok(())
}

#[rstest]
#[case(401)]
#[case(403)]
#[tokio::test]
async fn a_relay_that_is_let_in_no_more_waits_longer_and_longer_and_says_so_once(
    #[case] status: u16,
) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "true");
    let refused = Reply::Json(status, json!({"error": "Relay assignment is disabled"}));
    center.script(COMMANDS, [refused.clone(), refused.clone(), refused]);
    let relay = machine.relay(&center)?;
    center.result("c1", PATIENCE).await?;
    let asked = center.requests_of(COMMANDS);
    // Drawn from 1 to 2 s, then 2 to 4 s, then 4 to 8 s.
    for (pair, least) in asked.windows(2).zip([1, 2, 4]) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= Duration::from_millis(least * 1000 - 50), "{pause:?} and not {least} s");
    }
    assert_eq!(relay.stderr()?.matches("The center refuses to tell commands").count(), 1);
    assert!(relay.stdout()?.contains("The center tells commands again"));
    Ok(())
}

#[rstest]
#[case::refused(Reply::Json(400, json!({"success": false, "error": "Command is not pending"})))]
#[case::unknown(Reply::Json(401, json!({"error": "Invalid API key"})))]
#[case::failing(Reply::Json(500, json!({"error": "x"})))]
#[case::no_json(Reply::Raw(200, "application/json", "{"))]
#[case::page(Reply::Raw(200, "text/html", "<html>"))]
#[case::no_word(Reply::Json(200, json!({})))]
#[case::dropped(Reply::Drop)]
#[tokio::test]
async fn what_is_not_granted_is_not_run_and_the_next_one_is_asked_for(#[case] reply: Reply) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let mark = machine.file("ran");
    center.queue("c1", &format!("echo x >> {}", mark.display()));
    center.queue("c2", "true");
    center.script(CLAIM, [reply]);
    let _relay = machine.relay(&center)?;
    center.result("c2", PATIENCE).await?;
    assert!(!mark.exists() && center.results_of("c1").is_empty(), "it was run without a grant");
    // It is still on offer, and granted the next time.
    center.result("c1", PATIENCE).await?;
    assert_eq!(std::fs::read_to_string(&mark)?, "x\n");
    Ok(())
}

#[rstest]
#[case::status(Reply::Json(500, json!({"success": 1})))]
#[case::text(Reply::Raw(200, "text/plain", "{\"success\":true}"))]
#[tokio::test]
async fn a_word_of_grant_is_enough_whatever_the_status_and_the_type(#[case] reply: Reply) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "true");
    center.script(CLAIM, [reply]);
    let _relay = machine.relay(&center)?;
    center.result("c1", PATIENCE).await?;
    assert_eq!(center.requests_of(CLAIM).len(), 1, "it was not taken for a grant");
    Ok(())
}

#[tokio::test]
async fn a_command_that_cannot_be_read_blocks_no_other_one_and_is_told_why() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let list = r#"{"commands":[
        {"_id":"half","command":"echo \ud83d","targetType":"local","timeoutMs":1e999},
        {"_id":"nothing","command":7,"targetType":"local"}, {"_id":"nowhere","command":"true"}, {"_id":7}, 7
    ]}"#;
    center.script(COMMANDS, [Reply::Raw(200, "text/plain", list), Reply::Raw(200, "text/plain", list)]);
    center.always(CLAIM, Reply::Json(200, json!({"success": true})));
    let relay = machine.relay(&center)?;
    assert_eq!(center.result("half", PATIENCE).await?["output"], "\u{fffd}\n");
    for (id, why) in [("nothing", "The command has no text"), ("nowhere", "Unknown target type: undefined")] {
        let result = center.result(id, PATIENCE).await?;
        assert_eq!((&result["exitCode"], &result["error"]), (&json!(-1), &json!(why)));
    }
    center.asked(COMMANDS, 3, PATIENCE).await?;
    assert_eq!(center.requests_of(CLAIM).len(), 3, "it was claimed twice");
    assert_eq!(relay.stderr()?.matches("entries that are no commands").count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_huge_list_costs_no_more_memory_than_it_is_long() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let list = format!("{{\"commands\":[{}0]}}", "0,".repeat(7_000_000));
    center.script(COMMANDS, [Reply::Raw(200, "application/json", list.leak())]);
    let relay = machine.relay(&center)?;
    center.asked(COMMANDS, 2, PATIENCE).await?;
    let peak = std::fs::read_to_string(format!("/proc/{}/status", relay.pid()))?;
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak")?;
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    assert!(peak < 150_000, "{peak} kB");
    Ok(())
}

#[tokio::test]
async fn a_grant_that_was_not_heard_is_no_grant() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let mark = machine.file("ran");
    center.queue("c1", &format!("touch {}", mark.display()));
    center.script(CLAIM, [Reply::DoneAndDropped]);
    let _relay = machine.relay(&center)?;
    center.asked(COMMANDS, 3, PATIENCE).await?;
    assert!(!mark.exists() && center.results_of("c1").is_empty());
    Ok(())
}

#[tokio::test]
async fn a_question_is_held_and_no_other_one_is_asked_meanwhile() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let held = |seconds| {
        Reply::Held(Duration::from_secs(seconds), Box::new(Reply::Json(200, json!({"commands": []}))))
    };
    center.script(COMMANDS, [held(3), held(3)]);
    let _relay = machine.relay(&center)?;
    let asked = center.asked(COMMANDS, 3, PATIENCE).await?;
    for pair in asked.windows(2) {
        let pause = pair[1].at - pair[0].at;
        assert!((2950..4500).contains(&pause.as_millis()), "{pause:?}");
    }
    Ok(())
}

#[rstest]
#[case::refused(Reply::Json(401, json!({"success": false})))]
#[case::failing(Reply::Json(500, json!({"error": "x"})))]
#[case::dropped(Reply::Drop)]
#[tokio::test]
async fn signs_of_life_that_are_not_taken_stop_nothing(#[case] reply: Reply) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.always(HEARTBEAT, reply.clone());
    center.always(STATUS, reply);
    let relay = machine.relay(&center)?;
    let beats = center.asked(HEARTBEAT, 2, PATIENCE).await?;
    let reports = center.asked(STATUS, 2, PATIENCE).await?;
    center.queue("c1", "true");
    center.result("c1", PATIENCE).await?;
    assert!(is_alive(relay.pid()));
    for pair in [&beats, &reports] {
        let pause = pair[1].at - pair[0].at;
        assert!((4900..7000).contains(&pause.as_millis()), "{pause:?}");
    }
    let cpu =
        |request: &Request| -> Result<Option<f64>> { Ok(request.json()?["metrics"]["cpuPercent"].as_f64()) };
    assert_eq!(cpu(&reports[0])?, None);
    let busy = cpu(&reports[1])?.context("no CPU use in the second report")?;
    assert!((0.0..=100.0).contains(&busy));
    Ok(())
}

/// What each push is answered with.
async fn acks(center: &Center, route: &str, count: usize) -> Result<Vec<(String, bool, String)>> {
    let read = |request: Request| -> Result<(String, bool, String)> {
        let body = request.json()?;
        let text = |name: &str| member(&body, name).as_str().unwrap_or_default().to_owned();
        Ok((text("pushId"), member(&body, "success").as_bool().context("no success")?, text("errorMessage")))
    };
    center.asked(route, count, PATIENCE).await?.into_iter().map(read).collect()
}

#[rstest]
#[case::own_routes(false)]
#[case::served_routes(true)]
#[tokio::test]
async fn settings_are_acknowledged_as_what_became_of_them(#[case] served: bool) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let rows = [
        (
            "credential",
            r#"{"name":"n","credentialType":"ssh_key","encryptedValue":"a:b:c","updatedAt":1}"#,
            false,
        ),
        ("ssh_targets", r#"{"targets":["h"]}"#, true),
        ("allowed_commands", r#"{"commands":["ls"]}"#, false),
        ("metrics_interval", r#"{"intervalMs":7000}"#, true),
        ("bogus", "{}", false),
        ("ssh_targets", "no JSON", false),
        ("ssh_targets", "{}", false),
        ("metrics_interval", "{}", false),
    ];
    for (number, (kind, payload, _)) in rows.iter().enumerate() {
        center.push(&format!("p{number}"), kind, payload);
    }
    let ack_route = if served {
        center.always(PUSHES, Reply::Raw(404, "text/plain", ""));
        center.always("POST /relay/config/ack", Reply::Raw(404, "text/plain", ""));
        "POST /relay/config-pushes/ack"
    } else {
        "POST /relay/config/ack"
    };
    let _relay = machine.relay(&center)?;
    let told = acks(&center, ack_route, rows.len()).await?;
    for (number, ((kind, payload, applied), (id, success, why))) in rows.iter().zip(&told).enumerate() {
        assert_eq!((id, success), (&format!("p{number}"), applied), "{kind} {payload}: {why}");
        assert_eq!(why.is_empty(), *applied, "{kind} {payload}: {why}");
    }
    assert!(told[2].2.contains("allowed_commands is not applied by this relay"));
    if served {
        assert_eq!(center.requests_of("GET /relay/config-pushes?relayId=asg%201").len(), 1);
        center.push("late", "bogus", "{}");
        acks(&center, ack_route, rows.len() + 1).await?;
        assert_eq!(center.requests_of(PUSHES).len(), 1, "it was not remembered which routes there are");
    }
    Ok(())
}

#[tokio::test]
async fn an_interval_of_reports_is_applied_and_survives() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.push("p1", "metrics_interval", r#"{"intervalMs":8000}"#);
    let relay = machine.relay(&center)?;
    let pause =
        |reports: Vec<Request>| (reports[reports.len() - 1].at - reports[reports.len() - 2].at).as_millis();
    let first = pause(center.asked(STATUS, 2, PATIENCE).await?);
    assert!((7900..10_000).contains(&first), "{first} ms");
    assert!(center.requests_of(HEARTBEAT).len() >= 2, "heartbeats go on as before");
    relay.terminate()?;
    relay.wait(PATIENCE).await?;
    let before = center.requests_of(STATUS).len();
    let _relay = machine.relay(&center)?;
    let second = pause(center.asked(STATUS, before + 2, PATIENCE).await?);
    assert!((7900..10_000).contains(&second), "{second} ms");
    Ok(())
}

#[tokio::test]
async fn a_relay_that_is_stopped_leaves_its_keeper_to_what_runs_and_to_nothing_else() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let relay = machine.relay(&center)?;
    center.asked(COMMANDS, 1, PATIENCE).await?;
    let keeper = machine.keeper_pid().await?;
    relay.terminate()?;
    assert_eq!(relay.wait(PATIENCE).await?.code(), Some(0));
    let gone = || async {
        ensure!(!is_alive(keeper), "it is there");
        Ok(())
    };
    eventually_within("the keeper ends", PATIENCE, gone).await?;

    let relay = machine.relay(&center)?;
    center.queue("c1", "sleep 300");
    center.asked(CLAIM, 1, PATIENCE).await?;
    center.queue("c2", "true");
    center.result("c2", PATIENCE).await?;
    let keeper = machine.keeper_pid().await?;
    relay.terminate()?;
    assert_eq!(relay.wait(PATIENCE).await?.code(), Some(0));
    assert!(is_alive(keeper), "it has a run");
    Ok(())
}

#[tokio::test]
async fn a_push_is_acknowledged_where_its_center_can_hear_it() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.always("POST /relay/config/ack", Reply::Raw(404, "text/plain", ""));
    center.push("p1", "bogus", "{}");
    let _relay = machine.relay(&center)?;
    assert_eq!(acks(&center, "POST /relay/config-pushes/ack", 1).await?[0].0, "p1");
    Ok(())
}

#[tokio::test]
async fn a_push_that_cannot_be_read_is_acknowledged_all_the_same() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let list = r#"{"pushes":[{"_id":"p1","pushType":"ssh_targets","payload":{}},{"_id":"p2","payload":"{}"},{"payload":"{}"}]}"#;
    center.script(PUSHES, [Reply::Raw(200, "application/json", list)]);
    let _relay = machine.relay(&center)?;
    let told = acks(&center, "POST /relay/config/ack", 2).await?;
    let [payload, kind] = ["the payload is no text", "the push says no type of setting"].map(str::to_owned);
    assert_eq!(told, [("p1".to_owned(), false, payload), ("p2".to_owned(), false, kind)]);
    Ok(())
}

#[rstest]
#[case::dropped(Reply::Drop, true)]
#[case::taken_and_dropped(Reply::DoneAndDropped, false)]
#[case::failing(Reply::Json(500, json!({"error": "x"})), true)]
#[tokio::test]
async fn an_acknowledgement_without_an_answer_is_said_again_while_the_push_waits(
    #[case] reply: Reply,
    #[case] again: bool,
) -> Result<()> {
    const ACK: &str = "POST /relay/config/ack";
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.push("p1", "bogus", "{}");
    center.script(ACK, [reply]);
    let _relay = machine.relay(&center)?;
    center.asked(ACK, 1, PATIENCE).await?;
    center.queue("c1", "true");
    center.result("c1", PATIENCE).await?;
    // The third report comes after all that follows from the second one.
    center.asked(STATUS, 3, PATIENCE).await?;
    let told = acks(&center, ACK, 1 + usize::from(again)).await?;
    assert_eq!(told.len(), 1 + usize::from(again));
    assert!(told.iter().all(|(id, success, _)| id == "p1" && !success), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_first_report_that_hangs_does_not_keep_a_relay_from_its_work() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    // Longer than an answer is waited for.
    center.always(STATUS, Reply::Held(Duration::from_mins(2), Box::new(Reply::Drop)));
    center.queue("c1", "echo on");
    let _relay = machine.relay(&center)?;
    assert_eq!(center.result("c1", Duration::from_secs(40)).await?["output"], "on\n");
    Ok(())
}

#[tokio::test]
async fn a_center_on_this_machine_is_not_asked_through_a_proxy() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let mut command = machine.program();
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:1");
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    let _relay = Daemon::spawn(command.args([KEY, &center.url, "--store-dir"]).arg(machine.store()))?;
    center.asked(COMMANDS, 1, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn settings_that_come_later_are_asked_for_when_a_report_hears_of_them() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let _relay = machine.relay(&center)?;
    center.asked(COMMANDS, 1, PATIENCE).await?;
    assert_eq!(center.requests_of(PUSHES).len(), 1, "they are asked for once at the start");
    center.push("p1", "bogus", "{}");
    assert_eq!(acks(&center, "POST /relay/config/ack", 1).await?[0].0, "p1");
    Ok(())
}

#[rstest]
#[case::failing(Reply::Json(500, json!({"error": "x"})))]
#[case::dropped(Reply::Drop)]
#[case::unknown(Reply::Json(401, json!({"error": "x"})))]
#[tokio::test]
async fn settings_that_cannot_be_asked_for_stop_nothing(#[case] reply: Reply) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.always(PUSHES, reply);
    let relay = machine.relay(&center)?;
    center.asked(COMMANDS, 2, PATIENCE).await?;
    eventually_within("it is said", PATIENCE, || async {
        ensure!(relay.stderr()?.contains("Settings are not told"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn absent_members_are_left_out_of_a_result() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "exit 42");
    let _relay = machine.relay(&center)?;
    let result = center.result("c1", PATIENCE).await?;
    assert_eq!(result.get("error"), None);
    assert!(result.as_object().context("no object")?.values().all(|value| *value != Value::Null));
    Ok(())
}
