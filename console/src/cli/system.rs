//! `signalbox machines --at`, `history`, `operators`, `health`.

use std::{collections::BTreeSet, fmt::Write as _};

use signalbox_schemas::{
    api::{
        HealthView, MOST_POINTS, MachineOver, MachineSeries, MomentView, OperatorView, Page, PointView,
        Severity, op,
    },
    authors::Role,
};

use super::{
    call::{self, Call, Row, print},
    card::{NOTHING, moment},
    clean, event,
    exit::{self, Failure},
    quantity, say,
    table::Column,
};
use crate::{
    args::{self, system},
    client::clock::now_ms,
    config::Config,
};

/// Points of a row where the terminal is not asked.
const POINTS: usize = 60;
/// Least and most of what is kept on a row: the name and the last figure stand beside it.
const BESIDE: usize = 24;

fn percent(value: Option<u8>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| format!("{value} %"))
}

impl Row for MomentView {
    const COLUMNS: &'static [Column] = &[
        ("MACHINE", 0),
        ("STATE", 0),
        ("CPU", 1),
        ("MEMORY", 2),
        ("DISK", 3),
        ("LOAD", 3),
        ("RUNS", 4),
        ("WAIT", 5),
        ("RELAY", 6),
    ];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        vec![
            clean::line(self.id.as_str()),
            self.state.as_str().to_owned(),
            percent(self.figures.cpu_percent),
            percent(self.figures.memory_percent),
            percent(self.figures.disk_percent),
            self.figures
                .load_tenths
                .map_or_else(|| NOTHING.to_owned(), |it| format!("{}.{}", it / 10, it % 10)),
            self.figures.running.to_string(),
            self.figures.pending.to_string(),
            self.relay.as_deref().map_or_else(|| NOTHING.to_owned(), clean::line),
        ]
    }
}

impl Row for OperatorView {
    const COLUMNS: &'static [Column] =
        &[("OPERATOR", 0), ("ROLE", 0), ("UNTIL", 2), ("SEEN", 1), ("SINCE", 3), ("SIGNING KEY", 0)];
    const FLEETING: &'static [&'static str] = &["last_seen_at"];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let role = match self.role {
            Some(Role::Viewer) => "viewer",
            Some(Role::Member) => "member",
            Some(Role::Admin) => "admin",
            Some(Role::Owner) => "owner",
            None => "none",
        };
        let when =
            |at: Option<u64>, never: &str| at.map_or_else(|| never.to_owned(), |at| moment(at, now_ms()));
        vec![
            self.id.to_string(),
            role.to_owned(),
            when(self.valid_until, NOTHING),
            when(self.last_seen_at, "never"),
            moment(self.created_at, now_ms()),
            self.signing_key.to_string(),
        ]
    }
}

/// The fleet as it was.
///
/// # Errors
/// [`Failure`].
pub async fn fleet_at(config: &Config, args: &system::Machines, at: system::Moment) -> Result<u8, Failure> {
    let call = Call::new(config, args.listing.json, "look at the fleet as it was");
    let client = call.connect().await?;
    let then = client.fleet_at(at.before(now_ms())).await.map_err(|error| call.failed(&error))?;
    let Some(at) = then.at else {
        let kept = then.kept.map_or_else(
            || "nothing is kept yet".to_owned(),
            |kept| format!("what is kept begins {}", moment(kept.earliest, now_ms())),
        );
        return Err(Failure::new(exit::NOT_ACCEPTED, format!("cannot show the fleet as it was: {kept}")));
    };
    // On stderr, so that it is seen in pipes, too.
    say(&format!("this is NOT NOW: the fleet as it was {}", moment(at, now_ms())));
    call.table(&then.listed.items).await
}

/// The figures of a machine as rows of bars.
///
/// # Errors
/// [`Failure`].
pub async fn history(config: &Config, args: &system::History) -> Result<u8, Failure> {
    let call = Call::new(config, args.plain.json, "look at the history of the machine");
    let width = call::columns().map_or(POINTS, |columns| columns.saturating_sub(BESIDE).max(10));
    let points = if args.plain.json { MOST_POINTS } else { u32::try_from(width).unwrap_or(MOST_POINTS) };
    let to = now_ms();
    let asked = MachineOver {
        machine: args.machine.clone(),
        from: to.saturating_sub(args.since.max(1)),
        to,
        points: Some(points.clamp(1, MOST_POINTS)),
    };
    let series: MachineSeries = call.ask(op::HISTORY_MACHINE, &asked).await?;
    if args.plain.json {
        return print(event::line(&series)).await;
    }
    print(rows(&series)).await
}

