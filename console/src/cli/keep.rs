//! `signalbox credential` and `signalbox host-keys`: what relays keep, and changes of it.
//!
//! A change is a command like any other: previewed, signed for each machine, submitted, and followed to its end on each of them.

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    api::{InventoryView, KeepShared, Liveness, Reach, ReachView, Target, op},
    command::{self, Change},
    credential::{CredentialLabel, CredentialMeta, CredentialType, CredentialValue, StorageMode},
    error::report,
    id::{CommandId, MachineId, MachineToken, Workspace},
    layout::Layout,
    limit,
    selector::Selector,
    signed::PublicKey,
};

use tokio::signal::unix::Signal;

use super::{
    call::{self, Call, Row},
    card::{NOTHING, moment},
    clean,
    event::Event,
    exit::{self, Failure},
    follow::Manner,
    input,
    run::{Plan, before_submit, carry_out, interrupts},
    say, secret, shared,
    table::Column,
};
use crate::{
    args::keep::{Credential, CredentialAction, HostKeys, HostKeysAction, Push, To, Trust},
    client::{
        Client,
        change::{Order, Value, Wish, prepare_aside},
        clock::now_ms,
        known::{Accepted, Distrust, Known, KnownFile, Recipients, Told, Unsealable},
        list,
        sign::Prepared,
    },
    config::Config,
};

/// How long a relay may take for a change, ms: it writes a file.
const TIMEOUT_MS: u64 = 30_000;
/// Machines that are named one by one.
const NAMED: usize = 20;
/// Largest file of host keys.
const HOST_KEYS_BYTES: usize = limit::HOST_KEYS * limit::HOST_KEY_BYTES;

/// Where the console keeps the keys that machines are known by.
pub(super) fn known_machines(layout: &Layout) -> std::path::PathBuf {
    layout.root().join("known-machines")
}

/// A credential that a machine's relay keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    machine: MachineId,
    state: Liveness,
    #[serde(flatten)]
    meta: CredentialMeta,
}

impl Row for Kept {
    const COLUMNS: &'static [Column] = &[
        ("MACHINE", 0),
        ("STATE", 4),
        ("TYPE", 1),
        ("MODE", 3),
        ("CHANGED", 2),
        ("USER", 0),
        ("HOST", 0),
        ("NAME", 0),
    ];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let text = |text: &Option<String>| text.as_deref().map_or_else(|| NOTHING.to_owned(), clean::line);
        vec![
            clean::line(self.machine.as_str()),
            self.state.as_str().to_owned(),
            self.meta.credential_type.as_str().to_owned(),
            self.meta.storage_mode.as_str().to_owned(),
            moment(self.meta.last_updated_at, now_ms()),
            text(&self.meta.username),
            text(&self.meta.target_host),
            clean::line(&self.meta.credential_name),
        ]
    }
}

/// Does one thing with credentials that relays keep.
///
/// # Errors
/// [`Failure`].
pub async fn credential(config: &Config, args: Credential) -> Result<u8, Failure> {
    let json = args.within.json;
    match args.action {
        CredentialAction::List { on, reaches: None } => list(config, json, on).await,
        CredentialAction::List { on, reaches: Some(target) } => reaching(config, json, on, target).await,
        CredentialAction::Push(push) => {
            secret::harden("push the credential")?;
            give(config, json, *push).await
        }
        CredentialAction::Assign { name, recovery_key, trust, to } => {
            let plan = plan(json, format!("assign credential {name}"), &to);
            secret::harden(&plan.what)?;
            shared::assign(config, &plan, &name, &recovery_key, Wanted { to, trust }).await
        }
        CredentialAction::Unassign { name, to } => {
            let plan = plan(json, format!("unassign credential {name}"), &to);
            shared::unassign(config, &plan, &name, to).await
        }
        CredentialAction::Remove { name, to } => {
            let plan = plan(json, format!("remove credential {name}"), &to);
            let change = Change::RemoveCredential { name };
            make(config, &plan, &to, async { Ok(change) }).await.map(|made| made.code)
        }
    }
}

