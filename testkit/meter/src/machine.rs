//! Where and with what it is measured.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use signalbox_testkit::{broker::nats_server, process::bin};

use crate::report::Machine;

/// This machine, now.
pub(crate) fn machine() -> Result<Machine> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let load = read("/proc/loadavg")?;
    Ok(Machine {
        processors: std::thread::available_parallelism().context("counting processors")?.get(),
        model: field(&read("/proc/cpuinfo")?, "model name")
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        memory_mib: field(&read("/proc/meminfo")?, "MemTotal").and_then(|text| kib(&text)).unwrap_or(0)
            / 1024,
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        load: load.split(' ').next().and_then(|one| one.parse().ok()).context("odd /proc/loadavg")?,
    })
}

/// Of Signalbox, with the commit it was built from as far as the folder knows, and of the broker.
pub(crate) fn versions() -> Result<BTreeMap<String, String>> {
    let mut signalbox =
        said(Command::new(bin("signalbox")?).arg("--version")).context("asking signalbox for its version")?;
    if let Some(commit) = said(Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=10"])) {
        signalbox = format!("{signalbox} ({commit})");
    }
    let broker =
        said(Command::new(nats_server()?).arg("-v")).context("asking nats-server for its version")?;
    let word = |text: &str| text.rsplit(' ').next().unwrap_or_default().trim_start_matches('v').to_owned();
    let signalbox = signalbox.trim_start_matches("signalbox ").to_owned();
    Ok(BTreeMap::from([("signalbox".to_owned(), signalbox), ("nats-server".to_owned(), word(&broker))]))
}

/// The first line that a program says, if it is there and ends well.
pub(crate) fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next()?.trim().to_owned())
}

/// How many descriptors this process may have from now on: as many as the system lets it, which its children inherit.
pub(crate) fn raise_descriptors() -> Result<usize> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit of open files")?;
    Ok(limit.current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)))
}

/// Folder for what must not wait for a disk.
pub(crate) fn memory_folder() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}

/// The value of a `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn kib(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_kernel_are_read() {
        let text = "processor\t: 0\nmodel name\t: A: B\nMemTotal:       24685112 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A: B"));
        assert_eq!(field(text, "MemTotal").and_then(|text| kib(&text)), Some(24_685_112));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn this_machine_is_known() {
        let machine = machine().unwrap();
        assert!(
            machine.processors > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty(),
            "{machine:?}"
        );
    }
}
