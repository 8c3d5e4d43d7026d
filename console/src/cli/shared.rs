//! `signalbox recovery-key`, and credentials that are shared among relays with keys.
//!
//! What is shared has a record at the bridges: which machines it is assigned to, and its value for the recovery key, as the word
//! of who pushed it. Relays get theirs as everybody does, by a push.

use std::path::Path;

use signalbox_schemas::{
    api::{ByName, KeepShared, SharedCredentialView, op},
    command::Change,
    credential::{CredentialLabel, SharedKept},
    error::report,
    id::{CommandId, CredentialName},
    run::RunState,
};

use tokio::signal::unix::Signal;

use super::{
    call, clean,
    exit::{self, Failure},
    keep::{Made, Meant, Ready, Wanted, make},
    quantity,
    run::{Plan, before_submit, interrupts},
    say, secret,
};
use crate::{
    args::keep::{RecoveryAction, RecoveryKey, To},
    client::{Client, change::Value, clock::now_ms, recovery},
    config::Config,
};

/// Largest file of a recovery key.
const KEY_BYTES: usize = 1024;

/// Does one thing with the recovery key.
///
/// # Errors
/// [`Failure`].
pub async fn recovery_key(config: &Config, args: RecoveryKey) -> Result<u8, Failure> {
    const WHAT: &str = "make the recovery key";
    let RecoveryAction::Create { out, replace } = args.action;
    secret::harden(WHAT)?;
    let layout = config.layout.clone();
    let failed = |error: &dyn std::error::Error| Failure::system(WHAT, error);
    let job = tokio::task::spawn_blocking(move || {
        if recovery::public(&layout).map_err(|error| failed(&error))?.is_some() && !replace {
            let line = format!(
                "cannot {WHAT}: there is one, see {}; make another one in its place with --replace",
                recovery::public_file(&layout).display()
            );
            return Err(Failure::new(exit::NOT_ACCEPTED, line));
        }
        let made = recovery::create(&layout, &out).map_err(|error| failed(&error))?;
        made.map_err(|error| failed(&error))
    });
    let public = job.await.map_err(|error| Failure::system(WHAT, &error))??;
    call::print(format!("{public}\n")).await
}

/// What bridges shall know of what is pushed, and to whom.
pub(super) fn record(
    config: &Config,
    meant: &Meant,
    plan: &Plan,
    label: &CredentialLabel,
    value: &Value,
) -> Result<KeepShared, Failure> {
    let access = meant.client.access();
    let public = recovery::public(&config.layout).map_err(|error| Failure::system(&plan.what, &error))?;
    let secret = public.map(|key| recovery::seal(access, label, value, &key)).transpose();
    let secret = secret.map_err(|error| plan.failed(&error))?;
    if secret.is_none() {
        say(
            "there is no recovery key: to give it to more machines later, push it again; see `signalbox recovery-key create`",
        );
    }
    let (name, label) = (label.name.clone(), Some(label.clone()));
    Ok(KeepShared { name, label, secret, add: meant.machines(), remove: Vec::new() })
}

/// Says at the bridges who has a credential.
pub(super) async fn keep(
    client: &Client,
    plan: &Plan,
    asked: &KeepShared,
    interrupts: &mut Signal,
) -> Result<(), Failure> {
    let kept: Result<SharedCredentialView, _> = tokio::select! {
        kept = client.change(op::SHARED_KEEP, asked) => kept,
        _ = interrupts.recv() => {
            let line = format!(
                "interrupted while the record of {} was changed: whether that was done is not known, and no machine has got anything; {} again",
                asked.name, plan.what
            );
            return Err(Failure::new(exit::INTERRUPTED, line));
        }
    };
    let failed = |error| Failure { code: exit::NOT_ACCEPTED, ..Failure::change(&plan.what, &error) };
    kept.map(drop).map_err(failed)
}

/// Opens what is shared, and gives it to more machines.
pub(super) async fn assign(
    config: &Config,
    plan: &Plan,
    name: &CredentialName,
    key_file: &Path,
    wanted: Wanted,
) -> Result<u8, Failure> {
    let mut interrupts = interrupts()?;
    let prepared = prepare_assign(config, plan, name, key_file, wanted);
    let ready = before_submit(&mut interrupts, Box::pin(prepared)).await?;
    ready.carry_out(config, plan, &mut interrupts).await
}

