//! A bridge beside a broker that accepts connections: core and fronts, from the first connection to the last.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use signalbox_link::{Link, Login, Options};
use signalbox_schemas::{error::report, id::BridgeId};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ServeError, publish};
use crate::{
    api::{Api, Settings, enrol::Enroller},
    broker_link::{BrokerLink, until_answered},
    core::{self, Core, CoreConfig, CoreError},
    http::{self, Brokers},
    identity::Identity,
    rpc,
    view::View,
};

/// After a stop, the fronts end by themselves within a second; this is when they are dropped.
const FRONTS_GRACE: Duration = Duration::from_millis(1_100);
/// Then the core has this long to write its view out; what is not written is read from the streams again.
const CORE_GRACE: Duration = Duration::from_millis(400);
/// Then the link has this long to send what waits.
const LINK_GRACE: Duration = Duration::from_millis(300);
/// Pause before the NATS front is opened again when it could not subscribe.
const RPC_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two looks at whether the streams are read. Only the end of the start waits for it.
const CAUGHT_UP_STEP: Duration = Duration::from_millis(5);

/// What is printed, as one line of JSON, when everything is ready.
#[derive(Debug, Serialize)]
struct Ready {
    http: String,
    nats: String,
    pid: u32,
    broker_pid: Option<u32>,
    data: PathBuf,
}

/// A bridge that is about to run.
pub(super) struct Bridge {
    /// Its name.
    pub(super) id: BridgeId,
    /// Keys and records.
    pub(super) identity: Arc<Identity>,
    /// The broker's URL.
    pub(super) nats: String,
    /// Where relays are told to find it; empty: there.
    pub(super) relay_nats: Vec<String>,
    /// Copies of the streams that it makes.
    pub(super) replicas: u8,
    /// The embedded broker.
    pub(super) broker_pid: Option<u32>,
    /// Where the view is kept.
    pub(super) data: PathBuf,
}

impl Bridge {
    /// Runs until `stop`.
    ///
    /// # Errors
    /// [`ServeError`] of whatever failed first; all of it has ended then.
    pub(super) async fn run(self, listener: TcpListener, stop: &CancellationToken) -> Result<(), ServeError> {
        let address = listener.local_addr().map_err(|source| {
            let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            ServeError::Listen { listen, source }
        })?;
        let creds = self.identity.layout.creds("bridge");
        let login = || Login::from_creds_file(&creds).map_err(|source| ServeError::Login { source });
        let (for_streams, for_operators) = (login()?, login()?);
        let connecting = async {
            let options = Options { replicas: self.replicas, ..Options::bridge(&self.nats, for_streams) };
            let streams = Link::connect(options).await?;
            let operators = Link::connect(Options::bridge(&self.nats, for_operators)).await?;
            Ok::<_, ServeError>((streams, operators))
        };
        let Some(links) = Box::pin(stop.run_until_cancelled(connecting)).await else { return Ok(()) };
        let (link, operators) = links?;
        let mut ready = Some(self.ready(address));
        let mut served = Box::pin(self.run_linked(&link, &operators, listener, &mut ready, stop)).await;
        while let Err(ServeError::Core(CoreError::StreamLost(stream))) = served {
            warn!(stream, "reading all streams again");
            served = match super::listen(address).await {
                Ok(listener) => {
                    Box::pin(self.run_linked(&link, &operators, listener, &mut ready, stop)).await
                }
                Err(error) => Err(error),
            };
        }
        if timeout(LINK_GRACE, async { tokio::join!(link.close(), operators.close()) }).await.is_err() {
            warn!("links were not closed in time");
        }
        served
    }

    fn enroller(&self) -> Option<(Enroller, Brokers)> {
        let Identity { relay_logins, fleet_key, .. } = &*self.identity;
        let Some(logins) = relay_logins else {
            info!("no relay can enrol here: the seed that signs logins of relays is not here");
            return None;
        };
        let brokers = match self.relay_nats.as_slice() {
            [] => Brokers::Own(self.nats.clone()),
            named => Brokers::Named(named.to_vec()),
        };
        Some((Enroller::new(logins.clone(), fleet_key.clone()), brokers))
    }

    fn ready(&self, address: SocketAddr) -> Ready {
        let (nats, data) = (self.nats.clone(), self.data.clone());
        Ready { http: url(address), nats, pid: std::process::id(), broker_pid: self.broker_pid, data }
    }

