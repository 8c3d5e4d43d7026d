//! Commands on a host behind the machine, from the mailbox to the exit: a real relay, a real keeper, a real SSH server.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use signalbox_schemas::{
    command::{Change, CommandSpec, HostKeys, SshTarget, Target},
    credential::{CredentialLabel, CredentialType, CredentialValue, StorageMode},
    id::{CommandId, CredentialName},
    mailbox::Offer,
    run::{Exit, ExitState, Start},
    subject::FactKind,
};
use signalbox_testkit::{eventually_within, sshd::Sshd};

use crate::{
    changes::{change, push},
    harness::{Fleet, Machine, RUN_BOUND, Relay, grant, sign_offer, spec},
};

/// A fleet of one machine, and a server behind it that is known and lets it in.
struct Place {
    fleet: Fleet,
    machine: Machine,
    relay: Relay,
    sshd: Sshd,
}

impl Place {
    async fn start() -> Result<Self> {
        Box::pin(Self::set_up()).await
    }

    async fn set_up() -> Result<Self> {
        let (fleet, sshd) = (Fleet::start().await?, Sshd::start().await?);
        let machine = Machine::new(&fleet, "gate")?;
        let file = machine.file("relay.toml");
        let toml = fs::read_to_string(&file)?;
        fs::write(&file, format!("{toml}\n[ssh]\ntargets = [\"127.0.0.1\", \"*.invalid\"]\n"))?;
        let relay = machine.start(&fleet).await?;
        let place = Self { fleet, machine, relay, sshd };
        place.knows(&place.sshd).await?;
        place.lets_in(Some(place.sshd.user())).await?;
        Ok(place)
    }

    async fn knows(&self, sshd: &Sshd) -> Result<()> {
        let add = vec![sshd.known_as("host", sshd.port())?];
        let keys = Change::HostKeys(HostKeys { add, remove: vec![] });
        let exit = change(&self.fleet, &self.machine, keys).await?;
        ensure!(exit.state == ExitState::Completed, "{exit:?}");
        Ok(())
    }

    async fn lets_in(&self, user: Option<&str>) -> Result<()> {
        self.keeps("gate key", Some("127.0.0.1"), user).await
    }

    async fn keeps(&self, name: &str, target: Option<&str>, user: Option<&str>) -> Result<()> {
        let label = CredentialLabel {
            name: CredentialName::new(name)?,
            credential_type: CredentialType::SshKey,
            target: target.map(str::parse).transpose()?,
            username: user.map(str::to_owned),
            storage_mode: StorageMode::RelayOnly,
        };
        let key = self.sshd.text("user")?.into();
        let value = CredentialValue::SshKey { key, passphrase: None, certificate: None };
        let exit = push(&self.fleet, &self.machine, label, &value).await?;
        ensure!(exit.state == ExitState::Completed, "{exit:?}");
        Ok(())
    }

    fn target(&self, user: Option<&str>) -> SshTarget {
        let (host, port) = ("127.0.0.1".to_owned(), self.sshd.port());
        SshTarget { host, port, username: user.map(str::to_owned), jump: vec![], credential: None }
    }

    fn offer_of(&self, spec: &CommandSpec) -> Result<Offer> {
        sign_offer(spec, &grant(&self.machine, spec)?, &self.fleet.operator)
    }

    async fn begin(&self, target: SshTarget, command: &str, timeout_ms: u64) -> Result<CommandId> {
        let spec = spec(command, |spec| {
            spec.target = Some(Target::Ssh(target));
            spec.timeout_ms = timeout_ms;
            spec.crit = vec!["target".into()];
        });
        self.fleet.offer(&self.machine, &[self.offer_of(&spec)?]).await?;
        Ok(spec.cid)
    }

    async fn run(&self, target: SshTarget, command: &str) -> Result<Exit> {
        let cid = self.begin(target, command, 60_000).await?;
        self.fleet.exit(&self.machine, cid).await
    }

    /// Waits until the relay has said that the host took a command.
    async fn begun(&self, cid: CommandId) -> Result<Start> {
        eventually_within("the start", RUN_BOUND, || async {
            self.fleet.fact(&self.machine, cid, FactKind::Start).await?.context("no start")
        })
        .await
    }
}

fn code(exit: &Exit) -> (ExitState, &str) {
    (exit.state, exit.error.as_ref().map_or("", |error| &error.code))
}

#[tokio::test]
async fn a_command_runs_on_a_host_behind_the_machine() -> Result<()> {
    let place = Place::start().await?;
    // `SSH_CONNECTION` is set by the server alone.
    let exit = place
        .run(place.target(None), "echo out; echo err >&2; test -n \"$SSH_CONNECTION\" && exit 3")
        .await?;
    assert_eq!((exit.state, exit.exit_code), (ExitState::Failed, Some(3)), "{exit:?}");
    let inline = exit.inline.context("no inline output")?;
    assert_eq!((inline.stdout.0, inline.stderr.0), (b"out\n".to_vec(), b"err\n".to_vec()));
    let killed = place.run(place.target(None), "kill -KILL $$").await?;
    assert_eq!((killed.state, killed.signal.as_deref()), (ExitState::Failed, Some("SIGKILL")), "{killed:?}");
    Ok(())
}

