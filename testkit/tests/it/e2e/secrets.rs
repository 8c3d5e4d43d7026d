//! A secret from the console to the host that it opens, with nothing played: where it is found afterwards, and where not.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::{
    eventually::{eventually, eventually_within},
    process::{Daemon, Signal, dead, kill, signal},
    sshd::{Sshd, run},
    stack::{Options, Stack},
};

use super::main_job::cli;

const BOUND: Duration = Duration::from_mins(1);
/// What each secret has in it.
const MARKER: &str = "hunter2-83be0c51";

/// One machine that may dial this one, and a server whose locked key lets it in.
struct Place {
    stack: Stack,
    sshd: Sshd,
    /// What the operator has beside it, as files.
    own: tempfile::TempDir,
}

impl Place {
    async fn start() -> Result<Self> {
        let (stack, sshd) = (Stack::start(Options::relays(1)).await?, Sshd::start().await?);
        let machine = stack.machine(0)?;
        let toml = stack.ready().state_dir.join("machines/demo-1/relay.toml");
        let before = fs::read_to_string(&toml)?;
        fs::write(&toml, format!("{before}\n[ssh]\ntargets = [\"127.0.0.1\"]\n"))?;
        kill(machine.pid).await?;
        sshd.keygen("locked", &["-t", "ed25519", "-N", &format!("passphrase {MARKER}")])?;
        sshd.authorize_only("locked")?;
        let own = tempfile::tempdir()?;
        fs::write(own.path().join("passphrase"), format!("passphrase {MARKER}\n"))?;
        fs::write(own.path().join("password"), format!("password {MARKER}\n"))?;
        fs::write(own.path().join("known"), format!("{}\n", sshd.known_as("host", sshd.port())?))?;
        for name in ["passphrase", "password"] {
            fs::set_permissions(own.path().join(name), fs::Permissions::from_mode(0o600))?;
        }
        Ok(Self { stack, sshd, own })
    }

    fn file(&self, name: &str) -> String {
        self.own.path().join(name).display().to_string()
    }

    /// Runs the command line to a good end, and sees that it says no secret.
    async fn signalbox(&self, args: &[&str]) -> Result<String> {
        let (code, stdout, stderr) = cli(&self.stack, args).await?;
        ensure!(code == Some(0), "{args:?} ends with {code:?}: {stderr}");
        ensure!(!stdout.contains(MARKER) && !stderr.contains(MARKER), "{args:?} says the secret");
        Ok(stdout)
    }

    /// The bytes of which there is none outside of the secrets themselves.
    fn markers(&self) -> Result<Vec<Vec<u8>>> {
        let key = self.sshd.text("locked")?;
        let line = key.lines().nth(2).context("a short key")?.as_bytes().to_vec();
        Ok(vec![MARKER.as_bytes().to_vec(), line])
    }

