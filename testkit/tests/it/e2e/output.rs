//! Much output: byte-exact, cut where it must be, and never more memory than promised.

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use signalbox_testkit::{
    http::run_on,
    stack::{Options, Stack},
};

const MIB: usize = 1024 * 1024;

/// Peak resident memory of a process, bytes.
fn peak_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// A command that writes `mib` MiB of noise and leaves the same bytes in `path`.
fn noise(mib: usize, path: &std::path::Path) -> String {
    format!("head -c {} /dev/urandom | tee {}", mib * MIB, path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_mebibytes_arrive_byte_exact() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("noise");
    let id = stack.http().submit("demo-1", &noise(100, &path)).await?;
    let command = stack.http().settled(&id).await?;
    let run = run_on(&command, "demo-1")?;
    assert_eq!(run["state"], "completed", "{run}");
    assert_eq!(run["stdout"]["bytes"], 100 * MIB);
    assert_eq!(run["stdout"]["truncated"], false);
    let expected = std::fs::read(&path)?;
    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&expected));
    assert_eq!(run["stdout"]["sha256"], sha256);
    assert!(stack.http().output(&id, "demo-1", "stdout").await? == expected, "the bytes differ");
    // A debug build is fatter than what users run; the promise of 32 MiB is measured on a release build.
    let machine = stack.machine(0)?;
    for (name, pid) in [("relay", machine.pid), ("keeper", machine.keeper_pid)] {
        let peak = peak_bytes(pid)?;
        assert!(peak < 64 * MIB as u64, "{name} took {peak} bytes");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_cut_at_its_limit_and_counted_whole() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("noise");
    let body = json!({"on": "demo-1", "command": noise(30, &path), "max_output": 10 * MIB});
    let id = stack.http().submit_with(&body).await?;
    let command = stack.http().settled(&id).await?;
    let run = run_on(&command, "demo-1")?;
    let expected = std::fs::read(&path)?;
    assert_eq!(run["state"], "completed");
    assert_eq!(run["stdout"]["bytes"], 30 * MIB);
    assert_eq!(run["stdout"]["truncated"], true);
    assert_eq!(run["stdout"]["sha256"], data_encoding::HEXLOWER.encode(&Sha256::digest(&expected)));
    let read = |offset: usize, limit: usize| {
        let path = format!("/api/v1/commands/{id}/output?machine=demo-1&stream=stdout");
        let http = stack.http().clone();
        async move { http.get(&format!("{path}&offset={offset}&limit={limit}")).await }
    };
    // The head, from the first byte.
    let head = read(0, MIB).await?;
    assert_eq!(head.header("signalbox-truncated"), Some("true"));
    assert!(head.body == expected[..head.body.len()] && !head.body.is_empty());
    let end_of_head = read(9 * MIB, MIB).await?;
    assert!(end_of_head.body == expected[9 * MIB..9 * MIB + end_of_head.body.len()]);
    // The tail, to the last byte.
    let from = 30 * MIB - 64 * 1024;
    let tail = read(from, MIB).await?;
    assert!(tail.body == expected[from..], "the tail has {} bytes", tail.body.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_output_is_ended_by_its_timeout() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let body = json!({"on": "demo-1", "command": "yes", "timeout_ms": 2000, "max_output": MIB});
    let id = stack.http().submit_with(&body).await?;
    let command = stack.http().settled(&id).await?;
    let run = run_on(&command, "demo-1")?;
    assert_eq!(run["state"], "timeout");
    assert_eq!(run["stdout"]["truncated"], true);
    assert!(run["stdout"]["bytes"].as_u64().context("no bytes")? > MIB as u64);
    Ok(())
}
