//! A running relay's hold on its vault: opened when it is first needed, read anew when its file has changed, used by one at a
//! time. Everything here blocks: on the disk, and the first time on deriving the key.

use std::sync::{Mutex, PoisonError};

use super::{
    Vault, VaultError, VaultPlace,
    disk::{self, Stamp},
};

/// The vault of a store, open or not yet.
pub(crate) struct Hold {
    place: VaultPlace,
    open: Mutex<Option<Vault>>,
}

impl Hold {
    pub(crate) fn new(place: VaultPlace) -> Self {
        Self { place, open: Mutex::new(None) }
    }

    /// Does something with the vault as it is on the disk now.
    ///
    /// # Errors
    /// When it cannot be opened, or what was done says so. A vault that could not be opened is tried again the next time.
    pub(crate) fn with<T>(
        &self,
        act: impl FnOnce(&mut Vault) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        // What panicked while it held the vault left at worst an older state in memory, and that is read anew.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut vault = match open.take() {
            Some(mut vault) => {
                // One that cannot be read now keeps what it has, its key before all.
                if let Err(error) = vault.refresh() {
                    *open = Some(vault);
                    return Err(error);
                }
                vault
            }
            None => Vault::open(self.place.clone())?,
        };
        let done = act(&mut vault);
        *open = Some(vault);
        done
    }

    /// Tells one state of the file from another; absent when there is none, or none that can be looked at.
    pub(crate) fn mark(&self) -> Option<Stamp> {
        disk::stamp(&self.place.file()).ok().flatten()
    }
}
