//! Hosts that fail at every moment.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use signalbox_relay::keeper::protocol::{Cause, StartRun};
use signalbox_schemas::{host::HostPattern, output::OutputStream::Stdout, ssh::SshFault};
use signalbox_testkit::{
    eventually_within,
    sshd::{FailingPeer, Sshd, Then, run},
};
use tokio::time::timeout;

use crate::harness::{PATIENCE, Room, cause, end, fault, hop_at, key};

/// Bytes from the server until it is in the middle of exchanging keys.
const IN_KEX: u64 = 600;
/// A host that says nothing is given up within a minute: this is twice that.
const SILENCE: Duration = Duration::from_mins(2);

async fn fails_at(then: Then, bytes: u64, code: SshFault) -> Result<String> {
    let sshd = Sshd::start().await?;
    let way = FailingPeer::carrying(sshd.port(), bytes, then).await?;
    failing(&sshd, &way, code).await
}

async fn failing(sshd: &Sshd, peer: &FailingPeer, code: SshFault) -> Result<String> {
    let mut room = Room::open().await?;
    room.know(&sshd.known_as("host", peer.port())?)?;
    let route = room.route_by(vec![hop_at(sshd, peer.port(), vec![key(sshd, "user")?])]);
    let began = Instant::now();
    let said = room.fails(&route, code).await?;
    ensure!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    Ok(said)
}

/// What a server says until it refuses a login is of the same size each time: the last of it is that refusal.
async fn hangs_at_login() -> Result<String> {
    let sshd = Sshd::start().await?;
    sshd.authorize_only("ca")?;
    let whole = FailingPeer::carrying(sshd.port(), u64::MAX, Then::Hangs).await?;
    failing(&sshd, &whole, SshFault::AuthFailed).await?;
    let part = FailingPeer::carrying(sshd.port(), whole.carried_bytes() - 8, Then::Hangs).await?;
    failing(&sshd, &part, SshFault::Timeout).await
}

async fn says(text: &'static str, then: Then, code: SshFault) -> Result<String> {
    let sshd = Sshd::start().await?;
    let peer = FailingPeer::saying(text, then).await?;
    failing(&sshd, &peer, code).await
}

