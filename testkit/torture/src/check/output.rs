//! Output: what a command writes is known, so every byte of it can be told from every other.

use std::{collections::BTreeMap, ops::Range};

use signalbox_schemas::{
    id::{CommandId, MachineToken, Sha256},
    output::OutputStream,
    run::{Exit, LostReason, RunState},
    subject::Subject,
};

use super::{Case, Promise, RunId, Violation};
use crate::{
    observed::Chunk,
    plan::Work,
    script,
    told::{Piece, Told},
};

pub(super) fn output_is_whole(case: &Case<'_>) -> Vec<Violation> {
    let chunks = by_run(&case.observed.chunks);
    let mut broken = Vec::new();
    for (command, _, machine) in case.ledger.accepted() {
        let Some(told) = case.told.get(&command) else { continue };
        let run = (command, machine);
        let stored = chunks.get(&(command, machine.clone())).map_or(&[][..], Vec::as_slice);
        let why = summary(case, run, told)
            .or_else(|| in_stream(case, run, told, stored))
            .or_else(|| answered(case, run, told, stored));
        broken.extend(why.map(|why| case.broken_run(Promise::OutputIsWhole, run, why)));
    }
    broken.extend(slow_reads(case, &chunks));
    broken
}

fn by_run(chunks: &[Chunk]) -> BTreeMap<(CommandId, MachineToken), Vec<&Chunk>> {
    let mut runs: BTreeMap<_, Vec<&Chunk>> = BTreeMap::new();
    for chunk in chunks.iter().filter(|chunk| chunk.head.is_ok()) {
        if let Ok(Subject::Output(_, machine, command)) = Subject::parse(&chunk.subject) {
            runs.entry((command, machine)).or_default().push(chunk);
        }
    }
    runs
}

/// What stands at the piece's place, and whether it is that.
fn is_right(work: &Work, piece: &Piece) -> bool {
    let expected = match piece.stream {
        OutputStream::Stdout => script::output(work, piece.offset, piece.len),
        OutputStream::Stderr => Vec::new(),
    };
    expected.len() as u64 == piece.len && Sha256::of(&expected) == piece.sha256
}

fn wrong_piece(work: &Work, piece: &Piece) -> Option<String> {
    let Piece { stream, offset, len, begins, .. } = piece;
    (!is_right(work, piece)).then(|| {
        let wanted = String::from_utf8_lossy(&script::output(work, *offset, 48)).into_owned();
        format!("{len} bytes at {offset} of its {stream} are not what it writes: {begins:?}, not {wanted:?}")
    })
}

/// Which bytes are missing from 0 up to `end`.
fn gaps(pieces: &[&Piece], end: u64) -> Vec<Range<u64>> {
    let mut sorted: Vec<&&Piece> = pieces.iter().collect();
    sorted.sort_by_key(|piece| (piece.offset, piece.end()));
    let (mut gaps, mut at) = (Vec::new(), 0);
    for piece in sorted {
        gaps.extend((piece.offset.min(end) > at).then(|| at..piece.offset.min(end)));
        at = at.max(piece.end());
    }
    gaps.extend((at < end).then_some(at..end));
    gaps
}

/// Where the first byte is missing from 0 up to `end`.
fn first_gap(pieces: &[&Piece], end: u64) -> Option<u64> {
    gaps(pieces, end).first().map(|gap| gap.start)
}

/// Bytes and hash of the exit are of the whole, also where it was cut.
fn summary(case: &Case<'_>, (command, machine): RunId<'_>, told: &Told) -> Option<String> {
    let run = case.ledger.run(command, machine)?;
    let exit = run.facts.exit()?;
    if exit.stderr.bytes > 0 {
        return Some(format!("it writes nothing to stderr, and its exit says {} bytes", exit.stderr.bytes));
    }
    let (bytes, all) = (exit.stdout.bytes, script::output_bytes(&told.work));
    if bytes > all || (run.state() == RunState::Completed && bytes != all) {
        return Some(format!("it writes {all} bytes, and its exit says {bytes}"));
    }
    let expected = Sha256::of(&script::output(&told.work, 0, bytes));
    (exit.stdout.sha256 != expected).then(|| format!("the hash in its exit is not that of its {bytes} bytes"))
}

fn is_cut(exit: Option<&Exit>) -> bool {
    exit.is_some_and(|exit| exit.stdout.truncated || exit.stderr.truncated)
}

/// What stands in OUT and in the exit.
fn in_stream(
    case: &Case<'_>,
    (command, machine): RunId<'_>,
    told: &Told,
    chunks: &[&Chunk],
) -> Option<String> {
    let exit = case.ledger.run(command, machine).and_then(|run| run.facts.exit());
    let has_notice = chunks.iter().any(|chunk| chunk.head.as_ref().is_ok_and(|head| head.cut));
    let mut pieces: Vec<Piece> = chunks.iter().map(|chunk| chunk.piece.clone()).collect();
    if let Some(inline) = exit.and_then(|exit| exit.inline.as_ref()) {
        pieces.push(Piece::of(OutputStream::Stdout, 0, &inline.stdout.0));
        pieces.push(Piece::of(OutputStream::Stderr, 0, &inline.stderr.0));
    }
    if let Some(why) = pieces.iter().find_map(|piece| wrong_piece(&told.work, piece)) {
        return Some(format!("in OUT or its exit, {why}"));
    }
    // Made once: what writes all the time has hundreds of chunks.
    let longest = chunks.iter().map(|chunk| chunk.piece.end()).max().unwrap_or(0);
    let whole = script::output(&told.work, 0, longest);
    for chunk in chunks {
        let Some(sha256) = chunk.head.as_ref().ok().and_then(|head| head.sha256) else { continue };
        let upto = chunk.piece.end();
        let so_far = match chunk.piece.stream {
            OutputStream::Stdout => {
                usize::try_from(upto).ok().and_then(|upto| whole.get(..upto)).unwrap_or(&whole)
            }
            OutputStream::Stderr => &[],
        };
        if sha256 != Sha256::of(so_far) {
            return Some(format!("the hash of chunk {} in OUT is not that of {upto} bytes", chunk.sequence));
        }
    }
    let exit = exit.filter(|exit| !is_cut(Some(exit)) && !has_notice)?;
    let stdout: Vec<&Piece> = pieces.iter().filter(|piece| piece.stream == OutputStream::Stdout).collect();
    let gap = first_gap(&stdout, exit.stdout.bytes)?;
    Some(format!("bytes from {gap} on of {} are neither in OUT nor in its exit", exit.stdout.bytes))
}

