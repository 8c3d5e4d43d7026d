//! The authors document that this relay holds.
//!
//! Signed by the pinned fleet key; a version is taken only if it is higher than the one held. A copy lies in
//! `STORE/authors.json`, so that a relay which starts without a broker knows whom to believe; it is verified
//! again when it is read.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use signalbox_schemas::{
    authors::Authors,
    id::{Sha256, Workspace},
    signed::{PublicKey, Signed, SignedError},
};

/// Name of the copy in the store.
const FILE: &str = "authors.json";

/// A verified document.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) document: Authors,
    /// Of the envelope's bytes, as mailboxes name it.
    pub(crate) sha256: Sha256,
}

/// The place for the one document that counts.
#[derive(Debug)]
pub(crate) struct Shelf {
    path: PathBuf,
    ws: Workspace,
    fleet_key: PublicKey,
    held: Option<Held>,
}

/// What became of a document that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the one that counts now.
    Newer,
    /// The version held is as high or higher.
    NotNewer,
}

impl Shelf {
    /// Opens the place; a copy that does not verify is as good as none.
    pub(crate) fn open(store: &Path, ws: &Workspace, fleet_key: &PublicKey) -> Self {
        let path = store.join(FILE);
        let mut shelf = Self { path, ws: ws.clone(), fleet_key: fleet_key.clone(), held: None };
        if let Ok(bytes) = fs::read(&shelf.path) {
            match shelf.verify(&bytes) {
                Ok(held) => shelf.held = Some(held),
                Err(error) => tracing::warn!(%error, "stored authors document is not believed"),
            }
        }
        shelf
    }

    /// The document that counts.
    pub(crate) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Its version; 0 = none.
    pub(crate) fn version(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.document.version)
    }

    /// Takes a document if it verifies and is newer.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Taken, SignedError> {
        let held = self.verify(bytes)?;
        if held.document.version <= self.version() {
            return Ok(Taken::NotNewer);
        }
        if let Err(error) = self.write(bytes) {
            // It counts anyway: the copy only helps a start without a broker.
            tracing::warn!(%error, "authors document not kept");
        }
        self.held = Some(held);
        Ok(Taken::Newer)
    }

    fn verify(&self, bytes: &[u8]) -> Result<Held, SignedError> {
        let document = Signed::<Authors>::from_json(bytes)?.open(|key| *key == self.fleet_key)?;
        if document.ws != self.ws {
            return Err(SignedError::Misplaced("workspace"));
        }
        Ok(Held { document, sha256: Sha256::of(bytes) })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let draft = self.path.with_extension("json.new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{authors, key};

    fn edition(version: u64, signer: u8) -> Vec<u8> {
        let document = Authors { version, ..authors() };
        Signed::sign(&document, &key(signer)).unwrap().to_json()
    }

    #[test]
    fn only_a_higher_version_by_the_pinned_key_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Shelf::open(folder.path(), &Workspace::main(), key(7).public());
        let mut shelf = open();
        assert_eq!(shelf.version(), 0);
        assert!(matches!(shelf.take(&edition(9, 8)), Err(SignedError::Untrusted(_))));
        assert_eq!(shelf.take(&edition(2, 7)), Ok(Taken::Newer));
        assert_eq!(shelf.take(&edition(1, 7)), Ok(Taken::NotNewer));
        assert_eq!(shelf.take(&edition(2, 7)), Ok(Taken::NotNewer));
        assert_eq!(open().version(), 2);
        fs::write(folder.path().join(FILE), edition(5, 8)).unwrap();
        assert_eq!(open().version(), 0);
    }

    #[test]
    fn another_workspace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::open(folder.path(), &Workspace::new("other").unwrap(), key(7).public());
        assert_eq!(shelf.take(&edition(1, 7)), Err(SignedError::Misplaced("workspace")));
    }
}
