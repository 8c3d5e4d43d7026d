//! Hosts that let the login in, and break the rules then.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rstest::rstest;
use signalbox_relay::{
    keeper::protocol::{Cause, StartRun},
    ssh::route::Route,
};
use signalbox_schemas::{
    output::OutputStream::{Stderr, Stdout},
    ssh::SshFault,
};
use signalbox_testkit::sshd::Sshd;
use tokio::time::timeout;

use crate::{
    harness::{MIB, PATIENCE, Room, cause, end, fault, hop_at, key},
    peer::{LATE, Peer, Trick},
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

#[rstest]
#[case::the_timeout_ends_it(2_000, false)]
#[case::a_cancel_does(120_000, true)]
#[tokio::test]
async fn a_host_that_never_answers_what_is_to_be_run_does_not_hold_the_run(
    #[case] timeout_ms: u64,
    #[case] is_cancelled: bool,
) -> Result<()> {
    let (mut room, peer, route) = met(Trick::NeverAnswers).await?;
    let run = StartRun { timeout_ms, ..room.start_of(&route, "true") };
    let cid = room.start(run).await?;
    peer.is_asked().await?;
    if is_cancelled {
        room.client.cancel(cid).await?;
    }
    let status = timeout(PATIENCE, room.end_of(cid)).await.context("the run is held")??;
    let expected =
        if is_cancelled { Cause::Cancelled { shell: None } } else { Cause::Timeout { shell: None } };
    assert_eq!(cause(&status)?, &expected);
    assert_eq!(status.begun_at_ms, None, "nobody has said that it began");
    let fault = end(&status)?.fault.as_ref().context("it is taken for ended")?;
    assert_eq!(fault.code, SshFault::NotConfirmed.as_str());
    assert!(fault.message.contains("had not said either that it took the command"), "{fault:?}");
    assert!(!end(&status)?.group_dead, "{status:?}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_does_not_say_how_a_command_ended_is_said_not_to() -> Result<()> {
    let (mut room, _peer, route) = met(Trick::EndsUnsaid).await?;
    let status = room.run(&route, "true").await?;
    assert_eq!(fault(&status)?.code, SshFault::ExitStatus.as_str());
    assert!(!end(&status)?.group_dead, "it may go on there: {status:?}");
    assert_eq!(room.text(&status, Stdout)?, "half a line");
    Ok(())
}

#[tokio::test]
async fn a_number_that_is_no_exit_code_is_not_cut_to_one() -> Result<()> {
    let (mut room, _peer, route) = met(Trick::EndsWithNoCode).await?;
    let status = room.run(&route, "true").await?;
    assert_eq!(fault(&status)?.code, SshFault::ExitStatus.as_str());
    assert!(fault(&status)?.message.contains("256"), "{status:?}");
    assert!(end(&status)?.group_dead, "the host said that it ended: {status:?}");
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

/// The word of the end overtakes what lies in the buffers of a host behind a slow link.
#[rstest]
#[case::piece_by_piece(Trick::PrintsLate)]
#[case::when_the_link_moves_again(Trick::StandsStill)]
#[tokio::test]
async fn what_still_comes_when_the_command_has_ended_comes_whole(#[case] trick: Trick) -> Result<()> {
    let (mut room, _peer, route) = met(trick).await?;
    let status = room.run(&route, "true").await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
    assert_eq!(room.text(&status, Stdout)?, LATE.concat());
    assert!(!status.stdout.truncated, "{status:?}");
    Ok(())
}

#[tokio::test]
async fn what_prints_without_end_when_the_command_has_ended_is_left_and_that_is_said() -> Result<()> {
    let forever = Trick::PrintsForever(32 * 1024, Duration::from_millis(1));
    let (mut room, _peer, route) = met(forever).await?;
    let run = room.run(&route, "true");
    let status = timeout(PATIENCE, run).await.context("the run is held")??;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
    assert!(status.stdout.truncated && !status.stderr.truncated, "{status:?}");
    // More than a host buffers, and not much more.
    assert!((8 * MIB..32 * MIB).contains(&status.stdout.bytes), "{status:?}");
    assert_eq!(room.output(status.cid, Stdout)?.len() as u64, status.stdout.bytes);
    Ok(())
}

#[tokio::test]
async fn who_cancels_while_the_rest_comes_waits_for_no_more_of_it() -> Result<()> {
    let trickle = Trick::PrintsForever(1024, Duration::from_millis(50));
    let (mut room, _peer, route) = met(trickle).await?;
    let run = room.start_of(&route, "true");
    let cid = room.start(run).await?;
    // Longer than any host that does not print is waited for.
    room.status_when(|status| status.cid == cid && status.stdout.bytes > 30 * 1024).await?;
    room.client.cancel(cid).await?;
    let status = timeout(PATIENCE, room.end_of(cid)).await.context("the run is held")??;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
    assert!(status.stdout.truncated, "{status:?}");
    Ok(())
}

#[tokio::test]
async fn a_connection_that_breaks_while_the_rest_comes_leaves_it_unknown() -> Result<()> {
    let (mut room, _peer, route) = met(Trick::Breaks).await?;
    let status = room.run(&route, "true").await?;
    assert_eq!(cause(&status)?, &Cause::Exited { code: 0 });
    assert_eq!(
        (room.text(&status, Stdout)?, room.text(&status, Stderr)?),
        ("some of it".into(), String::new())
    );
    assert!(status.stdout.truncated && status.stderr.truncated, "{status:?}");
    Ok(())
}
