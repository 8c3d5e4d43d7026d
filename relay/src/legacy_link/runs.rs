//! What the keeper runs.

use signalbox_link::crash::{Part, Point, hit};
use signalbox_schemas::{
    error::report,
    id::{CommandId, Nonce},
    limit::{COMMAND_TEXT_BYTES, DAY_MS},
};
use tokio::time::{Instant, timeout};

use super::{
    LinkError,
    keeping::{KEEPER_PATIENCE, Keeper},
    kept::{Granted, Origin, is_late},
    pull::cid_of,
    wire::{Command, Ended, Target},
    worker::{Done, MAX_PARALLEL, Worker},
};
use crate::{
    clock::unix_ms,
    journal::{Entry, Progress},
    keeper::{
        KeeperError,
        client::{KeeperClient, KeeperEvent, Welcome},
        protocol::{Cause, End, Fault, Phase, Refusal, RunStatus, StartRun},
        signal_number,
        spool::left_behind,
    },
    keeper_life::{bury, mark},
    keepsakes::STORE_PATIENCE,
    lock::LockError,
    ssh::route::Route,
};

/// A command is remembered, and its result kept, for so long after it was granted; ms.
pub(super) const REMEMBERED_MS: u64 = 8 * DAY_MS;
/// Output that is kept from the beginning of a run, both streams together, bytes: more than a result can carry.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;
/// Longest text of a command, bytes: what Linux takes as one argument (`MAX_ARG_STRLEN`, with its closing NUL).
const MAX_COMMAND_BYTES: usize = 128 * 1024 - 1;
/// Longest text of a command as JSON, bytes: so that it fits a frame to the keeper and a line of the journal.
const MAX_COMMAND_JSON: usize = 192 * 1024;

/// Why a command on another host is not started by a keeper of a former version.
const OLD_KEEPER: &str = "The relay's keeper is older than the relay and runs nothing on other hosts; it makes way when nothing else runs";
/// Why a command is not started that was granted long ago.
const TOO_LATE: &str = "The command could not be started in time, and is not started any more";

/// A command that goes on.
pub(super) struct Run {
    /// The keeper's life it belongs to.
    instance: Nonce,
    /// The way to its host is being looked for, for no longer than this, and whoever looks hands it to the keeper.
    routing_until: Option<Instant>,
    /// The keeper was asked to start it, and answers by then.
    pub(super) starting_until: Option<Instant>,
}

impl Run {
    fn of(instance: Nonce) -> Self {
        Self { instance, routing_until: None, starting_until: None }
    }

    /// When the way to its host has to be found.
    pub(super) fn way_due(&self) -> Option<Instant> {
        self.routing_until
    }

    /// When the keeper has to have answered.
    pub(super) fn answer_due(&self) -> Option<Instant> {
        self.starting_until
    }
}

impl Worker {
    pub(super) async fn on_keeper_up(
        &mut self,
        (client, welcome): (KeeperClient, Welcome),
    ) -> Result<(), LinkError> {
        let instance = welcome.instance;
        tracing::debug!(pid = welcome.pid, runs = welcome.runs.len(), "Keeper is up");
        if self.journal.ledger().keeper(instance).is_none() {
            // A keeper ends when its store is removed: perhaps with the lock, and somebody else took both.
            match self.place.lock.hold() {
                Err(error @ LockError::InUse { .. }) => return Err(error.into()),
                Err(error) => tracing::warn!(error = report(&error), "Store is not locked"),
                Ok(()) => {}
            }
            self.note(Entry::Keeper { mark: mark(&welcome) });
            self.journal.begin_life(instance);
        }
        self.keeper = Some(Keeper { client, instance, free: welcome.free, is_remote: welcome.remote });
        self.runs.retain(|_, run| run.instance == instance);
        self.pick_up(instance, welcome.runs).await;
        self.leave_former_lives(instance);
        self.look_into_spool();
        for (command, granted_at) in std::mem::take(&mut self.granted) {
            self.begin(command, granted_at).await;
        }
        Ok(())
    }

