use super::*;
use crate::keeper::protocol::Tail;
use proptest::prelude::*;

const CHUNK: u64 = CHUNK_BYTES as u64;

fn status(stdout: StreamStatus, ended: bool) -> RunStatus {
    RunStatus {
        cid: crate::policy::tests::cid(1),
        phase: if ended { Phase::Ended } else { Phase::Running },
        started_at_ms: 0,
        begun_at_ms: None,
        pid: None,
        stdout,
        stderr: StreamStatus::default(),
        end: None,
    }
}

fn kept(bytes: u64) -> StreamStatus {
    StreamStatus { bytes, kept: bytes, ..StreamStatus::default() }
}

fn pieces(planner: &mut Planner, status: &RunStatus, now: Instant) -> Vec<(u64, u64, bool)> {
    std::iter::from_fn(|| planner.next(status, now, CHUNK_BYTES))
        .map(|piece| (piece.chunk.offset, piece.chunk.len, piece.chunk.is_tail))
        .collect()
}

#[test]
fn a_first_byte_waits_a_little_and_a_full_chunk_does_not() {
    let now = Instant::now();
    let mut planner = Planner::new(ChunkLog::default(), now);
    assert_eq!(pieces(&mut planner, &status(kept(1), false), now), []);
    assert_eq!(planner.due(now), Some(now + FLUSH_MIN));
    assert_eq!(pieces(&mut planner, &status(kept(3), false), now + FLUSH_MIN), [(0, 3, false)]);
    assert_eq!(planner.due(now), None);
    let later = now + FLUSH_MIN;
    assert_eq!(pieces(&mut planner, &status(kept(4 + CHUNK), false), later), [(3, CHUNK, false)]);
    assert_eq!(planner.due(later), Some(later + FLUSH_MIN));
    assert_eq!(pieces(&mut planner, &status(kept(4 + CHUNK), true), later), [(3 + CHUNK, 1, false)]);
}

#[test]
fn a_long_run_waits_longer() {
    let now = Instant::now();
    let planner = Planner::new(ChunkLog::default(), now);
    assert_eq!(planner.delay(now + Duration::from_secs(400)), Duration::from_millis(100));
    assert_eq!(planner.delay(now + Duration::from_hours(24)), FLUSH_MAX);
}

#[test]
fn a_cut_is_announced_once_and_the_tail_comes_at_its_place() {
    let now = Instant::now();
    let mut planner = Planner::new(ChunkLog::default(), now);
    let cut = StreamStatus { bytes: 900, kept: 10, truncated: true, ..StreamStatus::default() };
    assert_eq!(pieces(&mut planner, &status(cut, false), now), [(0, 10, false), (10, 0, false)]);
    let bytes = 3 * CHUNK;
    let tail = Some(Tail { offset: CHUNK, len: 2 * CHUNK });
    let ended = StreamStatus { bytes, tail, ..cut };
    assert_eq!(
        pieces(&mut planner, &status(ended, true), now),
        [(CHUNK, CHUNK, true), (2 * CHUNK, CHUNK, true)]
    );
    assert_eq!(planner.chunks(), 4);
}

/// Another host still sent something when the run was over.
#[test]
fn a_stream_that_ends_without_a_rest_that_nobody_has_is_announced_as_cut() {
    let now = Instant::now();
    let mut planner = Planner::new(ChunkLog::default(), now);
    let cut = StreamStatus { truncated: true, ..kept(10) };
    assert_eq!(pieces(&mut planner, &status(cut, true), now), [(0, 10, false), (10, 0, false)]);
    let mut planner = Planner::new(ChunkLog::default(), now);
    let nothing = StreamStatus { truncated: true, ..kept(0) };
    assert_eq!(pieces(&mut planner, &status(nothing, true), now), [(0, 0, false)]);
}

