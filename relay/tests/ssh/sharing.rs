//! Connections that are shared, kept, and given up.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use signalbox_relay::{
    keeper::{
        client::KeeperEvent,
        protocol::{Cause, Phase, StartRun},
    },
    ssh::route::Route,
};
use signalbox_schemas::{output::OutputStream::Stdout, ssh::SshFault};
use signalbox_testkit::{
    eventually_within,
    sshd::{FailingPeer, Sshd, Then},
};

use crate::harness::{PATIENCE, Room, cause, fault, hop_at, key, nothing_runs};

impl Room {
    /// Starts so many runs at once, and waits until all have succeeded.
    async fn run_all(&mut self, route: &Route, count: usize, command: &str) -> Result<()> {
        let mut open = BTreeSet::new();
        for _ in 0..count {
            let run = self.start_of(route, command);
            open.insert(run.cid);
            self.client.start(run).await?;
        }
        while !open.is_empty() {
            match self.event().await? {
                KeeperEvent::Status(status) if status.phase == Phase::Ended => {
                    ensure!(cause(&status)? == &Cause::Exited { code: 0 }, "{status:?}");
                    open.remove(&status.cid);
                }
                KeeperEvent::Status(_) | KeeperEvent::Started { .. } => {}
                other => anyhow::bail!("instead of a status: {other:?}"),
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn two_hundred_commands_at_once_find_their_channels() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start_with(&["MaxSessions 10"]).await?);
    let route = room.route(&sshd)?;
    room.run_all(&route, 200, "sleep 0.1; echo x").await?;
    let connections = sshd.connections()?;
    assert!((1..=4).contains(&connections), "{connections} connections");
    nothing_runs(&sshd).await
}

#[tokio::test]
async fn a_server_with_one_session_is_served_too() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start_with(&["MaxSessions 1"]).await?);
    let route = room.route(&sshd)?;
    room.run_all(&route, 20, "echo x").await?;
    assert!(sshd.connections()? <= 4);
    Ok(())
}

#[tokio::test]
async fn commands_share_one_connection_and_leave_nothing_on_it() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    // The first ones come at once, and share the handshake.
    room.run_all(&route, 8, "true").await?;
    // More than a server lets be open, so that none may be left.
    for _ in 0..25 {
        assert_eq!(room.print(&route, "echo x").await?, "x\n");
    }
    assert_eq!(sshd.connections()?, 1);
    for _ in 0..12 {
        let cancelled = room.start_of(&route, "sleep 60");
        let cid = room.start(cancelled).await?;
        room.status_when(|status| status.cid == cid && status.begun_at_ms.is_some()).await?;
        room.client.cancel(cid).await?;
        room.end_of(cid).await?;
    }
    assert_eq!(room.print(&route, "echo x").await?, "x\n");
    assert_eq!(sshd.connections()?, 1);
    nothing_runs(&sshd).await
}

#[tokio::test]
async fn who_is_cancelled_while_he_waits_leaves_no_session_open() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start_with(&["MaxSessions 4"]).await?);
    let way = FailingPeer::carrying(sshd.port(), u64::MAX, Then::Closes).await?;
    room.know(&sshd.known_as("host", way.port())?)?;
    let route = room.route_by(vec![hop_at(&sshd, way.port(), vec![key(&sshd, "user")?])]);
    assert_eq!(room.print(&route, "echo x").await?, "x\n");
    for _ in 0..40 {
        let run = room.start_of(&route, "echo x");
        let cid = room.start(run).await?;
        room.client.cancel(cid).await?;
        room.end_of(cid).await?;
    }
    assert_eq!(room.print(&route, "echo x").await?, "x\n");
    assert_eq!(way.accepted(), 1, "sessions are left open on the first connection");
    nothing_runs(&sshd).await
}

#[tokio::test]
async fn a_server_that_opens_no_session_is_said_to() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start_with(&["MaxSessions 0"]).await?);
    let route = room.route(&sshd)?;
    let said = room.fails(&route, SshFault::ChannelRefused).await?;
    assert!(said.contains("MaxSessions"), "{said}");
    Ok(())
}

