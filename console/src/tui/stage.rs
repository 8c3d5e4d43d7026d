//! A fake fleet and a fake session for tests: keys and tellings in, screens and asks out.

pub(super) mod machine;
pub(super) mod past;

use bytes::Bytes;
use ratatui::{Terminal, backend::TestBackend};
use signalbox_schemas::{
    api::{
        Accepted, AssignmentView, AuditView, BridgeHealth, BrokerHealth, CommandSummary, ConsumerHealth,
        Counts, EventView, HealthView, Liveness, MachineView, OperatorView, OutputView, RunView,
        StreamHealth, Target, Warning,
    },
    audit::{AuditEntry, Entered, Outcome},
    authors::{Right, Role},
    credential::{CredentialMeta, CredentialType, StorageMode},
    error::ErrorCode,
    event::kind,
    heartbeat::{Disk, Facts, Heartbeat, Metrics},
    id::{BridgeId, CommandId, MachineId, MachineToken, OperatorId, Sha256, Workspace},
    label::{LabelMap, LabelViews},
    output::OutputStream,
    run::RunState,
    signed::PublicKey,
};

use super::{
    TuiOptions,
    effect::Effect,
    event::Event,
    keymap::key,
    lists::ListKind,
    state::{Now, State},
    update::update,
    view::view,
};
use crate::client::{
    Ask, Heard, LinkView, Meant, Stretch, Told,
    look::{Found, KeptView},
};

/// 2026-11-22 14:02:07 UTC.
pub(super) const NOW_MS: u64 = 1_795_356_127_000;
pub(super) const NOW: Now = Now { ms: NOW_MS, wall_ms: NOW_MS };

/// A console without terminal and without network.
pub(super) struct Stage {
    pub(super) state: State,
    pub(super) asks: Vec<Ask>,
    pub(super) effects: Vec<Effect>,
    pub(super) now: Now,
}

pub(super) fn options() -> TuiOptions {
    TuiOptions {
        who: "local".to_owned(),
        fleet: "main".to_owned(),
        broker: "nats://broker.example:4222".to_owned(),
        ..TuiOptions::default()
    }
}

impl Stage {
    pub(super) fn new(columns: u16, rows: u16) -> Self {
        let state = State::new(options(), (columns, rows), NOW);
        Self { state, asks: vec![], effects: vec![], now: NOW }
    }

    /// A connected console with demo-1 to demo-3 and two commands.
    pub(super) fn demo(columns: u16, rows: u16) -> Self {
        let mut stage = Self::new(columns, rows);
        stage.connect();
        // Known by name first, so that heartbeats make the history.
        let unheard = |view| MachineView { metrics: None, last_seen_at: None, ..view };
        stage.tell(Told::Machines(Stretch::whole((1..=3).map(demo_machine).map(unheard).collect())));
        for n in 1..=2 {
            for back in (0..60).rev() {
                let at_ms = NOW_MS - 1_000 - back * 10_000;
                stage.tell(heartbeat(n, at_ms, wave(n, back)));
            }
        }
        stage.tell(Told::Machines(Stretch::whole((1..=3).map(demo_machine).collect())));
        stage.tell(Told::Command(summary(1, "uname -a", &[(RunState::Completed, 3)])));
        stage.tell(Told::Command(summary(
            2,
            "systemctl restart nginx",
            &[(RunState::Failed, 1), (RunState::Completed, 2)],
        )));
        stage
    }

    pub(super) fn connect(&mut self) {
        let link = LinkView { connected: true, bridge: Some("bridge-1".to_owned()), rtt_ms: Some(0.42) };
        self.tell(Told::Link(link));
    }

    pub(super) fn event(&mut self, event: Event) {
        for effect in update(&mut self.state, self.now, event) {
            match effect {
                Effect::Ask(ask) => self.asks.push(ask),
                other => self.effects.push(other),
            }
        }
    }

    pub(super) fn tell(&mut self, told: Told) {
        self.event(Event::Told(Box::new(told)));
    }

    /// Presses keys; a frame would be drawn after each.
    pub(super) fn keys(&mut self, keys: &str) {
        for key in key::parse(keys).unwrap() {
            self.event(Event::Key(key));
            self.state.settle();
        }
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.wall_ms += ms;
        self.event(Event::Tick);
    }

