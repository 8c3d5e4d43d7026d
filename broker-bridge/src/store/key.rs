//! Keys of the store. One letter, then names of fixed length or ended by a zero byte; numbers are big-endian,
//! so that keys sort like what they mean.
//!
//! | key | value |
//! |---|---|
//! | `v` | format, workspace and fleet key |
//! | `c` stream | cursor: created, sequence, when that message was stored (3 × u64) |
//! | `a` | the authors document: its envelope |
//! | `e` | up to which key of the order output rows were deleted |
//! | `s` table 0 id | a record of the `state` bucket, JSON |
//! | `k` mid 0 key | a signing key that the machine has or had |
//! | `p` cid sequence | a first part that waits for its spec: `stored_at` (u64), its body, empty if there was no room |
//! | `P` cid n sequence | the same of a further part, the n-th (u32) |
//! | `C` cid | [`CommandRow`](crate::projection::CommandRow), JSON |
//! | `S` cid | exact bytes of the spec |
//! | `g` cid | the first part that the spec committed: its body |
//! | `g` cid n | the same of a further one (u32) |
//! | `K` cid | somebody asked to cancel: sequence (u64) |
//! | `R` cid | how far it has spread: [`Progress`](signalbox_schemas::rollout::Progress), JSON |
//! | `n` cid | runs by state, JSON |
//! | `o` cid | the command has runs that did not settle |
//! | `q` accepted sequence | cid: the order of commands |
//! | `r` cid mid | [`RunRow`](crate::projection::RunRow), and its facts as they stood in RUN |
//! | `u` cid mid 0 kind | a fact of a run that is not known: sequence, `stored_at` (2 × u64), body |
//! | `w` cid mid | output received: bytes (2 × u64), cut (2 × u8), rows of chunks (u32) |
//! | `x` cid sequence skip | chunk, or piece of one: stream (u8), offset (u64), skip, len (2 × u32), mid |
//! | `y` cid mid 0 stream offset | the same: sequence (u64), len, skip (2 × u32) |
//! | `b` mid | [`MailboxRow`](crate::projection::MailboxRow), JSON |
//! | `t` settled cid mid | a settled run that is not in DONE as it is |
//! | `T` settled cid | a settled command that is not in DONE |
//! | `m` cid | when that was, Unix ms (u64) |
//! | `z` from cid | a command in DONE whose subjects in RUN and CMD may be purged an hour from then |
//! | `Z` newest cid mid | a run that stands in DONE as it is: RUN needs its claim and no more. Newest fact (u64, Unix ms) |
//! | `U` sequence | a message of RUN that says nothing to anybody |
//! | `i` mid | [`InventoryRow`](crate::projection::inventory::InventoryRow), JSON |

use signalbox_schemas::{
    id::{CommandId, MachineToken},
    mailbox::Position,
    output::OutputStream,
    subject::FactKind,
};
use uuid::Uuid;

pub(crate) const STAMP: &[u8] = b"v";
pub(crate) const AUTHORS: &[u8] = b"a";
pub(crate) const OUTPUT_TRIMMED: &[u8] = b"e";
pub(crate) const RECORD: u8 = b's';
pub(crate) const MACHINE_KEY: u8 = b'k';
pub(crate) const INVENTORY: u8 = b'i';
pub(crate) const PART: u8 = b'p';
pub(crate) const FURTHER_PART: u8 = b'P';
pub(crate) const OPEN: u8 = b'o';
pub(crate) const ORDER: u8 = b'q';
pub(crate) const MAILBOX: u8 = b'b';
pub(crate) const UNKNOWN: u8 = b'u';
pub(crate) const SETTLED_RUN: u8 = b't';
pub(crate) const SETTLED_COMMAND: u8 = b'T';
pub(crate) const PURGE: u8 = b'z';
pub(crate) const RELEASE: u8 = b'Z';
pub(crate) const LITTER: u8 = b'U';