/// Does one thing with host keys.
///
/// # Errors
/// [`Failure`].
pub async fn host_keys(config: &Config, args: HostKeys) -> Result<u8, Failure> {
    let json = args.within.json;
    match args.action {
        HostKeysAction::Add { file, lines, to } => {
            let plan = plan(json, "add host keys".to_owned(), &to);
            let keys = async {
                let lines = match file {
                    Some(path) => {
                        let text = input::text(&path, HOST_KEYS_BYTES, "the host keys").await?;
                        text.lines().map(str::to_owned).collect()
                    }
                    None => lines,
                };
                let is_key = |line: &String| !line.trim().is_empty() && !line.trim_start().starts_with('#');
                let add: Vec<String> =
                    lines.into_iter().filter(is_key).map(|line| line.trim().to_owned()).collect();
                if add.is_empty() {
                    let line = format!("cannot {}: there is none in it", plan.what);
                    return Err(Failure::new(exit::USAGE, line));
                }
                Ok(Change::HostKeys(command::HostKeys { add, remove: Vec::new() }))
            };
            make(config, &plan, &to, keys).await.map(|made| made.code)
        }
        HostKeysAction::Remove { hosts, to } => {
            let plan = plan(json, "remove host keys".to_owned(), &to);
            let change = Change::HostKeys(command::HostKeys { add: Vec::new(), remove: hosts });
            make(config, &plan, &to, async { Ok(change) }).await.map(|made| made.code)
        }
    }
}

fn plan(json: bool, what: String, to: &To) -> Plan {
    let manner = if json { Manner::Json } else { Manner::Outcomes };
    Plan { what, timeout_ms: TIMEOUT_MS, manner, no_wait: to.no_wait, exec: None, asks: None }
}

/// Connects and asks which machines are meant, by which selector.
async fn begin(
    config: &Config,
    plan: &Plan,
    to: &To,
    for_secret: bool,
) -> Result<(Client, Vec<Target>, String), Failure> {
    let on = to.on.trim().to_owned();
    // What is wrong is wrong with or without a broker.
    Selector::parse(&on).map_err(|error| Failure::selector(&plan.what, &error))?;
    let access = config.access().map_err(|error| plan.failed(&error))?;
    let client = Client::connect(access, false).await.map_err(|error| plan.failed(&error))?;
    // Nothing is done for machines that are not meant, whatever the bridge says.
    let targets = client.meant(&on, for_secret).await.map_err(|error| plan.failed(&error))?;
    Ok((client, targets, on))
}

/// Makes a change with nothing secret in it, on machines whose relays have keys.
pub(super) async fn make(
    config: &Config,
    plan: &Plan,
    to: &To,
    change: impl Future<Output = Result<Change, Failure>>,
) -> Result<Made, Failure> {
    let mut interrupts = interrupts()?;
    let prepare = async {
        let change = change.await?;
        let (client, mut targets, on) = begin(config, plan, to, false).await?;
        let told = client.told(&on).await.map_err(|error| plan.failed(&error))?;
        let able: BTreeSet<_> = told.iter().filter(|told| told.has_keys()).map(Told::token).collect();
        let without = targets.iter().filter(|target| !able.contains(&target.token));
        let without: Vec<_> = without.map(|target| (target.id.clone(), Unsealable::NoKeys)).collect();
        let is_all = without.len() == targets.len();
        leave_out(&plan.what, "it cannot be done", (&without, is_all), to.skip_unsealable)?;
        targets.retain(|target| able.contains(&target.token));
        let (what, expires_in_ms) = (Wish::Plain(change), to.expires_in);
        let order = Order { on, what, timeout_ms: TIMEOUT_MS, expires_in_ms };
        let prepared = prepare_aside(order, client.access(), targets).await;
        Ok(Ready { client, prepared: prepared.map_err(|error| plan.failed(&error))?, record: None })
    };
    let ready: Ready = before_submit(&mut interrupts, Box::pin(prepare)).await?;
    let id = ready.prepared.id;
    let code = ready.carry_out(config, plan, &mut interrupts).await?;
    Ok(Made { code, id, interrupts })
}

/// How a change ended, under which id; and who still listens to Ctrl-C.
pub(super) struct Made {
    pub(super) code: u8,
    pub(super) id: CommandId,
    pub(super) interrupts: Signal,
}

