//! The file of known hosts: read whole, and replaced whole under a lock, so that whoever dies when, it is the old one or the new
//! one. Everything here blocks on the disk.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use data_encoding::BASE64;
use russh::keys::PublicKey;
use signalbox_schemas::limit;

use super::{
    FILE_BYTES, HASH_BYTES, Line, Lines, Marker, TooLarge, Verdict, Words, hashed, host_and_port, name_of,
    spelled,
};
use crate::{
    lock::{self, Held},
    private_file::{PRIVATE, replace_as},
};

/// A change takes a few milliseconds: who has the lock for longer hangs on its disk.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The file of known hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHosts {
    path: PathBuf,
}

/// The file of known hosts cannot be used, or not changed as was asked.
#[derive(Debug, thiserror::Error)]
pub enum KnownHostsError {
    /// It cannot be read or written.
    #[error("known hosts `{}` cannot be {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no such file.
    #[error("known hosts `{}` cannot be used: {why}; remove what is too much", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How so.
        why: TooLarge,
    },
    /// Somebody else changes it, for too long.
    #[error("known hosts `{}` is being changed by somebody else; try again", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A line that was to be added is none.
    #[error(
        "no host key: {line:?}; write `[@marker] hosts type key`, as `ssh-keyscan` and `known-hosts scan` show it"
    )]
    Line {
        /// Its beginning.
        line: String,
    },
    /// A host that was to be removed is none.
    #[error("no host: {host:?}; write `host`, `host:port` or `[host]:port`")]
    Host {
        /// Its beginning.
        host: String,
    },
}

/// Tells a state of the file from the ones before it, without a look into it. Absent where there is no file, or none that can
/// be seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp(Option<(u64, u64, i64, i64, u64)>);

/// What came of a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Lines that were not there.
    pub added: usize,
    /// Lines that are there no more, or name a host less.
    pub removed: usize,
}

impl KnownHosts {
    /// The file at this path, which need not be there.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stamp of its state.
    pub fn stamp(&self) -> Stamp {
        let of = |file: fs::Metadata| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size());
        Stamp(fs::metadata(&self.path).ok().map(of))
    }

    /// Reads it; one that is not there is empty.
    ///
    /// # Errors
    /// [`KnownHostsError::File`], [`KnownHostsError::TooLarge`].
    pub fn read(&self) -> Result<Lines, KnownHostsError> {
        self.parse(&self.bytes()?)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Lines, KnownHostsError> {
        Lines::parse(bytes).map_err(|why| KnownHostsError::TooLarge { path: self.path.clone(), why })
    }

    fn bytes(&self) -> Result<Vec<u8>, KnownHostsError> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened.map_err(|source| self.failed("read", source))?,
        };
        let mut bytes = Vec::new();
        // One byte more than is allowed tells that there is more.
        let most = FILE_BYTES as u64 + 1;
        file.take(most).read_to_end(&mut bytes).map_err(|source| self.failed("read", source))?;
        Ok(bytes)
    }

    fn failed(&self, what: &'static str, source: io::Error) -> KnownHostsError {
        KnownHostsError::File { path: self.path.clone(), what, source }
    }

    /// Adds lines; those that are there already stay once. Returns how many are new.
    ///
    /// # Errors
    /// [`KnownHostsError`]; then nothing is changed.
    pub fn add_lines(&self, lines: &[String]) -> Result<usize, KnownHostsError> {
        self.change(&[], lines).map(|changed| changed.added)
    }

    /// Forgets what is known of hosts, named as `host`, `host:port` or `[host]:port`. What a pattern says stays, and so does what
    /// was revoked. Returns how many lines that changed.
    ///
    /// # Errors
    /// [`KnownHostsError`]; then nothing is changed.
    pub fn remove_hosts(&self, hosts: &[String]) -> Result<usize, KnownHostsError> {
        self.change(hosts, &[]).map(|changed| changed.removed)
    }

    /// Forgets hosts and adds lines, all of it or nothing.
    ///
    /// # Errors
    /// [`KnownHostsError`]; then nothing is changed.
    pub fn change(&self, forget: &[String], add: &[String]) -> Result<Changed, KnownHostsError> {
        let names = forget.iter().map(|host| checked_host(host)).collect::<Result<Vec<_>, _>>()?;
        let add = add.iter().map(|line| checked_line(line)).collect::<Result<Vec<_>, _>>()?;
        let _lock = self.lock()?;
        let before = self.bytes()?;
        self.parse(&before)?;
        let (mut bytes, removed) = without(&before, &names);
        let mut lines = self.parse(&bytes)?;
        let mut changed = Changed { added: 0, removed };
        for (text, line) in add {
            let is_there =
                |old: &&Line| (old.marker, &old.hosts, &old.key) == (line.marker, &line.hosts, &line.key);
            if lines.iter().any(|old| is_there(&old)) {
                continue;
            }
            append(&mut bytes, text.as_bytes());
            lines.0.push(line);
            changed.added += 1;
        }
        if changed != Changed::default() {
            self.replace(&bytes)?;
        }
        Ok(changed)
    }

    /// Writes down the key of a host of which nothing is known, its name hashed. What is known stays as it is.
    ///
    /// # Errors
    /// [`KnownHostsError`]; then nothing is changed.
    pub fn learn(&self, host: &str, port: u16, key: &PublicKey) -> Result<Verdict, KnownHostsError> {
        let failed = |error: russh::keys::ssh_key::Error| self.failed("written", io::Error::other(error));
        let (name, blob) = (name_of(host, port), key.to_bytes().map_err(failed)?);
        let _lock = self.lock()?;
        let mut bytes = self.bytes()?;
        let verdict = self.parse(&bytes)?.look_up(&name, &blob);
        if verdict != Verdict::Unknown {
            return Ok(verdict);
        }
        let mut salt = [0; HASH_BYTES];
        getrandom::fill(&mut salt).map_err(|error| self.failed("written", io::Error::other(error)))?;
        let line = format!("{} {} {}", hashed(&name, &salt), key.algorithm(), BASE64.encode(&blob));
        append(&mut bytes, line.as_bytes());
        self.replace(&bytes)?;
        Ok(Verdict::Known)
    }

    /// Takes the right to change it, which ends with the file that is returned.
    fn lock(&self) -> Result<File, KnownHostsError> {
        let path = self.path.with_added_extension("lock");
        match lock::take_within(&path, LOCK_WAIT).map_err(|source| self.failed("locked", source))? {
            Held::Here(file) => Ok(file),
            Held::Elsewhere(_) => Err(KnownHostsError::Locked { path: self.path.clone() }),
        }
    }

    /// Puts other bytes in its place. Only under the lock.
    fn replace(&self, bytes: &[u8]) -> Result<(), KnownHostsError> {
        // What cannot be read back is not written.
        self.parse(bytes)?;
        self.try_replace(bytes).map_err(|source| self.failed("written", source))
    }

    fn try_replace(&self, bytes: &[u8]) -> io::Result<()> {
        // A link stays one.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        // It says where this machine goes: one that was not there is nobody else's.
        let mode = fs::metadata(&path).map_or(PRIVATE, |file| file.permissions().mode() & 0o777);
        replace_as(&path, bytes, mode)
    }
}

