//! Submissions over HTTP and NATS: of one client, and of 64 at once. Each client has a connection and a machine of its own,
//! whose relay is simulated and ends everything at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use signalbox_link::{Link, Store};
use signalbox_schemas::{error::ErrorCode, id::MachineToken};
use signalbox_testkit::{
    http::Answer,
    old_relay::Connection,
    operator::{Heard, Operator, Order},
};

use super::{Scope, float};
use crate::{
    fleet::{Fleet, Nature},
    place::{Place, simulated},
    report::{Budget, Report, Row, Samples, Unit},
};

const CLIENTS: usize = 64;
const ROUNDS: usize = 300;
/// Rounds in which all clients submit, and submissions of each.
const TOGETHER: usize = 10;
const EACH: usize = 10;
const PATIENCE: Duration = Duration::from_mins(1);
const MOMENT: Duration = Duration::from_millis(2);

const ACK: &str = "floor: JetStream acknowledgement";
const HEALTH: &str = "floor: an HTTP request that asks for nothing much (`/health`)";

struct Client {
    machine: MachineToken,
    http: Http,
    operator: Operator,
    link: Link,
    /// How often it was told to try again.
    refused: usize,
}

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let names = simulated(CLIENTS);
    let place = Place::start(&names, 0).await?;
    let mut fleet = Fleet::default();
    fleet.connect(place.stack.ready(), &names, Nature::SILENT).await?;
    let mut clients = Vec::new();
    for (n, name) in names.iter().enumerate() {
        clients.push(Client {
            machine: MachineToken::new(name)?,
            http: Http::open(&place).await?,
            operator: place.other_operator(n).await?,
            refused: 0,
            link: place.admin().await?,
        });
    }
    alone(scope, clients.first_mut().context("no client")?, report).await?;
    together(scope, &mut clients, report).await?;
    fleet.is_well()
}

async fn alone(scope: Scope, client: &mut Client, report: &mut Report) -> Result<()> {
    let [mut ack, mut health, mut http, mut read, mut nats] = [(); 5].map(|()| Samples::ms());
    for _ in 0..scope.of(ROUNDS) {
        ack.took(client.ack().await?);
        let since = Instant::now();
        client.http.get("/health").await?;
        health.took(since.elapsed());
        let since = Instant::now();
        let id = client.http.submit(&client.machine).await?;
        http.took(since.elapsed());
        client.http.get(&format!("/api/v1/commands/{id}")).await?;
        read.took(since.elapsed());
        nats.took(client.by_nats().await?);
    }
    report.add(Row::new(ACK, &ack));
    report.add(Row::new(HEALTH, &health));
    report.add(Row::new("HTTP submit, acknowledged", &http).over(ACK));
    let read = Row::new("HTTP submit, acknowledged and read back by a second request", &read).over(ACK);
    report.add(read.within(Budget::most(1.5, "1.5 ms")));
    report.add(Row::new("NATS submit, signed, acknowledged", &nats).over(ACK));
    Ok(())
}

/// What each client of many does.
#[derive(Debug, Clone, Copy)]
enum Way {
    Ack,
    Http,
    Nats,
}

async fn together(scope: Scope, clients: &mut [Client], report: &mut Report) -> Result<()> {
    let ways = [
        (Way::Ack, "floor: JetStream acknowledgements"),
        (Way::Http, "HTTP submits"),
        (Way::Nats, "NATS submits"),
    ];
    let mut all = ways.map(|(way, what)| (way, what, Samples::ms(), Samples::of(Unit::PerSecond)));
    for _ in 0..scope.of(TOGETHER) {
        for (way, _, each, rate) in &mut all {
            let since = Instant::now();
            let took = try_join_all(clients.iter_mut().map(|client| client.many(*way))).await?;
            rate.add(float(CLIENTS * EACH) / since.elapsed().as_secs_f64());
            each.append(took.into_iter().flatten());
        }
    }
    let floor = format!("{CLIENTS} clients: floor: JetStream acknowledgements");
    for (_, what, each, rate) in &all {
        let name = format!("{CLIENTS} clients: {what}");
        let row = Row::new(&name, each);
        report.add(if name == floor { row } else { row.over(&floor) });
        report.add(Row::new(&format!("— {what} in a second"), rate));
    }
    let refused = clients.iter().map(|client| client.refused).sum();
    report.add(Row::one(
        "— NATS submits that were told to try again in a moment",
        Unit::Count,
        float(refused),
    ));
    Ok(())
}

impl Client {
    async fn many(&mut self, way: Way) -> Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(EACH);
        for _ in 0..EACH {
            took.push(match way {
                Way::Ack => self.ack().await?,
                Way::Nats => self.by_nats().await?,
                Way::Http => {
                    let since = Instant::now();
                    self.http.submit(&self.machine).await?;
                    since.elapsed()
                }
            });
        }
        Ok(took)
    }

    async fn ack(&self) -> Result<Duration> {
        let since = Instant::now();
        self.link.store(Store::new("evt.main.meter", "x")).await?;
        Ok(since.elapsed())
    }

    /// With the signatures of the grant and the request. A bridge that has too much to do is asked again in a moment.
    async fn by_nats(&mut self) -> Result<Duration> {
        let since = Instant::now();
        let order = Order::new(self.machine.as_str(), vec![self.machine.clone()], "/bin/true");
        let (_, submit) = self.operator.sign(&order)?;
        loop {
            match self.operator.submit(&submit, PATIENCE).await? {
                Heard::Ok(_) => return Ok(since.elapsed()),
                Heard::Refused(problem) if problem.code == ErrorCode::RateLimited => {
                    self.refused += 1;
                    tokio::time::sleep(MOMENT).await;
                }
                heard => bail!("a submit is answered {heard:?}"),
            }
        }
    }
}

/// A kept connection with the administrator's token.
struct Http {
    connection: Connection,
    token: String,
}

impl Http {
    async fn open(place: &Place) -> Result<Self> {
        let ready = place.stack.ready();
        let connection = Connection::open(&ready.http).await?;
        Ok(Self { connection, token: ready.admin_token.clone() })
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.connection.send(request.as_bytes()).await?;
        self.connection.answer().await
    }

    async fn get(&mut self, path: &str) -> Result<()> {
        let answer = self.ask("GET", path, "").await?;
        ensure!(answer.status == 200, "GET {path} answers {}: {}", answer.status, answer.text());
        Ok(())
    }

    /// Submits `/bin/true`; answers the command's id.
    async fn submit(&mut self, machine: &MachineToken) -> Result<String> {
        let body = json!({"on": machine, "command": "/bin/true"}).to_string();
        let answer = self.ask("POST", "/api/v1/commands", &body).await?;
        ensure!(answer.status == 202, "submit answers {}: {}", answer.status, answer.text());
        Ok(answer.json()?.get("id").and_then(Value::as_str).context("no id")?.to_owned())
    }
}