fn join(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(kind);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(crate) fn of(kind: u8, cid: CommandId) -> Vec<u8> {
    join(kind, &[cid.uuid().as_bytes()])
}

pub(crate) fn cursor(stream: &str) -> Vec<u8> {
    join(b'c', &[stream.as_bytes()])
}

pub(crate) fn table(table: &str) -> Vec<u8> {
    join(RECORD, &[table.as_bytes(), &[0]])
}

pub(crate) fn record(table: &str, id: &str) -> Vec<u8> {
    join(RECORD, &[table.as_bytes(), &[0], id.as_bytes()])
}

pub(crate) fn machine_key(mid: &MachineToken, key: &str) -> Vec<u8> {
    join(MACHINE_KEY, &[mid.as_str().as_bytes(), &[0], key.as_bytes()])
}

/// Prefix of the n-th parts of a command.
pub(crate) fn parts(cid: CommandId, n: u32) -> Vec<u8> {
    if n == 1 { of(PART, cid) } else { join(FURTHER_PART, &[cid.uuid().as_bytes(), &n.to_be_bytes()]) }
}

/// Prefixes of all parts of a command.
pub(crate) fn all_parts(cid: CommandId) -> [Vec<u8>; 2] {
    [of(PART, cid), of(FURTHER_PART, cid)]
}

pub(crate) fn part(cid: CommandId, n: u32, sequence: u64) -> Vec<u8> {
    let mut key = parts(cid, n);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// Command and sequence of a key made by [`part`].
pub(crate) fn parse_part(found: &[u8]) -> Option<(CommandId, u64)> {
    let mut reader = Reader(found);
    let is_further = reader.u8()? == FURTHER_PART;
    let cid = reader.cid()?;
    if is_further {
        reader.u32()?;
    }
    Some((cid, reader.u64()?))
}

pub(crate) fn command(cid: CommandId) -> Vec<u8> {
    of(b'C', cid)
}

pub(crate) fn spec(cid: CommandId) -> Vec<u8> {
    of(b'S', cid)
}

/// Prefix of the parts that the spec committed, in their order.
pub(crate) fn grants(cid: CommandId) -> Vec<u8> {
    of(b'g', cid)
}

pub(crate) fn grants_part(cid: CommandId, n: u32) -> Vec<u8> {
    let mut key = grants(cid);
    if n > 1 {
        key.extend_from_slice(&n.to_be_bytes());
    }
    key
}

pub(crate) fn cancel(cid: CommandId) -> Vec<u8> {
    of(b'K', cid)
}

pub(crate) fn rollout(cid: CommandId) -> Vec<u8> {
    of(b'R', cid)
}

pub(crate) fn counts(cid: CommandId) -> Vec<u8> {
    of(b'n', cid)
}

pub(crate) fn open(cid: CommandId) -> Vec<u8> {
    of(OPEN, cid)
}

pub(crate) fn order(accepted_at: u64, sequence: u64) -> Vec<u8> {
    join(ORDER, &[&accepted_at.to_be_bytes(), &sequence.to_be_bytes()])
}

pub(crate) fn run(cid: CommandId, mid: &MachineToken) -> Vec<u8> {
    join(b'r', &[cid.uuid().as_bytes(), mid.as_str().as_bytes()])
}

pub(crate) fn unknown_of(cid: CommandId) -> Vec<u8> {
    of(UNKNOWN, cid)
}

pub(crate) fn unknown(cid: CommandId, mid: &MachineToken, kind: FactKind) -> Vec<u8> {
    join(UNKNOWN, &[cid.uuid().as_bytes(), mid.as_str().as_bytes(), &[0], kind.as_str().as_bytes()])
}

pub(crate) fn received(cid: CommandId, mid: &MachineToken) -> Vec<u8> {
    join(b'w', &[cid.uuid().as_bytes(), mid.as_str().as_bytes()])
}

pub(crate) fn chunks(cid: CommandId) -> Vec<u8> {
    of(b'x', cid)
}

pub(crate) fn chunk(cid: CommandId, sequence: u64, skip: u32) -> Vec<u8> {
    join(b'x', &[cid.uuid().as_bytes(), &sequence.to_be_bytes(), &skip.to_be_bytes()])
}

pub(crate) fn place(cid: CommandId, mid: &MachineToken, stream: OutputStream, offset: u64) -> Vec<u8> {
    let stream = [stream_byte(stream)];
    let offset = offset.to_be_bytes();
    join(b'y', &[cid.uuid().as_bytes(), mid.as_str().as_bytes(), &[0], &stream, &offset])
}

pub(crate) fn mailbox(mid: &MachineToken) -> Vec<u8> {
    join(MAILBOX, &[mid.as_str().as_bytes()])
}

pub(crate) fn inventory(mid: &MachineToken) -> Vec<u8> {
    join(INVENTORY, &[mid.as_str().as_bytes()])
}

pub(crate) fn settled_run(at: u64, cid: CommandId, mid: &MachineToken) -> Vec<u8> {
    join(SETTLED_RUN, &[&at.to_be_bytes(), cid.uuid().as_bytes(), mid.as_str().as_bytes()])
}

pub(crate) fn settled_command(at: u64, cid: CommandId) -> Vec<u8> {
    join(SETTLED_COMMAND, &[&at.to_be_bytes(), cid.uuid().as_bytes()])
}

pub(crate) fn settled_at(cid: CommandId) -> Vec<u8> {
    of(b'm', cid)
}

pub(crate) fn purge(at: u64, cid: CommandId) -> Vec<u8> {
    join(PURGE, &[&at.to_be_bytes(), cid.uuid().as_bytes()])
}

pub(crate) fn release(newest: u64, cid: CommandId, mid: &MachineToken) -> Vec<u8> {
    join(RELEASE, &[&newest.to_be_bytes(), cid.uuid().as_bytes(), mid.as_str().as_bytes()])
}

pub(crate) fn litter(sequence: u64) -> Vec<u8> {
    join(LITTER, &[&sequence.to_be_bytes()])
}

/// The row of a cursor. `stored_at`: when the message at it was stored; none at the beginning of a stream.
pub(crate) fn position(at: Position, stored_at: Option<u64>) -> Vec<u8> {
    let stored_at = stored_at.map(u64::to_be_bytes);
    [&at.created.to_be_bytes()[..], &at.sequence.to_be_bytes(), stored_at.as_ref().map_or(&[], |at| &at[..])]
        .concat()
}

pub(crate) fn parse_position(bytes: &[u8]) -> Option<Position> {
    let mut reader = Reader(bytes);
    Some(Position { created: reader.u64()?, sequence: reader.u64()? })
}

pub(crate) fn stream_byte(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

pub(crate) fn parse_stream(byte: u8) -> Option<OutputStream> {
    match byte {
        0 => Some(OutputStream::Stdout),
        1 => Some(OutputStream::Stderr),
        _ => None,
    }
}

/// Reads keys and rows of fixed layout from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn cid(&mut self) -> Option<CommandId> {
        CommandId::new(Uuid::from_bytes(self.array()?)).ok()
    }

    /// A machine token up to the end.
    pub(crate) fn mid(&mut self) -> Option<MachineToken> {
        let text = std::str::from_utf8(self.rest()).ok()?;
        MachineToken::new(text).ok()
    }

    /// A machine token up to a zero byte, which is taken too.
    pub(crate) fn mid_and_zero(&mut self) -> Option<MachineToken> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (head, tail) = self.0.split_at_checked(end)?;
        self.0 = tail.get(1..)?;
        MachineToken::new(std::str::from_utf8(head).ok()?).ok()
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// The first key behind every key that begins with `prefix`.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    // No prefix here ends in 0xff bytes only: the first byte is a letter.
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_a_prefix_is_behind_all_of_its_keys() {
        assert_eq!(after(b"x\x01"), b"x\x02");
        assert_eq!(after(b"x\xff\xff"), b"y");
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let cid: CommandId = "0193a2b4-0000-7000-8000-000000000000".parse().unwrap();
        let mid = MachineToken::new("web-1").unwrap();
        let key = settled_run(7, cid, &mid);
        let mut reader = Reader(&key[1..]);
        assert_eq!((reader.u64(), reader.cid(), reader.mid()), (Some(7), Some(cid), Some(mid.clone())));
        for n in [1, 2, 10] {
            assert_eq!(parse_part(&part(cid, n, 7)), Some((cid, 7)));
        }
        let key = unknown(cid, &mid, FactKind::Exit);
        let mut reader = Reader(&key[1..]);
        assert_eq!((reader.cid(), reader.mid_and_zero()), (Some(cid), Some(mid)));
        assert_eq!(reader.rest(), b"exit");
    }
}
