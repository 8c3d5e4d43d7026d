//! The local secret that a vault opens with: a file of the store, or one that `relay.toml` names.

use std::{fmt, path::Path};

use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::{VaultError, disk, seal};

/// Longest secret, bytes: what a service manager hands over is no longer.
pub(super) const MAX_BYTES: u64 = 4096;
/// Random bytes of one that is drawn.
const DRAWN_BYTES: usize = 32;

/// A local secret. Wiped when it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct LocalSecret(Zeroizing<Vec<u8>>);

impl fmt::Debug for LocalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalSecret")
    }
}

/// Who may read the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// Its owner alone.
    Owner,
    /// Its group too: a service manager gives a file to a service's user by an access list, which shows as its group's bits.
    Group,
}

impl LocalSecret {
    /// 256 random bits as text.
    pub(super) fn draw() -> Result<Self, VaultError> {
        let mut bytes = Zeroizing::new([0; DRAWN_BYTES]);
        seal::fill(&mut bytes[..])?;
        // Room for all of it, so that nothing is left behind where it grew.
        let mut text = Zeroizing::new(String::with_capacity(2 * DRAWN_BYTES));
        BASE64URL_NOPAD.encode_append(&bytes[..], &mut text);
        Ok(Self(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// Reads a file, without the white space behind it: a line end there is nobody's secret.
    pub(super) fn read(path: &Path, readers: Readers) -> Result<Self, VaultError> {
        let hidden = match readers {
            Readers::Owner => 0o077,
            Readers::Group => 0o027,
        };
        let Some((bytes, stamp)) = disk::read(path, MAX_BYTES)? else {
            return Err(VaultError::NoSecret { path: path.to_owned() });
        };
        if stamp.mode & hidden != 0 {
            return Err(VaultError::Exposed { path: path.to_owned(), mode: stamp.mode });
        }
        let text = bytes.trim_ascii_end();
        if text.is_empty() || bytes.len() as u64 > MAX_BYTES {
            return Err(VaultError::BadSecret { path: path.to_owned() });
        }
        Ok(Self(Zeroizing::new(text.to_vec())))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of its file.
    pub(super) fn to_file(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.0.len() + 1));
        bytes.extend_from_slice(&self.0);
        bytes.push(b'\n');
        bytes
    }
}
