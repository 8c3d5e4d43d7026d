//! `signalbox machine` and `signalbox status`: what the console shows, on one page.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;
use signalbox_schemas::{
    api::{CommandSummary, ListRuns, Liveness, MachineRunView, MachineView, Page, op},
    limit::HOUR_MS,
    run::RunState,
};

use super::{
    call::{self, Call, Row as _},
    card::{NOTHING, moment},
    clean, event,
    exit::{self, Failure},
    label, quantity,
    table::Table,
};
use crate::{
    args::{Plain, look::Machine},
    client::{Client, clock::now_ms},
    config::Config,
    settings::near,
};

/// Runs that are shown of a machine: the newest.
const RUNS: usize = 10;
/// Commands that are looked at for the state of the fleet: the newest.
const COMMANDS: usize = 1_000;

/// A machine with its last runs.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    machine: MachineView,
    runs: Vec<MachineRunView>,
}

/// Shows a machine.
///
/// # Errors
/// [`Failure`].
pub async fn machine(config: &Config, args: &Machine) -> Result<u8, Failure> {
    let name = args.name.trim();
    let call = Call::new(config, args.plain.json, format!("show the machine {}", clean::line(name)));
    let client = call.connect().await?;
    let machines = client.machines().await.map_err(|error| call.failed(&error))?;
    let is_it = |machine: &&MachineView| machine.id.as_str() == name || machine.token.as_str() == name;
    let Some(machine) = machines.iter().find(is_it).cloned() else {
        let advice = near::advice(name, machines.iter().map(|machine| machine.id.as_str()));
        let line = format!("there is no machine {name:?}{advice}");
        return Err(Failure::new(exit::NOT_ACCEPTED, clean::line(&line)));
    };
    let asked = ListRuns { machine_id: Some(machine.id.to_string()), ..ListRuns::default() };
    let runs: Vec<MachineRunView> =
        client.list(op::RUNS_LIST, asked, RUNS).await.map_err(|error| call.failed(&error))?;
    let whole = Whole { machine, runs };
    if call.is_json() {
        return call::print(event::line(&whole)).await;
    }
    call::print(page(&whole, config.environment.ellipsis())).await
}

fn page(Whole { machine, runs }: &Whole, ellipsis: char) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("machine", clean::line(machine.id.as_str())),
        ("token", machine.token.to_string()),
        ("state", machine.state.as_str().to_owned()),
        ("heard", machine.last_seen_at.map_or_else(|| "never".to_owned(), |at| moment(at, now_ms()))),
        ("runs", format!("{} executing, {} waiting", machine.running, machine.pending)),
        ("relay", machine.relay.as_deref().map_or_else(|| NOTHING.to_owned(), clean::line)),
    ];
    lines.extend((!machine.labels.is_empty()).then(|| ("labels", label::page(&machine.labels))));
    // Facts and figures are foreign, and there may be more of them than are known here.
    for (name, thing) in
        [("facts", serde_json::to_value(&machine.facts)), ("metrics", serde_json::to_value(&machine.metrics))]
    {
        let members = thing.ok().and_then(|thing| thing.as_object().cloned()).unwrap_or_default();
        let shown = |(member, value): (&String, &serde_json::Value)| {
            let text = match value {
                serde_json::Value::String(text) => text.clone(),
                value if member.ends_with("_bytes") => {
                    value.as_u64().map_or_else(|| value.to_string(), quantity::show_bytes)
                }
                value => value.to_string(),
            };
            format!("{} {}", member.trim_end_matches("_bytes").replace('_', " "), clean::line(&text))
        };
        if !members.is_empty() {
            lines.push((name, members.iter().map(shown).collect::<Vec<_>>().join(", ")));
        }
    }
    let mut out: String =
        lines.iter().flat_map(|(name, text)| [format!("{name:9}"), text.clone(), "\n".to_owned()]).collect();
    if !runs.is_empty() {
        let mut table = Table::new(MachineRunView::COLUMNS);
        for run in runs {
            table.push(run.cells(ellipsis));
        }
        out.push('\n');
        out.push_str(&table.render(call::columns(), ellipsis));
    }
    out
}

/// How the fleet is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Machines by state.
    pub machines: BTreeMap<&'static str, usize>,
    /// Commands of the newest thousand that have not ended.
    pub open_commands: usize,
    /// Runs of the last hour's commands that failed, timed out, were lost, expired or rejected.
    pub failed_runs: u64,
    /// Whether those commands are all that there are: otherwise both figures are the least that is so.
    pub is_whole: bool,
    /// The broker.
    pub broker: String,
    /// The bridge that answered.
    pub bridge: Option<String>,
    /// There and back, ms.
    pub rtt_ms: f64,
    /// The context, if one is meant.
    pub context: Option<String>,
}

