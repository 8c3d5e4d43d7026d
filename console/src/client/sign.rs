//! A command as its author makes it: the spec's exact bytes, and one signed grant per machine.

use std::{collections::HashSet, time::Duration};

use signalbox_schemas::{
    Base64Url,
    api::{Accepted, PartTaken, Preview, Previewed, Submit, Target, op},
    command::{CommandSpec, Grant, InvalidSpec, Part, SshTarget, Target as Where, parts},
    error::{ErrorCode, Problem, report},
    id::{CommandId, MachineId, MachineToken, Sha256, Workspace},
    limit,
    rollout::Rollout,
    selector::Selector,
    signed::Signed,
};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Access, Client, ClientError, access, clock::now_ms};

/// A submit that nobody answers is tried so often, each time with the same id.
const SUBMIT_TRIES: u32 = 3;
/// Wait between two tries.
const SUBMIT_STEP: Duration = Duration::from_millis(500);

/// Machines of one page of a preview, the most that a bridge gives.
const PREVIEWED: u32 = 1_000;

/// A list that changes while it is read is read so often page by page.
const LIST_TRIES: u32 = 3;

/// What the author wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Selector.
    pub on: String,
    /// Text for `sh -c`.
    pub command: String,
    /// How long it may run, ms.
    pub timeout_ms: u64,
    /// It does not start later than this from now, ms.
    pub expires_in_ms: u64,
    /// Whether the author named that time: one that follows from how long he waits is none of the command's own.
    pub is_expiry_named: bool,
    /// Output kept per machine, bytes.
    pub max_output_bytes: u64,
    /// The machines that the author has seen it would run on: no others are signed for. Empty when none were shown.
    pub shown: Vec<MachineToken>,
    /// Of the machines that the selector means those that it is for. Empty: all of them.
    pub only: Vec<MachineToken>,
    /// How it spreads; `None`: to all at once.
    pub rollout: Option<Rollout>,
    /// The command whose runs it tries once more.
    pub retry_of: Option<CommandId>,
    /// The host behind the machine that runs it; `None`: the machine itself.
    pub ssh: Option<SshTarget>,
    /// In whose name, for people; at most 128 bytes.
    pub created_by: Option<String>,
    /// Makes it the same command however often it is submitted, 1 to 255 printable ASCII characters.
    pub idempotency_key: Option<String>,
}

/// The author's input is wrong: nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// The selector.
    #[error(transparent)]
    Selector(#[from] signalbox_schemas::selector::SelectorError),
    /// Another member.
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    /// The idempotency key.
    #[error("an idempotency key is 1 to {} printable ASCII characters", limit::IDEMPOTENCY_KEY_BYTES)]
    Key,
}

impl Draft {
    /// A text on the machines that a selector means, all at once; times in ms.
    pub fn new(on: String, command: String, timeout_ms: u64, expires_in_ms: u64) -> Self {
        Self {
            on,
            command,
            timeout_ms,
            expires_in_ms,
            is_expiry_named: true,
            max_output_bytes: limit::DEFAULT_MAX_OUTPUT,
            shown: Vec::new(),
            only: Vec::new(),
            rollout: None,
            retry_of: None,
            ssh: None,
            created_by: None,
            idempotency_key: None,
        }
    }

