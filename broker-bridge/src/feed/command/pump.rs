//! Output of a command, in the order in which it was stored, against credit.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use signalbox_schemas::{
    api::RunView,
    error::report,
    id::{CommandId, MachineId, MachineToken},
    limit::CHUNK_BYTES,
    output::OutputStream,
    run::InlineOutput,
};
use tokio::task::yield_now;
use tracing::warn;

use super::{
    super::{Answers, End, answer::ChunkHead},
    Flow, unreadable,
};
use crate::{
    api::Api,
    view::{ChunkBody, ChunkRef},
};

/// Chunks looked up at once: a lookup is one range scan.
const LOOKED_UP: usize = 64;
/// Chunks sent before the feed turns to other things: at 128 KiB 1 MiB, some milliseconds.
const ROUND: usize = 8;
/// Chunks read from the broker ahead of the one that is sent.
const READ_AHEAD: usize = 4;

/// Where output stands.
pub(in crate::feed) struct Pump {
    /// Every message up to here was sent, with all of its chunks.
    position: u64,
    /// Output bytes sent.
    sent: u64,
    /// Chunks to be sent next, of each message all or those that are left.
    queue: VecDeque<ChunkRef>,
    /// Bytes of runs that have ended by the beginning, beyond which their output is not sent.
    ended_bytes: Option<u64>,
    /// Those runs.
    left_out: BTreeSet<MachineToken>,
}

impl Pump {
    pub(in crate::feed) fn after(position: u64, ended_bytes: Option<u64>) -> Self {
        Self { position, sent: 0, queue: VecDeque::new(), ended_bytes, left_out: BTreeSet::new() }
    }

