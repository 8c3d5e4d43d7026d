//! A relay or a keeper that kills itself at a named point: one start, one end.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::Result;
use rstest::rstest;
use serde_json::json;
use signalbox_testkit::process::Daemon;

use crate::{
    center::{Center, KEY},
    harness::{Machine, PATIENCE, QUICK, lines},
};

/// A relay that dies at a point, or whose keeper does.
fn doomed(machine: &Machine, center: &Center, point: &str) -> Result<Daemon> {
    let mut command = machine.program();
    command.args([KEY, &center.url]).args(QUICK).arg("--store-dir").arg(machine.store());
    Daemon::spawn(command.env("SIGNALBOX_CRASH_AT", point))
}

#[rstest]
#[case("relay:claim.acked", 1)]
#[case("relay:spawned", 1)]
#[case("relay:exit.written", 1)]
#[case("relay:exit.unacked", 2)]
#[tokio::test]
async fn a_relay_killed_at_a_point_is_followed_by_one_that_completes(
    #[case] point: &str,
    #[case] results: usize,
) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let log = machine.file("log");
    center.queue("c1", &format!("echo started >> {}; head -c 400000 /dev/zero; echo end", log.display()));
    let relay = doomed(&machine, &center, point)?;
    assert_eq!(relay.wait(PATIENCE).await?.signal(), Some(9));
    let _next = machine.relay(&center)?;
    center.asked("POST /relay/commands/result", results, PATIENCE).await?;
    let result = center.result("c1", PATIENCE).await?;
    let output = result["output"].as_str().unwrap_or_default();
    assert!(output.len() == 400_004 && output.ends_with("\0end\n") && result["success"] == json!(true));
    assert!(center.results_of("c1").iter().all(|again| *again == result), "it was told in two ways");
    assert_eq!(lines(&log)?, ["started"]);
    Ok(())
}

#[tokio::test]
async fn a_relay_killed_before_it_wrote_a_grant_down_leaves_it_to_the_center() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let log = machine.file("log");
    center.queue("c1", &format!("echo started >> {}", log.display()));
    let relay = doomed(&machine, &center, "relay:claim.sent")?;
    assert_eq!(relay.wait(PATIENCE).await?.signal(), Some(9));
    let _next = machine.relay(&center)?;
    center.queue("c2", "true");
    center.result("c2", PATIENCE).await?;
    assert!(!log.exists() && center.results_of("c1").is_empty());
    Ok(())
}

#[rstest]
#[case("keeper:spawned")]
#[case("keeper:output.half")]
#[case("keeper:exit.written")]
#[tokio::test]
async fn a_command_of_a_keeper_that_died_is_not_run_again_and_has_a_result(
    #[case] point: &str,
) -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let log = machine.file("log");
    center.queue("c1", &format!("echo started >> {}; echo half; sleep 2", log.display()));
    let _relay = doomed(&machine, &center, point)?;
    let result = center.result("c1", PATIENCE).await?;
    assert_eq!((&result["success"], &result["exitCode"]), (&json!(false), &json!(-1)));
    assert!(result["error"].as_str().is_some_and(|error| error.contains("keeper ended")), "{result}");
    assert!(lines(&log).map_or(0, |lines| lines.len()) <= 1);
    Ok(())
}
