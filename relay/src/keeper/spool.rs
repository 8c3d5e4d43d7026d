//! Output on disk: `STORE/spool/<cid>.<out|err>` holds a stream from its first byte, and
//! `<cid>.<out|err>.tail` the last bytes of a stream that was cut.
//!
//! A stream is cut when `max_output` (both streams of the run together), the quota of the whole spool, or the
//! disk is full. From then on its bytes are counted and hashed, and the last 512 KiB of the stream are
//! kept in memory until the run ends. A cut never fails a run.
//!
//! A tail file is the big-endian `u64` offset of its first byte in the stream, then the bytes.

use std::{
    cell::Cell,
    collections::{BTreeSet, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rustix::fs::statvfs;
use sha2::{Digest as _, Sha256 as Hasher};
use signalbox_schemas::{
    id::{CommandId, Sha256},
    limit,
    output::OutputStream,
};

use super::protocol::{StreamStatus, Tail};

/// Kept from the end of each cut stream: half of what a run may keep past its cut.
pub(crate) const TAIL_BYTES: usize = 512 * 1024;
const _: () = assert!(2 * TAIL_BYTES as u64 == limit::TAIL_BYTES, "both tails are what a run may keep");
/// Bulk output of all runs that were not forgotten, bytes; or less on a small disk. Room for the largest output that
/// may be asked for, beside what is kept for others.
const QUOTA_BYTES: u64 = limit::MAX_MAX_OUTPUT / (KEPT_FOR_OTHERS - 1) * KEPT_FOR_OTHERS;
/// The spool takes at most one part in this many of its disk.
const QUOTA_DISK_SHARE: u64 = 10;
/// One part in this many of the quota is kept for runs below their fair share: a run that prints without end leaves it
/// to the others.
const KEPT_FOR_OTHERS: u64 = 4;
/// A run's fair share is one part in this many of the quota, so that four runs have theirs whatever another one takes.
const FAIR_SHARE: u64 = 16;
/// Files of runs that nobody asked for since are removed at a keeper's start: RUN keeps facts for nine days, so
/// nobody can ask any more.
const ORPHAN_KEEP: Duration = Duration::from_hours(9 * 24);
/// Bytes of the offset at the beginning of a tail file.
const TAIL_HEADER_BYTES: usize = size_of::<u64>();

/// Name of the spool folder in the store.
const FOLDER: &str = "spool";

fn head_path(folder: &Path, cid: CommandId, stream: OutputStream) -> PathBuf {
    let ending = match stream {
        OutputStream::Stdout => "out",
        OutputStream::Stderr => "err",
    };
    folder.join(format!("{cid}.{ending}"))
}

fn tail_path(folder: &Path, cid: CommandId, stream: OutputStream) -> PathBuf {
    head_path(folder, cid, stream).with_added_extension("tail")
}

/// The spool folder and what may still be written to it.
pub(crate) struct Spool {
    folder: PathBuf,
    quota_bytes: u64,
    used_bytes: Cell<u64>,
}

impl Spool {
    /// Opens `STORE/spool`, counts what is there, and removes what nobody can ask for any more.
    pub(crate) fn open(store: &Path) -> io::Result<Self> {
        let folder = store.join(FOLDER);
        super::store::make_private_folder(&folder)?;
        let disk = statvfs(&folder)?;
        let share = disk.f_blocks.saturating_mul(disk.f_frsize) / QUOTA_DISK_SHARE;
        let spool = Self { folder, quota_bytes: share.min(QUOTA_BYTES), used_bytes: Cell::new(0) };
        let oldest = SystemTime::now().checked_sub(ORPHAN_KEEP).unwrap_or(SystemTime::UNIX_EPOCH);
        for entry in fs::read_dir(&spool.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let is_removed = metadata.modified()? < oldest
                && fs::remove_file(entry.path())
                    .inspect_err(|error| {
                        // It takes room, and nothing else depends on it.
                        tracing::warn!(path = %entry.path().display(), %error, "old spool entry not removed");
                    })
                    .is_ok();
            if !is_removed {
                spool.used_bytes.set(spool.used_bytes.get().saturating_add(metadata.size()));
            }
        }
        Ok(spool)
    }

    /// Takes up to `wanted` bytes from the quota, for a run that has so many of it.
    fn reserve(&self, wanted: u64, has_bytes: u64) -> u64 {
        let free = |quota: u64| quota.saturating_sub(self.used_bytes.get());
        let within_share = (self.quota_bytes / FAIR_SHARE).saturating_sub(has_bytes).min(wanted);
        let granted = within_share.min(free(self.quota_bytes));
        let open_to_all = free(self.quota_bytes - self.quota_bytes / KEPT_FOR_OTHERS).saturating_sub(granted);
        let granted = granted + (wanted - within_share).min(open_to_all);
        self.used_bytes.set(self.used_bytes.get().saturating_add(granted));
        granted
    }

    fn give_back(&self, bytes: u64) {
        self.used_bytes.set(self.used_bytes.get().saturating_sub(bytes));
    }

    /// Removes the files of a run, also of a former keeper's.
    pub(crate) fn forget(&self, cid: CommandId) {
        for stream in OutputStream::ALL {
            for path in [head_path(&self.folder, cid, stream), tail_path(&self.folder, cid, stream)] {
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                match fs::remove_file(&path) {
                    Ok(()) => self.give_back(metadata.size()),
                    Err(error) => tracing::warn!(%cid, %error, "spool file not removed"),
                }
            }
        }
    }
}

/// The output of one run while it goes on.
pub(crate) struct RunSpool {
    spool: Rc<Spool>,
    cid: CommandId,
    /// What `max_output` still allows, both streams together.
    allowed_bytes: u64,
    /// What both streams have of the quota.
    has_bytes: u64,
    streams: [Stream; 2],
}

/// One stream: its beginning in a file, its end in memory.
#[derive(Default)]
struct Stream {
    head: Option<File>,
    tail: VecDeque<u8>,
    hasher: Hasher,
    status: StreamStatus,
}

impl RunSpool {
    pub(crate) fn new(spool: Rc<Spool>, cid: CommandId, max_output_bytes: u64) -> Self {
        Self { spool, cid, allowed_bytes: max_output_bytes, has_bytes: 0, streams: Default::default() }
    }

    /// Takes the next bytes of a stream. Never fails: what cannot be kept is counted and hashed.
    pub(crate) fn write(&mut self, which: OutputStream, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(which as usize) else { return };
        stream.hasher.update(bytes);
        stream.status.bytes += bytes.len() as u64;
        let mut rest = bytes;
        if !stream.status.truncated {
            let granted = self.spool.reserve(self.allowed_bytes.min(bytes.len() as u64), self.has_bytes);
            let (fitting, _) = bytes.split_at(usize::try_from(granted).unwrap_or(bytes.len()));
            let path = head_path(&self.spool.folder, self.cid, which);
            let written = stream.write_head(&path, fitting);
            self.spool.give_back(granted - written);
            self.allowed_bytes -= written;
            self.has_bytes += written;
            stream.status.kept += written;
            stream.status.truncated = written < bytes.len() as u64;
            rest = bytes.get(usize::try_from(written).unwrap_or(bytes.len())..).unwrap_or_default();
        }
        if stream.status.truncated {
            stream.push_tail(rest);
        }
    }

    /// Ends a stream of which nobody knows how much more was printed: what came of it is kept.
    pub(crate) fn cut(&mut self, which: OutputStream) {
        if let Some(stream) = self.streams.get_mut(which as usize) {
            stream.status.truncated = true;
        }
    }

    /// The newest counts of a stream.
    pub(crate) fn status(&self, which: OutputStream) -> StreamStatus {
        self.streams.get(which as usize).map(|stream| stream.status).unwrap_or_default()
    }

    /// Writes the tails, closes the files and completes the status.
    pub(crate) fn finish(&mut self) {
        for which in OutputStream::ALL {
            let Some(stream) = self.streams.get_mut(which as usize) else { continue };
            stream.head = None;
            stream.status.sha256 = Some(Sha256(std::mem::take(&mut stream.hasher).finalize().into()));
            let tail = std::mem::take(&mut stream.tail);
            if tail.is_empty() {
                continue;
            }
            let len = tail.len() as u64;
            let offset = stream.status.bytes - len;
            let path = tail_path(&self.spool.folder, self.cid, which);
            match write_tail(&path, offset, tail) {
                // Tails are small and bounded per run: they count, but a full quota does not stop them.
                Ok(()) => {
                    self.spool.used_bytes.update(|used| used.saturating_add(len + TAIL_HEADER_BYTES as u64));
                    stream.status.tail = Some(Tail { offset, len });
                }
                Err(error) => {
                    tracing::warn!(cid = %self.cid, %error, "tail of output not kept");
                    if let Err(error) = remove_if_there(&path) {
                        tracing::warn!(cid = %self.cid, %error, "broken tail not removed");
                    }
                }
            }
        }
    }
}

impl Stream {
    /// Appends to the file, which is made at the first byte; answers how many bytes are in it now.
    fn write_head(&mut self, path: &Path, bytes: &[u8]) -> u64 {
        if bytes.is_empty() {
            return 0;
        }
        if self.head.is_none() {
            match OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path) {
                Ok(file) => self.head = Some(file),
                Err(error) => {
                    tracing::warn!(%error, "spool file not made, output cut");
                    return 0;
                }
            }
        }
        let Some(file) = &mut self.head else { return 0 };
        let mut rest = bytes;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                failed => {
                    tracing::warn!(error = ?failed.err(), "spool file not written, output cut");
                    break;
                }
            }
        }
        (bytes.len() - rest.len()) as u64
    }

    fn push_tail(&mut self, bytes: &[u8]) {
        let (_, newest) = bytes.split_at(bytes.len().saturating_sub(TAIL_BYTES));
        // One allocation of the final size: growing by doubling would hold two and a half times as much.
        self.tail.reserve_exact(TAIL_BYTES.saturating_sub(self.tail.len()));
        let surplus = (self.tail.len() + newest.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        self.tail.extend(newest);
    }
}

