//! Host keys that are known, as OpenSSH writes them down (`sshd(8)`).
//!
//! ```text
//! line   = [marker " "] hosts " " type " " base64 [" " comment]      marker: @revoked, @cert-authority
//! hosts  = pattern {"," pattern}                                    *, ?; a leading ! excludes the whole line
//!        | "|1|" base64 salt "|" base64 HMAC-SHA1(salt, name)
//! name   = host on port 22, "[" host "]:" port on another one
//! ```
//!
//! A line that is none of this says nothing, as with OpenSSH; so keys are compared as bytes, and one of a kind that nobody here
//! can read can be revoked. The file itself is in [`mod@file`].

pub mod file;

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use signalbox_schemas::{
    command::SSH_PORT,
    host::{is_host, plain, wildcard},
    limit,
};

/// Largest file that is read.
pub const FILE_BYTES: usize = 4 * 1024 * 1024;
/// Longest line that is read.
pub const LINE_BYTES: usize = 8 * 1024;
/// Bytes of the salt of a hashed name, and of the hash: those of SHA-1, as OpenSSH draws them.
const HASH_BYTES: usize = 20;
/// What a hashed name begins with.
const HASHED: &str = "|1|";

/// What a line says beside that a key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// The key is not to be believed any more, whoever shows it.
    Revoked,
    /// The key signs certificates of hosts.
    Authority,
}

/// Which hosts a line speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// One, whose name cannot be read.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
    /// Those that a pattern means and none excludes, as [`spelled`] has them.
    Patterns(Vec<String>),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it stands, from 1 on.
    pub number: usize,
    /// What it says of the key.
    pub marker: Option<Marker>,
    /// The hosts as they are written.
    pub hosts: String,
    /// The kind of key, such as `ssh-ed25519`.
    pub key_type: String,
    /// The key as it is on the wire.
    pub key: Vec<u8>,
    meant: Hosts,
}

/// The lines of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

/// What is known of a host's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the host's.
    Known,
    /// Nothing is known of the host.
    Unknown,
    /// Other keys are the host's: where they stand.
    Changed(Vec<Place>),
    /// It is not to be believed: where that stands.
    Revoked(Place),
}

/// Where a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1 on.
    pub line: usize,
    /// The kind of key.
    pub key_type: String,
    /// Its fingerprint, `SHA256:…`.
    pub fingerprint: String,
}

/// A file of known hosts is too large to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// All of it.
    #[error("it has more than 4 MiB")]
    File,
    /// One line.
    #[error("line {0} has more than 8 KiB")]
    Line(usize),
}

/// What a host on a port is called in the file.
pub fn name_of(host: &str, port: u16) -> String {
    let host = plain(host);
    if port == SSH_PORT { host } else { format!("[{host}]:{port}") }
}

/// Reads what a host is called in the file, or a host, or a host and its port.
pub fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None if text.matches(':').count() == 1 => {
            text.split_once(':').map(|(host, port)| (host, Some(port)))?
        }
        None => (text, None),
    };
    let port = port.map_or(Some(SSH_PORT), signalbox_schemas::host::port)?;
    is_host(host).then(|| (plain(host), port))
}

/// The fingerprint of a key as it is on the wire, as OpenSSH shows it.
pub fn fingerprint(key: &[u8]) -> String {
    let hash = BASE64.encode(&Sha256::digest(key));
    format!("SHA256:{}", hash.trim_end_matches('='))
}

/// A name as it stands in a hashed line.
pub fn hashed(name: &str, salt: &[u8; HASH_BYTES]) -> String {
    let hash = hmac_sha1(salt, name).unwrap_or_default();
    format!("{HASHED}{}|{}", BASE64.encode(salt), BASE64.encode(&hash))
}

fn hmac_sha1(salt: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha1>::new_from_slice(salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.finalize().into_bytes().to_vec())
}

/// The words of a line as they are written.
struct Words<'a> {
    marker: Option<Marker>,
    hosts: &'a [u8],
    key_type: &'a [u8],
    key: &'a [u8],
}

impl<'a> Words<'a> {
    /// None when they are too few, a comment, or have a marker that is not known.
    fn of(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty());
        let mut hosts = words.next().filter(|word| !word.starts_with(b"#"))?;
        let marker = match hosts {
            b"@revoked" => Some(Marker::Revoked),
            b"@cert-authority" => Some(Marker::Authority),
            other if other.starts_with(b"@") => return None,
            _ => None,
        };
        if marker.is_some() {
            hosts = words.next()?;
        }
        Some(Self { marker, hosts, key_type: words.next()?, key: words.next()? })
    }
}

