//! A file system that can be filled.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Result;

/// Blocks of the file systems that are filled here, bytes.
const BLOCK: usize = 4096;

/// A small file system of its own over a folder.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this user may not mount one.
    pub(crate) fn over(folder: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"]).arg(folder);
        let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        Ok(is_mounted.then(|| Self(folder.to_owned())))
    }

    /// Takes all room that is left, also behind the ends of the files that are appended to. Not under a living relay: it
    /// knows how long its journal is.
    pub(crate) fn fill(&self) -> Result<()> {
        for name in ["keeper.log", "journal"] {
            let mut file = OpenOptions::new().create(true).append(true).open(self.0.join(name))?;
            let missing = BLOCK - usize::try_from(file.metadata()?.len())? % BLOCK;
            file.write_all(&b"\n".repeat(missing))?;
        }
        self.fill_blocks()
    }

    /// Takes all blocks that are left.
    pub(crate) fn fill_blocks(&self) -> Result<()> {
        let mut ballast = File::create(self.0.join("ballast"))?;
        while ballast.write_all(&[0; BLOCK]).is_ok() {}
        Ok(())
    }

    pub(crate) fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("ballast"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a keeper may still be ending in there.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}
