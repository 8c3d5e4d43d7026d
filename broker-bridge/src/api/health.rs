//! `health.get`, and what `/health` says in one word.
//!
//! Broker and streams are asked when somebody wants to know (`reading`). What only the system account is told (slow
//! consumers, `sync_interval`) is not known here, and what follows from it is said as such.

mod reading;

use std::collections::BTreeMap;

use signalbox_link::StreamReport;
use signalbox_schemas::{
    api::{
        BridgeHealth, BrokerHealth, ConsumerHealth, FollowerHealth, HealthView, Severity, StreamHealth,
        Warning,
    },
    authors::Role,
    error::Problem,
    stream::{self, Storage},
};

pub(crate) use self::reading::Cache;
use self::reading::{Holder, Reading, reading};
use super::{Api, Caller, now_ms};
use crate::ingest::FOLLOWED;

/// A reading is made by whoever asks when the last one is 5 s old, in about 1 s: with a broker that answers there is none that
/// is older than this, ms.
const OLD_MS: u64 = 15_000;
/// Fullness of a store from which on it is spoken of, percent.
const STORE_PERCENT: u64 = 80;
/// Clocks of bridge and broker may differ by so much, ms.
const SKEW_MS: u64 = 5_000;

/// How the system is, as this bridge knows it. Answers also while streams are read, and without a broker.
///
/// # Errors
/// `forbidden`.
pub async fn get(api: &Api, caller: &Caller) -> Result<HealthView, Problem> {
    caller.require(Role::Viewer, "look at the health of the system")?;
    let reading = reading(api).await;
    let streams: Vec<StreamHealth> =
        reading.iter().flat_map(|reading| &reading.streams).map(stream_health).collect();
    let view = HealthView {
        status: status(api).to_owned(),
        bridge: bridge(api, reading.as_ref()),
        broker: broker(api, reading.as_ref(), &streams),
        read_at: reading.as_ref().map(|reading| reading.at),
        warnings: Vec::new(),
        counters: api.counters(),
        streams,
    };
    let now = now_ms();
    let mut warnings = api.view().warnings(now);
    warnings.extend(found(&view, now));
    warnings.extend(reading.iter().flat_map(of_reading));
    warnings.sort_by_key(|warning| std::cmp::Reverse(warning.severity));
    Ok(HealthView { warnings, ..view })
}

/// What the whole amounts to.
pub(crate) fn status(api: &Api) -> &'static str {
    let connected = api.link().state().borrow().is_connected;
    word(api.view().is_sound(), connected, api.view().is_caught_up())
}

/// `ending` once the store has failed, `degraded` without a broker, `starting` while streams are read, else `ok`.
fn word(sound: bool, connected: bool, caught_up: bool) -> &'static str {
    match (sound, connected, caught_up) {
        (false, _, _) => "ending",
        (true, false, _) => "degraded",
        (true, true, false) => "starting",
        (true, true, true) => "ok",
    }
}

fn bridge(api: &Api, reading: Option<&Reading>) -> BridgeHealth {
    let shared = api.view().shared();
    let lag = |(name, report): &(&'static str, StreamReport)| {
        let read = shared.cursor(name);
        let is_same = read.created == report.state.created_ms;
        let behind = report.state.last.saturating_sub(if is_same { read.sequence } else { 0 });
        FOLLOWED.contains(name).then(|| ((*name).to_owned(), behind))
    };
    BridgeHealth {
        id: api.bridge().clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: shared.since,
        caught_up: api.view().is_caught_up(),
        epoch: shared.lease.get().and_then(|lease| *lease.borrow()).map(|epoch| epoch.0),
        lease_holder: reading.and_then(|reading| match &reading.holder {
            Holder::Bridge(id) => Some(id.clone()),
            Holder::Nobody | Holder::Unknown => None,
        }),
        clock_ahead_ms: reading.and_then(|reading| reading.clock_ahead_ms),
        lag: reading.iter().flat_map(|reading| &reading.streams).filter_map(lag).collect(),
    }
}

