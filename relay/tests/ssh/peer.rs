//! Servers of our own, for what OpenSSH cannot be told to do.

use std::{borrow::Cow, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use russh::{
    Channel, ChannelId, Disconnect, Preferred, kex,
    keys::PrivateKey,
    server::{self, Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream},
};
use signalbox_testkit::sshd::Sshd;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};

use crate::harness::{PATIENCE, Room};

/// What a server does with each command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    /// Nothing bad: it ends with 0.
    Obeys,
    /// Says with 7 and then with 8, without an end, how it ended.
    EndsAgainAndAgain,
    /// Opens channels of every kind towards the client, and prints the names of those that it got.
    OpensChannels,
    /// Says how it ended, and prints [`LATE`] then, each line by itself and later than a pipe is usually held open.
    PrintsLate,
    /// Says how it ended, and prints [`LATE`] then all at once, after nothing at all was carried to or from it for longer than a
    /// pipe is usually held open.
    StandsStill,
    /// Says how it ended, and prints so many bytes then, every so often, without an end.
    PrintsForever(usize, Duration),
    /// Says how it ended, prints something, and breaks the connection.
    Breaks,
    /// Neither takes it nor refuses it, and keeps the connection.
    NeverAnswers,
    /// Takes it, prints a line and closes its channel, and does not say how it ended.
    EndsUnsaid,
    /// Says that it ended with a number that is no exit code.
    EndsWithNoCode,
}

/// What comes after the end of a command.
pub(crate) const LATE: [&str; 4] = ["one\n", "two\n", "three\n", "four\n"];

/// A server that lets everybody in. It ends with this value.
pub(crate) struct Peer {
    port: u16,
    /// Commands that it was to run so far.
    asked: watch::Receiver<u32>,
    _tasks: JoinSet<()>,
}

impl Peer {
    /// A server with the host key of another one, which the room knows.
    pub(crate) async fn start(room: &Room, sshd: &Sshd, trick: Trick, is_strict: bool) -> Result<Self> {
        let host_key = PrivateKey::from_openssh(sshd.text("host")?)?;
        let mut kexes = vec![kex::CURVE25519, kex::EXTENSION_SUPPORT_AS_SERVER];
        if is_strict {
            kexes.push(kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER);
        }
        let preferred = Preferred { kex: Cow::Owned(kexes), ..Preferred::DEFAULT };
        let config = Config { keys: vec![host_key], preferred, ..Config::default() };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        room.know(&sshd.known_as("host", port)?)?;
        let (asked_tx, asked) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::new(config), trick, asked_tx));
        Ok(Self { port, asked, _tasks: tasks })
    }

    /// Waits until it is to run a command.
    pub(crate) async fn is_asked(&self) -> Result<()> {
        let mut asked = self.asked.clone();
        let found = timeout(PATIENCE, asked.wait_for(|asked| *asked > 0)).await;
        found.context("it is asked for nothing")?.map(drop).context("it is gone")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

async fn serve(listener: TcpListener, config: Arc<Config>, trick: Trick, asked: watch::Sender<u32>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (config, asked) = (Arc::clone(&config), asked.clone());
        connections.spawn(async move {
            let one = One { trick, asked, tasks: JoinSet::new() };
            // What becomes of it is seen by the client.
            if let Ok(session) = run_stream(config, stream, one).await {
                drop(session.await);
            }
        });
    }
}

/// One connection of a server.
struct One {
    trick: Trick,
    asked: watch::Sender<u32>,
    tasks: JoinSet<()>,
}

impl Handler for One {
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
        self.asked.send_modify(|asked| *asked += 1);
        if self.trick == Trick::NeverAnswers {
            return Ok(());
        }
        session.channel_success(id)?;
        match self.trick {
            Trick::NeverAnswers => {}
            Trick::EndsUnsaid => {
                session.data(id, "half a line")?;
                session.close(id)?;
            }
            Trick::EndsWithNoCode => {
                session.exit_status_request(id, 256)?;
                session.close(id)?;
            }
            Trick::Obeys => {
                session.exit_status_request(id, 0)?;
                session.close(id)?;
            }
            Trick::EndsAgainAndAgain => drop(self.tasks.spawn(end_again_and_again(session.handle(), id))),
            Trick::OpensChannels => drop(self.tasks.spawn(open_channels(session.handle(), id))),
            Trick::PrintsLate => drop(self.tasks.spawn(print_late(session.handle(), id))),
            Trick::PrintsForever(bytes, pace) => {
                drop(self.tasks.spawn(print_forever(session.handle(), id, bytes, pace)));
            }
            Trick::StandsStill => session.exit_status_request(id, 0)?,
            Trick::Breaks => drop(self.tasks.spawn(break_off(session.handle(), id))),
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        if self.trick == Trick::StandsStill {
            // While this is at work, the server neither hears nor says anything.
            let mut still = interval(Duration::from_millis(2_500));
            still.tick().await;
            still.tick().await;
            session.data(id, LATE.concat())?;
        }
        Ok(())
    }
}

async fn end_again_and_again(handle: server::Handle, id: ChannelId) {
    let mut pace = interval(Duration::from_millis(100));
    let mut status = 7;
    while handle.exit_status_request(id, status).await.is_ok() {
        status = 8;
        pace.tick().await;
    }
}

async fn open_channels(handle: server::Handle, id: ChannelId) {
    let opened = [
        ("session", handle.channel_open_session().await),
        ("direct-tcpip", handle.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await),
        ("direct-streamlocal", handle.channel_open_direct_streamlocal("/run/a").await),
        ("forwarded-tcpip", handle.channel_open_forwarded_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await),
        ("forwarded-streamlocal", handle.channel_open_forwarded_streamlocal("/run/a").await),
        ("x11", handle.channel_open_x11("127.0.0.1", 1).await),
        ("agent", handle.channel_open_agent().await),
    ];
    let names: Vec<&str> = opened.iter().filter(|(_, got)| got.is_ok()).map(|(name, _)| *name).collect();
    let said = format!("opened: {}\n", names.join(" "));
    // What becomes of it is seen by the client.
    let _ = handle.data(id, said).await;
    let _ = handle.exit_status_request(id, 0).await;
    let _ = handle.close(id).await;
}

async fn print_late(handle: server::Handle, id: ChannelId) {
    let _ = handle.exit_status_request(id, 0).await;
    let mut pace = interval(Duration::from_millis(600));
    pace.tick().await;
    for line in LATE {
        pace.tick().await;
        let _ = handle.data(id, line).await;
    }
    let _ = handle.eof(id).await;
    let _ = handle.close(id).await;
}

async fn print_forever(handle: server::Handle, id: ChannelId, bytes: usize, every: Duration) {
    let _ = handle.exit_status_request(id, 0).await;
    let mut pace = interval(every);
    while handle.data(id, vec![b'x'; bytes]).await.is_ok() {
        pace.tick().await;
    }
}

async fn break_off(handle: server::Handle, id: ChannelId) {
    let _ = handle.exit_status_request(id, 0).await;
    let _ = handle.data(id, "some of it").await;
    let _ = handle.disconnect(Disconnect::ByApplication, String::new(), String::new()).await;
}
