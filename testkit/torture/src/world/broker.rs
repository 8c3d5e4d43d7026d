//! The broker: one server, or three that are a cluster, each with a disk of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::broker::nats_server;
use signalbox_testkit::eventually_within;
use signalbox_testkit::http::Http;

/// A cluster elects its leaders within this, one server after another.
const HEALTHY: Duration = Duration::from_mins(1);

/// Where one server listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listens {
    /// For clients.
    pub(crate) clients: SocketAddr,
    /// For the other servers.
    pub(crate) routes: SocketAddr,
    /// For whoever asks how it is.
    pub(crate) monitor: SocketAddr,
}

impl Listens {
    /// Its URL for clients.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.clients)
    }
}

/// Makes a server's folder: the configuration that `init` wrote, the accounts, and what is this server's own. Answers how it
/// is started; its streams lie in `store`.
///
/// # Errors
/// When there is no nats-server, or a file cannot be written.
pub(crate) fn furnish(
    home: &Path,
    state_dir: &Path,
    store: &Path,
    number: u8,
    all: &[Listens],
) -> Result<(PathBuf, Vec<String>)> {
    let own = all.get(usize::from(number)).context("a server that is none of them")?;
    let doing = || format!("furnishing {}", home.display());
    fs::create_dir_all(home.join("jwt")).with_context(doing)?;
    for account in fs::read_dir(state_dir.join("jwt")).with_context(doing)? {
        let account = account.with_context(doing)?;
        fs::copy(account.path(), home.join("jwt").join(account.file_name())).with_context(doing)?;
    }
    fs::copy(state_dir.join("nats.conf"), home.join("nats.conf")).with_context(doing)?;
    let operator = fs::read_to_string(state_dir.join("operator.conf")).with_context(doing)?;
    // Servers that share a folder of accounts would write over each other's.
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    let (shared, private) = (text(&state_dir.join("jwt"))?, text(&home.join("jwt"))?);
    ensure!(operator.contains(&shared), "operator.conf names no folder {shared}");
    fs::write(home.join("operator.conf"), operator.replace(&shared, &private)).with_context(doing)?;
    let file = home.join("server.conf");
    fs::write(&file, config(number, own, all)).with_context(doing)?;
    let arguments = [
        "-c".to_owned(),
        text(&file)?,
        "--addr".to_owned(),
        own.clients.ip().to_string(),
        "--port".to_owned(),
        own.clients.port().to_string(),
        "--store_dir".to_owned(),
        text(store)?,
    ];
    Ok((nats_server()?, arguments.into()))
}

/// What stands in a server's own file.
fn config(number: u8, own: &Listens, all: &[Listens]) -> String {
    let alone = format!("include \"nats.conf\"\nserver_name: \"b{number}\"\nhttp: \"{}\"\n", own.monitor);
    if all.len() < 2 {
        return alone;
    }
    let routes: Vec<_> = all.iter().map(|server| format!("\"nats://{}\"", server.routes)).collect();
    format!(
        "{alone}jetstream {{\n  max_memory_store: 1GB\n  max_file_store: 100GB\n  sync_interval: always\n}}\n\
         cluster {{\n  name: torture\n  listen: \"{}\"\n  no_advertise: true\n  routes: [{}]\n}}\n",
        own.routes,
        routes.join(", "),
    )
}

/// Waits until a server says that it is well: it listens, and its streams are as new as the cluster's.
///
/// # Errors
/// When it does not in time, with what it says.
pub(crate) async fn healthy(own: &Listens) -> Result<()> {
    let http = Http::new(&format!("http://{}", own.monitor), "");
    eventually_within(&format!("the server at {} is well", own.clients), HEALTHY, || async {
        let answer = http.get("/healthz").await?;
        ensure!(answer.status == 200, "it says {}", answer.text());
        Ok(())
    })
    .await
}
