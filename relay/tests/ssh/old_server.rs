//! A server of yesterday: it knows no strict key exchange. OpenSSH cannot be told to forget it.

use std::{borrow::Cow, sync::Arc};

use anyhow::{Context as _, Result};
use russh::{
    Channel, ChannelId, Preferred, kex,
    keys::PrivateKey,
    server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream},
};
use signalbox_schemas::ssh::SshFault;
use signalbox_testkit::sshd::Sshd;
use tokio::{net::TcpListener, task::JoinSet};

use crate::harness::{Room, hop_at, key};

/// Lets everybody in and ends each command with 0.
struct Yes;

impl Handler for Yes {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        _text: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(id)?;
        session.exit_status_request(id, 0)?;
        session.close(id)
    }
}

async fn serve(listener: TcpListener, host_key: PrivateKey) {
    let kexes = [kex::CURVE25519, kex::EXTENSION_SUPPORT_AS_SERVER];
    let preferred = Preferred { kex: Cow::Owned(kexes.to_vec()), ..Preferred::DEFAULT };
    let config = Arc::new(Config { keys: vec![host_key], preferred, ..Config::default() });
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let config = Arc::clone(&config);
        connections.spawn(async move {
            // What becomes of it is seen by the client.
            if let Ok(session) = run_stream(config, stream, Yes).await {
                drop(session.await);
            }
        });
    }
}

#[tokio::test]
async fn a_server_without_strict_key_exchange_is_spoken_to_only_where_that_is_allowed() -> Result<()> {
    let sshd = Sshd::start().await?;
    let host_key = PrivateKey::from_openssh(sshd.text("host")?)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, host_key));
    let mut room = Room::open().await?;
    room.know(&sshd.known_as("host", port)?)?;
    let mut route = room.route_by(vec![hop_at(&sshd, port, vec![key(&sshd, "user")?])]);
    let said = room.fails(&route, SshFault::AlgorithmMismatch).await?;
    assert!(said.contains("strict key exchange") && said.contains("allow_non_strict"), "{said}");
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
    route.hops.first_mut().context("no hop")?.allow_non_strict = true;
    assert_eq!(room.print(&route, "echo in").await?, "in\n");
    Ok(())
}