/// A change that is signed, and nobody has yet.
pub(super) struct Ready {
    client: Client,
    prepared: Prepared,
    /// What bridges shall know before anybody has it.
    record: Option<KeepShared>,
}

impl Ready {
    /// Submits it, once bridges know of it, and waits for its end.
    pub(super) async fn carry_out(
        self,
        config: &Config,
        plan: &Plan,
        interrupts: &mut Signal,
    ) -> Result<u8, Failure> {
        if let Some(asked) = &self.record {
            shared::keep(&self.client, plan, asked, interrupts).await?;
        }
        Box::pin(carry_out(config, self.client, &self.prepared, plan, interrupts)).await
    }
}

/// To whom, and whom of them it can be sealed for.
pub(super) struct Wanted {
    pub(super) to: To,
    pub(super) trust: Trust,
}

/// Machines that are meant, and the keys to seal for them.
pub(super) struct Meant {
    pub(super) client: Client,
    on: String,
    targets: Vec<Target>,
    recipients: Recipients,
}

impl Meant {
    /// Asks which machines are meant, and whom of them something can be sealed for.
    pub(super) async fn ask(config: &Config, plan: &Plan, wanted: &Wanted) -> Result<Self, Failure> {
        let (client, mut targets, on) = begin(config, plan, &wanted.to, true).await?;
        let told = client.told(&on).await.map_err(|error| plan.failed(&error))?;
        let recipients = recipients(config, plan, (&targets, told), wanted).await?;
        targets.retain(|target| recipients.keys.contains_key(&target.token));
        Ok(Self { client, on, targets, recipients })
    }

    /// The machines that get it.
    pub(super) fn machines(&self) -> Vec<MachineToken> {
        self.targets.iter().map(|target| target.token.clone()).collect()
    }

    /// Seals and signs it for them.
    pub(super) async fn prepare(
        self,
        plan: &Plan,
        (label, value): (CredentialLabel, Value),
        expires_in_ms: u64,
        record: Option<KeepShared>,
    ) -> Result<Ready, Failure> {
        let what = Wish::Put { label, value, keys: self.recipients.keys };
        let order = Order { on: self.on, what, timeout_ms: TIMEOUT_MS, expires_in_ms };
        let prepared = prepare_aside(order, self.client.access(), self.targets).await;
        Ok(Ready { client: self.client, prepared: prepared.map_err(|error| plan.failed(&error))?, record })
    }
}

/// Gives a credential to machines.
async fn give(config: &Config, json: bool, push: Push) -> Result<u8, Failure> {
    let plan = plan(json, format!("push credential {}", push.name), &push.to);
    // From before the first question on, for what is pressed there means all of it.
    let mut interrupts = interrupts()?;
    let ready = before_submit(&mut interrupts, Box::pin(prepare(config, &plan, push))).await?;
    ready.carry_out(config, &plan, &mut interrupts).await
}

async fn prepare(config: &Config, plan: &Plan, push: Push) -> Result<Ready, Failure> {
    let value = value(&push).await?;
    let wanted = Wanted { to: push.to, trust: push.trust };
    let meant = Meant::ask(config, plan, &wanted).await?;
    let label = CredentialLabel {
        name: push.name,
        credential_type: push.credential_type,
        target: push.target,
        username: push.user,
        storage_mode: push.mode,
    };
    // Bridges know first: what relays have and nobody knows of would be given to nobody else, and taken from nobody.
    let record = match label.storage_mode {
        StorageMode::Shared => Some(shared::record(config, &meant, plan, &label, &value)?),
        StorageMode::RelayOnly => None,
    };
    meant.prepare(plan, (label, value), wanted.to.expires_in, record).await
}

