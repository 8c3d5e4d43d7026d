//! Streams on a real cluster of three servers.

use std::time::Duration;

use anyhow::{Result, ensure};
use signalbox_link::{Link, Options, Store, StoreError};
use signalbox_testkit::{Broker, broker::free_port, eventually_within};

use crate::{def, write_once};

/// An election takes about 6 s, and two may be needed.
const PATIENCE: Duration = Duration::from_mins(1);

async fn three() -> Result<Vec<Broker>> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
    let mut servers = Vec::new();
    for port in ports {
        let text = format!(
            "server_name: n{port}\ncluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}\n"
        );
        servers.push(Broker::start_with_config_text(&text).await?);
    }
    Ok(servers)
}

async fn link(servers: &[Broker], replicas: u8) -> Result<Link> {
    let url = servers.iter().map(Broker::url).collect::<Vec<_>>().join(",");
    let options = Options { replicas, ..Options::plain(&url, "test", None) };
    Ok(Link::connect(options).await?)
}

async fn made(link: &Link, def: &signalbox_schemas::stream::StreamDef) -> Result<usize> {
    let made = eventually_within("the stream", PATIENCE, || async { Ok(link.ensure_stream(def).await?) });
    Ok(made.await?.replicas)
}

#[tokio::test]
async fn a_stream_with_three_replicas_outlives_any_server() -> Result<()> {
    let mut servers = three().await?;
    let many = link(&servers, 3).await?;
    assert_eq!(made(&many, &write_once("RUN")).await?, 3);
    assert_eq!(made(&many, &def("OUT")).await?, 3);

    // Each dies once: whoever had the only copy would be among them.
    for (number, server) in servers.iter_mut().enumerate() {
        server.kill()?;
        let message = Store::new(format!("run.{number}"), "once").only_first();
        eventually_within("a store without one server", PATIENCE, || async {
            match many.store(message.clone()).await {
                Ok(_) | Err(StoreError::Taken { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        server.restart().await?;
    }
    eventually_within("all of them", PATIENCE, || async {
        let state = many.stream_state("RUN").await?;
        ensure!(state.messages == 3, "{state:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn how_many_replicas_a_stream_has_is_the_administrators_business() -> Result<()> {
    let servers = three().await?;
    assert_eq!(made(&link(&servers, 1).await?, &def("OUT")).await?, 1);
    assert_eq!(made(&link(&servers, 3).await?, &def("OUT")).await?, 1);
    Ok(())
}