    /// Files below a folder that have a marker in them.
    fn marked(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let (markers, mut folders, mut found) = (self.markers()?, vec![folder.to_owned()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let kind = fs::symlink_metadata(&path)?.file_type();
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    // It may go while it is looked at.
                    let bytes = fs::read(&path).unwrap_or_default();
                    let has = |marker: &Vec<u8>| bytes.windows(marker.len()).any(|window| window == marker);
                    found.extend(markers.iter().any(has).then_some(path));
                }
            }
        }
        Ok(found)
    }

    /// Arguments and environments of all processes that have a marker in them.
    fn marked_processes(&self) -> Result<Vec<String>> {
        let markers = self.markers()?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            for name in ["cmdline", "environ"] {
                let bytes = fs::read(path.join(name)).unwrap_or_default();
                let has = |marker: &Vec<u8>| bytes.windows(marker.len()).any(|window| window == marker);
                if markers.iter().any(has) {
                    found.push(path.join(name).display().to_string());
                }
            }
        }
        Ok(found)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_used_and_found_nowhere() -> Result<()> {
    let place = Box::pin(Place::start()).await?;
    let (key, passphrase) = (place.sshd.path("locked").display().to_string(), place.file("passphrase"));
    let push = ["credential", "push", "gate", "--type", "ssh_key", "--key-file", &key, "--passphrase-file"];
    let to = [&passphrase, "--user", place.sshd.user(), "--target", "127.0.0.1", "--to", "demo-1"];
    eventually_within("the relay begins again", BOUND, || async {
        place.signalbox(&[&push[..], &to[..]].concat()).await
    })
    .await?;
    place.signalbox(&["host-keys", "add", "--file", &place.file("known"), "--to", "demo-1"]).await?;
    place.signalbox(&["recovery-key", "create", "--out", &place.file("recovery")]).await?;
    let password = place.file("password");
    let shared = ["credential", "push", "db", "--type", "password", "--mode", "shared", "--value-file"];
    place.signalbox(&[&shared[..], &[&password, "--to", "demo-1"]].concat()).await?;

    // While it runs there, and when it has.
    let gate = place.own.path().join("gate");
    let there = format!("127.0.0.1:{}", place.sshd.port());
    let script =
        format!("echo begun; cat /proc/$$/environ; while ! test -e {}; do sleep 0.05; done", gate.display());
    let mut command = place.stack.cli(&["run", "--via", "demo-1", "--ssh", &there, "--", &script])?;
    let console = Daemon::spawn(&mut command)?;
    eventually_within("the command runs there", BOUND, || async {
        ensure!(console.stdout()?.contains("begun"), "{}", console.stderr()?);
        Ok(())
    })
    .await?;
    ensure!(place.marked_processes()?.is_empty(), "{:?}", place.marked_processes()?);
    fs::write(&gate, "")?;
    let status = console.wait(BOUND).await?;
    ensure!(status.success() && !console.stdout()?.contains(MARKER), "{status}: {}", console.stderr()?);

    place.signalbox(&["credential", "list", "--json"]).await?;
    place.signalbox(&["audit", "--verify"]).await?;
    place.signalbox(&["credential", "unassign", "db", "--to", "demo-1"]).await?;
    place.signalbox(&["credential", "remove", "gate", "--to", "demo-1"]).await?;
    let found = place.marked(&place.stack.ready().state_dir)?;
    ensure!(found.is_empty(), "the secret lies in {found:?}");
    ensure!(!place.sshd.log()?.contains(MARKER), "the server was told a secret that it logs");
    place.stack.stop().await?;
    let found = place.marked(&place.stack.ready().state_dir)?;
    ensure!(found.is_empty(), "the secret lies in {found:?}");
    // The search itself finds what there is.
    ensure!(place.marked(place.own.path())?.len() == 2, "the search is blind");
    Ok(())
}

/// Ends a process as a crash would, where the system keeps what was in its memory, and says whether it did.
async fn leaves_a_core(process_id: u32) -> Result<bool> {
    let folder = fs::read_link(format!("/proc/{process_id}/cwd"))?;
    let cores = || -> Result<Vec<PathBuf>> {
        let names = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let is_core = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"core"))
        };
        Ok(names.into_iter().filter(is_core).collect())
    };
    let before = cores()?;
    run(Command::new("prlimit").arg(format!("--pid={process_id}")).arg("--core=unlimited:unlimited"))?;
    signal(process_id, Signal::ABORT)?;
    dead(process_id).await?;
    let left: Vec<PathBuf> = cores()?.into_iter().filter(|path| !before.contains(path)).collect();
    for path in &left {
        fs::remove_file(path)?;
    }
    Ok(!left.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_core_dump_has_what_relays_know() -> Result<()> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let stack = Stack::start(Options::relays(1).no_restart()).await?;
    let machine = stack.machine(0)?;
    for process_id in [machine.keeper_pid, machine.pid] {
        ensure!(!leaves_a_core(process_id).await?, "a process of the relay left its memory behind");
    }
    // Where cores are files in the folder of the process, others leave theirs: what was looked for is there to be found.
    if !pattern.starts_with(['|', '/']) {
        let folder = tempfile::tempdir()?;
        let other = Daemon::spawn(Command::new("sleep").arg("300").current_dir(folder.path()))?;
        eventually("it sleeps", || async {
            let name = fs::read_to_string(format!("/proc/{}/comm", other.pid()))?;
            ensure!(name.trim() == "sleep", "{name}");
            Ok(())
        })
        .await?;
        ensure!(leaves_a_core(other.pid()).await?, "cores are not looked for where they are");
    }
    Ok(())
}
