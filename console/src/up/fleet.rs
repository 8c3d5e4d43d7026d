//! The children of one `up`: bridge (with its broker) and relays (with their keepers).

use std::{
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde_json::Value;
use signalbox_schemas::{id::MachineId, layout::Layout, record::MachineRecord};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    UpError, http,
    lock::write_private,
    process::{self, Stranger},
    ready::{BridgeReady, MachineReady, Pids, Ready, RelayReady},
    service::{Order, Service, State},
};
use crate::{args, client::access};

/// Relays have so long to say goodbye before their keepers are ended.
const RELAYS_WITHIN: Duration = Duration::from_millis(1_200);
/// From then on, counted from the order to stop, everything is killed.
const KILL_AFTER: Duration = Duration::from_millis(3_600);
/// And everything killed is gone within this.
const GONE_WITHIN: Duration = Duration::from_millis(700);
/// Machines are heard by then: the first heartbeat comes with the connection.
const HEARD_WITHIN: Duration = Duration::from_secs(30);
/// Steps in which the bridge is asked for them.
const HEARD_STEP: Duration = Duration::from_millis(50);

/// Where the binaries are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `signalbox-bridge`.
    pub bridge: PathBuf,
    /// `signalbox-relay`.
    pub relay: PathBuf,
}

/// What runs. [`Self::stop`] it; dropping it kills the children without ceremony.
#[derive(Debug)]
pub struct Fleet {
    layout: Layout,
    programs: Programs,
    restarts: bool,
    bridge: Group,
    relays: Group,
    states: Vec<(MachineId, watch::Receiver<State>)>,
}

/// Children that are told the same.
#[derive(Debug)]
struct Group {
    order: watch::Sender<Order>,
    tasks: JoinSet<()>,
}

impl Group {
    fn new() -> Self {
        Self { order: watch::Sender::new(Order::Run), tasks: JoinSet::new() }
    }

    fn start(&mut self, service: Service) -> watch::Receiver<State> {
        let (state, states) = watch::channel(State::Starting);
        self.tasks.spawn(service.run(self.order.subscribe(), state));
        states
    }