/// The value, from where it is said to be, or asked for.
async fn value(push: &Push) -> Result<Value, Failure> {
    const MOST: usize = limit::CREDENTIAL_VALUE_BYTES;
    let usage = |why: &str| Failure::new(exit::USAGE, format!("cannot push credential {}: {why}", push.name));
    let single = async |what| match &push.value_file {
        Some(path) => secret::line(path, MOST, what).await,
        None => secret::asked(what, MOST, "name a file with --value-file, or - for stdin").await,
    };
    if push.key_file.is_some() && push.credential_type != CredentialType::SshKey {
        return Err(usage("--key-file goes with --type ssh_key; use --value-file"));
    }
    let value = match push.credential_type {
        CredentialType::SshKey => {
            let path = push.key_file.as_ref().or(push.value_file.as_ref());
            let path = path.ok_or_else(|| usage("name the private key's file with --key-file"))?;
            let key = secret::text(path, MOST, "the private key").await?;
            if !key.expose().contains("PRIVATE KEY-----") {
                return Err(usage("the file holds no private key, neither of OpenSSH nor PEM"));
            }
            let passphrase = match &push.passphrase_file {
                Some(path) => Some(secret::line(path, MOST, "the passphrase").await?),
                None => None,
            };
            let certificate = match &push.cert_file {
                Some(path) => Some(input::text(path, MOST, "the certificate").await?),
                None => None,
            };
            CredentialValue::SshKey { key, passphrase, certificate }
        }
        CredentialType::Password => CredentialValue::Password { password: single("the password").await? },
        CredentialType::ApiKey => CredentialValue::ApiKey { key: single("the token").await? },
    };
    Value::new(&value)
        .map_err(|bytes| usage(&format!("its value has {bytes} bytes, at most {MOST} can be kept")))
}

/// The keys that the operator names, for machines that are meant and one for each: another one would silently not count.
fn accepted(what: &str, trust: &Trust, targets: &[Target]) -> Result<Accepted, Failure> {
    let usage = |why: String| {
        Failure::new(exit::USAGE, format!("cannot {what}: --accept-key names {}", clean::line(&why)))
    };
    let mut accepted = Accepted::new();
    for (name, key) in &trust.accept_key {
        let target =
            targets.iter().find(|target| target.id.as_str() == name || target.token.as_str() == name);
        let target = target.ok_or_else(|| {
            usage(format!("{name}, which is none of the machines that are meant; write its name as in `signalbox machines`"))
        })?;
        if accepted.insert(target.token.clone(), key.clone()).is_some_and(|other| other != *key) {
            return Err(usage(format!("two keys for {name}; leave the wrong one out")));
        }
    }
    Ok(accepted)
}

/// Whom it can be sealed for, by the keys that machines are known by here; those that are met first are known from then on, if
/// nothing stands in the way of what is asked for.
async fn recipients(
    config: &Config,
    plan: &Plan,
    (targets, told): (&[Target], Vec<Told>),
    Wanted { to, trust }: &Wanted,
) -> Result<Recipients, Failure> {
    let path = known_machines(&config.layout);
    let accepted = accepted(&plan.what, trust, targets)?;
    let targets = targets.to_vec();
    let (what, may_skip) = (plan.what.clone(), to.skip_unsealable);
    let refused = move |error: &dyn std::error::Error| {
        Failure::new(exit::NOT_ACCEPTED, format!("cannot {what}: {}", clean::line(&report(error))))
    };
    let waits = || say("waiting for another console, which keeps the keys that machines are known by");
    let file = KnownFile::hold(path, waits).await.map_err(|error| refused(&error))?;
    let what = plan.what.clone();
    let job = tokio::task::spawn_blocking(move || {
        let mut known = file.read().map_err(|error| refused(&error))?;
        let before = known.clone();
        let recipients = known.recipients(&targets, &told, &accepted).map_err(|error| refused(&error))?;
        let left_out = (&recipients.unsealable[..], recipients.keys.is_empty());
        leave_out(&what, "nothing can be sealed", left_out, may_skip)?;
        if known != before {
            file.write(&known).map_err(|error| refused(&error))?;
        }
        Ok(recipients)
    });
    let recipients = job.await.map_err(|error| Failure::system(&plan.what, &error))??;
    tell(plan, &known_machines(&config.layout), &recipients).await?;
    Ok(recipients)
}