fn checked_host(text: &str) -> Result<String, KnownHostsError> {
    let named = host_and_port(text).map(|(host, port)| name_of(&host, port));
    named.ok_or_else(|| KnownHostsError::Host { host: text.chars().take(80).collect() })
}

/// A line that is to be added, and what it says: its key must be one that can be met.
fn checked_line(text: &str) -> Result<(String, Line), KnownHostsError> {
    let text = text.trim();
    let is_short = text.len() <= limit::HOST_KEY_BYTES && !text.contains(['\n', '\r', '\0']);
    let line = is_short.then(|| Line::parse(0, text.as_bytes())).flatten();
    let is_key = |line: &Line| {
        PublicKey::from_bytes(&line.key).is_ok_and(|key| key.algorithm().as_str() == line.key_type)
    };
    match line.filter(is_key) {
        Some(line) => Ok((text.to_owned(), line)),
        None => Err(KnownHostsError::Line { line: text.chars().take(80).collect() }),
    }
}

/// The text without what is known of hosts with these names, and how many lines that took or changed.
fn without(bytes: &[u8], names: &[String]) -> (Vec<u8>, usize) {
    let (mut left, mut changed) = (Vec::with_capacity(bytes.len()), 0);
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let parsed = Line::parse(index + 1, line).filter(|parsed| {
            parsed.marker != Some(Marker::Revoked) && names.iter().any(|name| parsed.names(name))
        });
        let Some((parsed, Words { hosts, .. })) = parsed.zip(Words::of(line)) else {
            left.extend_from_slice(line);
            continue;
        };
        changed += 1;
        let is_other = |host: &&[u8]| !str::from_utf8(host).is_ok_and(|host| names.contains(&spelled(host)));
        let others: Vec<&[u8]> = hosts.split(|byte| *byte == b',').filter(is_other).collect();
        // Exclusions alone mean nobody.
        let speaks_of_others = others.iter().any(|host| !host.is_empty() && !host.starts_with(b"!"));
        let place = line.windows(hosts.len()).position(|part| part == hosts);
        if let Some(at) = place.filter(|_| speaks_of_others && !parsed.is_hashed()) {
            let (before, after) = line.split_at(at);
            let after = after.get(hosts.len()..).unwrap_or_default().trim_ascii_end();
            append(&mut left, &[before, &others.join(&b","[..]), after].concat());
        }
    }
    (left, changed)
}

/// Appends a line, after the end of the one before it.
fn append(bytes: &mut Vec<u8>, line: &[u8]) {
    if bytes.last().is_some_and(|last| *last != b'\n') {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(line);
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests;