    /// Checks everything that can be checked before anybody is asked.
    ///
    /// # Errors
    /// [`DraftError`] naming what is wrong.
    pub fn check(&self) -> Result<(), DraftError> {
        Selector::parse(&self.on)?;
        let is_key = |key: &String| {
            (1..=limit::IDEMPOTENCY_KEY_BYTES).contains(&key.len())
                && key.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        if !self.idempotency_key.iter().all(is_key) {
            return Err(DraftError::Key);
        }
        // Who asks, and where, makes no difference to whether it is right.
        Ok(self.spec(Workspace::main(), access::LOCAL_OPERATOR, new_id(), 1).validate()?)
    }

    /// Where its machines run it, when not on themselves.
    pub(super) fn target(&self) -> Option<Where> {
        self.ssh.clone().map(Where::Ssh)
    }

    /// The id that its idempotency key gives it, if it has one.
    pub(super) fn id_of_key(&self, access: &Access) -> Option<CommandId> {
        let by = principal(access.operator.as_str());
        self.idempotency_key.as_ref().map(|key| CommandId::from_idempotency_key(&by, key))
    }

    fn spec(&self, ws: Workspace, operator: &str, cid: CommandId, targets: u32) -> CommandSpec {
        let now = now_ms();
        let target = self.target();
        CommandSpec {
            ws,
            cid,
            command: self.command.clone(),
            timeout_ms: self.timeout_ms,
            created_at: now,
            expires_at: now.saturating_add(self.expires_in_ms),
            not_before: None,
            rollout: self.rollout.clone(),
            retry_of: self.retry_of,
            purpose: None,
            leave_children: false,
            max_output: self.max_output_bytes,
            on: self.on.clone(),
            targets,
            by: principal(operator),
            created_by: self.created_by.clone(),
            // A relay that does not know the member must not run the command on itself.
            crit: target.iter().map(|_| "target".to_owned()).collect(),
            target,
            change: None,
        }
    }
}

/// What an operator is called as the author of commands.
pub(super) fn principal(operator: &str) -> String {
    format!("operator:{operator}")
}

/// A command that is signed and not sent yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Its id.
    pub id: CommandId,
    /// From then on it does not start, Unix ms.
    pub expires_at: u64,
    /// The machines that it is signed for, sorted.
    pub targets: Vec<MachineId>,
    /// Without grants when those go ahead.
    submit: Submit,
    /// What goes ahead of it, of a command on more than 1,000 machines.
    ahead: Vec<Part>,
}

#[cfg(test)]
impl Prepared {
    /// What is sent last.
    pub(super) fn submitted(&self) -> &Submit {
        &self.submit
    }

    /// What goes before it.
    pub(super) fn sent_ahead(&self) -> &[Part] {
        &self.ahead
    }
}

/// Nobody trusts the bridge that made the list: what the author did not mean, or did not see, is not signed for. `shown`: what he
/// saw, if he saw any.
pub(super) fn check_targets(on: &str, shown: &[MachineToken], targets: &[Target]) -> Result<(), ClientError> {
    let refuse = |code, message: String| Err(ClientError::Refused(Problem::new(code, message)));
    let selector = match Selector::parse(on) {
        Ok(selector) => selector,
        Err(error) => return refuse(ErrorCode::Invalid, error.to_string()),
    };
    for target in targets {
        let Target { id, token, .. } = target;
        if id.token() != *token {
            return Err(ClientError::NotAsMeant(format!("it says that `{token}` is the machine `{id}`")));
        }
        // What else is true of a machine only the bridge knows; its names the console sees itself.
        if !selector.could_mean(id, token) {
            return Err(ClientError::NotAsMeant(format!("`{id}` is not meant by `{on}`")));
        }
    }
    let count = u64::try_from(targets.len()).unwrap_or(u64::MAX);
    if let Some(most) = selector.most().filter(|most| count > *most) {
        return Err(ClientError::NotAsMeant(format!(
            "it names {count} machines, and `{on}` means {most} at the most"
        )));
    }
    if !targets.is_sorted_by(|a, b| a.token < b.token) {
        return Err(ClientError::NotAsMeant("its list of machines is not in order".to_owned()));
    }
    let shown: HashSet<&MachineToken> = shown.iter().collect();
    let unseen = |target: &&Target| !shown.is_empty() && !shown.contains(&target.token);
    let unseen: Vec<&str> = targets.iter().filter(unseen).map(|target| target.id.as_str()).collect();
    match unseen.as_slice() {
        [] => Ok(()),
        [one] => {
            refuse(ErrorCode::IdConflict, format!("`{one}` has come to those that were shown; look again"))
        }
        [one, rest @ ..] => {
            let message =
                format!("`{one}` and {} more have come to those that were shown; look again", rest.len());
            refuse(ErrorCode::IdConflict, message)
        }
    }
}