/// Says whose keys are known from now on, for the operator to compare them.
async fn tell(plan: &Plan, path: &Path, recipients: &Recipients) -> Result<(), Failure> {
    if plan.manner == Manner::Json {
        let lines = |keys: &[(MachineId, PublicKey)], replaced| -> Vec<u8> {
            keys.iter().flat_map(|(machine, key)| Event::Trusted { machine, key, replaced }.line()).collect()
        };
        return call::print(
            [lines(&recipients.first_met, false), lines(&recipients.accepted, true)].concat(),
        )
        .await
        .map(drop);
    }
    for (how, keys) in
        [("trusted on first use", &recipients.first_met), ("accepted with its new key", &recipients.accepted)]
    {
        for (machine, key) in keys.iter().take(NAMED) {
            say(&format!("{how}: {} {key}", clean::line(machine.as_str())));
        }
        if keys.len() > NAMED {
            say(&format!("{how}: {} more, all of them in {}", keys.len() - NAMED, path.display()));
        }
    }
    Ok(())
}

/// Names the machines that it is impossible for, and refuses all unless they may be left out. `is_all`: there are no others.
fn leave_out(
    what: &str,
    why_not: &str,
    (machines, is_all): (&[(MachineId, Unsealable)], bool),
    may_skip: bool,
) -> Result<(), Failure> {
    if machines.is_empty() {
        return Ok(());
    }
    for (machine, why) in machines.iter().take(NAMED) {
        say(&format!("{}: {}", clean::line(machine.as_str()), why.as_str()));
    }
    if machines.len() > NAMED {
        say(&format!("and {} more", machines.len() - NAMED));
    }
    let count = machines.len();
    let refuse = |advice: &str| {
        let line = format!("cannot {what}: {why_not} for {count} machines; {advice}");
        Err(Failure::new(exit::NOT_ACCEPTED, line))
    };
    if is_all {
        return refuse("there is no other one");
    }
    if may_skip { Ok(()) } else { refuse("leave them out with --skip-unsealable") }
}

/// Lists what relays with keys say that they keep.
async fn list(config: &Config, json: bool, on: String) -> Result<u8, Failure> {
    const WHAT: &str = "list what relays keep";
    let call = Call::new(config, json, WHAT);
    let client = call.connect().await?;
    let known =
        Known::read(&known_machines(&config.layout)).map_err(|error| Failure::system(WHAT, &error))?;
    let (mut kept, mut doubts) = (Vec::new(), 0_usize);
    let ws = client.access().ws.clone();
    let listed = client.inventories(on, list::MOST, |view| match rows(&known, &ws, view) {
        Ok(rows) => kept.extend(rows),
        Err(doubt) => {
            doubts += 1;
            say(&clean::line(&report(&doubt)));
        }
    });
    listed.await.map_err(|error| call.failed(&error))?;
    let code = call.table(&kept).await?;
    Ok(if doubts > 0 { exit::FAILED } else { code })
}

/// What one relay keeps, if it is to be believed; says what else there is to say of it.
fn rows(known: &Known, ws: &Workspace, view: InventoryView) -> Result<Vec<Kept>, Distrust> {
    let name = clean::line(view.machine.as_str());
    let Some(inventory) = known.open(ws, &view, &Accepted::new())? else {
        if view.signing_key.is_some() {
            say(&format!("{name}: its relay has not said what it keeps"));
        }
        return Ok(Vec::new());
    };
    if let Some(problem) = &inventory.problem {
        say(&format!("{name}: its credentials cannot be read: {}", clean::line(problem)));
    }
    if inventory.left_out > 0 {
        say(&format!("{name}: {} more are not listed", inventory.left_out));
    }
    let (machine, state) = (view.machine, view.state);
    let row = |meta| Kept { machine: machine.clone(), state, meta };
    Ok(inventory.credentials.into_iter().map(row).collect())
}

/// Lists who reaches a host.
async fn reaching(config: &Config, json: bool, on: String, target: String) -> Result<u8, Failure> {
    let call = Call::new(config, json, "list who reaches the host");
    let client = call.connect().await?;
    let asked = Reach { target, on: Some(on), ..Reach::default() };
    let found: Vec<ReachView> =
        client.list_all(op::CREDENTIALS_REACH, asked).await.map_err(|error| call.failed(&error))?;
    let rows = found.into_iter().flat_map(|ReachView { machine, state, credentials, .. }| {
        credentials.into_iter().map(move |meta| Kept { machine: machine.clone(), state, meta })
    });
    call.table(&rows.collect::<Vec<_>>()).await
}