impl Status {
    /// What lists of machines and of the newest commands amount to, at `now` (Unix ms). Pure.
    pub fn of(machines: &[MachineView], commands: &[CommandSummary], now: u64) -> Self {
        let mut states: BTreeMap<&'static str, usize> =
            [Liveness::Online, Liveness::Stale, Liveness::Offline].map(|state| (state.as_str(), 0)).into();
        for machine in machines {
            *states.entry(machine.state.as_str()).or_default() += 1;
        }
        let is_failure = |state: RunState| {
            state.is_settled() && !matches!(state, RunState::Completed | RunState::Cancelled)
        };
        let failed = |command: &CommandSummary| {
            let counts = command.counts.iter().filter(|(state, _)| is_failure(**state));
            counts.map(|(_, count)| u64::from(*count)).sum::<u64>()
        };
        let lately = commands.iter().filter(|command| now.saturating_sub(command.created_at) <= HOUR_MS);
        Self {
            machines: states,
            open_commands: commands.iter().filter(|command| !command.settled).count(),
            failed_runs: lately.map(failed).sum(),
            is_whole: commands.len() < COMMANDS,
            broker: String::new(),
            bridge: None,
            rtt_ms: 0.0,
            context: None,
        }
    }

    fn text(&self) -> String {
        let least = if self.is_whole { "" } else { "at least " };
        let machines: Vec<String> =
            self.machines.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let bridge = self.bridge.as_deref().map_or_else(|| NOTHING.to_owned(), clean::line);
        format!(
            "context   {}\nmachines  {}\ncommands  {least}{} open\nfailed    {least}{} runs in the last hour\nbroker    {}\nbridge    \
             {bridge}, {:.1} ms\n",
            self.context.as_deref().unwrap_or(crate::contexts::NONE),
            machines.join(", "),
            self.open_commands,
            self.failed_runs,
            clean::line(&self.broker),
            self.rtt_ms,
        )
    }
}

/// Says how the fleet is.
///
/// # Errors
/// [`Failure`].
pub async fn status(config: &Config, args: &Plain) -> Result<u8, Failure> {
    let call = Call::new(config, args.json, "say how the fleet is");
    let client = call.connect().await?;
    let status = ask(&client).await.map_err(|error| call.failed(&error))?;
    let context = config.context.as_ref().map(|chosen| chosen.name.clone());
    let status = Status { context, ..status };
    call::print(if args.json { event::line(&status) } else { status.text().into_bytes() }).await
}

async fn ask(client: &Client) -> Result<Status, crate::client::ClientError> {
    let machines = client.machines().await?;
    let commands: Vec<CommandSummary> = client.list(op::COMMANDS_LIST, Page::default(), COMMANDS).await?;
    let began = Instant::now();
    let _: Vec<CommandSummary> = client.list(op::COMMANDS_LIST, Page::default(), 1).await?;
    let rtt_ms = began.elapsed().as_secs_f64() * 1_000.0;
    let bridge = client.bridge().borrow().clone();
    let broker = client.access().nats_url.clone();
    Ok(Status { broker, bridge, rtt_ms, ..Status::of(&machines, &commands, now_ms()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_fleet_is_counted() {
        let machine = |state: &str| -> MachineView {
            serde_json::from_value(serde_json::json!({
                "id": "a", "token": "a", "state": state, "last_seen_at": 1, "running": 0, "pending": 0, "relay": null,
                "facts": null, "metrics": null,
            }))
            .unwrap()
        };
        let command = |created_at: u64, settled: bool, counts: serde_json::Value| -> CommandSummary {
            serde_json::from_value(serde_json::json!({
                "id": "0193a2b4-0000-7000-8000-000000000000", "by": "operator:local", "on": "all", "command": "x",
                "created_at": created_at, "expires_at": 0, "timeout_ms": 1, "settled": settled, "counts": counts,
                "created_by": null,
            }))
            .unwrap()
        };
        let now = 10 * HOUR_MS;
        let status = Status::of(
            &[machine("online"), machine("online"), machine("offline")],
            &[
                command(now, false, serde_json::json!({ "executing": 1, "failed": 2 })),
                command(
                    now - HOUR_MS,
                    true,
                    serde_json::json!({ "lost": 3, "completed": 9, "cancelled": 1 }),
                ),
                command(now - HOUR_MS - 1, true, serde_json::json!({ "failed": 50 })),
            ],
            now,
        );
        assert_eq!(status.machines, BTreeMap::from([("online", 2), ("stale", 0), ("offline", 1)]));
        assert_eq!((status.open_commands, status.failed_runs, status.is_whole), (1, 5, true));
    }
}