    /// Goes on with what an earlier process of this relay, or an earlier connection, had going.
    async fn pick_up(&mut self, instance: Nonce, known: Vec<RunStatus>) {
        let claims = self.journal.ledger().claims().filter(|(.., claimed)| claimed.instance == instance);
        let claims = claims.filter(|(cid, ..)| !self.unwritten.is_about(*cid));
        let claims: Vec<(CommandId, String)> =
            claims.map(|(cid, _, claimed)| (cid, claimed.spec.clone())).collect();
        for (cid, spec) in claims {
            if known.iter().any(|status| status.cid == cid) {
                self.runs.insert(cid, Run::of(instance));
                continue;
            }
            // It may not have reached the keeper. Starting twice is starting once.
            match serde_json::from_str::<Granted>(&spec) {
                Ok(granted) if granted.is_late(unix_ms()) => {
                    self.finish(cid, Ended::without_a_run(&granted.id, TOO_LATE));
                }
                Ok(granted) => self.start(cid, granted).await,
                Err(error) => {
                    tracing::error!(%cid, %error, "Granted command cannot be read back");
                    self.note(Entry::Decided { cid });
                }
            }
        }
        for status in known {
            if self.runs.contains_key(&status.cid) {
                self.on_status(&status);
            } else if status.phase == Phase::Ended && !self.is_open(status.cid) {
                self.unforgotten.push_back(status.cid);
            }
        }
    }

    /// What a former keeper ran is over, and nobody knows how.
    fn leave_former_lives(&mut self, instance: Nonce) {
        let mut former: Vec<(Nonce, CommandId)> = self
            .journal
            .ledger()
            .claims()
            .filter(|(cid, ..)| !self.unwritten.is_about(*cid))
            .map(|(cid, _, claimed)| (claimed.instance, cid))
            .filter(|(life, _)| *life != instance && !self.burying.contains(life))
            .collect();
        former.sort_unstable_by_key(|(life, _)| life.0);
        for lives in former.chunk_by(|one, other| one.0 == other.0) {
            let Some((life, _)) = lives.first().copied() else { continue };
            self.burying.insert(life);
            let open = lives.iter().map(|(_, cid)| *cid).collect();
            match self.journal.ledger().keeper(life).cloned() {
                Some(mark) => {
                    self.jobs.spawn_local(async move { Done::Buried(bury(mark, open).await) });
                }
                None => self.on_buried(life),
            }
        }
    }

    pub(super) fn on_buried(&mut self, instance: Nonce) {
        self.burying.remove(&instance);
        let claims = self.journal.ledger().claims().filter(|(.., claimed)| claimed.instance == instance);
        let claims = claims.filter(|(cid, ..)| !self.unwritten.is_about(*cid));
        let lost: Vec<(CommandId, String)> =
            claims.map(|(cid, _, claimed)| (cid, claimed.spec.clone())).collect();
        for (cid, spec) in lost {
            let Ok(granted) = serde_json::from_str::<Granted>(&spec) else {
                tracing::error!(%cid, "Granted command cannot be read back");
                self.note(Entry::Decided { cid });
                continue;
            };
            let error = "The relay's keeper ended while the command ran; how the command ended is not known";
            let bytes = left_behind(&self.place.folder, cid).map(|stream| stream.bytes);
            self.finish(cid, Ended { bytes, ..Ended::without_a_run(&granted.id, error) });
        }
    }

