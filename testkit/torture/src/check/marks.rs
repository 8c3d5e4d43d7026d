//! What commands wrote down themselves.

use std::collections::BTreeMap;

use signalbox_schemas::id::{CommandId, MachineToken};

use crate::observed::Observed;

/// Marks of one run: when each was made, Unix ms, to about 10 ms.
#[derive(Debug, Clone, Default)]
pub(super) struct RunMarks {
    pub(super) starts: Vec<u64>,
    pub(super) ends: Vec<u64>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Marks {
    runs: BTreeMap<(CommandId, MachineToken), RunMarks>,
    /// Lines that no command can have written whole.
    pub(super) odd: Vec<(MachineToken, String)>,
}

impl Marks {
    pub(super) fn read(observed: &Observed) -> Self {
        let mut marks = Self::default();
        for machine in &observed.machines {
            for line in machine.marks.lines() {
                let Some((is_start, command, uptime_ms)) = mark(line) else {
                    marks.odd.push((machine.token.clone(), line.to_owned()));
                    continue;
                };
                let run = marks.runs.entry((command, machine.token.clone())).or_default();
                let list = if is_start { &mut run.starts } else { &mut run.ends };
                list.push(observed.booted_at + uptime_ms);
            }
        }
        marks
    }

    pub(super) fn of(&self, command: CommandId, machine: &MachineToken) -> RunMarks {
        self.runs.get(&(command, machine.clone())).cloned().unwrap_or_default()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (CommandId, &MachineToken, &RunMarks)> {
        self.runs.iter().map(|((command, machine), marks)| (*command, machine, marks))
    }

    pub(super) fn lines(&self, command: CommandId, machine: &MachineToken) -> Vec<String> {
        let marks = self.of(command, machine);
        let starts = marks.starts.iter().map(|at| format!("mark at {at}: started"));
        starts.chain(marks.ends.iter().map(|at| format!("mark at {at}: ran to its end"))).collect()
    }
}

/// `S <command> <uptime in s>` or `E …`.
fn mark(line: &str) -> Option<(bool, CommandId, u64)> {
    let mut words = line.split(' ');
    let is_start = match words.next()? {
        "S" => true,
        "E" => false,
        _ => return None,
    };
    let command = words.next()?.parse().ok()?;
    let (seconds, hundredths) = words.next()?.split_once('.')?;
    let ms = seconds.parse::<u64>().ok()? * 1_000 + hundredths.parse::<u64>().ok()? * 10;
    words.next().is_none().then_some((is_start, command, ms))
}
