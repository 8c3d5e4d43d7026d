//! Hosts that let the login in, and break the rules then.

use std::time::Duration;

use anyhow::{Context as _, Result};
use signalbox_relay::{
    keeper::protocol::{Cause, StartRun},
    ssh::route::Route,
};
use signalbox_testkit::sshd::Sshd;
use tokio::time::timeout;

use crate::{
    harness::{Room, cause, end, hop_at, key},
    peer::{Peer, Trick},
};

/// A room with a server that plays a trick, and the way to it.
async fn met(trick: Trick) -> Result<(Room, Peer, Route)> {
    let (room, sshd) = (Room::open().await?, Sshd::start().await?);
    let peer = Peer::start(&room, &sshd, trick, true).await?;
    let route = room.route_by(vec![hop_at(&sshd, peer.port(), vec![key(&sshd, "user")?])]);
    Ok((room, peer, route))
}

#[tokio::test]
async fn a_host_that_says_again_and_again_how_a_command_ended_is_believed_once() -> Result<()> {
    let (mut room, _peer, route) = met(Trick::EndsAgainAndAgain).await?;
    let run = room.run(&route, "true");
    let status = timeout(Duration::from_secs(15), run).await.context("the run is held")??;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 7 });
    Ok(())
}

#[tokio::test]
async fn a_host_opens_no_channels_towards_the_relay() -> Result<()> {
    let (mut room, _peer, route) = met(Trick::OpensChannels).await?;
    assert_eq!(room.print(&route, "true").await?, "opened: \n");
    Ok(())
}

#[tokio::test]
async fn what_holds_a_pipe_beyond_the_timeout_does_not_hold_the_run() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    let run = StartRun { await_pipes: true, timeout_ms: 1_500, ..room.start_of(&route, "sleep 40 & exit 3") };
    let run = room.run_as(run);
    let status = timeout(Duration::from_secs(15), run).await.context("the run is held")??;
    let Cause::Timeout { shell: Some(shell) } = cause(&status)? else { panic!("no timeout: {status:?}") };
    assert_eq!(Cause::from(shell.clone()), Cause::Exited { code: 3 });
    assert!(end(&status)?.group_dead, "the command had ended: {status:?}");
    Ok(())
}
