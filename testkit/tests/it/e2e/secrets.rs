//! A secret from the console to the host that it opens, with nothing played: where it is found afterwards, and where not.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64;
use signalbox_testkit::{
    eventually::{eventually, eventually_within},
    leaks::Leaks,
    process::{Daemon, Signal, bin, dead, kill, signal},
    sshd::{Sshd, run},
    stack::{Options, Stack},
};
use uuid::Uuid;

const BOUND: Duration = Duration::from_mins(1);
/// At which parts say more than they ever do elsewhere.
const TALKATIVE: (&str, &str) = ("RUST_LOG", "trace");

/// Two machines, of which the first may dial this one, and a server whose locked key lets it in.
struct Place {
    stack: Stack,
    sshd: Sshd,
    /// What the operator has beside it, as files.
    own: tempfile::TempDir,
    /// What must be found nowhere.
    leaks: Leaks,
}

impl Place {
    async fn start() -> Result<Self> {
        let options = Options::relays(2).env(TALKATIVE.0, TALKATIVE.1);
        let (stack, sshd) = (Stack::start(options).await?, Sshd::start().await?);
        let machine = stack.machine(0)?;
        let toml = stack.ready().state_dir.join("machines/demo-1/relay.toml");
        let before = fs::read_to_string(&toml)?;
        fs::write(&toml, format!("{before}\n[ssh]\ntargets = [\"127.0.0.1\"]\n"))?;
        kill(machine.pid).await?;
        // What each secret has in it, and no other process on this machine.
        let marker = format!("hunter2>>>{}", Uuid::now_v7().simple());
        sshd.keygen("locked", &["-t", "ed25519", "-N", ""])?;
        let seed = seed(&sshd.text("locked")?)?;
        let mut lock = Command::new("ssh-keygen");
        lock.args(["-q", "-p", "-P", "", "-N"]).arg(format!("passphrase {marker}"));
        run(lock.arg("-f").arg(sshd.path("locked")))?;
        sshd.authorize_only("locked")?;
        let own = tempfile::tempdir()?;
        for (name, secret) in [("passphrase", "passphrase"), ("password", "first"), ("next", "second")] {
            fs::write(own.path().join(name), format!("{secret} {marker}\n"))?;
            fs::set_permissions(own.path().join(name), fs::Permissions::from_mode(0o600))?;
        }
        fs::write(own.path().join("known"), format!("{}\n", sshd.known_as("host", sshd.port())?))?;
        let key = sshd.text("locked")?;
        // The file as it is, and what its lines of base64 stand for.
        let line = key.lines().nth(2).context("a short key")?;
        let leaks = Leaks::of(&[marker.as_bytes(), line.as_bytes(), &middle(&key)?, &seed])?;
        Ok(Self { stack, sshd, own, leaks })
    }

    fn file(&self, name: &str) -> String {
        self.own.path().join(name).display().to_string()
    }

    /// Runs a program to a good end, and sees that it says no secret.
    async fn finish(&self, mut command: Command) -> Result<String> {
        let program = Daemon::spawn(command.env(TALKATIVE.0, TALKATIVE.1))?;
        let status = program.wait(BOUND).await?;
        let (stdout, stderr) = (program.stdout()?, program.stderr()?);
        ensure!(status.success(), "{command:?} ends with {status}: {stderr}");
        for said in [&stdout, &stderr] {
            let form = self.leaks.within(said.as_bytes());
            ensure!(form.is_none(), "{command:?} says a secret as {form:?}");
        }
        Ok(stdout)
    }

    /// Runs the command line of the console.
    async fn signalbox(&self, args: &[&str]) -> Result<String> {
        self.finish(self.stack.cli(args)?).await
    }

    /// Changes the vault of the first machine, as somebody does who sits there.
    async fn on_the_machine(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(bin("signalbox-relay")?);
        command.arg("credentials").args(args).arg("--store").arg(&self.stack.machine(0)?.store);
        self.finish(command).await
    }

    /// Sees that no secret lies anywhere, nor is shown by any process, nor was logged by the server.
    fn is_clean(&self, when: &str) -> Result<()> {
        let state = &self.stack.ready().state_dir;
        let found = [self.leaks.in_folder(state)?, self.leaks.in_processes()?].concat();
        ensure!(found.is_empty(), "{when} a secret is in {found:?}");
        for (who, said) in [
            ("the server", self.sshd.log()?),
            ("`up`", self.stack.up().stdout()?),
            ("`up`", self.stack.up().stderr()?),
        ] {
            let form = self.leaks.within(said.as_bytes());
            ensure!(form.is_none(), "{when} {who} has said a secret as {form:?}");
        }
        Ok(())
    }

    /// Sees that all parts were as talkative as they can be, and that nothing they said is gone.
    fn was_talkative(&self) -> Result<()> {
        let state = &self.stack.ready().state_dir;
        let names = ["log/bridge.log", "log/demo-1.log", "log/demo-2.log"];
        for path in names.into_iter().map(|name| state.join(name)) {
            let said = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let said = String::from_utf8_lossy(&said);
            ensure!(said.contains(" TRACE "), "{} says little", path.display());
        }
        for entry in fs::read_dir(state.join("log"))? {
            let path = entry?.path();
            ensure!(path.extension().is_none_or(|end| end != "old"), "{} was cut", path.display());
        }
        // A keeper has nothing to say that is less than DEBUG, but is told to.
        let keeper = fs::read(format!("/proc/{}/cmdline", self.stack.machine(0)?.keeper_pid))?;
        ensure!(String::from_utf8_lossy(&keeper).contains("--log=trace"), "the keeper says little");
        Ok(())
    }

