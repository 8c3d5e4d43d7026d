//! One command on a channel.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig, client::Msg};
use signalbox_schemas::{limit, output::OutputStream};

use super::pool::Lease;

/// The number of standard error among the streams of a channel, RFC 4254.
const STDERR: u32 = 1;

/// What a host says of a command.
#[derive(Debug)]
pub(crate) enum Event {
    /// It runs.
    Begun,
    /// It was not taken.
    Refused,
    /// It printed something.
    Output(OutputStream, Bytes),
    /// It prints no more.
    Eof,
    /// It ended with this status.
    Status(u32),
    /// It was ended by this signal: `SIGKILL`, ...
    Signal(String),
    /// What the host said before it was asked, see [`Session::ask`], is heard.
    Answered,
    /// Nothing more is to be heard of it.
    Closed,
    /// The connection is gone.
    Lost(String),
}

/// What is said to a host.
enum Word {
    /// A variable for the command, which many hosts do not take.
    Variable(&'static str, String),
    Exec(Vec<u8>),
    Eof,
    Signal(Sig),
}

type Asking = Pin<Box<dyn Future<Output = ()>>>;
type Sending = Pin<Box<dyn Future<Output = Result<(), russh::Error>>>>;

/// A command on a channel, which is closed when this is dropped.
pub(crate) struct Session {
    lease: Lease,
    read: ChannelReadHalf,
    words: VecDeque<Word>,
    /// What is being said just now. The host is heard meanwhile: it may be busy telling.
    sending: Option<Sending>,
    asking: Option<Asking>,
}

impl Session {
    pub(crate) fn new(lease: Lease, read: ChannelReadHalf) -> Self {
        Self { lease, read, words: VecDeque::new(), sending: None, asking: None }
    }

    /// Sets a variable of the command that is to be run, where the host takes it.
    pub(crate) fn set_variable(&mut self, name: &'static str, value: String) {
        self.words.push_back(Word::Variable(name, value));
    }

    /// Has a text run, as it is, with nothing to read.
    pub(crate) fn exec(&mut self, command: &str) {
        self.words.extend([Word::Exec(command.as_bytes().to_vec()), Word::Eof]);
    }

    /// Asks the command to end.
    pub(crate) fn terminate(&mut self) {
        self.words.push_back(Word::Signal(Sig::TERM));
    }

    /// Ends the command.
    pub(crate) fn kill(&mut self) {
        self.words.push_back(Word::Signal(Sig::KILL));
    }

    /// Asks the host for an answer. It keeps the order: what it said before is heard before [`Event::Answered`].
    pub(crate) fn ask(&mut self) {
        self.asking = Some(Box::pin(self.lease.ask()));
    }

    /// What the host says next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            self.say_next();
            let heard = tokio::select! {
                biased;
                sent = said(&mut self.sending) => {
                    self.sending = None;
                    if sent.is_err() {
                        // What the host said before is heard first, and that it is gone then.
                        self.words.clear();
                    }
                    continue;
                }
                heard = self.read.wait() => heard,
                () = answered(&mut self.asking) => {
                    self.asking = None;
                    return Event::Answered;
                }
            };
            match heard {
                Some(message) => {
                    if let Some(event) = self.event(message) {
                        return event;
                    }
                }
                None if self.lease.is_closed() => return Event::Closed,
                None => {
                    self.lease.set_closed();
                    return Event::Lost(self.lease.last_words());
                }
            }
        }
    }

    fn say_next(&mut self) {
        if self.sending.is_some() {
            return;
        }
        let Some(word) = self.words.pop_front() else { return };
        let write: Arc<ChannelWriteHalf<Msg>> = self.lease.write();
        self.sending = Some(Box::pin(async move {
            match word {
                Word::Variable(name, value) => write.set_env(false, name, value).await,
                Word::Exec(command) => write.exec(true, command).await,
                Word::Eof => write.eof().await,
                Word::Signal(signal) => write.signal(signal).await,
            }
        }));
    }

    fn event(&self, message: ChannelMsg) -> Option<Event> {
        Some(match message {
            ChannelMsg::Success => Event::Begun,
            ChannelMsg::Failure => Event::Refused,
            ChannelMsg::Data { data } => Event::Output(OutputStream::Stdout, data),
            ChannelMsg::ExtendedData { data, ext: STDERR } => Event::Output(OutputStream::Stderr, data),
            ChannelMsg::Eof => Event::Eof,
            ChannelMsg::ExitStatus { exit_status } => Event::Status(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => Event::Signal(signal_name_of(&signal_name)),
            ChannelMsg::Close => {
                self.lease.set_closed();
                Event::Closed
            }
            _ => return None,
        })
    }
}

async fn said(sending: &mut Option<Sending>) -> Result<(), russh::Error> {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

async fn answered(asking: &mut Option<Asking>) {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// The name of a signal as it is written everywhere. What a host calls one of its own is cut to what a name can be.
fn signal_name_of(signal: &Sig) -> String {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    };
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "@.+-".contains(*c);
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    format!("SIG{}", bare.chars().filter(is_plain).take(limit::SIGNAL_BYTES - 3).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Sig::KILL, "SIGKILL")]
    #[case(Sig::Custom("USR2".into()), "SIGUSR2")]
    #[case(Sig::Custom("SIG@openssh.com".into()), "SIG@openssh.com")]
    #[case(Sig::Custom("A\nB\u{1b}[31m".into()), "SIGAB31m")]
    #[case(Sig::Custom("X".repeat(99)), "SIGXXXXXXXXXXXXXXXXXXXXXXXXXXXXX")]
    fn signals_of_hosts_have_names(#[case] signal: Sig, #[case] name: &str) {
        assert_eq!(signal_name_of(&signal), name);
        assert!(name.len() <= limit::SIGNAL_BYTES);
    }
}