fn broker(api: &Api, reading: Option<&Reading>, streams: &[StreamHealth]) -> BrokerHealth {
    let state = *api.link().state().borrow();
    let server = api.link().server_report();
    let account = reading.map(|reading| reading.account).unwrap_or_default();
    let names = streams.iter().flat_map(|stream| {
        stream.leader.iter().chain(stream.followers.iter().map(|follower| &follower.name)).cloned()
    });
    let servers: std::collections::BTreeSet<String> = names.collect();
    BrokerHealth {
        connected: state.is_connected,
        connects: state.connects,
        version: server.version,
        server: server.name,
        cluster: server.cluster,
        servers: servers.into_iter().collect(),
        store_bytes: account.store_bytes,
        store_max_bytes: account.store_max_bytes,
        memory_bytes: account.memory_bytes,
        memory_max_bytes: account.memory_max_bytes,
        api_errors: account.api_errors,
    }
}

fn stream_health((name, report): &(&'static str, StreamReport)) -> StreamHealth {
    let percent =
        |most: u64| u8::try_from(report.state.bytes.saturating_mul(100) / most.max(1)).unwrap_or(u8::MAX);
    StreamHealth {
        name: (*name).to_owned(),
        messages: report.state.messages,
        bytes: report.state.bytes,
        max_bytes: report.state.max_bytes,
        fill_percent: report.state.max_bytes.map(percent),
        refuses_when_full: report.refuses_when_full,
        max_age_ms: report.max_age_ms,
        first_at: report.first_ms,
        last_at: report.last_ms,
        replicas: u32::try_from(report.state.replicas).unwrap_or(u32::MAX),
        leader: report.leader.clone(),
        followers: report.followers.iter().map(follower).collect(),
        consumers: ConsumerHealth {
            count: report.consumers.count,
            pending: report.consumers.pending,
            ack_pending: report.consumers.ack_pending,
            redelivered: report.consumers.redelivered,
        },
    }
}

fn follower(report: &signalbox_link::FollowerReport) -> FollowerHealth {
    FollowerHealth {
        name: report.name.clone(),
        current: report.is_current,
        offline: report.is_offline,
        lag: report.lag,
        silent_ms: report.silent_ms,
    }
}

fn warn(code: &str, severity: Severity, text: String, advice: &str) -> Warning {
    Warning { code: code.to_owned(), severity, text, advice: advice.to_owned() }
}

/// What follows from what was not said. Pure.
fn of_reading(reading: &Reading) -> Vec<Warning> {
    let mut all = Vec::new();
    if reading.holder == Holder::Nobody {
        let text = "no bridge dispatches".to_owned();
        all.push(warn("no_lease", Severity::Critical, text, "see whether a bridge runs, and what it logs"));
    }
    for name in &reading.silent {
        let text = format!("stream {name} does not answer");
        let advice = "see that it is there, and that most of its servers run";
        all.push(warn("no_leader", Severity::Critical, text, advice));
    }
    all
}

/// What follows from what broker and streams say, at `now`, Unix ms. Pure.
fn found(view: &HealthView, now: u64) -> Vec<Warning> {
    let mut all = Vec::new();
    if !view.broker.connected {
        let text = "the bridge has no connection to the broker".to_owned();
        all.push(warn(
            "no_broker",
            Severity::Critical,
            text,
            "see whether nats-server runs, and what it logs",
        ));
    } else if view.read_at.is_none_or(|at| now.saturating_sub(at) > OLD_MS) {
        let since =
            view.read_at.map_or(String::new(), |at| format!(" for {} s", now.saturating_sub(at) / 1_000));
        let text = format!("broker and streams have not said{since} how they are");
        let advice = "see whether JetStream runs, and what nats-server logs";
        all.push(warn("not_read", Severity::Warning, text, advice));
    }
    if let Some(ahead) = view.bridge.clock_ahead_ms.filter(|ahead| ahead.unsigned_abs() > SKEW_MS) {
        let text = format!("clocks of bridge and broker differ by {} s", ahead.unsigned_abs() / 1_000);
        all.push(warn("clock_skew", Severity::Warning, text, "set both by NTP"));
    }
    let stores = [
        ("disk", view.broker.store_bytes, view.broker.store_max_bytes),
        ("memory", view.broker.memory_bytes, view.broker.memory_max_bytes),
    ];
    for (what, bytes, most) in stores {
        let percent = most.map(|most| bytes.saturating_mul(100) / most.max(1));
        if let Some(percent) = percent.filter(|percent| *percent >= STORE_PERCENT) {
            let text = format!("streams take {percent} % of the {what} that they may take");
            all.push(warn(
                "store_full",
                Severity::Warning,
                text,
                "raise the limit, or lower those of streams",
            ));
        }
    }
    all.extend(of_streams(&view.streams));
    all
}

fn of_streams(streams: &[StreamHealth]) -> Vec<Warning> {
    let mut all = Vec::new();
    let on_disk: BTreeMap<&str, bool> =
        stream::all().into_iter().map(|def| (def.name, def.storage == Storage::File)).collect();
    let single =
        |stream: &&StreamHealth| stream.replicas < 2 && on_disk.get(stream.name.as_str()) == Some(&true);
    let single: Vec<&str> = streams.iter().filter(single).map(|stream| stream.name.as_str()).collect();
    if !single.is_empty() {
        let text = format!(
            "{} streams are on one server only: with its disk they are gone, and unless its sync_interval is `always`, what was acknowledged in the last seconds before a power failure, too",
            single.len()
        );
        let advice = "use three servers and `serve --replicas 3`, or set `sync_interval: always`";
        all.push(warn("single_server", Severity::Info, text, advice));
    }
    for stream in streams {
        if stream.replicas > 1 && stream.leader.is_none() {
            let text = format!("stream {} has no leader, and takes nothing", stream.name);
            all.push(warn("no_leader", Severity::Critical, text, "see that most of its servers run"));
        }
        for follower in stream.followers.iter().filter(|it| it.offline || !it.current) {
            let text = format!("the copy of stream {} on {} is behind or gone", stream.name, follower.name);
            all.push(warn("replica_behind", Severity::Warning, text, "see whether that server runs"));
        }
        if stream.consumers.redelivered > 0 {
            let count = stream.consumers.redelivered;
            let text = format!("{count} messages of stream {} are being delivered again", stream.name);
            all.push(warn("redelivered", Severity::Info, text, "see which consumer does not acknowledge"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use signalbox_schemas::id::BridgeId;

    use super::*;

    #[rstest]
    #[case::not_yet(true, None, 20_000, &["not_read"])]
    #[case::fresh(true, Some(5_000), 20_000, &[])]
    #[case::old(true, Some(4_999), 20_000, &["not_read"])]
    #[case::no_broker(false, None, 20_000, &["no_broker"])]
    fn a_bridge_that_hears_nothing_says_so(
        #[case] connected: bool,
        #[case] read_at: Option<u64>,
        #[case] now: u64,
        #[case] expected: &[&str],
    ) {
        let view = HealthView {
            status: "ok".into(),
            bridge: BridgeHealth {
                id: BridgeId::new("b1").unwrap(),
                version: String::new(),
                since: 0,
                caught_up: true,
                epoch: None,
                lease_holder: None,
                clock_ahead_ms: None,
                lag: BTreeMap::new(),
            },
            broker: BrokerHealth { connected, ..BrokerHealth::default() },
            streams: Vec::new(),
            read_at,
            warnings: Vec::new(),
            counters: BTreeMap::new(),
        };
        let codes: Vec<String> = found(&view, now).into_iter().map(|warning| warning.code).collect();
        assert_eq!(codes, expected);
    }

    #[rstest]
    #[case::nobody(Holder::Nobody, &["no_lease", "no_leader"])]
    #[case::unknown(Holder::Unknown, &["no_leader"])]
    #[case::somebody(Holder::Bridge(BridgeId::new("b2").unwrap()), &["no_leader"])]
    fn what_is_not_known_is_not_taken_for_nobody(#[case] holder: Holder, #[case] expected: &[&str]) {
        let reading = Reading { holder, silent: vec!["EVT"], ..Reading::default() };
        let codes: Vec<String> = of_reading(&reading).into_iter().map(|warning| warning.code).collect();
        assert_eq!(codes, expected);
    }

    #[rstest]
    #[case(true, true, true, "ok")]
    #[case(true, true, false, "starting")]
    #[case(true, false, true, "degraded")]
    #[case(true, false, false, "degraded")]
    #[case(false, true, true, "ending")]
    #[case(false, false, false, "ending")]
    fn a_bridge_that_cannot_be_relied_on_is_not_ok(
        #[case] sound: bool,
        #[case] connected: bool,
        #[case] caught_up: bool,
        #[case] word: &str,
    ) {
        assert_eq!(super::word(sound, connected, caught_up), word);
    }
}
