//! What a consumer delivers: messages, told from the server's own words by what only the server can set.

use async_nats::{StatusCode, Subscriber};

use crate::header::Headers;
use crate::read::Message;

/// One server-side consumer and what is known of it.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) name: String,
    pub(super) inbox: String,
    pub(super) messages: Subscriber,
    /// Number of the connection it was made on.
    pub(super) connects: u64,
    /// Number of the last message it delivered.
    pub(super) delivered: u64,
    /// Number of pulls so far; part of the inbox, to tell their statuses apart.
    pub(super) pulls: u64,
    /// Messages of the present pull still to come.
    pub(super) awaited: usize,
}

/// What a received message is.
#[derive(Debug)]
pub(super) enum Received {
    /// A message, and how many more the stream held then.
    Message(Message, u64),
    /// The consumer's numbering has a gap, or it is gone.
    Broken,
    /// Nothing for the reader.
    Nothing,
}

impl Consumer {
    /// Says what a received message is, and counts it.
    pub(super) fn look(&mut self, stream: &str, message: async_nats::Message) -> Received {
        let Some(reply) = message.reply.as_deref() else { return self.look_at_status(&message) };
        let Some(delivery) = Delivered::parse(reply) else { return Received::Nothing };
        if delivery.consumer_sequence != self.delivered + 1 {
            return Received::Broken;
        }
        self.delivered += 1;
        self.awaited = self.awaited.saturating_sub(1);
        let message = Message {
            subject: message.subject.into_string(),
            sequence: delivery.stream_sequence,
            stream: stream.to_owned(),
            time_ms: delivery.time_ms,
            headers: Headers::from_received(message.headers),
            payload: message.payload,
        };
        Received::Message(message, delivery.pending)
    }

    fn look_at_status(&mut self, message: &async_nats::Message) -> Received {
        let is_of_this_pull = message.subject.strip_prefix(self.inbox.as_str()).is_some_and(|rest| {
            rest.strip_prefix('.').and_then(|number| number.parse().ok()) == Some(self.pulls)
        });
        let description = message.description.as_deref().unwrap_or_default();
        match message.status {
            Some(StatusCode::IDLE_HEARTBEAT) => Received::Nothing,
            _ if !is_of_this_pull => Received::Nothing,
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => self.pull_ended(),
            Some(_) if ["Message Size Exceeds MaxBytes", "Batch Completed"].contains(&description) => {
                self.pull_ended()
            }
            // Consumer deleted, leadership changed, nobody there.
            _ => Received::Broken,
        }
    }

    fn pull_ended(&mut self) -> Received {
        self.awaited = 0;
        Received::Nothing
    }
}

/// What the server says about a delivery in the acknowledgement subject.
#[derive(Debug, PartialEq, Eq)]
struct Delivered {
    stream_sequence: u64,
    consumer_sequence: u64,
    time_ms: u64,
    pending: u64,
}

impl Delivered {
    /// `$JS.ACK.<stream>.<consumer>.<attempt>.<stream seq>.<consumer seq>.<time ns>.<pending>`, with domain and
    /// account before the stream in the second version of the format (ADR-15).
    fn parse(reply: &str) -> Option<Self> {
        let words: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let numbers = match words.len() {
            7 => words.get(3..7)?,
            9.. => words.get(5..9)?,
            _ => return None,
        };
        let number = |index: usize| numbers.get(index)?.parse::<u64>().ok();
        Some(Self {
            stream_sequence: number(0)?,
            consumer_sequence: number(1)?,
            time_ms: number(2)? / 1_000_000,
            pending: number(3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_delivery_subject_are_read() {
        let wanted =
            Delivered { stream_sequence: 100, consumer_sequence: 7, time_ms: 1_790_230_470_084, pending: 42 };
        for reply in [
            "$JS.ACK.RUN.follow-x.1.100.7.1790230470084404000.42",
            "$JS.ACK._.szMpdrwD.RUN.follow-x.1.100.7.1790230470084404000.42",
            "$JS.ACK.hub.szMpdrwD.RUN.follow-x.1.100.7.1790230470084404000.42.token",
        ] {
            assert_eq!(Delivered::parse(reply).as_ref(), Some(&wanted), "{reply}");
        }
        for reply in ["$JS.ACK.RUN.c.1.100.7.1790", "$JS.FC.RUN.c.1.100.7.1790230470084404000.42", "x", ""] {
            assert_eq!(Delivered::parse(reply), None, "{reply}");
        }
    }
}
