//! Samples, and what the kernel knows of a process.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Durations of one kind.
pub(super) struct Samples {
    what: &'static str,
    all: Vec<Duration>,
}

impl Samples {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, all: Vec::new() }
    }

    pub(super) fn add(&mut self, sample: Duration) {
        self.all.push(sample);
    }

    /// One line of the table.
    pub(super) fn print(mut self) {
        self.all.sort();
        let at = |permille: usize| {
            let index = (self.all.len() * permille / 1000).min(self.all.len().saturating_sub(1));
            self.all.get(index).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
        };
        println!(
            "| {} | {} | {:.2} ms | {:.2} ms | {:.2} ms |",
            self.what,
            self.all.len(),
            at(500),
            at(900),
            at(990)
        );
    }
}

/// CPU time a process has used, ms, in steps of 10.
pub(super) fn cpu_ms(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("odd stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok());
    // Fields 14 and 15 of proc(5), counted from the state; a tick is 10 ms on every Linux we run on.
    let (user, system) = (ticks(11).context("no utime")?, ticks(12).context("no stime")?);
    Ok((user + system) * 10)
}

/// Resident and proportional memory, KiB.
pub(super) fn memory_kib(pid: u32) -> Result<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok((kib(&text, "Rss:")?, kib(&text, "Pss:")?))
}

/// Highest resident memory so far, KiB.
pub(super) fn peak_kib(pid: u32) -> Result<u64> {
    kib(&std::fs::read_to_string(format!("/proc/{pid}/status"))?, "VmHWM:")
}

fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    line.trim().trim_end_matches("kB").trim().parse().context("odd number")
}
