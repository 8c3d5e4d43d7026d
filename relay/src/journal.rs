//! The journal: what a relay must still know after it was killed. One append-only file, `STORE/journal`.
//!
//! ```text
//! <8 hex digits: first bytes of the SHA-256 of the rest> <space> <one entry as JSON> <newline>
//! ```
//!
//! Writing goes to the page cache, which survives a killed process; `fdatasync` follows on another thread, off
//! the way of every command. What a power loss takes from the end is what the register and the bridge's
//! deadline make good. A torn or broken line is passed over and counted, never fatal.
//!
//! When the file has grown well beyond what it says, it is written anew beside the old one and renamed; that too is
//! off the way of every command.

pub(crate) mod ledger;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use signalbox_schemas::id::{Nonce, Sha256};

use crate::private_file::{draft_of, remove_if_there};

pub(crate) use ledger::{ChunkRecord, Entry, KeeperMark, Ledger, Progress, RecordState, Report};

/// Name of the file in the store.
const FILE: &str = "journal";
/// Digits of the checksum in front of each line.
const CHECKSUM_DIGITS: usize = 8;
/// Longest line that is read back: an exit with inline output, in base64, with room.
const MAX_LINE_BYTES: u64 = 512 * 1024;
/// The file is written anew when it is above this and above twice its size after the last time.
const REWRITE_BYTES: u64 = 1024 * 1024;

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be opened or read. Not retryable without help.
    #[error("journal `{}` cannot be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It takes nothing more, such as on a full disk. Retryable; nothing was written.
    #[error("journal `{}` cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The file and what it says.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in the file.
    length: u64,
    /// The file is to be written anew when it is longer than this.
    rewrite_above: u64,
    /// Whether it is to be written anew however short it is.
    is_rewrite_due: bool,
    /// While it is written anew: the lines that were added since.
    carried: Option<Vec<u8>>,
    is_dirty: bool,
    /// Whether half a line may stand at the end of the file, which could not be taken away again.
    is_torn: bool,
    ledger: Ledger,
    /// Lines that could not be read back.
    pub(crate) broken_lines: u64,
}

impl Journal {
    /// Whether a store has one.
    pub(crate) fn is_there(store: &Path) -> bool {
        store.join(FILE).exists()
    }

    /// Reads the journal of a store, making an empty one where there is none.
    ///
    /// # Errors
    /// [`JournalError::Open`]. Broken lines are no error.
    pub(crate) fn open(store: &Path, now_ms: u64) -> Result<Self, JournalError> {
        let path = store.join(FILE);
        let failed = |source| JournalError::Open { path: store.join(FILE), source };
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        // Of a process that was killed while it wrote the file anew. It takes room, and nothing else depends on it.
        if let Err(error) = remove_if_there(&draft_of(&path)) {
            tracing::warn!(%error, "journal draft not removed");
        }
        let (ledger, length, broken_lines) = replay(&file).map_err(failed)?;
        // A torn tail goes, so that the next entry begins on a line of its own.
        file.set_len(length).map_err(failed)?;
        let mut journal = Self {
            path,
            file,
            length,
            rewrite_above: REWRITE_BYTES,
            is_rewrite_due: false,
            carried: None,
            is_dirty: false,
            is_torn: false,
            ledger,
            broken_lines,
        };
        journal.ledger.prune(now_ms);
        Ok(journal)
    }

    /// What it says.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Adds an entry; it survives this process when this returns.
    ///
    /// # Errors
    /// [`JournalError::Write`]: nothing was added.
    pub(crate) fn append(&mut self, entry: Entry) -> Result<(), JournalError> {
        let mut line = encode(&entry);
        if self.is_torn {
            // The reader passes over what is torn, but not over a line that continues it.
            line.insert(0, b'\n');
        }
        if let Err(source) = (&self.file).write_all(&line) {
            // Half a line must not stay in front of the next one.
            self.is_torn = self.file.set_len(self.length).is_err();
            if self.is_torn {
                tracing::warn!("half a journal line stays");
            }
            return Err(JournalError::Write { path: self.path.clone(), source });
        }
        if let Some(carried) = &mut self.carried {
            carried.extend_from_slice(line.strip_prefix(b"\n").unwrap_or(&line));
        }
        // Longer by what is torn, if anything is.
        self.length = self.file.metadata().map_or(self.length + line.len() as u64, |file| file.len());
        self.is_torn = false;
        self.is_dirty = true;
        // What was sealed for this relay stays in the file no longer than its claim needs it.
        if let Entry::Fact { cid, .. } | Entry::Decided { cid } | Entry::Unclaimed { cid } = &entry {
            self.is_rewrite_due |= self.ledger.brought_secret(*cid);
        }
        self.ledger.apply(entry);
        Ok(())
    }