    /// Runs a command on the host behind the machine, and looks around while it runs.
    async fn run_there(&self, gate: &Path) -> Result<()> {
        let there = format!("127.0.0.1:{}", self.sshd.port());
        let script = format!(
            "echo begun; cat /proc/$$/environ; while ! test -e {}; do sleep 0.05; done",
            gate.display()
        );
        let mut command = self.stack.cli(&["run", "--via", "demo-1", "--ssh", &there, "--", &script])?;
        let console = Daemon::spawn(command.env(TALKATIVE.0, TALKATIVE.1))?;
        eventually_within("the command runs there", BOUND, || async {
            ensure!(console.stdout()?.contains("begun"), "{}", console.stderr()?);
            Ok(())
        })
        .await?;
        self.is_clean("while a command runs")?;
        fs::write(gate, "")?;
        let status = console.wait(BOUND).await?;
        ensure!(status.success(), "{status}: {}", console.stderr()?);
        for said in [console.stdout()?, console.stderr()?] {
            let form = self.leaks.within(said.as_bytes());
            ensure!(form.is_none(), "the console says a secret as {form:?}");
        }
        Ok(())
    }
}

/// What the lines of a key in OpenSSH's format stand for.
fn decoded(key: &str) -> Result<Vec<u8>> {
    let lines: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    Ok(BASE64.decode(lines.as_bytes())?)
}

/// Bytes of a key that are in no public part of it: the last but what pads it.
fn middle(key: &str) -> Result<Vec<u8>> {
    let bytes = decoded(key)?;
    let end = bytes.len().checked_sub(16).context("a short key")?;
    Ok(bytes.get(end - 64..end).context("a short key")?.to_vec())
}

/// The secret itself of an ed25519 key that is not locked: it goes before the public half, under one length.
fn seed(key: &str) -> Result<Vec<u8>> {
    let bytes = decoded(key)?;
    let length = [0, 0, 0, 64];
    let at =
        bytes.windows(length.len()).position(|window| window == length).context("no secret in the key")?;
    Ok(bytes.get(at + 4..at + 36).context("a short key")?.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_used_and_found_nowhere() -> Result<()> {
    let place = Box::pin(Place::start()).await?;
    let (key, passphrase) = (place.sshd.path("locked").display().to_string(), place.file("passphrase"));
    let (password, next, recovery) = (place.file("password"), place.file("next"), place.file("recovery"));
    let push = ["credential", "push", "gate", "--type", "ssh_key", "--key-file", &key, "--passphrase-file"];
    let to = [&passphrase, "--user", place.sshd.user(), "--target", "127.0.0.1", "--to", "demo-1"];
    eventually_within("the relay begins again", BOUND, || async {
        place.signalbox(&[&push[..], &to[..]].concat()).await
    })
    .await?;
    place.signalbox(&["host-keys", "add", "--file", &place.file("known"), "--to", "demo-1"]).await?;
    place.signalbox(&["recovery-key", "create", "--out", &recovery]).await?;
    let shared = ["credential", "push", "db", "--type", "password", "--mode", "shared", "--value-file"];
    place.signalbox(&[&shared[..], &[&password, "--to", "demo-1"]].concat()).await?;
    place.signalbox(&["credential", "assign", "db", "--recovery-key", &recovery, "--to", "demo-2"]).await?;
    place.is_clean("once it was assigned")?;
    // In its place comes another one, and the vault is sealed anew under both of its keys.
    place.signalbox(&[&shared[..], &[&next, "--to", "demo-*"]].concat()).await?;
    place.run_there(&place.own.path().join("gate")).await?;
    place.on_the_machine(&["rotate"]).await?;
    place.on_the_machine(&["rewrap"]).await?;
    place.run_there(&place.own.path().join("second-gate")).await?;

    let listed = place.signalbox(&["credential", "list", "--json"]).await?;
    ensure!(listed.matches("\"db\"").count() == 2, "it is not on both: {listed}");
    place.on_the_machine(&["list", "--json"]).await?;
    place.signalbox(&["audit", "--verify"]).await?;
    place.signalbox(&["credential", "unassign", "db", "--to", "demo-1"]).await?;
    place.signalbox(&["credential", "remove", "gate", "--to", "demo-1"]).await?;
    place.is_clean("once it was removed")?;
    place.was_talkative()?;
    place.stack.stop().await?;
    place.is_clean("in the end")?;
    // The search itself finds what there is: the passphrase and two passwords, and the key with all that was made of it.
    ensure!(place.leaks.in_folder(place.own.path())?.len() == 3, "the search is blind");
    let key = fs::read(place.sshd.path("locked"))?;
    ensure!(place.leaks.within(&key).is_some(), "the search is blind for keys");
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