    async fn all_ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Fleet {
    /// Nothing runs yet.
    pub fn new(layout: Layout, programs: Programs, restarts: bool) -> Self {
        Self { layout, programs, restarts, bridge: Group::new(), relays: Group::new(), states: Vec::new() }
    }

    /// Starts the bridge with its broker and waits until they are ready.
    ///
    /// # Errors
    /// [`UpError::Child`] with its own line.
    pub async fn start_bridge(&mut self, up: &args::Up) -> Result<BridgeReady, UpError> {
        let mut args: Vec<OsString> =
            ["serve", "--embedded-broker", "--state-dir"].map(OsString::from).into();
        args.push(self.layout.root().into());
        args.extend(["--http".into(), up.http.to_string().into()]);
        args.extend(["--nats-listen".into(), up.nats.to_string().into()]);
        if up.no_restart {
            args.push("--no-restart".into());
        }
        let service = self.service("bridge", &self.programs.bridge, args, keep_ports);
        let mut state = self.bridge.start(service);
        let ready: BridgeReady = until_ready("bridge", &mut state).await?;
        let file = access::nats_url_file(&self.layout);
        write_private(&file, &format!("{}\n", ready.nats))
            .map_err(|source| UpError::File { path: file, source })?;
        Ok(ready)
    }

    /// Starts a relay per machine; they get ready on their own.
    pub fn start_relays(&mut self, machines: &[MachineId], nats_url: &str) {
        for machine in machines {
            let token = machine.token();
            let mut args: Vec<OsString> = vec!["run".into(), "--store".into()];
            args.push(self.layout.relay_store(&token).into());
            args.extend(["--creds".into(), self.layout.relay_creds(&token).into()]);
            args.extend(["--nats".into(), nats_url.into()]);
            let service = self.service(token.as_str(), &self.programs.relay, args, |_, _| {});
            let state = self.relays.start(service);
            self.states.push((machine.clone(), state));
        }
    }

    /// Waits until all relays are ready and the bridge has heard every machine. `progress` is told how many
    /// are ready.
    ///
    /// # Errors
    /// [`UpError::Child`] with the line of the first that failed, [`UpError::Unheard`].
    pub async fn until_heard(
        &mut self,
        bridge: &BridgeReady,
        token: &str,
        progress: impl Fn(usize),
    ) -> Result<Vec<RelayReady>, UpError> {
        let mut relays = Vec::new();
        for (machine, state) in &mut self.states {
            progress(relays.len());
            relays.push(until_ready::<RelayReady>(machine.as_str(), state).await?);
        }
        progress(relays.len());
        let address = address(&bridge.http).ok_or(UpError::Ready("bridge"))?;
        let give_up = Instant::now() + HEARD_WITHIN;
        loop {
            let online = http::online(address, token).await;
            let missing = self.states.iter().find(|(machine, _)| !online.contains(machine));
            match missing {
                None => return Ok(relays),
                Some((machine, _)) if Instant::now() >= give_up => {
                    return Err(UpError::Unheard { machine: machine.clone(), within: HEARD_WITHIN });
                }
                Some(_) => sleep(HEARD_STEP).await,
            }
        }
    }

    /// What the one line says.
    ///
    /// # Errors
    /// [`UpError::File`] for a machine's record, [`UpError::Ready`].
    pub fn ready(
        &self,
        bridge: BridgeReady,
        relays: Vec<RelayReady>,
        admin_token: String,
    ) -> Result<Ready, UpError> {
        let machine = |relay: RelayReady| {
            let token = relay.machine.token();
            let path = self.layout.machine_json(&token);
            let keyless = || io::Error::new(io::ErrorKind::InvalidData, "it names no keys");
            let keys = machine_record(&path)?.keys;
            let keys = keys.ok_or_else(|| UpError::File { path, source: keyless() })?;
            Ok(MachineReady {
                creds: self.layout.relay_creds(&token),
                store: self.layout.relay_store(&token),
                id: relay.machine,
                token,
                pid: relay.pid,
                keeper_pid: relay.keeper_pid,
                signing_key: keys.signing_key,
            })
        };
        Ok(Ready {
            http: bridge.http,
            nats: bridge.nats,
            state_dir: self.layout.root().to_owned(),
            admin_token,
            ctrl_creds: self.layout.creds("ctrl"),
            operator: access::LOCAL_OPERATOR.to_owned(),
            pids: Pids { broker: bridge.broker_pid.ok_or(UpError::Ready("bridge"))?, bridge: bridge.pid },
            bridge_data: bridge.data,
            machines: relays.into_iter().map(machine).collect::<Result<_, UpError>>()?,
        })
    }

    /// Ends everything within 5 s: relays, then keepers and bridge, which ends its broker.
    pub async fn stop(mut self) {
        let kill_at = Instant::now() + KILL_AFTER;
        // Looked up before and again after the relays' end: a relay may have started a keeper meanwhile, and files may
        // be gone by then if somebody deletes the directory under us.
        let known: Vec<Stranger> = process::keepers(&self.layout);
        let broker = process::by_name(&self.layout, "broker");
        self.relays.order.send_replace(Order::Term);
        if timeout(RELAYS_WITHIN, self.relays.all_ended()).await.is_err() {
            tracing::warn!("relays do not end in time, they are killed");
            self.relays.order.send_replace(Order::Kill);
            // What is killed ends; if not, the keepers are ended all the same.
            let _ = timeout(GONE_WITHIN, self.relays.all_ended()).await;
        }
        let keepers: Vec<Stranger> = known.into_iter().chain(process::keepers(&self.layout)).collect();
        process::signal_all(&keepers, Signal::TERM);
        self.bridge.order.send_replace(Order::Term);
        let in_order = timeout_at(kill_at, async {
            self.bridge.all_ended().await;
            process::gone(&keepers, KILL_AFTER).await;
        });
        if in_order.await.is_err() {
            tracing::warn!("not everything ended in time, the rest is killed");
        }
        self.bridge.order.send_replace(Order::Kill);
        // A bridge that was killed leaves its broker.
        let brokers = broker.into_iter().chain(process::by_name(&self.layout, "broker"));
        let rest: Vec<Stranger> = keepers.into_iter().chain(brokers).collect();
        process::signal_all(&rest, Signal::KILL);
        // One bound for both.
        let all_gone = async {
            self.bridge.all_ended().await;
            process::gone(&rest, GONE_WITHIN).await
        };
        if timeout(GONE_WITHIN, all_gone).await != Ok(true) {
            tracing::error!("something does not end");
        }
        self.forget_pids();
    }

    /// Pid files of those that are gone would only mislead.
    fn forget_pids(&self) {
        let relays = self.states.iter().map(|(machine, _)| machine.token().to_string());
        for name in relays.chain(["bridge".to_owned(), "broker".to_owned()]) {
            if process::by_name(&self.layout, &name).is_none() {
                // It may never have been written.
                let _ = fs::remove_file(self.layout.pid(&name));
            }
        }
        let _ = fs::remove_file(access::nats_url_file(&self.layout));
    }

    fn service(
        &self,
        name: &str,
        program: &Path,
        args: Vec<OsString>,
        settle: fn(&mut [OsString], &Value),
    ) -> Service {
        Service {
            name: name.to_owned(),
            program: program.to_owned(),
            args,
            log: self.layout.log(name),
            // A bridge holds its file against a second one: to put another in its place would let go of it.
            pid_file: (name != "bridge").then(|| self.layout.pid(name)),
            restarts: self.restarts,
            settle,
        }
    }
}

async fn until_ready<T: DeserializeOwned>(
    name: &str,
    state: &mut watch::Receiver<State>,
) -> Result<T, UpError> {
    let ended = || UpError::Child { name: name.to_owned(), line: "it ended".to_owned() };
    let said = state.wait_for(|state| *state != State::Starting).await.map_err(|_| ended())?.clone();
    match said {
        State::Ready(said) => serde_json::from_value(said).map_err(|_| UpError::Ready("child")),
        State::Failed(line) => Err(UpError::Child { name: name.to_owned(), line }),
        State::Starting | State::Ended => Err(ended()),
    }
}

fn machine_record(path: &Path) -> Result<MachineRecord, UpError> {
    let failed = |source| UpError::File { path: path.to_owned(), source };
    let text = fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}

/// Host and port of an `http://` or `nats://` URL.
fn address(url: &str) -> Option<SocketAddr> {
    url.split_once("://")?.1.trim_end_matches('/').parse().ok()
}

/// After its first start the bridge keeps the ports it got. Only those: what it says is an address to go to, which is
/// another than the one it listens on when that is every address of the machine.
fn keep_ports(args: &mut [OsString], said: &Value) {
    for (flag, member) in [("--http", "http"), ("--nats-listen", "nats")] {
        let address = said.get(member).and_then(Value::as_str).and_then(address);
        let at = args.iter().position(|arg| arg == flag).map(|at| at + 1);
        let Some(slot) = at.and_then(|at| args.get_mut(at)) else { continue };
        let given = slot.to_str().and_then(|given| given.parse::<SocketAddr>().ok());
        if let (Some(address), Some(mut given)) = (address, given) {
            given.set_port(address.port());
            *slot = given.to_string().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest [`Fleet::stop`] takes.
    const STOPPED_WITHIN: Duration = KILL_AFTER.saturating_add(GONE_WITHIN);

    #[test]
    fn all_bounds_of_an_end_together_are_within_five_seconds() {
        let all = STOPPED_WITHIN + super::super::TERMINAL_WITHIN;
        assert!(all + Duration::from_millis(300) < Duration::from_secs(5), "{all:?}");
        // Whatever the relays do, bridge and keepers have a while of their own.
        assert!(RELAYS_WITHIN + GONE_WITHIN + Duration::from_secs(1) < KILL_AFTER);
    }

    fn children(dir: &Path, script: &str) -> Fleet {
        let layout = Layout::new(dir);
        for folder in ["run", "log", "machines"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        let programs = Programs { bridge: "/bin/sh".into(), relay: "/bin/sh".into() };
        let mut fleet = Fleet::new(layout, programs, false);
        let args = || vec!["-c".into(), script.into()];
        let bridge = fleet.service("bridge", Path::new("/bin/sh"), args(), |_, _| {});
        let relay = fleet.service("demo-1", Path::new("/bin/sh"), args(), |_, _| {});
        fleet.states.push((MachineId::new("bridge").unwrap(), fleet.bridge.start(bridge)));
        fleet.states.push((MachineId::new("demo-1").unwrap(), fleet.relays.start(relay)));
        fleet
    }

    #[tokio::test]
    async fn children_that_do_not_listen_or_stand_still_are_gone_in_time() {
        for script in ["trap '' TERM; echo '{}'; exec sleep 60", "echo '{}'; kill -STOP $$; exec sleep 60"] {
            let dir = tempfile::tempdir().unwrap();
            let mut fleet = children(dir.path(), script);
            for (_, state) in &mut fleet.states {
                state.wait_for(|state| matches!(state, State::Ready(_))).await.unwrap();
            }
            let began = Instant::now();
            fleet.stop().await;
            assert!(began.elapsed() < STOPPED_WITHIN + Duration::from_millis(300), "{:?}", began.elapsed());
        }
    }

    #[test]
    fn a_restarted_bridge_keeps_its_ports() {
        let mut args: Vec<OsString> =
            ["serve", "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0"].map(OsString::from).into();
        let said = serde_json::json!({ "http": "http://127.0.0.1:81", "nats": "nats://127.0.0.1:82" });
        keep_ports(&mut args, &said);
        assert_eq!(args, ["serve", "--http", "127.0.0.1:81", "--nats-listen", "127.0.0.1:82"]);
        // What is said is an address to go to, not the one that is listened on.
        let mut args: Vec<OsString> =
            ["serve", "--http", "0.0.0.0:0", "--nats-listen", "[::]:82"].map(OsString::from).into();
        keep_ports(&mut args, &said);
        assert_eq!(args, ["serve", "--http", "0.0.0.0:81", "--nats-listen", "[::]:82"]);
    }
}