/// Signs a command for `targets` (sorted by token, as previewed).
///
/// # Errors
/// [`ClientError::Refused`] for no or too many targets, for targets that were not shown and for members out of range,
/// [`ClientError::NotAsMeant`] for targets that the draft does not mean, [`ClientError::Sign`].
pub fn prepare(draft: &Draft, access: &Access, targets: &[Target]) -> Result<Prepared, ClientError> {
    check_targets(&draft.on, &draft.shown, targets)?;
    let count = check_count(&draft.on, targets)?;
    let id = draft.id_of_key(access).unwrap_or_else(new_id);
    let spec = draft.spec(access.ws.clone(), access.operator.as_str(), id, count);
    let prepared = sign(&spec, access, targets, |_| Ok(None))?;
    let submit = Submit { idempotency_key: draft.idempotency_key.clone(), ..prepared.submit };
    Ok(Prepared { submit, ..prepared })
}

/// How many machines there are, if a command can have so many.
pub(super) fn check_count(on: &str, targets: &[Target]) -> Result<u32, ClientError> {
    let refuse = |code, message: String| ClientError::Refused(Problem::new(code, message));
    if targets.is_empty() {
        let message = format!("no machine matches `{on}`; list them to see their names");
        return Err(refuse(ErrorCode::NoTargets, message));
    }
    if targets.len() > limit::TARGETS {
        let message = format!(
            "`{on}` matches {} machines, more than the {} of one command; use narrower selectors",
            targets.len(),
            limit::TARGETS
        );
        return Err(refuse(ErrorCode::TooLarge, message));
    }
    Ok(u32::try_from(targets.len()).unwrap_or(u32::MAX))
}

/// Signs a grant of these very bytes for each target. `sealed`: what the one for a machine brings.
pub(super) fn sign(
    spec: &CommandSpec,
    access: &Access,
    targets: &[Target],
    sealed: impl Fn(&MachineToken) -> Result<Option<Base64Url>, ClientError>,
) -> Result<Prepared, ClientError> {
    let bytes = serde_json::to_vec(spec).map_err(|_| ClientError::Malformed(op::COMMANDS_SUBMIT))?;
    CommandSpec::from_bytes(&bytes)
        .map_err(|error| ClientError::Refused(Problem::new(ErrorCode::Invalid, error.to_string())))?;
    let spec_sha256 = Sha256::of(&bytes);
    let grant = |target: &Target| {
        let grant = Grant {
            ws: access.ws.clone(),
            cid: spec.cid,
            mid: target.token.clone(),
            spec_sha256,
            expires_at: spec.expires_at,
            sealed: sealed(&target.token)?,
        };
        Signed::sign(&grant, &access.key).map_err(ClientError::Sign)
    };
    let grants = targets.iter().map(grant).collect::<Result<_, _>>()?;
    let mut ahead = parts(spec.cid, grants);
    // The grants of one part go with the submit itself.
    let grants = if ahead.len() == 1 { ahead.pop().map(|part| part.grants) } else { None };
    let grants = grants.unwrap_or_default();
    let submit = Submit { spec: Base64Url(bytes), grants, idempotency_key: None };
    let mut targets: Vec<MachineId> = targets.iter().map(|target| target.id.clone()).collect();
    targets.sort();
    Ok(Prepared { id: spec.cid, expires_at: spec.expires_at, targets, submit, ahead })
}

/// The same on a thread that may be busy: for 10,000 machines it is, for half a second.
///
/// # Errors
/// As [`prepare`].
pub async fn prepare_aside(
    draft: &Draft,
    access: &Access,
    targets: Vec<Target>,
) -> Result<Prepared, ClientError> {
    let (draft, access) = (draft.clone(), access.clone());
    let job = tokio::task::spawn_blocking(move || prepare(&draft, &access, &targets));
    // It does not panic; if it did, nothing was sent.
    job.await.map_err(|_| ClientError::Malformed(op::COMMANDS_SUBMIT))?
}