/// What bridges answer.
fn answered(
    case: &Case<'_>,
    (command, machine): RunId<'_>,
    told: &Told,
    chunks: &[&Chunk],
) -> Option<String> {
    let run = case.ledger.run(command, machine);
    let exit = run.and_then(|run| run.facts.exit());
    // Who says that its keeper is gone has brought out all of it. Where nobody said anything its relay was lost, with several
    // chunks on their way, of which any may be stored.
    let has_no_relay = run
        .is_some_and(|run| run.facts.lost().is_some_and(|lost| matches!(lost.reason, LostReason::Deadline)));
    for answers in &case.observed.answers {
        let of_run = answers.outputs.iter().filter(|o| o.command == command && o.machine == *machine);
        for output in of_run {
            let who = &answers.bridge;
            let pieces: Vec<&Piece> = output.pieces.iter().collect();
            if let Some(why) = pieces.iter().find_map(|piece| wrong_piece(&told.work, piece)) {
                return Some(format!("of {who}, {why}"));
            }
            let is_ordered = output.pieces.windows(2).all(|pair| match pair {
                [first, second] => first.end() <= second.offset,
                _ => true,
            });
            if !is_ordered {
                return Some(format!("{who} gives bytes of {} twice", output.stream));
            }
            let end = exit.map(|exit| match output.stream {
                OutputStream::Stdout => exit.stdout.bytes,
                OutputStream::Stderr => exit.stderr.bytes,
            });
            if end.is_some_and(|end| end != output.total) {
                let (total, stream) = (output.total, output.stream);
                return Some(format!(
                    "{who} says that {stream} has {total} bytes, and its exit says {end:?}"
                ));
            }
            if output.truncated && exit.is_some() && !is_cut(exit) {
                return Some(format!(
                    "{who} leaves out bytes of {}, and its exit is not marked cut",
                    output.stream
                ));
            }
            // Of a lost run there is what there is.
            let whole = end.unwrap_or(output.total);
            let of_stream = chunks.iter().map(|chunk| &chunk.piece);
            let stored: Vec<&Piece> = of_stream.filter(|piece| piece.stream == output.stream).collect();
            if has_no_relay && gaps(&pieces, whole) == gaps(&stored, whole) {
                continue;
            }
            if let Some(gap) = first_gap(&pieces, whole).filter(|_| !output.truncated) {
                return Some(format!("{who} gives no byte from {gap} on of {whole} of {}", output.stream));
            }
        }
    }
    None
}

/// What came in feeds: as it was stored, nothing twice, and nothing wrong. A relay whose line broke stores a piece again
/// behind later ones; whoever shows a feed puts that right.
fn slow_reads(case: &Case<'_>, chunks: &BTreeMap<(CommandId, MachineToken), Vec<&Chunk>>) -> Vec<Violation> {
    let mut broken = Vec::new();
    for read in &case.observed.said.slow {
        let Some(told) = case.told.get(&read.command) else { continue };
        let machine = MachineToken::new(read.machine.clone()).ok();
        let stored = machine.clone().and_then(|machine| chunks.get(&(read.command, machine)));
        let stored = stored.map_or(&[][..], Vec::as_slice);
        let mut why = read.pieces.iter().find_map(|piece| wrong_piece(&told.work, piece));
        for stream in OutputStream::ALL {
            let pieces: Vec<&Piece> = read.pieces.iter().filter(|piece| piece.stream == stream).collect();
            why = why.or_else(|| given_twice(&pieces).map(|at| format!("{stream} comes twice at {at}")));
            why = why.or_else(|| turned(&pieces, stored).map(|at| format!("{stream} went back to {at}")));
        }
        broken.extend(why.map(|why| {
            let what = format!("in a feed, {why}");
            case.broken(Promise::OutputIsWhole, Some(read.command), machine.as_ref(), what)
        }));
    }
    broken
}

/// Where a byte came that had come before.
fn given_twice(pieces: &[&Piece]) -> Option<u64> {
    let mut sorted = pieces.to_vec();
    sorted.sort_by_key(|piece| piece.offset);
    sorted.windows(2).find_map(|pair| match pair {
        [first, second] if second.offset < first.end() => Some(second.offset),
        _ => None,
    })
}

/// Which piece came behind one that was stored after it.
fn turned(pieces: &[&Piece], stored: &[&Chunk]) -> Option<u64> {
    pieces.windows(2).find_map(|pair| match pair {
        [first, second] if place(second, stored) < place(first, stored) => Some(second.offset),
        _ => None,
    })
}

/// Where a piece was stored first; what an exit carries comes behind all that was.
fn place(piece: &Piece, stored: &[&Chunk]) -> u64 {
    let holds = |chunk: &&&Chunk| {
        let known = &chunk.piece;
        known.stream == piece.stream && known.offset <= piece.offset && piece.offset < known.end()
    };
    stored.iter().filter(holds).map(|chunk| chunk.sequence).min().unwrap_or(u64::MAX)
}
