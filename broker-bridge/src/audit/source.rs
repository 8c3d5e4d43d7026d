//! The streams from which is entered. Each is waited for as long as it takes: a wait that is begun anew each time would never
//! notice that a consumer is gone.

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use signalbox_link::{Follow, FollowError, Message};
use signalbox_schemas::{
    audit::{Entered, Reached},
    stream::{CMD, DOC, STATE},
    subject::{CommandPiece, of_all_commands},
};

use super::Part;
use crate::core::Context;

/// Messages that are taken at once.
pub(super) const BATCH: usize = 256;

/// One of them.
pub(super) struct Source {
    part: Part,
    /// When the stream was made, Unix ms, as who has read it knows.
    created: u64,
    follow: Follow,
}

/// What one had next.
pub(super) struct Read {
    pub(super) source: Source,
    pub(super) messages: Result<Vec<Message>, FollowError>,
}

impl Source {
    fn new(context: &Context, part: Part, stream: &str, known: Reached, filter: Option<&str>) -> Self {
        let created = context.shared.cursor(stream).created;
        // A stream that was made anew begins anew.
        let known = if known.created == created { known } else { Reached::default() };
        let follow = context.shared.link.follow(stream, known.sequence + 1, filter);
        let stored_at = (known.sequence > 0).then_some(known.stored_at);
        Self { part, created, follow: follow.after(stored_at) }
    }

    pub(super) fn part(&self) -> Part {
        self.part
    }

    pub(super) fn created(&self) -> u64 {
        self.created
    }

    async fn read(mut self) -> Read {
        let messages = self.follow.next_batch(BATCH).await;
        let is_another = self.follow.created_ms().is_some_and(|created| created != self.created);
        let messages = messages.and_then(|messages| {
            let stream = messages.first().map(|message| message.stream.clone()).unwrap_or_default();
            let created_ms = self.follow.created_ms().unwrap_or_default();
            if is_another { Err(FollowError::Recreated { stream, created_ms }) } else { Ok(messages) }
        });
        Read { source: self, messages }
    }
}

/// Whether the stream is not the one that was entered.
pub(super) fn is_another(error: &FollowError) -> bool {
    matches!(error, FollowError::Rewound { .. } | FollowError::Recreated { .. })
}

/// All of them, or none.
#[derive(Default)]
pub(super) struct Sources(FuturesUnordered<BoxFuture<'static, Read>>);

impl Sources {
    /// Each from where it has been entered to.
    pub(super) fn all(context: &Context, entered: &Entered) -> Self {
        let ws = context.broker.ws();
        let pieces = [CommandPiece::Spec, CommandPiece::Cancel, CommandPiece::Rollout];
        let [specs, cancels, rollouts] = pieces.map(|piece| of_all_commands(ws, piece));
        let sources = [
            Source::new(context, Part::Doc, DOC, entered.doc, None),
            Source::new(context, Part::Kv, STATE, entered.kv, None),
            Source::new(context, Part::Specs, CMD, entered.specs, Some(&specs)),
            Source::new(context, Part::Cancels, CMD, entered.cancels, Some(&cancels)),
            Source::new(context, Part::Rollouts, CMD, entered.rollouts, Some(&rollouts)),
        ];
        let all = Self::default();
        for source in sources {
            all.go_on(source);
        }
        all
    }

    /// Goes on to read one.
    pub(super) fn go_on(&self, source: Source) {
        self.0.push(Box::pin(source.read()));
    }

    /// What one of them has next; never, where there are none.
    pub(super) async fn next(&mut self) -> Option<Read> {
        self.0.next().await
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
