//! What a test needs and does not find. Who may not have it does without; who could have it is told, since a test that does nothing
//! and passes proves nothing.

use std::{
    fs,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::geteuid;

/// The capability to mount file systems and to make namespaces, by its bit.
const CAP_SYS_ADMIN: u32 = 21;

/// A program or library is missing. Root installs it.
///
/// # Errors
/// Where this process is root.
pub fn not_installed(what: &str) -> Result<()> {
    without(what, geteuid().is_root(), "install it: `cargo xtask test` does")
}

/// The system refuses what a process with all rights may do.
///
/// # Errors
/// Where this process has them.
pub fn not_permitted(what: &str) -> Result<()> {
    without(what, may_administer()?, "this process has CAP_SYS_ADMIN, so it should be to be had")
}

fn without(what: &str, is_to_be_had: bool, advice: &str) -> Result<()> {
    if is_to_be_had {
        bail!("lacking: {what}; {advice}");
    }
    writeln!(io::stderr(), "SKIPPED: lacking: {what}").context("saying what is lacking")
}

/// Whether this process may administer the system: root in a container often may not.
fn may_administer() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("reading what this process may do")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = u64::from_str_radix(effective.context("no rights are told")?.trim(), 16)?;
    Ok(rights >> CAP_SYS_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_could_have_it_is_told() {
        assert_eq!(not_installed("a library").is_err(), geteuid().is_root());
        assert_eq!(not_permitted("a mount").is_err(), may_administer().unwrap());
        let told = without("a mount", true, "make one").unwrap_err().to_string();
        assert_eq!(told, "lacking: a mount; make one");
        without("a mount", false, "make one").unwrap();
    }
}
