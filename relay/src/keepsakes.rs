//! What a relay keeps for its machine: credentials and host keys. Shared by what runs on other threads.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use signalbox_schemas::{
    credential::CredentialMeta,
    error::report,
    id::{MachineToken, Workspace},
    inventory::Inventory,
    label::LabelMap,
    limit::{CREDENTIALS, FACT_TEXT_BYTES},
    sealed::SealingKey,
};

use crate::{
    config::Ssh,
    metrics::facts,
    vault::{Entry, VaultError, VaultPlace, hold::Hold},
};

/// Nothing that is done with the store takes so long: a disk that takes longer hangs, such as one that is mounted from elsewhere.
pub(crate) const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// What a relay keeps.
pub(crate) struct Keepsakes {
    pub(crate) vault: Hold,
    /// The file of host keys.
    pub(crate) known_hosts: PathBuf,
}

impl Keepsakes {
    /// What lies in a store, or where the configuration says.
    pub(crate) fn new(store: &Path, ssh: &Ssh, secret_file: Option<&Path>) -> Self {
        let known_hosts = ssh.known_hosts(store);
        Self { vault: Hold::new(VaultPlace::new(store, secret_file)), known_hosts }
    }

    fn listed(&self) -> Result<Vec<CredentialMeta>, VaultError> {
        self.vault.with(|vault| Ok(vault.entries().iter().map(Entry::meta).collect()))
    }

    /// What is known of the credentials. Blocks on the vault; one that cannot be read is said in the log.
    pub(crate) fn credentials(&self) -> Vec<CredentialMeta> {
        self.listed().unwrap_or_else(|error| {
            tracing::error!(error = report(&error), "Credentials cannot be read");
            Vec::new()
        })
    }

    /// The list of it, with what the machine is, and is for; without a revision. Blocks on the vault; one that cannot be read is
    /// a list that says so.
    pub(crate) fn inventory(
        &self,
        (ws, mid): (Workspace, MachineToken),
        sealing_key: SealingKey,
        labels: LabelMap,
    ) -> Inventory {
        let (mut credentials, problem) = match self.listed() {
            Ok(credentials) => (credentials, None),
            Err(error) => {
                let mut problem = report(&error);
                problem.truncate(problem.floor_char_boundary(FACT_TEXT_BYTES));
                (Vec::new(), Some(problem))
            }
        };
        credentials.truncate(CREDENTIALS);
        let facts = Some(facts());
        let (revision, left_out, crit) = (0, 0, Vec::new());
        Inventory { ws, mid, revision, sealing_key, credentials, left_out, problem, labels, facts, crit }
            .fit()
    }
}