    /// Keeps room on the disk for so many more bytes; where the file system cannot promise it, it is there at this moment.
    ///
    /// # Errors
    /// [`JournalError::Write`]: it is not there.
    pub(crate) fn make_room(&mut self, bytes: usize) -> Result<(), JournalError> {
        let made = match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, bytes as u64) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.try_room(bytes),
            made => made.map_err(io::Error::from),
        };
        made.map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }

    /// Writes so many bytes and takes them back. The reader passes over them, should this process be killed in between.
    fn try_room(&mut self, bytes: usize) -> io::Result<()> {
        let written = (&self.file).write_all(&b"\n".repeat(bytes));
        self.is_torn = self.file.set_len(self.length).is_err();
        written
    }

    /// Forgets ids that nobody can offer any more.
    pub(crate) fn prune(&mut self, now_ms: u64) {
        self.ledger.prune(now_ms);
    }

    /// Forgets former keepers that no claim needs, and has the file written anew: it may have been removed together
    /// with the store, which is what ends a keeper.
    pub(crate) fn begin_life(&mut self, keeper: Nonce) {
        self.ledger.forget_keepers(keeper);
        self.is_rewrite_due = true;
    }

    /// Whether something was added since the last [`take_dirty`](Self::take_dirty).
    pub(crate) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// A handle for `fdatasync` on another thread, when something was added since the last time.
    pub(crate) fn take_dirty(&mut self) -> Option<io::Result<File>> {
        std::mem::take(&mut self.is_dirty).then(|| self.file.try_clone())
    }

    /// Whether the file should be written anew; not while it is.
    pub(crate) fn wants_rewrite(&self) -> bool {
        self.carried.is_none() && (self.is_rewrite_due || self.length > self.rewrite_above)
    }

    /// Begins to write the file anew: what the answer says is written on another thread, since it may be much and ends
    /// with an `fdatasync`. What is added meanwhile goes into the old file, and is carried over at the end.
    pub(crate) fn begin_rewrite(&mut self) -> Draft {
        self.carried = Some(Vec::new());
        // What makes it due from now on is in the draft.
        self.is_rewrite_due = false;
        Draft { path: draft_of(&self.path), ledger: self.ledger.clone() }
    }

    /// Ends what [`begin_rewrite`](Self::begin_rewrite) began.
    ///
    /// # Errors
    /// The old file goes on and no draft is left. Worth another try later.
    pub(crate) fn end_rewrite(&mut self, written: io::Result<Rewritten>) -> io::Result<()> {
        let carried = self.carried.take().unwrap_or_default();
        let draft = draft_of(&self.path);
        let ended = written.and_then(|Rewritten { file, length }| {
            (&file).write_all(&carried)?;
            fs::rename(&draft, &self.path)?;
            Ok((file, length + carried.len() as u64))
        });
        match ended {
            Ok((file, length)) => {
                (self.file, self.length) = (file, length);
                self.is_torn = false;
                self.is_dirty |= !carried.is_empty();
                self.rewrite_above = REWRITE_BYTES.max(2 * length);
                Ok(())
            }
            Err(error) => {
                self.is_rewrite_due = true;
                // What it took of a full disk is what the next entries need.
                drop(remove_if_there(&draft));
                Err(error)
            }
        }
    }
}

/// The file as it is to be written anew.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    ledger: Ledger,
}

/// A draft on the disk, and its length.
#[derive(Debug)]
pub(crate) struct Rewritten {
    file: File,
    length: u64,
}

impl Draft {
    /// Writes it beside the old file. Blocks on the disk.
    ///
    /// # Errors
    /// No draft is left.
    pub(crate) fn write(self) -> io::Result<Rewritten> {
        self.write_whole().inspect_err(|_| drop(remove_if_there(&self.path)))
    }

    fn write_whole(&self) -> io::Result<Rewritten> {
        let mut options = OpenOptions::new();
        // Opened for appending too: after the rename this is the journal.
        let file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        file.set_len(0)?;
        let mut writer = io::BufWriter::new(&file);
        let mut length = 0;
        for entry in self.ledger.entries() {
            let line = encode(&entry);
            writer.write_all(&line)?;
            length += line.len() as u64;
        }
        writer.flush()?;
        drop(writer);
        file.sync_data()?;
        Ok(Rewritten { file, length })
    }
}

fn checksum(json: &[u8]) -> String {
    let mut digits = Sha256::of(json).to_string();
    digits.truncate(CHECKSUM_DIGITS);
    digits
}

fn encode(entry: &Entry) -> Vec<u8> {
    // Entries are strings, numbers and enums: they always have a JSON form.
    let json = serde_json::to_vec(entry).unwrap_or_default();
    let mut line = checksum(&json).into_bytes();
    line.push(b' ');
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

fn decode(line: &[u8]) -> Option<Entry> {
    let (digits, json) = line.split_at_checked(CHECKSUM_DIGITS)?;
    let json = json.strip_prefix(b" ")?;
    (checksum(json).as_bytes() == digits).then(|| serde_json::from_slice(json).ok()).flatten()
}

/// Reads all lines: what they say, where the last whole one ends, and how many could not be read.
fn replay(file: &File) -> io::Result<(Ledger, u64, u64)> {
    let mut reader = BufReader::new(file);
    let (mut ledger, mut end, mut position, mut broken) = (Ledger::default(), 0, 0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok((ledger, end, broken));
        }
        position += read as u64;
        match line.strip_suffix(b"\n") {
            Some(whole) => {
                match decode(whole) {
                    Some(entry) => ledger.apply(entry),
                    // Before it nothing was torn after all.
                    None if whole.is_empty() => {}
                    None => broken += 1,
                }
                end = position;
            }
            None => broken += 1,
        }
    }
}

#[cfg(test)]
mod tests;
