//! A host that is reached through another one, with nothing played: console, broker, bridge, relay, and two servers.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use signalbox_testkit::{
    eventually::eventually_within,
    process::{Daemon, kill},
    sshd::Sshd,
    stack::{Options, Stack},
};

use super::main_job::cli;

const BOUND: Duration = Duration::from_mins(1);

/// A machine that may dial this one, and two servers, each with a key of its own that lets in there and nowhere else.
struct Place {
    stack: Stack,
    gate: Sshd,
    inner: Sshd,
    own: tempfile::TempDir,
}

impl Place {
    async fn start() -> Result<Self> {
        let stack = Stack::start(Options::relays(1)).await?;
        let (gate, inner) = (Sshd::start().await?, Sshd::start().await?);
        let toml = stack.ready().state_dir.join("machines/demo-1/relay.toml");
        let before = fs::read_to_string(&toml)?;
        fs::write(&toml, format!("{before}\n[ssh]\ntargets = [\"127.0.0.1\"]\n"))?;
        kill(stack.machine(0)?.pid).await?;
        let place = Self { stack, gate, inner, own: tempfile::tempdir()? };
        for (name, sshd) in [("gate", &place.gate), ("inner", &place.inner)] {
            place.knows(name, sshd).await?;
        }
        Ok(place)
    }

    /// Brings the machine a server's host key and the key that lets in there, for this server alone.
    async fn knows(&self, name: &str, sshd: &Sshd) -> Result<()> {
        let (key, known) = (sshd.path("user").display().to_string(), self.own.path().join(name));
        let target = place_of(sshd);
        let push = ["credential", "push", name, "--type", "ssh_key", "--key-file", &key, "--user"];
        let to = [sshd.user(), "--target", &target, "--to", "demo-1"];
        eventually_within("the relay begins again", BOUND, || async {
            self.does(&[&push[..], &to[..]].concat()).await
        })
        .await?;
        fs::write(&known, format!("{}\n", sshd.known_as("host", sshd.port())?))?;
        let known = known.display().to_string();
        self.does(&["host-keys", "add", "--file", &known, "--to", "demo-1"]).await.map(drop)
    }

    async fn does(&self, args: &[&str]) -> Result<String> {
        let (code, stdout, stderr) = cli(&self.stack, args).await?;
        ensure!(code == Some(0), "{args:?} ends with {code:?}: {stderr}");
        Ok(stdout)
    }

    fn run(&self, script: &str) -> Result<Daemon> {
        let (gate, inner) = (place_of(&self.gate), place_of(&self.inner));
        let args = ["run", "--via", "demo-1", "--ssh", &inner, "--jump", &gate, "--", script];
        Daemon::spawn(&mut self.stack.cli(&args)?)
    }

    async fn fails(&self) -> Result<String> {
        let console = self.run("true")?;
        let status = console.wait(BOUND).await?;
        ensure!(status.code() == Some(1), "{status}: {}", console.stderr()?);
        console.stderr()
    }
}

fn place_of(sshd: &Sshd) -> String {
    format!("127.0.0.1:{}", sshd.port())
}

fn waiting_for(gate: &Path) -> String {
    // `SSH_CONNECTION` ends with the port of the server that runs it.
    format!("echo at $SSH_CONNECTION; while ! test -e {}; do sleep 0.05; done; exit 0", gate.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_on_a_host_behind_another_one() -> Result<()> {
    let place = Box::pin(Place::start()).await?;
    let go_on = place.own.path().join("go-on");
    let console = place.run(&waiting_for(&go_on))?;
    eventually_within("the command runs there", BOUND, || async {
        let said = console.stdout()?;
        ensure!(said.contains(&format!(" {}\n", place.inner.port())), "{said}: {}", console.stderr()?);
        Ok(())
    })
    .await?;
    let connections = (place.gate.connections()?, place.inner.connections()?);
    assert_eq!(connections, (1, 1), "it goes another way");
    assert_eq!(place.gate.commands()?, 0, "it runs on the host in between");
    assert!(place.inner.commands()? > 0);
    fs::write(&go_on, "")?;
    let status = console.wait(BOUND).await?;
    ensure!(status.success(), "{status}: {}", console.stderr()?);

    // Without a key to the host in between it goes no way, and least of all straight to the other one.
    place.does(&["credential", "remove", "gate", "--to", "demo-1"]).await?;
    let said = place.fails().await?;
    assert!(said.contains(&format!("no credential for {}", place_of(&place.gate))), "{said}");
    Ok(())
}

/// The key to the host in between opens nothing behind it, and is not tried there.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_behind_another_one_wants_its_own_key() -> Result<()> {
    let place = Box::pin(Place::start()).await?;
    place.does(&["credential", "remove", "inner", "--to", "demo-1"]).await?;
    let said = place.fails().await?;
    assert!(said.contains(&format!("no credential for {}", place_of(&place.inner))), "{said}");
    assert_eq!((place.gate.connections()?, place.inner.connections()?), (0, 0), "somebody was dialled");
    Ok(())
}