#[test]
fn a_stream_of_which_bytes_stay_behind_is_not_whole() {
    let now = Instant::now();
    let both = |stdout, stderr| RunStatus { stderr, ..status(stdout, true) };
    let truncated = |status: &RunStatus| [status.stdout.truncated, status.stderr.truncated];

    let mut planner = Planner::new(ChunkLog::default(), now);
    let run = both(kept(3), kept(CHUNK + 5));
    let first = planner.next(&run, now, CHUNK_BYTES).unwrap();
    assert_eq!(truncated(&planner.without_what_stayed_behind(run.clone())), [false, false]);
    let second = planner.next(&run, now, CHUNK_BYTES).unwrap();
    assert_eq!((first.chunk.stream, second.chunk.stream), (OutputStream::Stdout, OutputStream::Stderr));
    planner.give_up(second.counter, [false, true]);
    assert_eq!((planner.next(&run, now, CHUNK_BYTES), planner.due(now), planner.chunks()), (None, None, 1));
    assert_eq!(truncated(&planner.without_what_stayed_behind(run)), [false, true]);

    // What is written after that stays behind too; a stream without bytes lacks none.
    let mut planner = Planner::new(ChunkLog::default(), now);
    planner.give_up(0, [true, false]);
    let later = both(kept(0), kept(1));
    assert_eq!(truncated(&planner.without_what_stayed_behind(later)), [false, true]);
}

/// The journal's view of what was sent.
fn log(sent: &[Piece]) -> ChunkLog {
    let mut log = ChunkLog::default();
    sent.iter().filter(|piece| piece.is_new).for_each(|piece| log.push(piece.chunk));
    log
}

#[test]
fn a_chunk_that_may_be_there_keeps_the_output_out_of_the_exit() {
    let now = Instant::now();
    let mut planner = Planner::new(ChunkLog::default(), now);
    assert!(!planner.has_sent());
    let piece = planner.next(&status(kept(3), true), now, CHUNK_BYTES).unwrap();
    assert!(planner.has_sent());
    let restarted = Planner::new(log(&[piece]), now);
    assert_eq!((restarted.chunks(), restarted.has_sent()), (0, true), "it is still to be sent again");
    planner.give_up(0, [true; 2]);
    assert!(planner.has_sent(), "given up is not unsent");
}

proptest! {
    /// However the run grows, and wherever the relay is killed, the pieces are the stream, each in one shape.
    #[test]
    fn pieces_are_the_stream_over_any_restart(
        steps in prop::collection::vec((0..300_000_u64, any::<bool>(), 1_000..CHUNK_BYTES), 1..20),
        limit in prop::option::of(0..2_000_000_u64),
    ) {
        let now = Instant::now();
        let mut planner = Planner::new(ChunkLog::default(), now);
        let mut sent: Vec<Piece> = Vec::new();
        let mut bytes = 0;
        let last = steps.len() - 1;
        for (index, (more, restart, most)) in steps.into_iter().enumerate() {
            bytes += more;
            let kept = limit.map_or(bytes, |limit| bytes.min(limit));
            let ended = index == last;
            let tail = (ended && kept < bytes).then(|| Tail { offset: bytes - (bytes - kept).min(500_000), len: (bytes - kept).min(500_000) });
            let status = status(StreamStatus { bytes, kept, sha256: None, truncated: kept < bytes, tail }, ended);
            if restart {
                planner = Planner::new(log(&sent), now);
            }
            while let Some(piece) = planner.next(&status, now + FLUSH_MAX, most) {
                sent.push(piece);
            }
        }
        let (mut bulk, mut tail_at, mut shapes) = (0, None, std::collections::BTreeMap::new());
        for piece in &sent {
            let known = shapes.insert(piece.counter, piece.chunk);
            prop_assert!(known.is_none_or(|known| known == piece.chunk), "one number, two shapes");
            prop_assert_eq!(known.is_none(), piece.is_new);
        }
        for (_, chunk) in shapes {
            if chunk.is_tail {
                prop_assert!(tail_at.is_none_or(|at| at == chunk.offset));
                tail_at = Some(chunk.offset + chunk.len);
            } else {
                prop_assert_eq!(chunk.offset, bulk);
                bulk += chunk.len;
            }
        }
        prop_assert_eq!(bulk, limit.map_or(bytes, |limit| bytes.min(limit)));
        prop_assert_eq!(tail_at.unwrap_or(bytes), bytes);
    }
}
