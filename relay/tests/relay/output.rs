//! Output: at once, byte-exact, bounded.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use signalbox_relay::keeper::client::KeeperClient;
use signalbox_schemas::{
    id::Sha256,
    limit::INLINE_OUTPUT_BYTES,
    output::OutputStream,
    run::{Claim, ExitState},
    subject::FactKind,
};
use signalbox_testkit::{
    eventually,
    slow_link::{SlowLink, Slowness},
};

use crate::harness::{self, Fleet, Machine};

#[tokio::test]
async fn output_that_flows_is_shown_at_once() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let gate = machine.file("gate");
    let script = format!("echo a; until [ -e {} ]; do sleep 0.02; done; echo b", gate.display());
    let (cid, offer) = fleet.command(&machine, &script)?;
    fleet.offer(&machine, &[offer]).await?;
    eventually("the first line while it runs", || async {
        let output = fleet.output(&machine, cid, OutputStream::Stdout).await?;
        ensure!(output.whole()? == b"a\n");
        Ok(())
    })
    .await?;
    fs::write(&gate, "")?;
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!((exit.state, exit.chunks, exit.inline), (ExitState::Completed, 2, None));
    let output = fleet.output(&machine, cid, OutputStream::Stdout).await?;
    assert_eq!(output.whole()?, b"a\nb\n");
    Ok(())
}

#[tokio::test]
async fn output_beyond_its_limit_is_cut_and_its_tail_is_there() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let log = machine.file("log");
    let script = format!("head -c 6000000 /dev/urandom | tee {}", log.display());
    let (cid, offer) = fleet.command_with(&machine, &script, |spec| spec.max_output = 1_000_000)?;
    fleet.offer(&machine, &[offer]).await?;
    let exit = fleet.exit(&machine, cid).await?;
    let written = fs::read(&log)?;
    assert!(exit.stdout.truncated);
    assert_eq!((exit.stdout.bytes, exit.stdout.sha256), (6_000_000, Sha256::of(&written)));
    let output = fleet.output(&machine, cid, OutputStream::Stdout).await?;
    assert_eq!(output.cut_at, Some(1_000_000));
    assert!(output.whole()? == written[..1_000_000]);
    let (mut end, mut tail) = (6_000_000_u64, 0);
    for (offset, body, sha256) in output.chunks.iter().rev().take_while(|(offset, ..)| *offset > 1_000_000) {
        assert_eq!(offset + body.len() as u64, end);
        assert!(sha256.is_none() && written[usize::try_from(*offset)?..usize::try_from(end)?] == body[..]);
        end = *offset;
        tail += body.len();
    }
    assert!(tail >= 512 * 1024, "a tail of {tail} bytes");
    Ok(())
}

#[tokio::test]
async fn a_hundred_mebibytes_arrive_byte_exact_in_little_memory() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let log = machine.file("log");
    let script = format!("head -c 104857600 /dev/urandom | tee {}", log.display());
    let (cid, offer) = fleet.command(&machine, &script)?;
    fleet.offer(&machine, &[offer]).await?;
    let exit = fleet.exit_within(&machine, cid, Duration::from_secs(90)).await?;
    assert_eq!((exit.state, exit.stdout.truncated), (ExitState::Completed, false));
    let written = fs::read(&log)?;
    assert_eq!((exit.stdout.bytes, exit.stdout.sha256), (100 << 20, Sha256::of(&written)));
    let output = fleet.output(&machine, cid, OutputStream::Stdout).await?;
    let whole: Vec<u8> = output.chunks.iter().flat_map(|(_, body, _)| body.iter().copied()).collect();
    assert!(whole == written, "{} chunks of other bytes", output.chunks.len());
    let peak = relay.peak_bytes()?;
    assert!(peak <= 32 << 20, "the relay took {} KiB", peak / 1024);
    Ok(())
}

