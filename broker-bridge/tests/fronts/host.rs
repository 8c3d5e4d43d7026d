//! Bridges in this process: core and fronts, beside a broker that runs.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use signalbox_bridge::{
    api::{Api, Settings},
    broker_link::BrokerLink,
    core::{Core, CoreConfig},
    http, rpc,
    view::View,
};
use signalbox_link::{Link, Options};
use signalbox_schemas::{
    id::{BridgeId, Workspace},
    signed::{PublicKey, SigningKey},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// The administrators' token of every bridge here.
pub(crate) const TOKEN: &str = "sbt_test";

/// What bridges of one fleet share.
pub(crate) struct Host {
    /// The broker's URL.
    pub(crate) nats: String,
    pub(crate) fleet: PublicKey,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) pepper: [u8; 32],
    /// See [`CoreConfig::lost_grace`]; that of the contract when absent.
    pub(crate) lost_grace: Option<Duration>,
}

/// A bridge that runs.
pub(crate) struct Running {
    pub(crate) view: View,
    pub(crate) records: BrokerLink,
    /// Base URL of HTTP.
    pub(crate) base: String,
}

impl Host {
    /// Starts a bridge with its data below `dir`; it runs in `tasks` until `stop`.
    pub(crate) async fn run(
        &self,
        id: &str,
        dir: &Path,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<Running> {
        let link = Link::connect(Options::plain(&self.nats, "bridge", None)).await?;
        let (ws, bridge, key) = (Workspace::main(), BridgeId::new(id)?, Arc::clone(&self.key));
        let mut config = CoreConfig::new(ws, bridge.clone(), key, self.fleet.clone(), dir.join(id));
        config.lost_grace = self.lost_grace.unwrap_or(config.lost_grace);
        let core = Core::start(link.clone(), config, stop.clone()).await?;
        let (view, lease, records) = (core.view.clone(), core.lease.clone(), core.broker.clone());
        let settings =
            Settings { ws: Workspace::main(), bridge, key: Arc::clone(&self.key), pepper: self.pepper };
        let api = Arc::new(Api::new(link.clone(), link, view.clone(), settings));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let front = http::Front {
            api: Arc::clone(&api),
            admin_token: TOKEN.to_owned(),
            enroller: None,
            holds_lease: Box::new(move || lease.borrow().is_some()),
            spool: std::env::temp_dir(),
        };
        let (http_stop, rpc_stop, core_stop) = (stop.clone(), stop.clone(), stop.clone());
        tasks.spawn(async move {
            http::serve(listener, front, http_stop).await.expect("http serves");
        });
        tasks.spawn(async move {
            rpc::serve(api, rpc_stop).await.expect("rpc serves");
        });
        tasks.spawn(async move {
            core.join(&core_stop).await.expect("the core runs");
        });
        Ok(Running { view, records, base })
    }
}
