//! A server of yesterday: it knows no strict key exchange. OpenSSH cannot be told to forget it.

use anyhow::{Context as _, Result};
use signalbox_relay::ssh::route::SetBy;
use signalbox_schemas::ssh::SshFault;
use signalbox_testkit::sshd::Sshd;

use crate::{
    harness::{Room, hop_at, key},
    peer::{Peer, Trick},
};

#[tokio::test]
async fn a_server_without_strict_key_exchange_is_spoken_to_only_where_that_is_allowed() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let peer = Peer::start(&room, &sshd, Trick::Obeys, false).await?;
    let mut route = room.route_by(vec![hop_at(&sshd, peer.port(), vec![key(&sshd, "user")?])]);
    let said = room.fails(&route, SshFault::AlgorithmMismatch).await?;
    assert!(said.contains("strict key exchange") && said.contains("allow_non_strict"), "{said}");
    route.set_by = SetBy::Center;
    let said = room.fails(&route, SshFault::AlgorithmMismatch).await?;
    assert!(said.contains("renew it") && !said.contains("relay.toml"), "{said}");
    route.hops.first_mut().context("no hop")?.allow_non_strict = true;
    room.print(&route, "true").await?;
    Ok(())
}

#[tokio::test]
async fn a_server_with_algorithms_of_yesterday_alone_is_refused() -> Result<()> {
    let sshd = Sshd::start_with(&["Ciphers aes256-cbc", "MACs hmac-sha1"]).await?;
    let mut room = Room::open().await?;
    let mut route = room.route(&sshd)?;
    let said = room.fails(&route, SshFault::AlgorithmMismatch).await?;
    assert!(said.contains("aes256-cbc") && said.contains("allow_non_strict"), "{said}");
    route.set_by = SetBy::Center;
    let said = room.fails(&route, SshFault::AlgorithmMismatch).await?;
    assert!(said.contains("aes256-cbc") && !said.contains("relay.toml"), "{said}");
    route.hops.first_mut().context("no hop")?.allow_non_strict = true;
    assert_eq!(room.print(&route, "echo in").await?, "in\n");
    Ok(())
}