/// The machines of all pages, if that is the list that they say they are of. Bridges before that said nothing.
fn checked(targets: Vec<Target>, list: Option<Sha256>) -> Result<Vec<Target>, ClientError> {
    let is_it = list.is_none_or(|list| list == Previewed::digest(targets.iter().map(|target| &target.token)));
    if is_it {
        Ok(targets)
    } else {
        Err(ClientError::NotAsMeant("its pages are not of the list that it names".to_owned()))
    }
}

impl Client {
    /// Which machines a selector means now, sorted by token: each of them is meant by it, and there are no more than a command can
    /// have. For whoever does something for them before a command is signed. `for_secret`: they are to be given one, and what
    /// their relays say of themselves selects none of them.
    ///
    /// # Errors
    /// As [`Self::preview`] and [`prepare`].
    pub async fn meant(&self, on: &str, for_secret: bool) -> Result<Vec<Target>, ClientError> {
        let targets = self.pages(on, for_secret).await?;
        check_targets(on, &[], &targets)?;
        check_count(on, &targets)?;
        Ok(targets)
    }

    /// Which machines a selector means now, sorted by token, read page by page.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::NotAsMeant`] for a list that is longer than any that a bridge may answer.
    pub async fn preview(&self, on: &str) -> Result<Vec<Target>, ClientError> {
        self.pages(on, false).await
    }

    /// All pages of one list. Where it has changed before its last page was read, it is read anew, and at last all at once: what
    /// moves all the time, several bridges cannot give page by page.
    async fn pages(&self, on: &str, secret: bool) -> Result<Vec<Target>, ClientError> {
        for _ in 0..LIST_TRIES {
            match self.pages_of_one_list(on, secret, Some(PREVIEWED)).await {
                Err(ClientError::Refused(problem)) if problem.code == ErrorCode::IdConflict => {}
                read => return read,
            }
        }
        self.pages_of_one_list(on, secret, None).await
    }

    async fn pages_of_one_list(
        &self,
        on: &str,
        secret: bool,
        limit: Option<u32>,
    ) -> Result<Vec<Target>, ClientError> {
        let mut targets: Vec<Target> = Vec::new();
        let (mut after, mut list) = (None, None);
        loop {
            let asked = Preview { on: on.to_owned(), limit, after, secret };
            let before = asked.after.clone();
            let page: Previewed = match self.ask(op::COMMANDS_PREVIEW, &asked).await {
                // A bridge of another version than that of the page before does not know where it ended.
                Err(ClientError::Refused(problem))
                    if problem.code == ErrorCode::Invalid && before.is_some() =>
                {
                    return Err(several_lists());
                }
                page => page?,
            };
            match (page.sha256, list) {
                (now, then) if before.is_none() || now == then => {}
                (Some(_), Some(_)) => {
                    let why = "its pages are of several lists of machines".to_owned();
                    return Err(ClientError::NotAsMeant(why));
                }
                // One of the two bridges is of a version that names no list.
                _ => return Err(several_lists()),
            }
            list = page.sha256;
            let is_empty = page.targets.is_empty();
            targets.extend(page.targets);
            let Some(next) = page.next else { return checked(targets, list) };
            // The machines come sorted; one that repeats itself is refused before anything is signed.
            if targets.len() > limit::TARGETS || is_empty || before.is_some_and(|before| next <= before) {
                return Err(ClientError::NotAsMeant("its list of machines does not end".to_owned()));
            }
            after = Some(next);
        }
    }