#[tokio::test]
async fn a_host_that_hangs_is_given_up_at_every_stage() -> Result<()> {
    let (silent, greeted, in_kex, later) = tokio::join!(
        says("", Then::Hangs, SshFault::Timeout),
        says("SSH-2.0-OpenSSH_9.2\r\n", Then::Hangs, SshFault::Timeout),
        fails_at(Then::Hangs, IN_KEX, SshFault::Timeout),
        hangs_at_login(),
    );
    for said in [silent?, greeted?, in_kex?] {
        assert!(said.contains("the handshake within 10 s"), "{said}");
    }
    let said = later?;
    assert!(said.contains("the login within 20 s"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_closes_is_said_to() -> Result<()> {
    let said = says("", Then::Closes, SshFault::Protocol).await?;
    assert!(said.contains("closed the connection"), "{said}");
    fails_at(Then::Closes, IN_KEX, SshFault::Protocol).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_no_ssh_server_is_said_to_be_none() -> Result<()> {
    let said = says("HTTP/1.1 400 Bad Request\r\n", Then::Closes, SshFault::Protocol).await?;
    assert!(said.contains("closed") || said.contains("greet"), "{said}");
    let text: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    let said = says(text, Then::Hangs, SshFault::Protocol).await?;
    assert!(said.contains("does not greet"), "{said}");
    Ok(())
}

#[tokio::test]
async fn where_nobody_listens_and_what_has_no_address_is_told_apart() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let mut route = room.route(&sshd)?;
    route.hops[0].port = 1;
    let said = room.fails(&route, SshFault::Refused).await?;
    assert!(said.contains("127.0.0.1:1"), "{said}");
    route.hops[0].host = "nowhere.invalid".into();
    let said = room.fails(&route, SshFault::Dns).await?;
    assert!(said.contains("nowhere.invalid"), "{said}");
    Ok(())
}

/// The system itself knows no way to an address of many.
#[tokio::test]
async fn a_host_to_which_nothing_leads_is_said_to_be_unreachable() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let mut route = room.route(&sshd)?;
    route.hops[0].host = "224.0.0.1".into();
    route.targets = Some(vec![HostPattern::of("224.0.0.1", None)?]);
    let said = room.fails(&route, SshFault::Unreachable).await?;
    assert!(said.contains("224.0.0.1") && said.contains("does a route lead there"), "{said}");
    Ok(())
}

/// Nothing ends the connection: that nobody is there is noticed by what is asked in the silence, three times.
#[tokio::test]
async fn a_host_that_falls_silent_in_mid_output_is_given_up() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let way = FailingPeer::carrying(sshd.port(), 1024 * 1024, Then::Hangs).await?;
    room.know(&sshd.known_as("host", way.port())?)?;
    let route = room.route_by(vec![hop_at(&sshd, way.port(), vec![key(&sshd, "user")?])]);
    let run = StartRun { timeout_ms: 600_000, ..room.start_of(&route, "head -c 100000000 /dev/zero") };
    let cid = room.start(run).await?;
    let status = timeout(SILENCE, async {
        // The keeper says something now and then, and each word is waited for a minute.
        loop {
            if let Ok(status) = room.end_of(cid).await {
                return status;
            }
        }
    })
    .await
    .context("the run is held")?;
    let fault = fault(&status)?;
    assert_eq!(fault.code, SshFault::ConnectionLost.as_str());
    assert!(fault.message.contains("is not known"), "{fault:?}");
    assert!(!end(&status)?.group_dead);
    let kept = room.output(status.cid, Stdout)?;
    assert!((900_000..1_048_576).contains(&kept.len()), "{} bytes", kept.len());
    assert_eq!(kept.len() as u64, status.stdout.bytes);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_breaks_in_mid_output_keeps_what_came() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let way = FailingPeer::carrying(sshd.port(), 1024 * 1024, Then::Closes).await?;
    room.know(&sshd.known_as("host", way.port())?)?;
    let route = room.route_by(vec![hop_at(&sshd, way.port(), vec![key(&sshd, "user")?])]);
    let status = room.run(&route, "head -c 100000000 /dev/zero").await?;
    assert_eq!(fault(&status)?.code, SshFault::ConnectionLost.as_str());
    assert!(!end(&status)?.group_dead);
    let kept = room.output(status.cid, Stdout)?;
    assert!((900_000..1_048_576).contains(&kept.len()), "{} bytes", kept.len());
    assert_eq!(kept.len() as u64, status.stdout.bytes);
    Ok(())
}

#[tokio::test]
async fn who_is_cancelled_or_late_while_a_host_hangs_ends_at_once() -> Result<()> {
    let sshd = Sshd::start().await?;
    let peer = FailingPeer::saying("", Then::Hangs).await?;
    let mut room = Room::open().await?;
    let route = room.route_by(vec![hop_at(&sshd, peer.port(), vec![key(&sshd, "user")?])]);
    let (run, began) = (room.start_of(&route, "true"), Instant::now());
    let cid = room.start(run).await?;
    room.client.cancel(cid).await?;
    let status = room.end_of(cid).await?;
    assert_eq!(cause(&status)?, &Cause::Cancelled { shell: None });
    assert!(end(&status)?.group_dead, "nothing ran");
    let run = StartRun { timeout_ms: 300, ..room.start_of(&route, "true") };
    let status = room.run_as(run).await?;
    assert_eq!(cause(&status)?, &Cause::Timeout { shell: None });
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    Ok(())
}

/// Whatever hangs there, the keeper ends: a disk, or here a pipe in place of a file.
#[tokio::test]
async fn a_keeper_that_is_told_to_end_waits_for_nothing_that_hangs() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route_by(vec![hop_at(&sshd, sshd.port(), vec![key(&sshd, "user")?])]);
    run(Command::new("mkfifo").arg(room.path("known_hosts")))?;
    let hanging = room.start_of(&route, "true");
    room.start(hanging).await?;
    // It hangs once the host has been dialled.
    eventually_within("the host is dialled", PATIENCE, || async {
        ensure!(sshd.connections()? > 0, "nobody came");
        Ok(())
    })
    .await?;
    room.client.shutdown().await?;
    let stat = format!("/proc/{}/stat", room.welcome.pid);
    eventually_within("the keeper is gone", Duration::from_secs(15), || async {
        let state = fs::read_to_string(&stat).unwrap_or_default();
        // One that nobody has waited for yet is gone all the same.
        ensure!(state.is_empty() || state.contains(") Z "), "it is there: {state}");
        Ok(())
    })
    .await
}
