//! A small file system of its own, that can be filled.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::lacking;

/// Blocks of the file systems that are filled here, bytes.
const BLOCK: usize = 4096;

/// A file system in memory over a folder, until it is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of so many MiB. None where this user may not mount one, which is said.
    ///
    /// # Errors
    /// When the folder cannot be made, or nothing can be mounted there although this user may.
    pub fn over(folder: &Path, mib: u32) -> Result<Option<Self>> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs"]).arg(folder);
        let mounted = mount.stdin(Stdio::null()).output().context("starting mount")?;
        if mounted.status.success() {
            return Ok(Some(Self(folder.to_owned())));
        }
        let said = String::from_utf8_lossy(&mounted.stderr);
        lacking::not_permitted(&format!("a file system of {mib} MiB: {}", said.trim())).map(|()| None)
    }

    /// Takes all room that is left, also behind the ends of these files, which are only appended to and which nobody has
    /// open who knows how long they are.
    ///
    /// # Errors
    /// When the system refuses for another reason than that it is full.
    pub fn fill(&self, appended: &[&str]) -> Result<()> {
        for name in appended {
            let path = self.0.join(name);
            let doing = || format!("filling {}", path.display());
            let mut file = OpenOptions::new().create(true).append(true).open(&path).with_context(doing)?;
            let missing = BLOCK - usize::try_from(file.metadata()?.len())? % BLOCK;
            file.write_all(&b"\n".repeat(missing)).with_context(doing)?;
        }
        let doing = || format!("filling {}", self.0.display());
        let mut ballast = File::create(self.ballast()).with_context(doing)?;
        loop {
            match ballast.write_all(&[0; BLOCK]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).with_context(doing),
            }
        }
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.ballast()).with_context(|| format!("emptying {}", self.0.display()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: somebody may still be ending in there.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}