    /// The machines that a draft is for now, sorted by token.
    ///
    /// # Errors
    /// As [`Self::preview`].
    pub async fn targets(&self, draft: &Draft) -> Result<Vec<Target>, ClientError> {
        let mut targets = self.preview(&draft.on).await?;
        if !draft.only.is_empty() {
            let only: HashSet<&MachineToken> = draft.only.iter().collect();
            targets.retain(|target| only.contains(&target.token));
        }
        Ok(targets)
    }

    /// Sends what goes ahead of a submit and was not `sent` yet, then the submit.
    async fn send_all(&self, prepared: &Prepared, sent: &mut usize) -> Result<Accepted, ClientError> {
        for part in prepared.ahead.iter().skip(*sent) {
            let taken: PartTaken = self.change(op::COMMANDS_PART, part).await?;
            if taken.id != prepared.id || taken.n != part.n {
                return Err(ClientError::NotAsMeant("it has taken another part than was sent".to_owned()));
            }
            *sent += 1;
        }
        self.change(op::COMMANDS_SUBMIT, &prepared.submit).await
    }

    /// Submits a prepared command. It is tried again under the same id, which makes repeats harmless.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: it is not accepted. [`ClientError::Unsure`]: it may be, as it may after
    /// [`ClientError::NotAsMeant`].
    pub async fn submit(&self, prepared: &Prepared) -> Result<Accepted, ClientError> {
        let (mut is_unsure, mut sent, mut attempt) = (false, 0, 0);
        loop {
            let before = sent;
            let error = match self.send_all(prepared, &mut sent).await {
                Ok(accepted) => return as_meant(prepared, accepted),
                Err(error) => error,
            };
            let is_unheard = match &error {
                ClientError::NoBridge(_) => true,
                // The broker did not acknowledge: it may be stored all the same.
                ClientError::Refused(problem) => problem.code == ErrorCode::NotAccepted,
                _ => false,
            };
            // Without its parts nothing is a command; once it is on its way, what follows says nothing about the try before.
            is_unsure |= is_unheard && sent == prepared.ahead.len();
            if !is_unheard && !is_unsure {
                return Err(error);
            }
            // Each part has its own tries.
            attempt = if sent > before { 1 } else { attempt + 1 };
            if attempt >= SUBMIT_TRIES {
                return Err(if is_unsure { ClientError::Unsure(prepared.id) } else { error });
            }
            tracing::debug!(id = %prepared.id, attempt, error = report(&error), "submit was not acknowledged");
            sleep(SUBMIT_STEP).await;
        }
    }

    /// Preview, sign, submit.
    ///
    /// # Errors
    /// As [`prepare`] and [`Self::submit`].
    pub async fn run(&self, draft: &Draft) -> Result<Accepted, ClientError> {
        let invalid = |error: DraftError| Problem::new(ErrorCode::Invalid, error.to_string());
        draft.check().map_err(|error| ClientError::Refused(invalid(error)))?;
        let targets = self.targets(draft).await?;
        self.submit(&prepare_aside(draft, self.access(), targets).await?).await
    }
}

/// Two pages are not of one list: it is begun anew.
fn several_lists() -> ClientError {
    let why = "its pages come from bridges that do not know each other's lists; try again";
    ClientError::Refused(Problem::new(ErrorCode::IdConflict, why))
}

/// Whether what was accepted is what was sent.
fn as_meant(prepared: &Prepared, mut accepted: Accepted) -> Result<Accepted, ClientError> {
    if !prepared.ahead.is_empty() && accepted.targets.is_empty() {
        // A message has no room for them.
        accepted.targets.clone_from(&prepared.targets);
    }
    accepted.targets.sort();
    if accepted.id == prepared.id && accepted.targets == prepared.targets {
        return Ok(accepted);
    }
    let what = format!("it accepted something else than {}; look with `signalbox show {0}`", prepared.id);
    Err(ClientError::NotAsMeant(what))
}

pub(super) fn new_id() -> CommandId {
    // A UUIDv7 is a command id by definition; the loop never turns twice.
    loop {
        if let Ok(id) = CommandId::new(Uuid::now_v7()) {
            return id;
        }
    }
}