impl Line {
    /// Reads a line. None when it is empty, a comment, or none. What stands behind the key says nothing and may be any bytes.
    pub fn parse(number: usize, line: &[u8]) -> Option<Self> {
        let Words { marker, hosts, key_type, key } = Words::of(line)?;
        let key = BASE64.decode(key).ok()?;
        // The key names its kind itself.
        let named = key.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize)?;
        let named = key.get(4..named.checked_add(4)?)?;
        if named != key_type {
            return None;
        }
        let (key_type, meant) = (str::from_utf8(key_type).ok()?.to_owned(), Hosts::parse(hosts)?);
        let hosts = String::from_utf8_lossy(hosts).into_owned();
        Some(Self { number, marker, hosts, key_type, key, meant })
    }

    /// Its key's fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.key)
    }

    /// Whether it speaks of a host that is called so.
    pub fn means(&self, name: &str) -> bool {
        match &self.meant {
            Hosts::Hashed { salt, hash } => hmac_sha1(salt, name).is_some_and(|made| made == *hash),
            Hosts::Patterns(patterns) => {
                let mut is_meant = false;
                for pattern in patterns {
                    match pattern.strip_prefix('!') {
                        Some(excluded) if wildcard(excluded, name) => return false,
                        Some(_) => {}
                        None => is_meant |= wildcard(pattern, name),
                    }
                }
                is_meant
            }
        }
    }

    /// Whether it speaks of this host alone, or names it beside others without a wildcard.
    pub fn names(&self, name: &str) -> bool {
        match &self.meant {
            Hosts::Hashed { .. } => self.means(name),
            Hosts::Patterns(patterns) => patterns.iter().any(|pattern| pattern == name),
        }
    }

    /// Whether nobody can read which host it speaks of.
    fn is_hashed(&self) -> bool {
        matches!(self.meant, Hosts::Hashed { .. })
    }

    fn place(&self) -> Place {
        Place { line: self.number, key_type: self.key_type.clone(), fingerprint: self.fingerprint() }
    }
}

impl Hosts {
    fn parse(word: &[u8]) -> Option<Self> {
        if let Some(rest) = word.strip_prefix(HASHED.as_bytes()) {
            let (salt, hash) = str::from_utf8(rest).ok()?.split_once('|')?;
            let bytes = |text: &str| BASE64.decode(text.as_bytes()).ok().filter(|it| it.len() == HASH_BYTES);
            return Some(Self::Hashed { salt: bytes(salt)?, hash: bytes(hash)? });
        }
        // What is empty or no text means no host: what stands beside it is heeded, as OpenSSH does.
        let texts = word.split(|byte| *byte == b',').filter_map(|text| str::from_utf8(text).ok());
        let patterns: Vec<String> = texts.filter(|text| !text.is_empty()).map(spelled).collect();
        let is_pattern = |text: &String| {
            let text = text.strip_prefix('!').unwrap_or(text);
            !text.starts_with('|') && text.len() <= limit::HOST_KEY_BYTES
        };
        (!patterns.is_empty() && patterns.iter().all(is_pattern)).then_some(Self::Patterns(patterns))
    }
}

/// A host of a line as it is compared: names and addresses are spelled as [`name_of`] does, patterns are lower case.
fn spelled(text: &str) -> String {
    let (not, name) = text.strip_prefix('!').map_or(("", text), |name| ("!", name));
    if name.contains(['*', '?']) {
        return text.to_lowercase();
    }
    match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => format!("{not}[{}]{port}", plain(host)),
        None => format!("{not}{}", plain(name)),
    }
}

impl<'a> IntoIterator for &'a Lines {
    type Item = &'a Line;
    type IntoIter = std::slice::Iter<'a, Line>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Lines {
    /// Reads a file's text. Lines that are none are left out.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TooLarge> {
        if bytes.len() > FILE_BYTES {
            return Err(TooLarge::File);
        }
        let mut lines = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            if line.len() > LINE_BYTES {
                return Err(TooLarge::Line(number));
            }
            lines.extend(Line::parse(number, line));
        }
        Ok(Self(lines))
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Line> {
        self.0.iter()
    }

    /// Those that speak of a host: looking through all takes a while, where names are hashed.
    #[must_use]
    pub fn about(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|line| line.means(name)).cloned().collect())
    }

    /// What is known of a key that the host called `name` shows. A host of which another key is known, of whatever kind, has
    /// changed: nobody may pass by showing a kind that was never seen.
    pub fn look_up(&self, name: &str, key: &[u8]) -> Verdict {
        if let Some(place) = self.revocation(name, key) {
            return Verdict::Revoked(place);
        }
        let known: Vec<&Line> = self.keys_of(name).collect();
        if known.iter().any(|line| line.key == key) {
            return Verdict::Known;
        }
        if known.is_empty() {
            Verdict::Unknown
        } else {
            Verdict::Changed(known.iter().map(|line| line.place()).collect())
        }
    }

    /// Where a key is said not to be believed, if it is: a host's own, or one that signs certificates.
    pub fn revocation(&self, name: &str, key: &[u8]) -> Option<Place> {
        let of_key =
            |line: &&Line| line.marker == Some(Marker::Revoked) && line.key == key && line.means(name);
        self.0.iter().find(of_key).map(Line::place)
    }

    /// The keys that are known to be a host's.
    pub fn keys_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Line> {
        self.0.iter().filter(move |line| line.marker.is_none() && line.means(name))
    }

    /// The keys that may sign a host's certificate.
    pub fn authorities_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Line> {
        self.0.iter().filter(move |line| line.marker == Some(Marker::Authority) && line.means(name))
    }
}

#[cfg(test)]
mod tests;