/// Many logins in a row are what a host locks somebody out for.
#[tokio::test]
async fn a_server_that_opens_no_session_is_not_logged_in_to_for_each_command() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start_with(&["MaxSessions 0"]).await?);
    let way = FailingPeer::carrying(sshd.port(), u64::MAX, Then::Closes).await?;
    room.know(&sshd.known_as("host", way.port())?)?;
    let route = room.route_by(vec![hop_at(&sshd, way.port(), vec![key(&sshd, "user")?])]);
    let mut open = BTreeSet::new();
    for _ in 0..40 {
        let run = room.start_of(&route, "echo x");
        open.insert(run.cid);
        room.client.start(run).await?;
    }
    while !open.is_empty() {
        let status = room.status_when(|status| status.phase == Phase::Ended).await?;
        assert_eq!(fault(&status)?.code, SshFault::ChannelRefused.as_str(), "{status:?}");
        open.remove(&status.cid);
    }
    assert!(way.accepted() <= 2, "{} logins", way.accepted());
    Ok(())
}

#[tokio::test]
async fn a_credential_that_was_replaced_gets_a_connection_of_its_own() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let old = room.route(&sshd)?;
    assert_eq!(room.print(&old, "echo old").await?, "old\n");
    sshd.keygen("new", &["-t", "ed25519", "-N", ""])?;
    sshd.authorize_only("new")?;
    let mut new = old.clone();
    new.hops[0].ways = vec![key(&sshd, "new")?];
    assert_eq!(room.print(&new, "echo new").await?, "new\n");
    assert_eq!(sshd.connections()?, 2);
    new.hops[0].ways = vec![key(&sshd, "ca")?];
    room.fails(&new, SshFault::AuthFailed).await?;
    Ok(())
}

#[tokio::test]
async fn a_connection_that_died_while_nobody_used_it_is_made_again() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let way = FailingPeer::carrying(sshd.port(), u64::MAX, Then::Closes).await?;
    room.know(&sshd.known_as("host", way.port())?)?;
    let route = room.route_by(vec![hop_at(&sshd, way.port(), vec![key(&sshd, "user")?])]);
    for _ in 0..5 {
        assert_eq!(room.print(&route, "echo x").await?, "x\n");
        way.cut();
        eventually_within("the server has heard of it", PATIENCE, || async {
            ensure!(sshd.connections()? == 0, "it is there");
            Ok(())
        })
        .await?;
        way.mend();
    }
    Ok(())
}

/// Nothing is heard of a connection whose other side has gone silently: it is given up when no channel can be opened on it.
#[tokio::test]
async fn a_connection_that_hangs_is_made_again_before_anything_was_said() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    assert_eq!(room.print(&route, "echo x").await?, "x\n");
    sshd.signal_connections(Signal::STOP)?;
    let printed = room.print(&route, "echo x").await;
    sshd.signal_connections(Signal::CONT)?;
    assert_eq!(printed?, "x\n");
    Ok(())
}

#[tokio::test]
async fn a_connection_that_breaks_while_a_command_runs_is_not_made_again_for_it() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let way = FailingPeer::carrying(sshd.port(), u64::MAX, Then::Closes).await?;
    room.know(&sshd.known_as("host", way.port())?)?;
    let route = room.route_by(vec![hop_at(&sshd, way.port(), vec![key(&sshd, "user")?])]);
    let count = sshd.path("count");
    let run = room.start_of(&route, &format!("echo x >> {}; echo begun; sleep 60", count.display()));
    let cid = room.start(run).await?;
    room.status_when(|status| status.cid == cid && status.stdout.kept == 6).await?;
    way.cut();
    let status = room.end_of(cid).await?;
    assert_eq!(fault(&status)?.code, SshFault::ConnectionLost.as_str());
    assert!(!status.end.as_ref().unwrap().group_dead);
    assert_eq!(room.text(&status, Stdout)?, "begun\n");
    way.mend();
    assert_eq!(room.print(&route, "echo next").await?, "next\n");
    assert_eq!(sshd.text("count")?, "x\n");
    Ok(())
}

#[tokio::test]
async fn a_route_that_is_none_is_refused() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let mut route = room.route(&sshd)?;
    route.hops.clear();
    let run: StartRun = room.start_of(&route, "true");
    room.client.start(run).await?;
    assert!(matches!(room.event().await?, KeeperEvent::Refused { .. }));
    Ok(())
}