#[tokio::test]
async fn small_output_travels_in_the_exit_and_more_does_not() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    let (much, offer) = fleet.command(&machine, &format!("head -c {} /dev/zero", INLINE_OUTPUT_BYTES + 1))?;
    let (binary, other) = fleet.command(&machine, "printf '\\000\\377\\376'")?;
    fleet.offer(&machine, &[offer, other]).await?;
    let exit = fleet.exit(&machine, much).await?;
    assert!(exit.inline.is_none() && exit.chunks > 0, "{} chunks", exit.chunks);
    let exit = fleet.exit(&machine, binary).await?;
    let sent = fleet.output(&machine, binary, OutputStream::Stdout).await?.whole()?;
    let inline = exit.inline.map(|inline| inline.stdout.0).unwrap_or_default();
    assert_eq!([sent, inline].concat(), b"\0\xff\xfe");
    Ok(())
}

/// A chunk whose acknowledgement a killed relay did not see, of a run whose output would fit into the exit.
#[tokio::test]
async fn after_a_restart_no_byte_comes_twice() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let (print, end) = (machine.file("print"), machine.file("end"));
    let wait_for = |gate: &std::path::Path| format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    let script = format!("{}; echo a; {}; echo b", wait_for(&print), wait_for(&end));
    let (cid, offer) = fleet.command(&machine, &script)?;
    fleet.offer(&machine, &[offer]).await?;
    eventually("the claim", || async {
        fleet.fact::<Claim>(&machine, cid, FactKind::Claim).await?.context("no claim")
    })
    .await?;
    let journal = machine.store().join("journal");
    fleet.broker.stop()?;
    fs::write(&print, "")?;
    eventually("the chunk is about to be sent", || async {
        ensure!(fs::read_to_string(&journal)?.contains(r#""e":"chunk""#));
        Ok(())
    })
    .await?;
    relay.kill().await?;
    fs::write(&end, "")?;
    let (client, _) = KeeperClient::connect(&machine.store()).await?;
    eventually("the whole output", || async {
        ensure!(client.read_spool(cid, OutputStream::Stdout, 0, 9)?.len() == 4);
        Ok(())
    })
    .await?;
    fleet.broker.cont()?;
    let _next = machine.start(&fleet).await?;
    let exit = fleet.exit(&machine, cid).await?;
    let sent = fleet.output(&machine, cid, OutputStream::Stdout).await?.whole()?;
    let inline = exit.inline.map(|inline| inline.stdout.0).unwrap_or_default();
    assert_eq!([sent, inline].concat(), b"a\nb\n");
    assert!(exit.chunks > 0, "the exit does not tell of its chunks");
    Ok(())
}

#[tokio::test]
async fn output_that_cannot_be_read_back_is_reported_as_left_out() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let _relay = machine.start(&fleet).await?;
    // Once the spool's file is gone, what follows is written to nowhere; the other stream is not concerned.
    let script = "printf abc; until rm \"$SIGNALBOX_STORE/spool/$SIGNALBOX_RUN.out\" 2>/dev/null; do :; done; \
        printf def; printf x >&2";
    let (cid, offer) = fleet.command(&machine, script)?;
    fleet.offer(&machine, &[offer]).await?;
    let exit = fleet.exit(&machine, cid).await?;
    assert_eq!((exit.state, exit.stdout.bytes), (ExitState::Completed, 6));
    assert!(exit.stdout.truncated, "bytes are missing, and the exit does not say so");
    assert_eq!(exit.stdout.sha256, Sha256::of(b"abcdef"));
    let sent = fleet.output(&machine, cid, OutputStream::Stdout).await?;
    let errors = fleet.output(&machine, cid, OutputStream::Stderr).await?;
    assert_eq!(exit.chunks, (sent.chunks.len() + errors.chunks.len()) as u64, "it counts what is not there");
    Ok(())
}