    /// Runs until `stop`, or until the view has to be built anew. `ready` is told once.
    async fn run_linked(
        &self,
        link: &Link,
        operators: &Link,
        listener: TcpListener,
        ready: &mut Option<Ready>,
        stop: &CancellationToken,
    ) -> Result<(), ServeError> {
        let Self { id, identity, data, .. } = self;
        // The core ends after the fronts, which end with `stop`.
        let core_stop = CancellationToken::new();
        let Identity { ws, bridge_key, fleet_key, .. } = &**identity;
        let key = Arc::clone(bridge_key);
        let config = CoreConfig::new(ws.clone(), id.clone(), key, fleet_key.clone(), data.clone());
        let starting = async {
            let broker = BrokerLink::new(link.clone(), ws.clone(), id.clone(), Arc::clone(bridge_key));
            until_answered(|| broker.ensure_streams()).await.map_err(CoreError::from)?;
            // Before anything is read: without it nobody is known whose word could be taken.
            publish::authors(&broker, &identity.authors_bytes, &identity.authors).await?;
            let core = Core::start(link.clone(), config, core_stop.clone()).await?;
            publish::records(&core.broker, identity, core::now_ms()).await?;
            Ok::<_, ServeError>(core)
        };
        let Some(core) = stop.run_until_cancelled(starting).await else { return Ok(()) };
        let core = core?;

        let settings = Settings {
            ws: ws.clone(),
            bridge: id.clone(),
            key: Arc::clone(bridge_key),
            pepper: identity.pepper,
        };
        let api = Arc::new(Api::new(link.clone(), operators.clone(), core.view.clone(), settings));
        let lease = core.lease.clone();
        let front = http::Front {
            api: Arc::clone(&api),
            admin_token: identity.admin_token.text().to_owned(),
            enroller: self.enroller(),
            holds_lease: Box::new(move || lease.borrow().is_some()),
            // On the disk that the view is on, which is one: elsewhere temporary files may be memory.
            spool: data.clone(),
        };
        let fronts_stop = stop.child_token();
        let mut fronts = JoinSet::new();
        fronts.spawn(http_front(listener, front, fronts_stop.clone()));
        fronts.spawn(rpc_front(api, fronts_stop.clone()));
        let look_every = publish::LOOK_EVERY;
        fronts.spawn(publish::keep(
            core.broker.clone(),
            Arc::clone(identity),
            look_every,
            fronts_stop.clone(),
        ));
        run_until_end(core, core_stop, fronts, fronts_stop, ready).await
    }
}

/// Tells that it is ready when it is, waits for the first end of anything, then ends the rest in order.
async fn run_until_end(
    core: Core,
    core_stop: CancellationToken,
    mut fronts: JoinSet<Result<(), ServeError>>,
    fronts_stop: CancellationToken,
    ready: &mut Option<Ready>,
) -> Result<(), ServeError> {
    let view = core.view.clone();
    let mut core = pin!(core.join(&core_stop));
    let mut core_ended = false;
    let untold = ready.take();
    let mut has_told = untold.is_none();
    let mut told = pin!(tell_ready(&view, untold.as_ref()));
    let ended = loop {
        tokio::select! {
            () = &mut told, if !has_told => has_told = true,
            ended = &mut core => {
                core_ended = true;
                break ended.map_err(ServeError::from).and(Err(ServeError::Ended("core")));
            }
            Some(ended) = fronts.join_next() => break ended.unwrap_or(Err(ServeError::Ended("front"))),
        }
    };
    fronts_stop.cancel();
    let rest = async { while fronts.join_next().await.is_some() {} };
    if timeout(FRONTS_GRACE, rest).await.is_err() {
        warn!("fronts did not end in time");
    }
    core_stop.cancel();
    if !core_ended && timeout(CORE_GRACE, core).await.is_err() {
        warn!("core did not end in time");
    }
    ended
}

/// Prints the ready line once everything that the streams hold has been read.
async fn tell_ready(view: &View, ready: Option<&Ready>) {
    let Some(ready) = ready else { return };
    while !view.is_caught_up() {
        sleep(CAUGHT_UP_STEP).await;
    }
    info!(http = ready.http, nats = ready.nats, "bridge ready");
    let line = serde_json::to_string(ready).unwrap_or_default();
    let mut stdout = std::io::stdout();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        // Whoever started us may be gone; machines still need their bridge.
        warn!(error = report(&error), "nobody hears that the bridge is ready");
    }
}

async fn http_front(
    listener: TcpListener,
    front: http::Front,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    http::serve(listener, front, stop.clone()).await?;
    if stop.is_cancelled() { Ok(()) } else { Err(ServeError::Ended("http")) }
}

/// Serves operators; opens the front again when the connection takes no subscriptions.
async fn rpc_front(api: Arc<Api>, stop: CancellationToken) -> Result<(), ServeError> {
    while !stop.is_cancelled() {
        match rpc::serve(Arc::clone(&api), stop.clone()).await {
            Ok(()) if stop.is_cancelled() => {}
            Ok(()) => return Err(ServeError::Ended("rpc")),
            Err(error) => {
                warn!(error = report(&error), "operators cannot be heard; trying again");
                stop.run_until_cancelled(sleep(RPC_PAUSE)).await;
            }
        }
    }
    Ok(())
}

/// Where clients on this machine find HTTP.
fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}