fn rows(series: &MachineSeries) -> String {
    let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else {
        return format!("nothing is known of {} in that time\n", clean::line(series.id.as_str()));
    };
    let of =
        |name: &str, value: &dyn Fn(&PointView) -> Option<u32>, most: u32, show: &dyn Fn(u32) -> String| {
            let values: Vec<Option<u32>> = series.points.iter().map(value).collect();
            let most = most.max(values.iter().flatten().copied().max().unwrap_or(1)).max(1);
            let bars: String = values.iter().map(|value| bar(*value, most)).collect();
            let now = values.last().copied().flatten().map_or_else(|| NOTHING.to_owned(), show);
            format!("{name:<7} {bars} {now}\n")
        };
    let percent = |value: u32| format!("{value} %");
    let states: String = series.points.iter().map(|point| state(*point)).collect();
    [
        format!(
            "{}: {} to {}, a point each {}\n",
            clean::line(series.id.as_str()),
            moment(first.at, now_ms()),
            moment(last.at, now_ms()),
            quantity::show_ms(series.step_ms)
        ),
        of("cpu", &|point| point.figures.cpu_percent.map(u32::from), 100, &percent),
        of("memory", &|point| point.figures.memory_percent.map(u32::from), 100, &percent),
        of("disk", &|point| point.figures.disk_percent.map(u32::from), 100, &percent),
        of("load", &|point| point.figures.load_tenths, 10, &|it| format!("{}.{}", it / 10, it % 10)),
        format!("{:<7} {states} {}\n", "state", last.state.as_str()),
    ]
    .concat()
}

fn bar(value: Option<u32>, most: u32) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let Some(value) = value else { return ' ' };
    let index = u64::from(value) * 7 / u64::from(most.max(1));
    usize::try_from(index).ok().and_then(|index| BARS.get(index)).copied().unwrap_or('█')
}

fn state(point: PointView) -> char {
    match point.state.as_str() {
        "online" => '+',
        "stale" => '?',
        _ => '-',
    }
}

/// Lists operators.
///
/// # Errors
/// [`Failure`].
pub async fn operators(config: &Config, args: &args::Listing) -> Result<u8, Failure> {
    let call = Call::of(config, args, "list the operators");
    call.list::<_, OperatorView>(op::OPERATORS_LIST, Page::default(), None).await
}

/// How the system itself is; 1 when a warning stands, or it is not well.
///
/// # Errors
/// [`Failure`].
pub async fn health(config: &Config, args: &args::Plain) -> Result<u8, Failure> {
    let call = Call::new(config, args.json, "look at the health of the system");
    let health = call.connect().await?.health().await.map_err(|error| call.failed(&error))?;
    let is_well =
        health.status == "ok" && health.warnings.iter().all(|warning| warning.severity == Severity::Info);
    let code = print(if args.json { event::line(&health) } else { told(&health).into_bytes() }).await?;
    Ok(if is_well { code } else { exit::FAILED })
}

fn told(health: &HealthView) -> String {
    let (bridge, broker) = (&health.bridge, &health.broker);
    let holder = bridge.lease_holder.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let behind: u64 = bridge.lag.values().sum();
    let servers: BTreeSet<&str> = broker.servers.iter().map(String::as_str).collect();
    let mut text = format!(
        "{}\nbridge   {} {}, since {}; {holder} dispatches; {behind} messages behind\nbroker   {} {}, {} servers keep streams, {} on disk\n",
        clean::line(&health.status),
        bridge.id,
        clean::line(&bridge.version),
        moment(bridge.since, now_ms()),
        clean::line(&broker.server),
        clean::line(&broker.version),
        servers.len(),
        quantity::show_bytes(broker.store_bytes),
    );
    for stream in &health.streams {
        let fill = stream.fill_percent.map_or_else(|| "no limit".to_owned(), |fill| format!("{fill} % full"));
        // A string takes everything.
        let _ = writeln!(
            text,
            "{:<8} {} messages, {}, {fill}, {} copies",
            clean::line(&stream.name),
            stream.messages,
            quantity::show_bytes(stream.bytes),
            stream.replicas
        );
    }
    for warning in &health.warnings {
        let (words, advice) = (clean::line(&warning.text), clean::line(&warning.advice));
        let _ = writeln!(text, "{}: {words}; {advice}", warning.severity.as_str());
    }
    text
}