async fn prepare_assign(
    config: &Config,
    plan: &Plan,
    name: &CredentialName,
    key_file: &Path,
    wanted: Wanted,
) -> Result<Ready, Failure> {
    let text = secret::text(key_file, KEY_BYTES, "the recovery key").await?;
    let refused = |error: &dyn std::error::Error| {
        Failure::new(exit::NOT_ACCEPTED, format!("cannot {}: {}", plan.what, clean::line(&report(error))))
    };
    let key = recovery::private(key_file, &text)
        .map_err(|error| Failure { code: exit::USAGE, ..refused(&error) })?;
    let meant = Meant::ask(config, plan, &wanted).await?;
    let access = meant.client.access();
    let asked = ByName { name: name.clone() };
    let kept: SharedKept =
        meant.client.ask(op::SHARED_KEPT, &asked).await.map_err(|error| plan.failed(&error))?;
    let Some(signed) = kept.secret else {
        let line = format!(
            "cannot {}: it was pushed without a recovery key, so nobody can open it; push it anew",
            plan.what
        );
        return Err(Failure::new(exit::NOT_ACCEPTED, line));
    };
    let authors = recovery::authors(&config.layout);
    let (opened, value) = recovery::open(access, authors.as_ref(), name.as_str(), &signed, &key)
        .map_err(|error| refused(&error))?;
    let by = authors.and_then(|authors| authors.author(signed.key()).map(|author| author.name.clone()));
    say(&format!(
        "{name} as {} has pushed it {} ago",
        by.as_deref().map_or_else(|| signed.key().to_string(), clean::line),
        quantity::show_age(now_ms().saturating_sub(opened.sealed_at))
    ));
    let record = KeepShared {
        name: name.clone(),
        label: None,
        secret: None,
        add: meant.machines(),
        remove: Vec::new(),
    };
    meant.prepare(plan, (opened.label, value), wanted.to.expires_in, Some(record)).await
}

/// Takes a credential from machines, then says at the bridges which of them have it no longer: one that still has it is still
/// assigned to it.
pub(super) async fn unassign(
    config: &Config,
    plan: &Plan,
    name: &CredentialName,
    to: To,
) -> Result<u8, Failure> {
    if to.no_wait {
        let line = format!("cannot {}: it has to wait for the machines; leave --no-wait out", plan.what);
        return Err(Failure::new(exit::USAGE, line));
    }
    let change = async {
        // Where it is not shared there is nothing to change afterwards.
        let client = call::connect(config, &plan.what).await?;
        let asked = ByName { name: name.clone() };
        let kept: Result<SharedKept, _> = client.ask(op::SHARED_KEPT, &asked).await;
        kept.map_err(|error| plan.failed(&error))?;
        Ok(Change::RemoveCredential { name: name.clone() })
    };
    let Made { code, id, mut interrupts } = make(config, plan, &to, change).await?;
    if code == exit::INTERRUPTED {
        say(&format!("{name} stays assigned to all of them; {} again once {id} has ended", plan.what));
        return Ok(code);
    }
    tokio::select! {
        recorded = record_removed(config, plan, name, id) => recorded.map(|()| code),
        _ = interrupts.recv() => {
            let line = format!(
                "interrupted: {name} stays assigned to all of them, unless a bridge has it otherwise already; {} again",
                plan.what
            );
            Err(Failure::new(exit::INTERRUPTED, line))
        }
    }
}

/// Says at the bridges who has removed it.
async fn record_removed(
    config: &Config,
    plan: &Plan,
    name: &CredentialName,
    id: CommandId,
) -> Result<(), Failure> {
    let client = call::connect(config, &plan.what).await?;
    let command = client.command(id).await.map_err(|error| Failure::client(&plan.what, &error))?;
    let done = command.runs.iter().filter(|run| run.state == RunState::Completed);
    let remove: Vec<_> = done.map(|run| run.machine.token()).collect();
    if remove.len() < command.runs.len() {
        say(&format!("who has not removed it is still assigned to it; unassign {name} again for those"));
    }
    if remove.is_empty() {
        return Ok(());
    }
    let asked = KeepShared { name: name.clone(), label: None, secret: None, add: Vec::new(), remove };
    let kept: Result<SharedCredentialView, _> = client.change(op::SHARED_KEEP, &asked).await;
    kept.map(drop).map_err(|error| Failure::change(&plan.what, &error))
}