#[tokio::test]
async fn over_a_slow_link_output_arrives_and_hardly_anything_goes_twice() -> Result<()> {
    let fleet = Fleet::start().await?;
    // A modem by satellite: 80 KiB take five seconds, an exit with its output three.
    let slowness = Slowness { rate: 16_000, delay: Duration::from_millis(400) };
    let link = SlowLink::to(fleet.broker.port(), slowness).await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let url = format!("nats://127.0.0.1:{}", link.port());
    let _relay = machine.spawn(&url, &machine.store(), &[])?.ready().await?;
    let script = format!("head -c {} /dev/urandom | base64 -w0", 60 * 1024);
    let (large, offer) = fleet.command(&machine, &script)?;
    let script = format!("head -c {INLINE_OUTPUT_BYTES} /dev/urandom");
    let (inline, other) = fleet.command(&machine, &script)?;
    fleet.offer(&machine, &[offer, other]).await?;
    let before = link.carried_bytes();
    for cid in [inline, large] {
        let exit = fleet.exit_within(&machine, cid, Duration::from_mins(1)).await?;
        let sent = fleet.output(&machine, cid, OutputStream::Stdout).await?;
        let inline = exit.inline.map(|inline| inline.stdout.0).unwrap_or_default();
        let whole = [sent.whole()?, inline].concat();
        assert_eq!(exit.stdout.sha256, Sha256::of(&whole), "{} bytes", whole.len());
    }
    // 80 KiB, and 43 KiB with their encoding: hardly anything went twice.
    let carried = link.carried_bytes() - before;
    assert!(carried < 200 * 1024, "{carried} bytes");
    Ok(())
}

#[tokio::test]
async fn output_that_nobody_needs_any_more_leaves_the_spool() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    relay.stop().await?;
    // Of a run whose end was reported while there was no keeper to be told.
    let spool = machine.store().join("spool");
    for name in ["out", "err", "out.tail"] {
        fs::write(spool.join(format!("{}.{name}", harness::new_cid())), [0; 10])?;
    }
    let _relay = machine.start(&fleet).await?;
    eventually("the spool is empty", || async {
        ensure!(fs::read_dir(&spool)?.next().is_none());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_a_lost_run_had_printed_is_brought_out_and_counted() -> Result<()> {
    let fleet = Fleet::start().await?;
    let machine = Machine::new(&fleet, "web-1")?;
    let relay = machine.start(&fleet).await?;
    let (gate, log) = (machine.file("gate"), machine.file("log"));
    let script = format!(
        "until [ -e {} ]; do sleep 0.02; done; head -c 300000 /dev/urandom | tee {}; echo err >&2; sleep 300",
        gate.display(),
        log.display()
    );
    let (cid, offer) = fleet.command(&machine, &script)?;
    fleet.offer(&machine, &[offer]).await?;
    eventually("the claim", || async {
        fleet.fact::<Claim>(&machine, cid, FactKind::Claim).await?.context("no claim")
    })
    .await?;
    // All of it waits when both die.
    fleet.broker.stop()?;
    fs::write(&gate, "")?;
    let (client, _) = KeeperClient::connect(&machine.store()).await?;
    eventually("the whole output", || async {
        ensure!(client.read_spool(cid, OutputStream::Stdout, 0, 400_000)?.len() == 300_000);
        ensure!(client.read_spool(cid, OutputStream::Stderr, 0, 9)?.len() == 4);
        Ok(())
    })
    .await?;
    relay.kill().await?;
    relay.kill_keeper().await?;
    fleet.broker.cont()?;
    let _next = machine.start(&fleet).await?;
    let lost = fleet.lost(&machine, cid).await?;
    assert_eq!(lost.known_bytes, [300_000, 4]);
    let sent = fleet.output(&machine, cid, OutputStream::Stdout).await?.whole()?;
    assert!(sent == fs::read(&log)?, "{} bytes were sent", sent.len());
    assert_eq!(fleet.output(&machine, cid, OutputStream::Stderr).await?.whole()?, b"err\n");
    Ok(())
}