    /// The screen as text.
    pub(super) fn screen(&mut self) -> String {
        let (columns, rows) = self.state.size;
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        self.state.settle();
        terminal.draw(|frame| view(&self.state, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = (0..rows).map(|y| {
            let cells = (0..columns).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The screen with its colours as escape sequences, for eyes.
    pub(super) fn coloured(&mut self) -> String {
        use ratatui::style::{Color, Modifier};
        let (columns, rows) = self.state.size;
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        self.state.settle();
        terminal.draw(|frame| view(&self.state, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let mut out = String::new();
        for y in 0..rows {
            for x in 0..columns {
                let cell = &buffer[(x, y)];
                out.push_str("\u{1b}[0");
                if let Color::Indexed(index) = cell.fg {
                    out += ";38;5;";
                    out += &index.to_string();
                }
                out.push_str(if cell.modifier.contains(Modifier::BOLD) { ";1m" } else { "m" });
                out.push_str(cell.symbol());
            }
            out.push_str("\u{1b}[0m\n");
        }
        out
    }

    /// Runs a text on the first machine and has it accepted as command `n` for machines 1 to `machines`.
    pub(super) fn accept(&mut self, n: u8, machines: u32) {
        let Some(Ask::Run { tag, .. }) = self.asks.last() else {
            panic!("nothing was asked: {:?}", self.asks)
        };
        let targets = (1..=machines).map(machine_id).collect();
        let accepted = Accepted { id: command_id(n), targets, cursor: String::new() };
        self.tell(Told::Accepted { tag: *tag, accepted });
    }

    /// Says that what was looked up last means these machines, of which so many are protected.
    pub(super) fn meant(&mut self, machines: &[u32], protected: usize) {
        let Some(Ask::LookUp { tag, .. }) = self.asks.last() else {
            panic!("nothing was looked up: {:?}", self.asks)
        };
        let target = |n: &u32| Target {
            id: machine_id(*n),
            token: machine_id(*n).token(),
            state: demo_machine(*n).state,
        };
        let targets = machines.iter().map(target).collect();
        self.tell(Told::Meant { tag: *tag, meant: Ok(Meant { targets, protected }) });
    }

    pub(super) fn run(&mut self, command: u8, machine: u32, state: RunState) {
        self.tell(Told::Run { id: command_id(command), run: run(machine, state) });
    }

    pub(super) fn output(&mut self, command: u8, machine: u32, offset: u64, text: &str) {
        self.tell(Told::Output {
            id: command_id(command),
            machine: machine_id(machine),
            stream: OutputStream::Stdout,
            offset,
            data: Bytes::copy_from_slice(text.as_bytes()),
        });
    }
}

/// A figure that goes up and down.
fn wave(n: u32, back: u64) -> f32 {
    let back = u16::try_from(back).unwrap();
    let n = u16::try_from(n).unwrap();
    30.0 * f32::from(n) + 20.0 * (f32::from(back) / 9.0).sin()
}

pub(super) fn machine_id(n: u32) -> MachineId {
    MachineId::new(format!("demo-{n}")).unwrap()
}

pub(super) fn command_id(n: u8) -> CommandId {
    format!("0193a2b4-0000-7000-8000-0000000000{n:02x}").parse().unwrap()
}

/// Machine 3 is offline, 2 has a full disk.
pub(super) fn demo_machine(n: u32) -> MachineView {
    let (state, age_ms) = if n == 3 { (Liveness::Offline, 300_000) } else { (Liveness::Online, 1_000) };
    MachineView {
        id: machine_id(n),
        token: machine_id(n).token(),
        state,
        last_seen_at: Some(NOW_MS - age_ms),
        running: 0,
        pending: 0,
        relay: Some("0.1.0".to_owned()),
        facts: Some(facts(n)),
        metrics: Some(metrics(n, 12.0)),
        labels: LabelViews::new(),
        labels_unheard: false,
    }
}

fn facts(n: u32) -> Facts {
    Facts {
        hostname: format!("host-{n}"),
        os: "Debian 12.11".to_owned(),
        kernel: "6.1.0-32".to_owned(),
        arch: "x86_64".to_owned(),
    }
}

fn metrics(n: u32, cpu_percent: f32) -> Metrics {
    const GIB: u64 = 1024 * 1024 * 1024;
    let disk = |mount: &str, used: u64, total: u64| Disk {
        mount: mount.to_owned(),
        used_bytes: used * GIB,
        total_bytes: total * GIB,
    };
    Metrics {
        cpu_percent,
        cpus: 8,
        memory_used_bytes: u64::from(n) * 9 * GIB,
        memory_total_bytes: 31 * GIB,
        load: [f64::from(n) * 0.7, 0.5, 0.3],
        uptime_secs: 41 * 86_400,
        disks: vec![disk("/", 38, 93), disk("/var", if n == 2 { 97 } else { 20 }, 100)],
        ..Metrics::default()
    }
}

pub(super) fn heartbeat(n: u32, at_ms: u64, cpu_percent: f32) -> Told {
    let token: MachineToken = machine_id(n).token();
    let heartbeat = Heartbeat {
        ws: Workspace::main(),
        mid: token.clone(),
        at: at_ms,
        relay: "0.1.0".to_owned(),
        generation: 1,
        authors: 1,
        running: 0,
        outbox: 0,
        started_at: NOW_MS - 3_600_000,
        counters: std::collections::BTreeMap::new(),
        facts: facts(n),
        metrics: Some(metrics(n, cpu_percent)),
        legacy: None,
    };
    Told::Heartbeats(vec![Heard { token, at_ms, heartbeat }])
}

pub(super) fn summary(n: u8, command: &str, counts: &[(RunState, u32)]) -> CommandSummary {
    let created_at = NOW_MS - 600_000 + u64::from(n) * 60_000;
    CommandSummary {
        id: command_id(n),
        command: command.to_owned(),
        on: "all".to_owned(),
        by: "local".to_owned(),
        created_at,
        expires_at: created_at + 86_400_000,
        timeout_ms: 30_000,
        settled: counts.iter().all(|(state, _)| state.is_settled()),
        counts: counts.iter().copied().collect::<Counts>(),
        created_by: None,
        target: None,
        changes: false,
        rollout: None,
        retry_of: None,
    }
}

pub(super) fn run(machine: u32, state: RunState) -> RunView {
    let ended = matches!(state, RunState::Completed | RunState::Failed);
    RunView {
        machine: machine_id(machine),
        state,
        exit_code: ended.then_some(i32::from(state == RunState::Failed)),
        signal: None,
        error: None,
        duration_ms: ended.then_some(12),
        group_dead: ended.then_some(true),
        stdout: OutputView::default(),
        stderr: OutputView::default(),
        claimed_by: None,
        claimed_at: None,
        ended_at: None,
    }
}

/// What a list may be told.
pub(super) fn found(kind: ListKind) -> Found {
    let machine = |n| machine_id(n);
    let meta = |name: &str, target: Option<&str>| CredentialMeta {
        credential_name: name.to_owned(),
        credential_type: CredentialType::SshKey,
        target_host: target.map(str::to_owned),
        storage_mode: StorageMode::RelayOnly,
        last_updated_at: NOW_MS - 86_400_000,
        username: Some("deploy".to_owned()),
        created_at: None,
    };
    let assignment = |n: u32| AssignmentView {
        id: format!("0193a2b4-0000-7000-8000-00000000010{n}"),
        machine_id: machine(n),
        name: format!("relay of {}", machine(n)),
        enabled: n != 2,
        created_by: Some("operator:local".to_owned()),
        created_at: NOW_MS - 3_600_000,
        updated_at: NOW_MS - 3_600_000,
        last_seen_at: (n != 2).then_some(NOW_MS - 2_000),
        is_online: n != 2,
        labels: LabelMap::new(),
    };
    match kind {
        ListKind::Credentials => Found::Kept(vec![
            KeptView { machine: machine(1), meta: Ok(meta("deploy", Some("*.lan"))), seen_at: Some(NOW_MS) },
            KeptView { machine: machine(1), meta: Ok(meta("token", None)), seen_at: Some(NOW_MS) },
            KeptView { machine: machine(2), meta: Err("it is forged".to_owned()), seen_at: None },
        ]),
        ListKind::Held => Found::Held(vec![]),
        ListKind::Shared => Found::Shared(vec![]),
        ListKind::Assignments => Found::Assignments((1..=3).map(assignment).collect()),
        ListKind::Relays => Found::Relays(vec![]),
        ListKind::Pushes => Found::Pushes(vec![]),
        ListKind::Events => Found::Events((1..=9).rev().map(happened).collect()),
        ListKind::Operators => Found::Operators(vec![operator()]),
        ListKind::Streams => Found::Streams(health().streams),
        ListKind::Health => Found::Health(Box::new(health())),
        ListKind::Audit => Found::Audit((1..=40).rev().map(audited).collect()),
        ListKind::Of(_) => panic!("what there is of one machine is told as a part"),
    }
}

pub(super) fn happened(n: u64) -> EventView {
    let machine = machine_id(3);
    let (kind, text) = match n % 3 {
        0 => (kind::MACHINE_OFFLINE, "demo-3 was not heard for 60 s"),
        1 => (kind::MACHINE_STALE, "demo-3 was not heard for 25 s"),
        _ => (kind::MACHINE_ONLINE, "demo-3 was heard again"),
    };
    let event = signalbox_schemas::event::Event {
        ws: Workspace::main(),
        kind: kind.to_owned(),
        at: NOW_MS - (10 - n) * 60_000,
        bridge: BridgeId::new("bridge-1").unwrap(),
        machine: Some(machine.token()),
        machine_id: Some(machine),
        command: None,
        text: text.to_owned(),
        details: std::collections::BTreeMap::new(),
        told_runs: None,
    };
    EventView { sequence: n, stored_at: event.at, event }
}

fn operator() -> OperatorView {
    let key: PublicKey = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4".parse().unwrap();
    OperatorView {
        id: OperatorId::new("local").unwrap(),
        role: Some(Role::Admin),
        rights: vec![Right::Command, Right::Credential],
        valid_until: Some(NOW_MS + 30 * 86_400_000),
        created_at: NOW_MS - 86_400_000,
        login_key: key.clone(),
        signing_key: key,
        last_seen_at: Some(NOW_MS - 60_000),
    }
}

/// A bridge and a broker that are well, but for one thing.
pub(super) fn health() -> HealthView {
    let bridge = BridgeId::new("bridge-1").unwrap();
    let stream = |name: &str, messages: u64, fill: Option<u8>| StreamHealth {
        name: name.to_owned(),
        messages,
        bytes: messages * 700,
        max_bytes: fill.map(|_| 1 << 30),
        fill_percent: fill,
        refuses_when_full: name == "RUN",
        max_age_ms: Some(9 * 86_400_000),
        first_at: Some(NOW_MS - 86_400_000),
        last_at: Some(NOW_MS - 2_000),
        replicas: 1,
        leader: None,
        followers: vec![],
        consumers: ConsumerHealth::default(),
    };
    HealthView {
        status: "ok".to_owned(),
        bridge: BridgeHealth {
            id: bridge.clone(),
            version: "0.1.0".to_owned(),
            since: NOW_MS - 3_600_000,
            caught_up: true,
            epoch: Some(7),
            lease_holder: Some(bridge),
            clock_ahead_ms: Some(1),
            lag: std::collections::BTreeMap::from([("RUN".to_owned(), 0)]),
        },
        broker: BrokerHealth {
            connected: true,
            connects: 1,
            version: "2.15.1".to_owned(),
            server: "n1".to_owned(),
            ..BrokerHealth::default()
        },
        streams: vec![stream("CMD", 1_200, None), stream("RUN", 48_000, Some(91)), stream("OUT", 9, Some(1))],
        read_at: Some(NOW_MS),
        warnings: vec![Warning {
            code: "stream_full".to_owned(),
            severity: signalbox_schemas::api::Severity::Warning,
            text: "RUN is 91% full".to_owned(),
            advice: "give it more room: nats stream edit RUN --max-bytes".to_owned(),
        }],
        counters: std::collections::BTreeMap::new(),
    }
}

pub(super) fn audited(n: u64) -> AuditView {
    let outcome = if n.is_multiple_of(7) {
        Outcome::Refused { code: ErrorCode::Forbidden, count: n }
    } else {
        Outcome::Stored {
            stream: "CMD".to_owned(),
            sequence: n,
            stored_at: NOW_MS - n,
            sha256: Sha256::of(b""),
        }
    };
    let entry = AuditEntry {
        ws: Workspace::main(),
        n,
        before: Sha256::of(b""),
        after: n - 1,
        bridge: BridgeId::new("bridge-1").unwrap(),
        written_at: NOW_MS - (41 - n) * 60_000,
        actor: "operator:local".to_owned(),
        action: "commands.submit".to_owned(),
        about: command_id(u8::try_from(n).unwrap()).to_string(),
        outcome,
        entered: Entered::default(),
    };
    AuditView { sequence: n, stored_at: NOW_MS - (41 - n) * 60_000, entry: Some(entry), envelope: None }
}
