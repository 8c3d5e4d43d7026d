//! Debian packages that tests and tasks need.
//!
//! Installed when this is root on Debian, Ubuntu or a child of theirs; named in one error otherwise.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::broker::find_in_path;

/// Program that must be in `PATH`, or where servers are, and the package that brings it.
const NEEDED: [(&str, &str); 5] = [
    ("tmux", "tmux"),
    ("ip", "iproute2"),
    ("faketime", "faketime"),
    ("sshd", "openssh-server"),
    ("ssh-keygen", "openssh-client"),
];

/// Where servers are: not in everybody's `PATH`.
const SERVERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// Another package tool may hold apt's lock; wait that long for it and not for ever.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=120";

/// Sees to it that every package is there that the tests cannot do without.
///
/// # Errors
/// When something is missing and cannot be installed from here; the error names all of it.
pub(crate) fn install_missing() -> Result<()> {
    install(&NEEDED)
}

/// Installs of these what can be installed, and says what is missing then: whoever needs them does less without.
pub(crate) fn install_what_can_be(wanted: &[(&str, &str)]) {
    if let Err(error) = install(wanted) {
        eprintln!("      going on without: {error:#}");
    }
}

fn install(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !(is_root() && is_debian(&fs::read_to_string("/etc/os-release").unwrap_or_default())) {
        bail!("{} is missing: install it (Debian, Ubuntu: as root, {install})", missing.join(", "));
    }
    eprintln!("      {install}");
    // A fresh image has no package lists: the first try fails at once, and costs nothing where they are there.
    if apt_get_install(&missing)? {
        return Ok(());
    }
    apt_get(&["update"])?;
    if apt_get_install(&missing)? {
        return Ok(());
    }
    bail!("{install} failed, and {} is missing", missing.join(", "))
}

fn is_there(program: &str) -> bool {
    find_in_path(program).is_some() || SERVERS.iter().any(|folder| Path::new(folder).join(program).is_file())
}

fn apt_get_install(packages: &[&str]) -> Result<bool> {
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(packages);
    apt_get(&args)
}

fn apt_get(args: &[&str]) -> Result<bool> {
    let status = Command::new("apt-get")
        .args(["-q", "-o", LOCK_TIMEOUT])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("starting apt-get")?;
    Ok(status.success())
}

/// Whether this process runs as root: its entry in `/proc` belongs to its effective user.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// Whether an `os-release` text names Debian or Ubuntu, itself or as what it is like.
fn is_debian(os_release: &str) -> bool {
    os_release.lines().filter_map(|line| line.split_once('=')).any(|(key, value)| {
        matches!(key, "ID" | "ID_LIKE")
            && value.trim_matches('"').split_whitespace().any(|id| matches!(id, "debian" | "ubuntu"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_known() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nID_LIKE=\"rhel\"\nHOME_URL=\"https://debian\"\n"));
        assert!(!is_debian(""));
    }
}
