//! The report: lines for people, and the same as JSON.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Cost, Wanted, board::Board};

/// Requests that are not held, at the 99th percentile.
const NOT_HELD: Duration = Duration::from_millis(50);
/// From the acknowledgement of a command to the last byte of the poll that it ends, at the 99th percentile.
const HELD: Duration = Duration::from_millis(50);
/// From a submission to the claim of an idle relay, at the median.
const PICKUP: Duration = Duration::from_millis(100);

/// Lines so far.
pub(super) struct Table {
    json: serde_json::Map<String, Value>,
    over: Vec<String>,
}

impl Table {
    pub(super) fn new(wanted: &Wanted) -> Self {
        println!("{} relays, {} commands a second for {:?}\n", wanted.relays, wanted.rate, wanted.load);
        println!("| what | n | p50 | p99 | most |\n|---|---|---|---|---|");
        let mut json = serde_json::Map::new();
        json.insert("relays".to_owned(), wanted.relays.into());
        json.insert("commands_per_second".to_owned(), wanted.rate.into());
        json.insert("seconds".to_owned(), wanted.load.as_secs().into());
        Self { json, over: Vec::new() }
    }

    fn durations(&mut self, what: &str, mut all: Vec<Duration>, budget: Option<(usize, Duration)>) {
        all.sort_unstable();
        let at = |permille: usize| {
            let index = (all.len() * permille / 1_000).min(all.len().saturating_sub(1));
            all.get(index).copied().unwrap_or_default()
        };
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (p50, p99, most) = (ms(at(500)), ms(at(990)), ms(at(1_000)));
        println!("| {what} | {} | {p50:.1} ms | {p99:.1} ms | {most:.1} ms |", all.len());
        let figures = json!({"n": all.len(), "p50_ms": p50, "p99_ms": p99, "max_ms": most});
        self.json.insert(what.to_owned(), figures);
        if let Some((permille, budget)) = budget
            && at(permille) > budget
        {
            self.over.push(format!("{what}: {:.1} ms, the budget is {:.1} ms", ms(at(permille)), ms(budget)));
        }
    }

    /// What became of the commands, and how long everything took.
    pub(super) fn board(&mut self, part: &str, board: &Board) {
        let mut answers: Vec<_> = board.answers().into_iter().collect();
        answers.sort_unstable_by_key(|(what, _)| *what);
        let mut together = Vec::new();
        for (what, all) in answers {
            together.extend_from_slice(&all);
            self.durations(&format!("{part}{what}"), all, None);
        }
        self.durations(&format!("{part}all that is not held"), together, Some((990, NOT_HELD)));
        let held = board.of_commands(|command| {
            let ((_, acknowledged), (sent, received)) = (command.submitted?, command.listed?);
            (sent < acknowledged).then(|| received.saturating_duration_since(acknowledged))
        });
        self.durations(&format!("{part}held poll, from acknowledged to listed"), held, Some((990, HELD)));
        let at_once = board.of_commands(|command| {
            let ((_, acknowledged), (sent, received)) = (command.submitted?, command.listed?);
            (sent >= acknowledged).then(|| received - sent)
        });
        self.durations(&format!("{part}poll that finds work"), at_once, Some((990, NOT_HELD)));
        let submit = board.of_commands(|command| command.submitted.map(|(sent, at)| at - sent));
        self.durations(&format!("{part}submit"), submit, None);
        let pickup = board
            .of_commands(|command| Some(command.claimed?.saturating_duration_since(command.submitted?.0)));
        let budget = (!part.is_empty()).then_some((500, PICKUP));
        self.durations(&format!("{part}from submit to claimed"), pickup, budget);
        let whole =
            board.of_commands(|command| Some(command.ended?.saturating_duration_since(command.submitted?.0)));
        self.durations(&format!("{part}from submit to its end"), whole, None);
    }

    /// What a held connection takes.
    pub(super) fn memory(&mut self, when: &str, before: &Cost, now: &Cost, connections: usize) {
        for (name, (before, now)) in ["bridge", "broker"].into_iter().zip(before.of.iter().zip(&now.of)) {
            let number = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            let each =
                |before: u64, now: u64| number(now.saturating_sub(before)) / number(connections as u64);
            let (rss, pss) = (each(before.0, now.0), each(before.1, now.1));
            println!(
                "| {name}, {when}: RSS and PSS in all, and more per relay | 1 | {} KiB, {} KiB | {rss:.1} KiB | {pss:.1} KiB |",
                now.0, now.1
            );
            let figures = json!({"rss_kib": now.0, "pss_kib": now.1, "rss_per_relay_kib": rss, "pss_per_relay_kib": pss});
            self.json.insert(format!("{name} memory, {when}"), figures);
        }
    }

    /// What the time was used for.
    pub(super) fn cpu(&mut self, when: &str, before: &Cost, now: &Cost, time: Duration) {
        for (name, (before, now)) in ["bridge", "broker"].into_iter().zip(before.of.iter().zip(&now.of)) {
            let used = Duration::from_millis(now.2.saturating_sub(before.2));
            println!(
                "| {name}, {when} for {} s: CPU | 1 | {:.2} s | | |",
                time.as_secs(),
                used.as_secs_f64()
            );
            self.json.insert(format!("{name} cpu_s, {when}"), used.as_secs_f64().into());
        }
    }

    /// Writes the JSON and says what is not as it must be.
    pub(super) fn finish(mut self, wanted: &Wanted, board: &Board) -> Result<()> {
        let (errors, quoted) = board.errors();
        println!("| errors | {errors} | | | |\n");
        self.json.insert("errors".to_owned(), errors.into());
        self.json.insert("over_budget".to_owned(), self.over.clone().into());
        for line in &self.over {
            println!("over budget: {line}");
        }
        let text = serde_json::to_string_pretty(&self.json)?;
        std::fs::write(&wanted.json, text).with_context(|| format!("writing {}", wanted.json.display()))?;
        println!("written to {}", wanted.json.display());
        board.is_complete()?;
        ensure!(errors == 0, "{errors} errors, the first: {quoted:#?}");
        Ok(())
    }
}