fn write_tail(path: &Path, offset: u64, mut tail: VecDeque<u8>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&offset.to_be_bytes())?;
    file.write_all(tail.make_contiguous())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads up to `max` bytes of a stream at its true `offset`, from its beginning or from its tail.
///
/// Empty when nothing is kept there: at the end, past what was written so far, or in the gap of a cut stream
/// (see [`StreamStatus`]). Blocks on the disk.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn read_spool(
    store: &Path,
    cid: CommandId,
    stream: OutputStream,
    offset: u64,
    max: usize,
) -> io::Result<Bytes> {
    let folder = store.join(FOLDER);
    let head = read_at(&head_path(&folder, cid, stream), offset, max)?;
    if !head.is_empty() {
        return Ok(head);
    }
    let path = tail_path(&folder, cid, stream);
    let Some(mut file) = open_if_there(&path)? else { return Ok(head) };
    let mut begin = [0; TAIL_HEADER_BYTES];
    if let Err(error) = file.read_exact(&mut begin) {
        // The keeper is writing it just now; the status that names the tail is still to come.
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(head) } else { Err(error) };
    }
    match offset.checked_sub(u64::from_be_bytes(begin)) {
        Some(within) => read_at(&path, within.saturating_add(TAIL_HEADER_BYTES as u64), max),
        None => Ok(head),
    }
}

