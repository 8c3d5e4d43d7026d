//! A place of one's own for a world: a process that is root goes into new namespaces, so that whatever it starts, mounts
//! and lays ends with it. Without root there are no namespaces, and less can be done.
//!
//! ```text
//! caller's process ─exec─▶ unshare ─fork─▶ init (pid 1: reaps orphans) ─spawn─▶ the same program, inside
//! ```

use std::env;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{WaitOptions, WaitStatus, geteuid, waitpid};
use signalbox_testkit::clock::faketime;
#[cfg(test)]
use signalbox_testkit::lacking;

/// Says how far a process has come on the way in.
const VARIABLE: &str = "SIGNALBOX_TORTURE_PLACE";
const INIT: &str = "init";
const INSIDE: &str = "inside";

/// What is new inside; all that is started there ends with it.
const NEW: [&str; 7] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];

/// Where network namespaces have their names.
pub(crate) const NETNS: &str = "/run/netns";

/// What can be done here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Hosts of their own, joined by a network that can be bad, and disks that can be full.
    pub(crate) namespaces: bool,
    /// The library that shifts a program's clock.
    pub(crate) faketime: Option<PathBuf>,
}

impl Abilities {
    /// What this process can do. It is inside already, or stays out.
    pub(crate) fn here() -> Self {
        Self { namespaces: stage().as_deref() == Some(INSIDE), faketime: faketime() }
    }

    /// What cannot be done here and why, for people; nothing where everything can.
    pub(crate) fn lacking(&self) -> Vec<&'static str> {
        let namespaces = "no namespaces (they need root, unshare, ip, nsenter and /dev/net/tun): nothing is cut off, no line \
                          is bad, no disk full";
        let faketime = "no libfaketime (Debian: faketime): no clock jumps";
        let lacking = [(self.namespaces, namespaces), (self.faketime.is_some(), faketime)];
        lacking.into_iter().filter(|(can, _)| !can).map(|(_, why)| why).collect()
    }
}

/// Where [`enter`] returned.
#[derive(Debug)]
pub(crate) enum Entered {
    /// Inside, or where one cannot get inside: go on.
    Here(Abilities),
    /// In the process that waited for the one inside, which ended with this code: end with it.
    Ended(u8),
}

/// Goes into a place of its own, if this process may. `again` are the arguments that bring this program back to this
/// call. Call it before anything else: from outside, this process is replaced.
///
/// # Errors
/// When a tool is missing or the system refuses.
pub(crate) fn enter(again: &[OsString]) -> Result<Entered> {
    match stage().as_deref() {
        Some(INSIDE) => {
            furnish()?;
            Ok(Entered::Here(Abilities::here()))
        }
        Some(INIT) => init(again).map(Entered::Ended),
        _ if !may_enter() => Ok(Entered::Here(Abilities::here())),
        // It returns only when it failed.
        _ => Err(way_in(again)?.exec()).context("starting unshare"),
    }
}

/// What leads inside: all that it starts ends when it does.
fn way_in(again: &[OsString]) -> Result<Command> {
    let mut command = Command::new("unshare");
    command.args(NEW).arg(own_path()?).args(again).env(VARIABLE, INIT);
    Ok(command)
}

fn stage() -> Option<String> {
    env::var(VARIABLE).ok()
}

/// Whether [`enter`] leads inside here. Root in a container has the tools and may yet not do it, so it is tried.
pub(crate) fn may_enter() -> bool {
    let tools = ["unshare", "ip", "nsenter", "mount"];
    geteuid().is_root() && tools.into_iter().all(is_on_path) && may_make_devices() && may_unshare()
}

fn may_make_devices() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok()
}

fn may_unshare() -> bool {
    let mut tried = Command::new("unshare");
    tried.args(NEW).args(["ip", "link", "set", "lo", "up"]).stdin(Stdio::null());
    tried.output().is_ok_and(|ended| ended.status.success())
}

/// Whether a tool is there.
pub(crate) fn is_on_path(tool: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(tool).is_file())
}

fn own_path() -> Result<PathBuf> {
    env::current_exe().context("finding the running program's own path")
}

/// The first process of the new place: starts the program again and reaps what loses its parent, until that has ended.
fn init(again: &[OsString]) -> Result<u8> {
    let inside = Command::new(own_path()?).args(again).env(VARIABLE, INSIDE).spawn();
    let inside: Child = inside.context("starting this program inside")?;
    loop {
        let (pid, status) =
            waitpid(None, WaitOptions::empty()).context("waiting")?.context("nobody to wait for")?;
        if pid.as_raw_nonzero().get().unsigned_abs() == inside.id() {
            return Ok(code(status));
        }
    }
}

/// As a shell says it: 128 and the signal for who was killed.
fn code(status: WaitStatus) -> u8 {
    let status = std::process::ExitStatus::from_raw(status.as_raw());
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// What every new place needs: a loopback interface that is up, and names of its own for network namespaces.
fn furnish() -> Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    std::fs::create_dir_all(NETNS).with_context(|| format!("making {NETNS}"))?;
    run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", NETNS])
}

/// Runs a tool to its end.
///
/// # Errors
/// When it cannot be started or fails; the error quotes it.
pub(crate) fn run(tool: &str, args: &[&str]) -> Result<()> {
    let line = || format!("{tool} {}", args.join(" "));
    let ended = Command::new(tool).args(args).output().with_context(line)?;
    ensure!(
        ended.status.success(),
        "{}: {}: {}",
        line(),
        ended.status,
        String::from_utf8_lossy(&ended.stderr).trim()
    );
    Ok(())
}

/// A test that needs a place of its own comes here first. Answers whether this is that place; it is not when another process was
/// the test, or this user may have none.
#[cfg(test)]
pub(crate) fn enter_test(name: &str) -> bool {
    let again = ["--exact", name, "--nocapture", "--include-ignored"].map(OsString::from);
    if stage().is_none() && may_enter() {
        // Not in this process's place: other tests may be running in it.
        let ended = way_in(&again).unwrap().status().unwrap();
        assert!(ended.success(), "{name} failed inside: {ended}");
        return false;
    }
    match enter(&again).unwrap() {
        Entered::Here(here) if here.namespaces => true,
        Entered::Here(here) => {
            lacking::not_permitted(&here.lacking().join("; ")).unwrap();
            false
        }
        Entered::Ended(code) => {
            assert_eq!(code, 0, "{name} failed inside");
            false
        }
    }
}

/// A part of the system is not there.
pub(crate) fn missing<T>(what: &str) -> Result<T> {
    bail!("there is no {what} in this world")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_said() {
        let all = Abilities { namespaces: true, faketime: Some("/f".into()) };
        assert_eq!(all.lacking(), Vec::<&str>::new());
        let none = Abilities { namespaces: false, faketime: None };
        assert_eq!(none.lacking().len(), 2);
    }

    /// The processes of a place end with it, also those whose parent is gone; and are reaped meanwhile.
    #[test]
    fn heavy_orphans_are_reaped_inside() {
        if !enter_test("world::place::tests::heavy_orphans_are_reaped_inside") {
            return;
        }
        assert_ne!(std::process::id(), 1);
        let child = Command::new("sh").args(["-c", "true & echo $!"]).output().unwrap();
        let orphan: u32 = String::from_utf8(child.stdout).unwrap().trim().parse().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while std::path::Path::new(&format!("/proc/{orphan}")).exists() {
            assert!(std::time::Instant::now() < until, "orphan {orphan} was not reaped");
            std::thread::yield_now();
        }
    }
}
