//! Which runs are open, for the next keeper: `STORE/open/<instance>.<cid>`, an empty file from before a run's start
//! to after its end.
//!
//! What an ended run left behind is no leftover: a service may have been started by it. So a new keeper ends only
//! processes of the runs that a former one had open. Without the folder nothing is known, and a store that was
//! removed says nothing about processes: then everything that is marked with the store counts as left behind. No
//! file is synced: a power loss that takes one takes the processes too.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use signalbox_schemas::id::{CommandId, Nonce};

/// Name of the folder in the store.
const FOLDER: &str = "open";

/// A run of a keeper's life.
pub(crate) type OpenRun = (Nonce, CommandId);

/// The record of one keeper's life.
pub(crate) struct OpenRuns {
    folder: PathBuf,
    instance: Nonce,
}

impl OpenRuns {
    pub(crate) fn new(store: &Path, instance: Nonce) -> Self {
        Self { folder: store.join(FOLDER), instance }
    }

    /// The runs that former keepers had open. None when there is no record.
    pub(crate) fn former(&self) -> io::Result<Option<Vec<OpenRun>>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let mut former = Vec::new();
        for entry in entries {
            former.extend(entry?.file_name().to_str().and_then(parse));
        }
        Ok(Some(former))
    }

    /// Begins this life's record, once the `former` runs are over.
    pub(crate) fn begin(&self, former: &[OpenRun]) -> io::Result<()> {
        super::store::make_private_folder(&self.folder)?;
        for run in former {
            self.remove_run(*run);
        }
        Ok(())
    }

    /// A run is about to start. One that cannot be written down starts all the same: on a full disk the relay's
    /// journal, which knows it by its claim, is what ends its processes.
    pub(crate) fn add(&self, cid: CommandId) {
        let path = self.path((self.instance, cid));
        if let Err(error) = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
        {
            tracing::warn!(%cid, %error, "run not recorded as open");
        }
    }

    /// A run is over.
    pub(crate) fn remove(&self, cid: CommandId) {
        self.remove_run((self.instance, cid));
    }

    fn remove_run(&self, run: OpenRun) {
        match fs::remove_file(self.path(run)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(cid = %run.1, %error, "record of an open run not removed");
            }
            _ => {}
        }
    }

    fn path(&self, (instance, cid): OpenRun) -> PathBuf {
        self.folder.join(format!("{instance}.{cid}"))
    }
}

fn parse(name: &str) -> Option<OpenRun> {
    let (instance, cid) = name.split_once('.')?;
    Some((instance.parse().ok()?, cid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_runs_are_known_to_the_next_life_and_ended_ones_are_not() {
        let store = tempfile::tempdir().unwrap();
        let cid = |number: u32| CommandId::from_idempotency_key("test", &number.to_string());
        let first = OpenRuns::new(store.path(), Nonce([1; 16]));
        assert_eq!(first.former().unwrap(), None, "nothing is known of a fresh store");
        first.begin(&[]).unwrap();
        assert_eq!(first.former().unwrap(), Some(vec![]));
        first.add(cid(1));
        first.add(cid(2));
        first.remove(cid(1));
        fs::write(store.path().join(FOLDER).join("rubbish"), "").unwrap();
        let next = OpenRuns::new(store.path(), Nonce([2; 16]));
        let former = next.former().unwrap().unwrap();
        assert_eq!(former, [(Nonce([1; 16]), cid(2))]);
        next.begin(&former).unwrap();
        assert_eq!(next.former().unwrap(), Some(vec![]));
    }
}