    /// Does what the center granted.
    pub(super) async fn begin(&mut self, command: Command, granted_at: u64) {
        let cid = cid_of(&self.relay_id, &command.id);
        // The text of a command may hold secrets: its length says enough.
        let bytes = command.text.len();
        tracing::info!(command = command.id, bytes, "Command claimed");
        let refused = match &command.target {
            Target::NoHost => Some("SSH target host missing".to_owned()),
            Target::BadHost(host) => Some(format!("SSH target is no host with a port and a user: {host}")),
            Target::NoText => Some("The command has no text".to_owned()),
            Target::Unknown(kind) => Some(format!("Unknown target type: {kind}")),
            Target::Local | Target::Ssh(_) if is_late(granted_at, command.timeout_ms, unix_ms()) => {
                Some(TOO_LATE.to_owned())
            }
            Target::Ssh(_) if command.text.len() > COMMAND_TEXT_BYTES => Some(format!(
                "The command is longer than {COMMAND_TEXT_BYTES} bytes, which is all that goes to another host"
            )),
            Target::Local | Target::Ssh(_) => too_long(&command.text),
        };
        if let Some(error) = refused {
            return self.finish(cid, Ended::without_a_run(&command.id, error));
        }
        let Some(instance) = self.keeper.as_ref().map(|keeper| keeper.instance) else {
            // It went while the center was asked.
            self.granted.push((command, granted_at));
            return;
        };
        hit(Part::Relay, Point::ClaimSent);
        let expires_at = granted_at.saturating_add(REMEMBERED_MS);
        let granted = Granted {
            id: command.id,
            command: command.text,
            timeout_ms: command.timeout_ms,
            folder: self.place.work.clone(),
            expires_at,
            target: match command.target {
                Target::Ssh(target) => Some(*target),
                _ => None,
            },
            origin: Some(self.origin()),
        };
        // Strings and numbers always have a JSON form.
        let spec = serde_json::to_string(&granted).unwrap_or_default();
        let claim = Entry::Claim { cid, instance, expires_at, spec, before: Progress::default() };
        if let Err(error) = self.write_claim(claim) {
            // A process after this one would not know of it, and could run it again.
            tracing::error!(error = report(&error), "Command not started");
            let error = format!("The relay cannot write down that it starts a command: {}", report(&error));
            return self.finish(cid, Ended::without_a_run(&granted.id, error));
        }
        hit(Part::Relay, Point::ClaimAcked);
        self.start(cid, granted).await;
    }

    async fn start(&mut self, cid: CommandId, granted: Granted) {
        let Some(keeper) = &self.keeper else { return };
        let Some(target) = granted.target.clone() else { return self.hand_over(cid, granted, None).await };
        if !keeper.is_remote {
            return self.finish(cid, Ended::without_a_run(&granted.id, OLD_KEEPER));
        }
        let instance = keeper.instance;
        // A connection to the keeper that was made anew meanwhile takes the way that is found, too. Looked for twice, it would
        // be asked for twice.
        if self.runs.get(&cid).is_some_and(|run| run.instance == instance && run.routing_until.is_some()) {
            return;
        }
        // Each of those holds a thread.
        let searched = self.runs.values().filter(|run| run.routing_until.is_some()).count();
        if !self.hanging.is_empty() && self.hanging.len() + searched >= MAX_PARALLEL {
            return self.finish(cid, Ended::without_a_run(&granted.id, self.hangs()));
        }
        let until = Instant::now() + STORE_PATIENCE;
        self.runs.insert(cid, Run { routing_until: Some(until), ..Run::of(instance) });
        let (hosts, config) = (self.hosts.clone(), self.config.clone());
        self.jobs.spawn_blocking(move || {
            let route = config.ssh_targets().and_then(|targets| hosts.route(&target, targets));
            Done::Routed(cid, instance, Box::new(granted), route.map(Box::new))
        });
    }

    /// The way to a host was found, or not.
    pub(super) async fn on_routed(
        &mut self,
        (cid, instance): (CommandId, Nonce),
        granted: Granted,
        route: Result<Box<Route>, String>,
    ) {
        if self.hanging.remove(&cid) {
            return;
        }
        // Of a former keeper's life: it is lost with it.
        let Some(run) = self.runs.get_mut(&cid).filter(|run| run.instance == instance) else { return };
        // Without a keeper it is looked for again when there is one.
        run.routing_until = None;
        match route {
            Ok(route) => self.hand_over(cid, granted, Some(route)).await,
            Err(error) => self.finish(cid, Ended::without_a_run(&granted.id, error)),
        }
    }

    /// Ends what waits for a disk that hangs: it would hold its place among the parallel commands for as long.
    pub(super) fn check_ways(&mut self, now: Instant) {
        let is_over = |run: &Run| run.routing_until.is_some_and(|until| until <= now);
        let over: Vec<CommandId> =
            self.runs.iter().filter(|(_, run)| is_over(run)).map(|(cid, _)| *cid).collect();
        for cid in over {
            self.hanging.insert(cid);
            match self.command_id(cid) {
                Some(command_id) => self.finish(cid, Ended::without_a_run(&command_id, self.hangs())),
                None => drop(self.runs.remove(&cid)),
            }
        }
    }

