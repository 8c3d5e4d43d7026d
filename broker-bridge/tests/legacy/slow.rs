//! Bodies that come slowly, or not to their end: they cost their own client, and little.

use anyhow::{Result, ensure};
use serde_json::json;
use signalbox_testkit::{
    eventually,
    old_relay::{Connection, OldRelay},
};

use super::world::{Assigned, World, said, says};

const KIB: usize = 1024;

/// A result of this many bytes.
fn result(id: &str, len: usize) -> String {
    json!({"commandId": id, "success": true, "output": "x".repeat(len), "exitCode": 0}).to_string()
}

/// A request of which the last byte is still to come.
async fn begun(world: &World, key: &str, path: &str, body: &str) -> Result<(Connection, u8)> {
    let request = OldRelay::new(&world.bench.base, key).request("POST", path, Some(body))?;
    let mut connection = Connection::open(&world.bench.base).await?;
    let (last, most) = request.split_last().expect("a request");
    connection.send(most).await?;
    Ok((connection, *last))
}

/// Files without a name that this process has open, in which also the bridge runs.
fn files() -> Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let link = std::fs::read_link(entry?.path()).unwrap_or_default();
        let is_one = link.starts_with(std::env::temp_dir()) && link.to_string_lossy().ends_with(" (deleted)");
        files += usize::from(is_one);
    }
    Ok(files)
}

async fn files_are(count: usize) -> Result<()> {
    eventually("bodies in files", || async {
        let files = files()?;
        ensure!(files == count, "{files} bodies are in files");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn slow_bodies_of_one_client_take_its_share_and_keep_nobody_else_out() -> Result<()> {
    let world = World::start().await?;
    let (slow, other) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let before = files()?;
    let mut slow_ones = Vec::new();
    for _ in 0..8 {
        let body = result("x", 200 * KIB);
        slow_ones.push(begun(&world, &slow.key, "/relay/commands/result", &body).await?);
    }
    files_are(before + 2).await?;
    let of_other = async |assigned: &Assigned, len: usize| {
        let id = world.submit("m-2", "true").await?;
        let mut relay = world.relay(assigned);
        ensure!(relay.wins(&id).await?);
        let answer = relay.ask("POST", "/relay/commands/result", Some(&result(&id, len))).await?;
        said(&answer)
    };
    for len in [10, 60 * KIB, 300 * KIB] {
        assert_eq!(of_other(&other, len).await?, says(200, r#"{"success":true}"#), "{len}");
    }
    files_are(before + 2).await?;
    // Those that waited have their turn, and nothing is lost.
    for (connection, last) in &mut slow_ones {
        connection.send(&[*last]).await?;
    }
    for (mut connection, _) in slow_ones {
        assert_eq!(said(&connection.answer().await?)?, says(200, r#"{"success":false}"#));
    }
    files_are(before).await
}

#[tokio::test]
async fn who_waits_for_room_and_hangs_up_leaves_nothing_behind() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let before = files()?;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let body = result("x", 200 * KIB);
        slow.push(begun(&world, &assigned.key, "/relay/commands/result", &body).await?);
    }
    files_are(before + 2).await?;
    drop(slow);
    files_are(before).await
}

#[tokio::test]
async fn of_a_body_without_a_known_key_only_the_beginning_is_read() -> Result<()> {
    let world = World::start().await?;
    let known = world.assign("m-1").await?;
    let large =
        json!({"relayId": "x", "capabilities": [], "credentials": [], "commandId": "x", "pushId": "x",
        "success": true, "pad": "x".repeat(2 * KIB)})
        .to_string();
    for path in ["/relay/commands/claim", "/relay/commands/result", "/relay/status", "/relay/config/ack"] {
        // They have not come to their end, and are answered.
        let (mut connection, _) = begun(&world, "sk_nobody", path, &large).await?;
        assert_eq!(said(&connection.answer().await?)?, says(401, r#"{"error":"Invalid API key"}"#), "{path}");
        let (mut connection, last) = begun(&world, &known.key, path, &large).await?;
        connection.send(&[last]).await?;
        let (status, text) = said(&connection.answer().await?)?;
        assert!(status == 200 || path.ends_with("claim"), "{path}: {status} {text}");
    }
    Ok(())
}
