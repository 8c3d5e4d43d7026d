//! The disk of a store: a file system of its own in memory, that can be full, emptied and set back.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::place::run;

/// Smallest piece of a disk: a page.
const PAGE: u64 = 4_096;

/// A folder with a store, on a file system of its own where there are namespaces.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    /// A copy of the store as it was when the world was ready.
    kept: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// A disk at `root` of so many MiB, which must not be there yet; `kept` is where a copy of its store may lie.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub(crate) fn new(root: &Path, kept: &Path, mib: u32, has_own: bool) -> Result<Self> {
        let doing = || format!("making the disk {}", root.display());
        fs::create_dir_all(root).with_context(doing)?;
        if has_own {
            let target = root.to_str().context("a path that is no text")?;
            run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs", target])?;
        }
        Ok(Self { root: root.to_owned(), kept: kept.to_owned(), is_mounted: has_own })
    }

    /// The store on it. The part that uses it makes it.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Fills it to the last page. Somebody who deletes meanwhile has room again, as on any disk.
    ///
    /// # Errors
    /// When the system refuses for another reason than that it is full.
    pub(crate) fn fill(&self) -> Result<()> {
        let filler = File::options().create(true).append(true).open(self.filler());
        let filler = filler.with_context(|| format!("filling {}", self.root.display()))?;
        let mut at = filler.metadata()?.len();
        let mut piece = self.left()?.max(PAGE);
        while piece >= PAGE {
            match fallocate(&filler, FallocateFlags::empty(), at, piece) {
                Ok(()) => at += piece,
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error).with_context(|| format!("filling {}", self.root.display())),
            }
        }
        Ok(())
    }

    /// Bytes that it has room for.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn left(&self) -> Result<u64> {
        let room = statvfs(&self.root).with_context(|| format!("looking at {}", self.root.display()))?;
        Ok(room.f_bavail * room.f_frsize)
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn free(&self) -> Result<()> {
        absent(fs::remove_file(self.filler())).with_context(|| format!("freeing {}", self.root.display()))
    }

    /// Keeps a copy of the store as it is. Nobody may be writing.
    ///
    /// # Errors
    /// When it cannot be read or copied.
    pub(crate) fn keep(&self) -> Result<()> {
        copy(&self.store(), &self.kept)
    }

    /// Deletes the store.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn wipe(&self) -> Result<()> {
        absent(fs::remove_dir_all(self.store()))
            .with_context(|| format!("deleting {}", self.store().display()))
    }

    /// Puts the kept copy in the store's place.
    ///
    /// # Errors
    /// When there is none, or no room for it.
    pub(crate) fn set_back(&self) -> Result<()> {
        self.wipe()?;
        copy(&self.kept, &self.store())
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // It goes with the process at the latest, and whoever still has a file open keeps that.
            let _ = self.root.to_str().map(|root| run("umount", &["--lazy", root]));
        }
    }
}

/// With times, modes and sockets, as whoever saves disks does it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    run("cp", &["--archive", "--no-target-directory", &text(from)?, &text(to)?])
}

fn absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::place::enter_test;

    #[test]
    fn a_store_is_set_back_and_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(&dir.path().join("d"), &dir.path().join("k"), 1, false).unwrap();
        fs::create_dir(disk.store()).unwrap();
        fs::write(disk.store().join("a"), "1").unwrap();
        disk.keep().unwrap();
        fs::write(disk.store().join("a"), "2").unwrap();
        fs::write(disk.store().join("b"), "2").unwrap();
        disk.set_back().unwrap();
        assert_eq!(fs::read_to_string(disk.store().join("a")).unwrap(), "1");
        assert!(!disk.store().join("b").exists());
        disk.wipe().unwrap();
        disk.wipe().unwrap();
        assert!(!disk.store().exists());
        fs::remove_dir_all(&disk.kept).unwrap();
        assert!(disk.set_back().is_err());
    }

    #[test]
    fn heavy_a_full_disk_takes_nothing_until_it_is_freed() {
        if !enter_test("world::disk::tests::heavy_a_full_disk_takes_nothing_until_it_is_freed") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(&dir.path().join("d"), &dir.path().join("k"), 4, true).unwrap();
        fs::create_dir(disk.store()).unwrap();
        let file = disk.store().join("a");
        fs::write(&file, "1").unwrap();
        disk.fill().unwrap();
        assert_eq!(disk.left().unwrap(), 0);
        let error = fs::write(disk.store().join("b"), "1").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.free().unwrap();
        disk.free().unwrap();
        fs::write(&file, vec![0; 3 << 20]).unwrap();
    }
}