    /// Why no way is found.
    fn hangs(&self) -> String {
        format!(
            "The way to the host was looked for among the credentials, and nothing was run: they did not answer for {} s; does \
             the disk hang that {} or ~/.ssh is on?",
            STORE_PATIENCE.as_secs(),
            self.place.folder.display()
        )
    }

    async fn hand_over(&mut self, cid: CommandId, granted: Granted, route: Option<Box<Route>>) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.free = keeper.free.map(|free| free.saturating_sub(1));
        let instance = keeper.instance;
        let start = StartRun {
            cid,
            command: granted.command,
            timeout_ms: granted.timeout_ms,
            max_output: MAX_OUTPUT,
            // What it starts in the background is meant to stay; what holds its pipes belongs to it.
            leave_children: true,
            await_pipes: true,
            expires_at: granted.expires_at,
            folder: granted.folder,
            route,
        };
        let until = Instant::now() + KEEPER_PATIENCE;
        self.runs.insert(cid, Run { starting_until: Some(until), ..Run::of(instance) });
        let told = timeout(KEEPER_PATIENCE, keeper.client.start(start)).await;
        match told {
            Ok(Ok(())) => {}
            Ok(Err(error @ KeeperError::Frame(_))) => {
                self.finish(cid, Ended::without_a_run(&granted.id, report(&error)));
            }
            Ok(Err(_)) | Err(_) => self.lose_keeper(),
        }
    }

    pub(super) fn on_keeper(&mut self, event: KeeperEvent) {
        match event {
            KeeperEvent::Started { cid } => {
                hit(Part::Relay, Point::Spawned);
                if let Some(run) = self.runs.get_mut(&cid) {
                    run.starting_until = None;
                }
            }
            KeeperEvent::Refused { cid, reason } => self.on_refused(cid, reason),
            KeeperEvent::Status(status) => self.on_status(&status),
            KeeperEvent::Gone => {
                tracing::warn!("Keeper is gone");
                self.lose_keeper();
            }
        }
    }

    fn on_refused(&mut self, cid: CommandId, reason: Refusal) {
        if reason == Refusal::Running || self.runs.remove(&cid).is_none() {
            return;
        }
        let error = match reason {
            Refusal::Forgotten | Refusal::Expired => {
                "The command was started before; how it ended is not known"
            }
            _ => "The relay's keeper takes no more commands",
        };
        if let Some(command_id) = self.command_id(cid) {
            self.finish(cid, Ended::without_a_run(&command_id, error));
        }
    }

    fn on_status(&mut self, status: &RunStatus) {
        if status.phase != Phase::Ended || !self.runs.contains_key(&status.cid) {
            return;
        }
        match self.command_id(status.cid) {
            Some(command_id) => self.finish(status.cid, ended(&command_id, status)),
            None => drop(self.runs.remove(&status.cid)),
        }
    }

    /// The center's id of a command that goes on.
    fn command_id(&self, cid: CommandId) -> Option<String> {
        self.granted_as(cid).map(|granted| granted.id)
    }

    /// A command that goes on.
    pub(super) fn granted_as(&self, cid: CommandId) -> Option<Granted> {
        serde_json::from_str(&self.journal.ledger().claimed(cid)?.spec).ok()
    }

    /// The center that is asked now, and what it calls this relay.
    pub(super) fn origin(&self) -> Origin {
        Origin { center: self.center.base().to_owned(), relay_id: self.relay_id.clone() }
    }
}

/// Why a text cannot be run, if it cannot.
fn too_long(command: &str) -> Option<String> {
    let bytes = command.len();
    // A string always has a JSON form.
    let json = serde_json::to_string(command).map_or(0, |text| text.len());
    (bytes > MAX_COMMAND_BYTES || json > MAX_COMMAND_JSON).then(|| {
        format!("The command is {bytes} bytes long, and can be {MAX_COMMAND_BYTES}; put it into a file and run that")
    })
}

