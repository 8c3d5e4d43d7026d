//! Signs of life: heartbeats, reports, and the settings that an answer to a report speaks of.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    http::{Answer, NoAnswer},
    status::{Machine, report},
    wire::pending_pushes,
    worker::{Done, Worker},
};

/// Work begins so long after the start at the latest, whatever holds the first report or the settings.
const BEGIN_BY: Duration = Duration::from_secs(30);

/// When the next signs are due.
pub(super) struct Signs {
    heartbeat_interval: Duration,
    status_interval: Duration,
    /// When the last ones began: the next ones are due an interval after that.
    last_heartbeat: Instant,
    last_report: Instant,
    /// Absent while one is on its way.
    heartbeat_at: Option<Instant>,
    status_at: Option<Instant>,
    /// Here while no report is being made.
    machine: Option<Machine>,
    /// By then the first question for commands is asked. Absent once it may be; before it come the report and the settings.
    begin_by: Option<Instant>,
    /// Whether the settings are asked for whatever the answer to a report says: once, at the start.
    wants_settings: bool,
    is_configuring: bool,
}

impl Signs {
    pub(super) fn new(heartbeat_interval: Duration, status_interval: Duration) -> Self {
        Self {
            heartbeat_interval,
            status_interval,
            last_heartbeat: Instant::now(),
            last_report: Instant::now(),
            heartbeat_at: None,
            status_at: None,
            machine: Some(Machine::new()),
            begin_by: Some(Instant::now() + BEGIN_BY),
            wants_settings: true,
            is_configuring: false,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        [self.heartbeat_at, self.status_at, self.begin_by].into_iter().flatten().min()
    }
}

impl Worker {
    /// Gives the signs that are due, the heartbeat first.
    pub(super) fn give_signs(&mut self, now: Instant) {
        if self.signs.begin_by.is_some_and(|at| at <= now) {
            tracing::warn!("The first report is not through; this relay begins without it");
            self.begin_work();
        }
        if self.signs.heartbeat_at.take_if(|at| *at <= now).is_some() {
            self.beat();
        }
        if self.signs.status_at.take_if(|at| *at <= now).is_some() {
            self.report();
        }
    }

    fn beat(&mut self) {
        self.signs.last_heartbeat = Instant::now();
        let center = self.center.clone();
        self.jobs.spawn_blocking(move || Done::Beaten(center.post_nothing("/relay/heartbeat")));
    }

    pub(super) fn on_beaten(&mut self, answer: Result<Answer, NoAnswer>) {
        self.signs.heartbeat_at = Some(self.signs.last_heartbeat + self.signs.heartbeat_interval);
        match answer {
            Ok(answer) => tracing::debug!(status = answer.status.as_u16(), "Heartbeat sent"),
            Err(error) => tracing::warn!(%error, "Heartbeat not sent"),
        }
    }

    /// Reports how the machine is.
    pub(super) fn report(&mut self) {
        let Some(mut machine) = self.signs.machine.take() else { return };
        self.signs.last_report = Instant::now();
        let (center, relay_id) = (self.center.clone(), self.relay_id.clone());
        let hosts = self.hosts.clone();
        self.jobs.spawn_blocking(move || {
            let body = report(&relay_id, &mut machine, hosts.keepsakes.credentials());
            let has_pushes = match center.post("/relay/status", &body) {
                Ok(answer) if answer.status.is_success() => pending_pushes(&answer),
                Ok(answer) => {
                    tracing::warn!(status = answer.status.as_u16(), "Status report refused");
                    false
                }
                Err(error) => {
                    tracing::warn!(%error, "Status report not sent");
                    false
                }
            };
            Done::Reported(Box::new(machine), has_pushes)
        });
    }

    pub(super) fn on_reported(&mut self, machine: Machine, has_pushes: bool) {
        self.signs.machine = Some(machine);
        self.signs.status_at = Some(self.signs.last_report + self.signs.status_interval);
        // At the start they are asked for whatever the answer says.
        let wants_settings = std::mem::take(&mut self.signs.wants_settings);
        if has_pushes || wants_settings {
            self.configure();
        }
    }

    fn configure(&mut self) {
        if std::mem::replace(&mut self.signs.is_configuring, true) {
            return;
        }
        let config = self.config.clone();
        self.jobs.spawn_blocking(move || Done::Configured(config.sync()));
    }

    pub(super) fn on_configured(&mut self, interval: Option<Duration>) {
        self.signs.is_configuring = false;
        if let Some(interval) = interval {
            self.signs.status_interval = interval;
            let next = self.signs.last_report + interval;
            self.signs.status_at = self.signs.status_at.map(|_| next);
        }
        self.begin_work();
    }

    /// From now on there are heartbeats, and commands are asked for.
    fn begin_work(&mut self) {
        if self.signs.begin_by.take().is_some() {
            tracing::info!("Relay started");
            self.signs.heartbeat_at = Some(Instant::now());
            if !self.is_finishing {
                self.pull.open();
            }
        }
    }
}
