//! `signalbox machines` and `signalbox commands`.

use signalbox_schemas::api::{CommandSummary, ListMachines, MachineView, Page, op};

use super::{
    call::{Call, Row},
    card::{NOTHING, moment},
    clean,
    exit::Failure,
    follow, label, quantity,
    table::{Column, shorten},
};
use crate::{args, client::clock::now_ms, config::Config};

/// A selector may be 4 KiB long, and the column is as wide as the longest.
const ON_COLUMNS: usize = 32;

impl Row for MachineView {
    const COLUMNS: &'static [Column] = &[
        ("MACHINE", 0),
        ("STATE", 0),
        ("CPU", 1),
        ("MEMORY", 2),
        ("LOAD", 3),
        ("RUNS", 4),
        ("WAIT", 5),
        ("HEARD", 0),
        ("SYSTEM", 6),
        ("LABELS", 7),
    ];
    const FLEETING: &'static [&'static str] = &["last_seen_at", "metrics"];

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let metrics = self.metrics.as_ref();
        let nothing = || NOTHING.to_owned();
        // Figures are foreign, and as large as they like.
        let memory = metrics.and_then(|m| {
            (u128::from(m.memory_used_bytes) * 100).checked_div(u128::from(m.memory_total_bytes))
        });
        let system = self.facts.as_ref().map(|facts| format!("{} {}", facts.os, facts.arch));
        vec![
            clean::line(self.id.as_str()),
            self.state.as_str().to_owned(),
            metrics.map_or_else(nothing, |m| format!("{:.0} %", m.cpu_percent)),
            memory.map_or_else(nothing, |percent| format!("{percent} %")),
            metrics.map_or_else(nothing, |m| format!("{:.2}", m.load[0])),
            self.running.to_string(),
            self.pending.to_string(),
            self.last_seen_at.map_or_else(|| "never".to_owned(), |at| moment(at, now_ms())),
            clean::line(system.unwrap_or_default().trim()),
            label::words(&self.labels),
        ]
    }
}

impl Row for CommandSummary {
    const COLUMNS: &'static [Column] =
        &[("ID", 0), ("AGE", 1), ("BY", 4), ("ON", 3), ("STATES", 2), ("COMMAND", 0)];

    fn cells(&self, ellipsis: char) -> Vec<String> {
        vec![
            self.id.to_string(),
            quantity::show_age(now_ms().saturating_sub(self.created_at)),
            clean::line(&self.by),
            shorten(&clean::line(&self.place()), ON_COLUMNS, ellipsis),
            follow::show_counts(&self.counts),
            clean::line(&self.command),
        ]
    }
}

/// Lists the machines.
///
/// # Errors
/// [`Failure`].
pub async fn machines(config: &Config, args: &args::system::Machines) -> Result<u8, Failure> {
    let call = Call::of(config, &args.listing, "list the machines");
    if let Some(on) = &args.on {
        label::check(&call, on)?;
    }
    let asked = ListMachines { on: args.on.clone(), ..ListMachines::default() };
    call.list::<_, MachineView>(op::MACHINES_LIST, asked, None).await
}

/// Lists commands, newest first.
///
/// # Errors
/// [`Failure`].
pub async fn commands(config: &Config, args: &args::Commands) -> Result<u8, Failure> {
    let call = Call::of(config, &args.listing, "list the commands");
    call.list::<_, CommandSummary>(op::COMMANDS_LIST, Page::default(), Some(args.limit)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_may_say_that_its_memory_has_any_size() {
        let machine: MachineView = serde_json::from_value(serde_json::json!({
            "id": "a", "token": "a", "state": "online", "last_seen_at": 1, "running": 0, "pending": 0, "relay": null,
            "facts": null, "metrics": {"cpu_percent": 1e39, "cpus": 1, "memory_used_bytes": u64::MAX,
                "memory_total_bytes": u64::MAX, "swap_used_bytes": 0, "swap_total_bytes": 0, "load": [0, 0, 0],
                "uptime_secs": 0},
        }))
        .unwrap();
        assert_eq!(machine.cells('…')[2..4], ["100 %", "100 %"]);
    }
}