/// How a command ended, as the center is told.
fn ended(command_id: &str, status: &RunStatus) -> Ended {
    let bytes = [status.stdout.bytes, status.stderr.bytes];
    let duration_ms = status.end.as_ref().map_or(0, |end| end.duration_ms);
    let (exit_code, error) = match status.end.as_ref().map(|end| &end.cause) {
        Some(Cause::Exited { code }) => (i32::from(*code), None),
        Some(Cause::Signalled { name }) => {
            let code = signal_number(name).map_or(-1, |number| 128 + number);
            (code, Some(format!("Killed by signal {name}")))
        }
        Some(Cause::Timeout { .. }) => (-1, Some("Command timed out".to_owned())),
        Some(Cause::Cancelled { .. }) => (-1, Some("Command cancelled".to_owned())),
        Some(Cause::SpawnFailed { message } | Cause::Fault(Fault { message, .. })) => {
            (-1, Some(message.clone()))
        }
        None => (-1, Some("How the command ended is not known".to_owned())),
    };
    let success = exit_code == 0 && error.is_none();
    let is_fault = |end: &End| matches!(end.cause, Cause::Fault(_));
    let is_told_twice = status.end.as_ref().is_some_and(is_fault);
    let fault = status.end.as_ref().and_then(|end| end.fault.as_ref()).map(|fault| fault.message.clone());
    let command_id = command_id.to_owned();
    Ended { command_id, success, exit_code, error, duration_ms, bytes, is_told_twice, fault }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::protocol::{ShellEnd, StreamStatus};
    use rstest::rstest;

    #[rstest]
    #[case(Cause::Exited { code: 0 }, true, 0, None)]
    #[case(Cause::Exited { code: 42 }, false, 42, None)]
    #[case(Cause::Exited { code: 127 }, false, 127, None)]
    #[case(Cause::Signalled { name: "SIGKILL".into() }, false, 137, Some("Killed by signal SIGKILL"))]
    #[case(Cause::Signalled { name: "SIGRTMIN+1".into() }, false, 163, Some("Killed by signal SIGRTMIN+1"))]
    #[case(Cause::Timeout { shell: Some(ShellEnd::Exited(0)) }, false, -1, Some("Command timed out"))]
    #[case(Cause::Timeout { shell: None }, false, -1, Some("Command timed out"))]
    #[case(Cause::Cancelled { shell: None }, false, -1, Some("Command cancelled"))]
    #[case(Cause::SpawnFailed { message: "no".into() }, false, -1, Some("no"))]
    #[case(Cause::Fault(Fault { code: "dns".into(), message: "where".into() }), false, -1, Some("where"))]
    fn ends_are_told(
        #[case] cause: Cause,
        #[case] success: bool,
        #[case] code: i32,
        #[case] error: Option<&str>,
    ) {
        let stream = |bytes| StreamStatus { bytes, ..StreamStatus::default() };
        let status = RunStatus {
            cid: cid_of("r", "c"),
            phase: Phase::Ended,
            started_at_ms: 5,
            begun_at_ms: None,
            pid: None,
            stdout: stream(1),
            stderr: stream(2),
            end: Some(End { ended_at_ms: 9, duration_ms: 4, cause, group_dead: true, fault: None }),
        };
        let expected = Ended {
            command_id: "c".to_owned(),
            success,
            exit_code: code,
            error: error.map(str::to_owned),
            duration_ms: 4,
            bytes: [1, 2],
            is_told_twice: error == Some("where"),
            fault: None,
        };
        assert_eq!(ended("c", &status), expected);
        let mut unsure = status;
        let fault = Fault { code: "not_confirmed".into(), message: "it may go on".into() };
        unsure.end.as_mut().unwrap().fault = Some(fault);
        let expected = Ended { fault: Some("it may go on".to_owned()), ..expected };
        assert_eq!(ended("c", &unsure), expected, "the error stays, by which centers know what it was");
    }

    #[test]
    fn only_a_text_that_fits_is_run() {
        assert_eq!(too_long(&"x".repeat(MAX_COMMAND_BYTES)), None);
        assert!(too_long(&"x".repeat(MAX_COMMAND_BYTES + 1)).is_some());
        assert!(too_long(&"\u{1}".repeat(40_000)).is_some(), "it is six times as long as JSON");
    }
}