#[tokio::test]
async fn a_run_elsewhere_says_when_it_has_begun_and_survives_its_relay() -> Result<()> {
    let mut place = Place::start().await?;
    let gate = place.machine.file("gate");
    let wait = format!("while ! test -e {}; do sleep 0.02; done; echo done", gate.display());
    let cid = place.begin(place.target(None), &wait, 60_000).await?;
    let start = place.begun(cid).await?;
    ensure!(start.started_at > 0, "{start:?}");
    // The server says that it took the command before there is a process.
    eventually_within("it runs there", RUN_BOUND, || async {
        ensure!(place.sshd.commands()? > 0, "nothing runs there");
        Ok(())
    })
    .await?;
    place.relay.kill().await?;
    let next = place.machine.start(&place.fleet).await?;
    std::mem::forget(std::mem::replace(&mut place.relay, next));
    fs::write(&gate, "")?;
    let exit = place.fleet.exit(&place.machine, cid).await?;
    assert_eq!((exit.state, exit.exit_code, exit.nonce), (ExitState::Completed, Some(0), start.nonce));
    assert_eq!(exit.inline.context("no output")?.stdout.0, b"done\n");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_done_has_a_code_of_its_own() -> Result<()> {
    let place = Place::start().await?;
    let at = |host: &str, port: u16| SshTarget { host: host.into(), port, ..place.target(Some("nobody")) };
    let exit = place.run(at("db-1.invalid", 22), "true").await?;
    assert_eq!(code(&exit), (ExitState::Failed, "no_credential"), "{exit:?}");
    let exit = place.run(at("127.0.0.1", 1), "true").await?;
    assert_eq!(code(&exit), (ExitState::Failed, "refused"), "{exit:?}");
    place.keeps("for any", None, None).await?;
    let named = Some(CredentialName::new("for any")?);
    let exit = place.run(SshTarget { credential: named, ..at("10.1.2.3", 22) }, "true").await?;
    assert_eq!(code(&exit), (ExitState::Failed, "target_denied"), "{exit:?}");
    let named = SshTarget { credential: Some(CredentialName::new("none")?), ..place.target(None) };
    assert_eq!(code(&place.run(named, "true").await?), (ExitState::Failed, "no_credential"));
    place.lets_in(None).await?;
    let exit = place.run(place.target(None), "true").await?;
    assert_eq!(code(&exit), (ExitState::Failed, "no_credential"), "{exit:?}");
    ensure!(
        exit.error.context("no error")?.message.contains("no login name"),
        "it is not said what is missing"
    );
    let strange = Sshd::start().await?;
    let exit = place.run(SshTarget { port: strange.port(), ..place.target(Some("root")) }, "true").await?;
    assert_eq!(code(&exit), (ExitState::Failed, "host_key_unknown"), "{exit:?}");
    Ok(())
}

#[tokio::test]
async fn a_timeout_and_a_cancel_end_what_runs_there() -> Result<()> {
    let place = Place::start().await?;
    let cid = place.begin(place.target(None), "sleep 1000", 300).await?;
    let exit = place.fleet.exit(&place.machine, cid).await?;
    assert_eq!(exit.state, ExitState::Timeout, "{exit:?}");
    let spec = spec("sleep 1000", |spec| {
        spec.target = Some(Target::Ssh(place.target(None)));
        spec.crit = vec!["target".into()];
    });
    place.fleet.offer(&place.machine, &[place.offer_of(&spec)?]).await?;
    place.begun(spec.cid).await?;
    place.fleet.cancel(&place.machine, spec.cid).await?;
    let exit = place.fleet.exit(&place.machine, spec.cid).await?;
    assert_eq!(exit.state, ExitState::Cancelled, "{exit:?}");
    eventually_within("nothing runs there", RUN_BOUND, || async {
        let left = place.sshd.commands()?;
        ensure!(left == 0, "{left} processes");
        Ok(())
    })
    .await
}

/// A credential that was replaced is used from the next command on.
#[tokio::test]
async fn a_rotated_credential_counts_at_once() -> Result<()> {
    let place = Place::start().await?;
    ensure!(place.run(place.target(None), "true").await?.state == ExitState::Completed, "it is let in");
    place.sshd.keygen("next", &["-t", "ed25519", "-N", ""])?;
    place.sshd.authorize_only("next")?;
    let label = CredentialLabel {
        name: CredentialName::new("gate key")?,
        credential_type: CredentialType::SshKey,
        target: Some("127.0.0.1".parse()?),
        username: Some(place.sshd.user().to_owned()),
        storage_mode: StorageMode::RelayOnly,
    };
    let next = place.sshd.text("next")?.into();
    let value = CredentialValue::SshKey { key: next, passphrase: None, certificate: None };
    push(&place.fleet, &place.machine, label, &value).await?;
    let exit = place.run(place.target(None), "true").await?;
    assert_eq!(exit.state, ExitState::Completed, "{exit:?}");
    Ok(())
}