/// What a keeper that is gone left of a run's output, stdout first. It may have seen more: what it could not keep. Blocks
/// on the disk.
pub(crate) fn left_behind(store: &Path, cid: CommandId) -> [StreamStatus; 2] {
    let folder = store.join(FOLDER);
    OutputStream::ALL.map(|stream| {
        let len_of = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let path = tail_path(&folder, cid, stream);
        let kept = len_of(&head_path(&folder, cid, stream));
        let begin = read_at(&path, 0, TAIL_HEADER_BYTES).ok();
        let begin = begin.and_then(|begin| begin.first_chunk().copied()).map(u64::from_be_bytes);
        let tail = begin.filter(|offset| *offset >= kept).map(|offset| {
            let len = len_of(&path).saturating_sub(TAIL_HEADER_BYTES as u64);
            Tail { offset, len }
        });
        let bytes = tail.map_or(kept, |tail| tail.offset.saturating_add(tail.len));
        StreamStatus { bytes, kept, sha256: None, truncated: bytes > kept, tail }
    })
}

/// Commands that have files in the spool. Blocks on the disk.
pub(crate) fn spooled(store: &Path) -> io::Result<BTreeSet<CommandId>> {
    let mut cids = BTreeSet::new();
    for entry in fs::read_dir(store.join(FOLDER))? {
        let name = entry?.file_name();
        cids.extend(name.to_str().and_then(|name| name.split('.').next()?.parse::<CommandId>().ok()));
    }
    Ok(cids)
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_at(path: &Path, offset: u64, max: usize) -> io::Result<Bytes> {
    let Some(file) = open_if_there(path)? else { return Ok(Bytes::new()) };
    let there = usize::try_from(file.metadata()?.size().saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; there.min(max)];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutputStream::{Stderr, Stdout};
    use proptest::prelude::*;

    fn cid() -> CommandId {
        "0193a2b4-0000-7000-8000-000000000000".parse().unwrap()
    }

    struct Room {
        store: tempfile::TempDir,
        spool: Rc<Spool>,
    }

    fn room(quota_bytes: Option<u64>) -> Room {
        let store = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(store.path()).unwrap();
        spool.quota_bytes = quota_bytes.unwrap_or(spool.quota_bytes);
        Room { store, spool: Rc::new(spool) }
    }

    fn read(room: &Room, stream: OutputStream, offset: u64) -> Vec<u8> {
        read_spool(room.store.path(), cid(), stream, offset, usize::MAX).unwrap().into()
    }

    #[test]
    fn both_streams_share_max_output() {
        let room = room(None);
        let mut run = RunSpool::new(room.spool.clone(), cid(), 8);
        run.write(Stdout, b"12345");
        run.write(Stderr, b"abcdef");
        run.write(Stdout, b"67");
        run.finish();
        assert_eq!(read(&room, Stdout, 0), b"12345");
        assert_eq!(read(&room, Stderr, 0), b"abc");
        let (out, err) = (run.status(Stdout), run.status(Stderr));
        assert_eq!((out.bytes, out.kept, out.truncated), (7, 5, true));
        assert_eq!((err.bytes, err.kept, err.truncated), (6, 3, true));
        assert_eq!(
            (out.tail, err.tail),
            (Some(Tail { offset: 5, len: 2 }), Some(Tail { offset: 3, len: 3 }))
        );
        assert_eq!(read(&room, Stdout, 6), b"7");
        assert_eq!(read(&room, Stderr, 3), b"def");
        assert_eq!(out.sha256, Some(Sha256::of(b"1234567")));
    }

    #[test]
    fn a_full_spool_cuts_and_forgetting_makes_room() {
        let room = room(Some(160));
        let mut run = RunSpool::new(room.spool.clone(), cid(), u64::MAX);
        run.write(Stdout, &[b'x'; 130]);
        run.finish();
        let status = run.status(Stdout);
        assert_eq!((status.bytes, status.kept, status.truncated), (130, 120, true));
        room.spool.forget(cid());
        assert_eq!(room.spool.used_bytes.get(), 0);
        assert_eq!(fs::read_dir(&room.spool.folder).unwrap().count(), 0);
    }

    #[test]
    fn a_run_that_prints_without_end_leaves_the_others_their_share() {
        let room = room(Some(1_600));
        let run = |number: u32| {
            let cid = CommandId::from_idempotency_key("test", &number.to_string());
            RunSpool::new(room.spool.clone(), cid, u64::MAX)
        };
        let mut greedy = run(0);
        for _ in 0..20 {
            greedy.write(Stdout, &[b'x'; 90]);
        }
        assert_eq!(greedy.status(Stdout).kept, 1_200);
        for number in 1..=4 {
            let mut other = run(number);
            other.write(Stdout, &[b'x'; 60]);
            other.write(Stderr, &[b'x'; 60]);
            assert_eq!((other.status(Stdout).kept, other.status(Stderr).kept), (60, 40), "run {number}");
        }
        assert_eq!(room.spool.used_bytes.get(), 1_600);
        let mut late = run(5);
        late.write(Stdout, b"x");
        assert!(late.status(Stdout).truncated, "the quota is the end of it");
    }

    #[test]
    fn what_a_former_keeper_left_counts_until_it_is_too_old() {
        let room = room(None);
        let mut run = RunSpool::new(room.spool.clone(), cid(), u64::MAX);
        run.write(Stdout, b"12345");
        run.finish();
        assert_eq!(Spool::open(room.store.path()).unwrap().used_bytes.get(), 5);
        let file = File::options().write(true).open(head_path(&room.spool.folder, cid(), Stdout)).unwrap();
        file.set_modified(SystemTime::now() - ORPHAN_KEEP - Duration::from_secs(1)).unwrap();
        assert_eq!(Spool::open(room.store.path()).unwrap().used_bytes.get(), 0);
        assert_eq!(read(&room, Stdout, 0), b"");
    }

    #[test]
    fn what_is_left_of_a_run_is_known_by_its_files() {
        let room = room(None);
        assert_eq!(left_behind(room.store.path(), cid()), [StreamStatus::default(); 2]);
        let mut run = RunSpool::new(room.spool.clone(), cid(), 8);
        run.write(Stdout, b"12345");
        run.write(Stderr, b"abc");
        let left = left_behind(room.store.path(), cid());
        assert_eq!(left, [run.status(Stdout), run.status(Stderr)]);
        run.write(Stdout, b"6789");
        run.finish();
        let whole = [Stdout, Stderr].map(|stream| StreamStatus { sha256: None, ..run.status(stream) });
        assert_eq!(left_behind(room.store.path(), cid()), whole);
    }

    #[test]
    fn a_folder_that_takes_nothing_cuts_everything() {
        let room = room(None);
        fs::remove_dir(&room.spool.folder).unwrap();
        let mut run = RunSpool::new(room.spool.clone(), cid(), u64::MAX);
        run.write(Stdout, b"12345");
        run.finish();
        let status = run.status(Stdout);
        assert_eq!((status.bytes, status.kept, status.truncated, status.tail), (5, 0, true, None));
        assert_eq!(room.spool.used_bytes.get(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn head_and_tail_are_the_stream_at_its_true_offsets(
            sizes in prop::collection::vec(0_usize..200_000, 1..12),
            max_output in 0_u64..1_000_000,
        ) {
            let room = room(None);
            let mut run = RunSpool::new(room.spool.clone(), cid(), max_output);
            let mut whole = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                let chunk: Vec<u8> = (0..=250).cycle().skip(index).take(*size).collect();
                run.write(Stdout, &chunk);
                whole.extend_from_slice(&chunk);
            }
            run.finish();
            let status = run.status(Stdout);
            prop_assert_eq!(status.bytes, whole.len() as u64);
            prop_assert_eq!(status.kept, max_output.min(status.bytes));
            prop_assert_eq!(status.sha256, Some(Sha256::of(&whole)));
            prop_assert_eq!(read(&room, Stdout, 0), &whole[..usize::try_from(status.kept)?]);
            let tail = status.tail.map_or(status.bytes, |tail| tail.offset);
            let expected = (status.bytes - status.kept).min(TAIL_BYTES as u64);
            prop_assert_eq!(status.bytes - tail, expected);
            prop_assert_eq!(read(&room, Stdout, tail), &whole[usize::try_from(tail)?..]);
        }
    }
}