    /// Leaves out the output of a run, as it is when the feed begins, if it is to be; answers whether. One whose exit has not
    /// come says neither how much it wrote nor what: that is sent.
    pub(super) fn leave_out(&mut self, token: &MachineToken, run: &RunView) -> bool {
        let has_exit = run.state.is_settled() && run.stdout.sha256.is_some() && run.stderr.sha256.is_some();
        let bytes = run.stdout.bytes.saturating_add(run.stderr.bytes);
        let is_left_out = has_exit && self.ended_bytes.is_some_and(|most| bytes > most);
        if is_left_out {
            self.left_out.insert(token.clone());
        }
        is_left_out
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends one round of output, until `credited` bytes were sent in all.
    pub(super) async fn flow(
        &mut self,
        api: &Api,
        answers: &mut Answers,
        id: CommandId,
        credited: u64,
    ) -> Result<Flow, End> {
        if self.queue.is_empty() {
            let found = api.view().chunks_after(id, self.position, LOOKED_UP);
            self.queue = found.map_err(|error| unreadable(&error))?.into();
        }
        if self.queue.is_empty() {
            return Ok(Flow::Drained);
        }
        self.skip_left_out();
        if self.queue.is_empty() {
            // Nothing was waited for: a run of a hundred thousand chunks is not to hold others up.
            yield_now().await;
            return Ok(Flow::More);
        }
        let round = self.affordable(credited);
        if round == 0 {
            return Ok(Flow::Blocked);
        }
        let goes = |chunk: &&ChunkRef| !self.left_out.contains(&chunk.token);
        let chunks: Vec<ChunkRef> = self.queue.iter().take(round).take_while(goes).cloned().collect();
        let read = |chunk: ChunkRef| {
            let view = api.view().clone();
            async move {
                let body = view.chunk_body(&chunk).await;
                (chunk, body)
            }
        };
        let mut bodies = stream::iter(chunks).map(read).buffered(READ_AHEAD);
        while let Some((chunk, body)) = bodies.next().await {
            let behind = self.behind();
            match body {
                Ok(ChunkBody::Kept(body)) => self.send(answers, &chunk, body, behind).await?,
                Ok(ChunkBody::Gone { below }) => {
                    api.count("feed", "chunk_gone");
                    self.pass_over(below);
                    // What was read ahead may be among those.
                    return Ok(Flow::More);
                }
                Err(error) => {
                    warn!(error = report(&error), "a chunk of output cannot be read");
                    // What was not sent is still in the queue.
                    return Ok(Flow::Retry);
                }
            }
            self.position = behind;
            self.queue.pop_front();
        }
        Ok(Flow::More)
    }

    /// Goes on behind the next chunks that are not to be sent.
    fn skip_left_out(&mut self) {
        while self.queue.front().is_some_and(|chunk| self.left_out.contains(&chunk.token)) {
            self.position = self.behind();
            self.queue.pop_front();
        }
    }

    /// Goes on at a position below which the next chunk and those behind it are gone: asking for each of them would take
    /// the time of a whole feed.
    fn pass_over(&mut self, below: u64) {
        while self.queue.pop_front_if(|chunk| chunk.position < below).is_some() {}
        self.position = self.position.max(below.saturating_sub(1));
    }

    /// The position behind the next chunk: its own, unless more of the same message follows.
    fn behind(&self) -> u64 {
        let mut next = self.queue.iter().map(|chunk| chunk.position);
        match (next.next(), next.next()) {
            (Some(position), after) if after != Some(position) => position,
            _ => self.position,
        }
    }

    /// How many of the next chunks may go: as long as credit is left, the next one goes whole.
    fn affordable(&self, credited: u64) -> usize {
        let mut sent = self.sent;
        let affordable = self.queue.iter().take(ROUND).take_while(|chunk| {
            let goes = sent < credited || chunk.len == 0;
            sent += u64::from(chunk.len);
            goes
        });
        affordable.count()
    }

    /// Sends a chunk, behind which everything up to `behind` was sent.
    async fn send(
        &mut self,
        answers: &mut Answers,
        chunk: &ChunkRef,
        body: Bytes,
        behind: u64,
    ) -> Result<(), End> {
        let mut rest = body;
        let mut offset = chunk.offset;
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(CHUNK_BYTES));
            // Only behind its last byte is the chunk done with.
            let position = if rest.is_empty() { behind } else { self.position };
            let len = bytes.len() as u64;
            let head = ChunkHead { machine: &chunk.machine, stream: chunk.stream, offset, position };
            answers.chunk(head, bytes).await?;
            self.sent += len;
            offset += len;
        }
        Ok(())
    }

    /// Sends what an exit carries itself.
    pub(super) async fn send_inline(
        &mut self,
        answers: &mut Answers,
        machine: &MachineId,
        inline: &InlineOutput,
    ) -> Result<(), End> {
        for (stream, bytes) in
            [(OutputStream::Stdout, &inline.stdout), (OutputStream::Stderr, &inline.stderr)]
        {
            if bytes.0.is_empty() {
                continue;
            }
            let head = ChunkHead { machine, stream, offset: 0, position: self.position };
            answers.chunk(head, Bytes::copy_from_slice(&bytes.0)).await?;
            self.sent += bytes.0.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn pump(sent: u64, lens: &[u32]) -> Pump {
        let machine = MachineId::new("web-1").unwrap();
        let chunk = |len: &u32| ChunkRef {
            position: 1,
            token: machine.token(),
            machine: machine.clone(),
            stream: OutputStream::Stdout,
            offset: 0,
            len: *len,
            skip: 0,
        };
        Pump { sent, queue: lens.iter().map(chunk).collect(), ..Pump::after(0, None) }
    }

    #[test]
    fn a_message_is_done_with_behind_its_last_chunk() {
        let mut pump = pump(0, &[1; 4]);
        for (chunk, position) in pump.queue.iter_mut().zip([7, 7, 7, 9]) {
            chunk.position = position;
        }
        let mut behind = Vec::new();
        while !pump.queue.is_empty() {
            pump.position = pump.behind();
            pump.queue.pop_front();
            behind.push(pump.position);
        }
        assert_eq!(behind, [0, 0, 7, 9]);
    }

    #[rstest]
    #[case::nothing_given(0, 0, &[10, 10], 0)]
    #[case::one_byte_lets_a_chunk_go(0, 1, &[10, 10], 1)]
    #[case::until_it_is_used_up(0, 11, &[10, 10, 10], 2)]
    #[case::exactly_used_up(10, 10, &[10], 0)]
    #[case::empty_ones_are_free(10, 10, &[0, 0, 10], 2)]
    #[case::a_round_at_most(0, 1_000, &[1; 20], ROUND)]
    fn output_goes_as_far_as_its_credit(
        #[case] sent: u64,
        #[case] credited: u64,
        #[case] lens: &[u32],
        #[case] go: usize,
    ) {
        assert_eq!(pump(sent, lens).affordable(credited), go);
    }
}
