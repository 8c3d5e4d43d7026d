//! Results of every size come back byte for byte, and there is an end to sizes.

use anyhow::Result;
use rstest::rstest;
use serde_json::json;
use signalbox_testkit::old_relay::{Connection, OldRelay};

use super::world::{World, said, says};

const MIB: usize = 1024 * 1024;

/// Text with everything that JSON escapes or that breaks between bytes, of about this many bytes.
fn text(bytes: usize) -> String {
    let piece = "a\0b\u{fffd}c\"\\/\n\r\t\u{7f}\u{1b}é\u{1f980}";
    piece.repeat(bytes / piece.len() + 1)
}

#[rstest]
#[case::nothing(String::new(), String::new())]
#[case::one_byte("x".to_owned(), "\0".to_owned())]
#[case::few_of_everything(text(100), text(7))]
#[case::more_than_an_exit_carries(text(100_000), text(70_000))]
#[case::five_mib(text(5 * MIB / 2), "e".repeat(3 * MIB))]
#[case::nearly_all_that_a_body_holds("x".repeat(16 * MIB - 200), String::new())]
#[tokio::test]
async fn output_comes_back_byte_for_byte(#[case] stdout: String, #[case] stderr: String) -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    let id = world.submit("m-1", "true").await?;
    assert!(relay.wins(&id).await?);
    let body = json!({"commandId": id, "success": true, "output": stdout, "stderr": stderr, "exitCode": 0});
    let answer = relay.ask("POST", "/relay/commands/result", Some(&body.to_string())).await?;
    assert_eq!(said(&answer)?, says(200, r#"{"success":true}"#));
    for (name, expected) in [("stdout", stdout), ("stderr", stderr)] {
        let output = world.bench.http.output(&id, "m-1", name).await?;
        assert!(output == expected.as_bytes(), "{name}: {} of {} bytes differ", output.len(), expected.len());
    }
    let run = world.run(&id, "m-1").await?;
    assert_eq!((&run["state"], &run["exit_code"]), (&json!("completed"), &json!(0)), "{run}");
    Ok(())
}

#[rstest]
#[case::announced(true)]
#[case::in_chunks(false)]
#[tokio::test]
async fn above_16_mib_a_body_is_refused_and_its_run_stays_open(#[case] is_announced: bool) -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let mut relay = world.relay(&assigned);
    let id = world.submit("m-1", "true").await?;
    assert!(relay.wins(&id).await?);
    let body = json!({"commandId": id, "success": true, "output": "x".repeat(16 * MIB)}).to_string();
    let request = if is_announced {
        OldRelay::new(&world.bench.base, &assigned.key).request(
            "POST",
            "/relay/commands/result",
            Some(&body),
        )?
    } else {
        let head = format!(
            "POST /relay/commands/result HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            assigned.key
        );
        [head.as_bytes(), format!("{:x}\r\n", body.len()).as_bytes(), body.as_bytes(), b"\r\n0\r\n\r\n"]
            .concat()
    };
    let mut connection = Connection::open(&world.bench.base).await?;
    connection.send(&request).await?;
    let (status, text) = said(&connection.answer().await?)?;
    assert!(
        status == 413 && text.starts_with(r#"{"error":"the body is above 16777216 bytes"#),
        "{status} {text}"
    );
    assert_eq!(world.run(&id, "m-1").await?["state"], "executing");
    assert_eq!(said(&relay.result(&id, 0, "less").await?)?, says(200, r#"{"success":true}"#));
    assert_eq!(world.bench.http.output(&id, "m-1", "stdout").await?, b"less");
    Ok(())
}

#[tokio::test]
async fn a_large_body_with_a_bad_key_is_not_read() -> Result<()> {
    let world = World::start().await?;
    let body = json!({"commandId": "x", "success": true, "output": "x".repeat(5 * MIB)}).to_string();
    for (key, text) in
        [("sk_nobody", r#"{"error":"Invalid API key"}"#), ("", r#"{"error":"API key is required"}"#)]
    {
        let mut relay = OldRelay::new(&world.bench.base, key);
        let answer = relay.ask("POST", "/relay/commands/result", Some(&body)).await?;
        assert_eq!(said(&answer)?, says(401, text));
    }
    Ok(())
}

#[tokio::test]
async fn more_than_a_command_may_say_is_cut_and_told() -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    let id = world.submit_with("m-1", &json!({"command": "true", "max_output": 10})).await?;
    assert!(relay.wins(&id).await?);
    assert_eq!(said(&relay.result(&id, 0, &"x".repeat(100)).await?)?, says(200, r#"{"success":true}"#));
    let run = world.run(&id, "m-1").await?;
    assert_eq!((&run["stdout"]["bytes"], &run["stdout"]["truncated"]), (&json!(100), &json!(true)), "{run}");
    let path = format!("/api/v1/commands/{id}/output?machine=m-1&stream=stdout");
    assert_eq!(world.bench.http.get(&path).await?.text(), "x".repeat(10));
    Ok(())
}
