//! A command that was accepted, followed to its end: its output as it comes, then what became of it.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use signalbox_schemas::{
    api::{Accepted, Counts, RolloutView, RunView},
    error::report,
    id::{CommandId, MachineId},
    output::OutputStream,
    rollout::RolloutState,
    run::RunState,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    clean,
    event::Event,
    exit::{self, Failure},
    lines::{Lines, Sink},
    printer::{Hangup, Piece, Printer},
    quantity, steer,
};
use crate::{
    client::{
        ClientError,
        clock::now_ms,
        feed::{Feed, FeedItem},
    },
    config::Config,
};

/// What takes no longer is not commented on.
const QUIET: Duration = Duration::from_millis(500);
/// Machines whose trouble is told one by one.
const TROUBLES: usize = 20;

/// Why following ends early.
pub(super) enum End {
    Hangup(Hangup),
    Failure(Failure),
}

impl From<Hangup> for End {
    fn from(hangup: Hangup) -> Self {
        Self::Hangup(hangup)
    }
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Output, and what went wrong.
    Output,
    /// A line about each machine when it is done: what is done has no output.
    Outcomes,
    /// Events, for programs.
    Json,
}

/// What is known of the command, and how it is shown.
#[expect(
    clippy::struct_excessive_bools,
    reason = "three flags of the user's and the terminal's, one of ours"
)]
pub(super) struct Follow {
    id: CommandId,
    manner: Manner,
    no_wait: bool,
    err_is_terminal: bool,
    has_progress: bool,
    /// Between the parts of the progress.
    dot: char,
    lines: Lines,
    runs: BTreeMap<MachineId, Option<RunView>>,
    /// The same by state: counting 10,000 of them at each word about one takes too long.
    counts: Counts,
    began: Instant,
    is_bridge_missed: bool,
    rollout: Option<Box<RolloutView>>,
    /// When it was first told how many had settled, and how many had: what was done before says nothing about the rate.
    first: Option<(Instant, u32)>,
    troubles: usize,
}

impl Follow {
    /// Of a command that was accepted. `no_wait`: it is not followed.
    pub(super) fn new(config: &Config, manner: Manner, no_wait: bool, accepted: &Accepted) -> Self {
        let colours = config.environment.has_colours();
        let sink = |is_terminal| Sink { is_terminal, colours };
        let sinks = [sink(std::io::stdout().is_terminal()), sink(std::io::stderr().is_terminal())];
        Self {
            id: accepted.id,
            manner,
            no_wait,
            err_is_terminal: std::io::stderr().is_terminal(),
            has_progress: std::io::stderr().is_terminal() && !config.environment.is_dumb(),
            dot: if config.environment.is_ascii() { '-' } else { '·' },
            lines: Lines::new(&accepted.targets, sinks),
            runs: accepted.targets.iter().map(|machine| (machine.clone(), None)).collect(),
            counts: Counts::from([(
                RunState::Pending,
                u32::try_from(accepted.targets.len()).unwrap_or(u32::MAX),
            )]),
            began: Instant::now(),
            is_bridge_missed: false,
            rollout: None,
            first: None,
            troubles: 0,
        }
    }

    fn is_json(&self) -> bool {
        self.manner == Manner::Json
    }

    /// Says that it is accepted.
    pub(super) async fn accepted(&self, printer: &Printer, accepted: &Accepted) -> Result<(), End> {
        if self.is_json() {
            let event = Event::Accepted { id: accepted.id, targets: &accepted.targets };
            printer.print(Piece::Out(event.line().into())).await?;
        } else if self.no_wait {
            printer.print(Piece::Out(format!("{}\n", accepted.id).into())).await?;
        }
        Ok(())
    }

    /// Follows it until every run has settled; answers the exit code. `deadline`, Unix ms: nothing can come later.
    pub(super) async fn follow_to_end(
        &mut self,
        printer: &Printer,
        feed: &mut Feed,
        deadline: u64,
    ) -> Result<u8, End> {
        let mut tick = interval(QUIET);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                item = feed.next() => match item {
                    Ok(FeedItem::Settled(counts)) => return self.settled(printer, &counts).await,
                    Ok(item) => {
                        self.is_bridge_missed = false;
                        self.take(printer, item).await?;
                    }
                    Err(error) => self.missed(printer, &error).await?,
                },
                _ = tick.tick() => {
                    if now_ms() > deadline {
                        let line = format!("cannot follow {0}: no word of its end; look with `signalbox show {0}`", self.id);
                        return Err(End::Failure(Failure::new(exit::NOT_ACCEPTED, line)));
                    }
                    self.progress(printer).await?;
                }
            }
        }
    }

    async fn missed(&mut self, printer: &Printer, error: &ClientError) -> Result<(), End> {
        if matches!(error, ClientError::Refused(_) | ClientError::Closed | ClientError::Malformed(_)) {
            return Err(End::Failure(Failure::client(&format!("follow {}", self.id), error)));
        }
        if !std::mem::replace(&mut self.is_bridge_missed, true) {
            let line = format!("signalbox: {}; waiting for it", clean::line(&report(error)));
            printer.print(Piece::Note(line)).await?;
        }
        Ok(())
    }

    async fn take(&mut self, printer: &Printer, item: FeedItem) -> Result<(), End> {
        let machine = match &item {
            FeedItem::Output(piece) => Some(&piece.machine),
            FeedItem::Run(run) => Some(&run.machine),
            FeedItem::Command(_) | FeedItem::Settled(_) => None,
        };
        // What the command was never signed for is made up.
        if machine.is_some_and(|machine| !self.runs.contains_key(machine)) {
            return Ok(());
        }
        match item {
            FeedItem::Output(piece) if self.is_json() => {
                printer.print(Piece::Out(Event::output(&piece).line().into())).await?;
            }
            FeedItem::Output(piece) => {
                let data = self.lines.push(&piece.machine, piece.stream, &piece.data);
                write(printer, piece.stream, data).await?;
            }
            FeedItem::Run(run) => self.take_run(printer, run).await?,
            FeedItem::Command(summary) => {
                self.first.get_or_insert_with(|| (Instant::now(), settled(&summary.counts)));
                self.take_rollout(printer, summary.rollout).await?;
            }
            FeedItem::Settled(_) => {}
        }
        Ok(())
    }

    /// How far it has spread. That it stands still is said to everybody: nothing else happens then.
    async fn take_rollout(
        &mut self,
        printer: &Printer,
        rollout: Option<Box<RolloutView>>,
    ) -> Result<(), End> {
        let Some(rollout) = rollout.filter(|rollout| self.rollout.as_ref() != Some(rollout)) else {
            return Ok(());
        };
        let before = self.rollout.as_ref().map_or(RolloutState::Going, |known| known.state);
        if self.is_json() {
            printer.print(Piece::Out(Event::Rollout(&rollout).line().into())).await?;
        } else if rollout.state != before {
            let line = format!("signalbox: {}", steer::told(&rollout, Some(self.id)));
            printer.print(Piece::Note(line)).await?;
        }
        self.rollout = Some(rollout);
        self.progress(printer).await
    }

    async fn take_run(&mut self, printer: &Printer, run: RunView) -> Result<(), End> {
        let known = self.runs.entry(run.machine.clone()).or_default();
        if known.as_ref().is_some_and(|known| says_the_same(known, &run)) {
            return Ok(());
        }
        if self.is_json() {
            printer.print(Piece::Out(Event::Run(&run).line().into())).await?;
        } else if run.state.is_settled() {
            for stream in OutputStream::ALL {
                let rest = self.lines.finish(&run.machine, stream);
                write(printer, stream, rest).await?;
            }
            if self.manner == Manner::Outcomes {
                let outcome = trouble(&run, true)
                    .unwrap_or_else(|| format!("{}: {}", clean::line(run.machine.as_str()), run.state));
                printer.print(Piece::Out(format!("{outcome}\n").into())).await?;
            } else if let Some(trouble) = trouble(&run, self.err_is_terminal && self.runs.len() > 1) {
                self.troubles += 1;
                if self.troubles <= TROUBLES {
                    printer.print(Piece::Note(format!("signalbox: {trouble}"))).await?;
                }
            }
        }
        let state = run.state;
        let known = self.runs.insert(run.machine.clone(), Some(run)).flatten();
        let before = known.map_or(RunState::Pending, |known| known.state);
        if let Some(count) = self.counts.get_mut(&before) {
            *count = count.saturating_sub(1);
        }
        *self.counts.entry(state).or_default() += 1;
        self.counts.retain(|_, count| *count > 0);
        self.progress(printer).await
    }

    async fn settled(&mut self, printer: &Printer, counts: &Counts) -> Result<u8, End> {
        let code = exit::of_counts(counts);
        if self.is_json() {
            printer.print(Piece::Out(Event::Done { counts, exit: code }.line().into())).await?;
            return Ok(code);
        }
        printer.print(Piece::Progress(String::new())).await?;
        if self.troubles > TROUBLES {
            let more = self.troubles - TROUBLES;
            printer
                .print(Piece::Note(format!("signalbox: and {more} more; see `signalbox show {}`", self.id)))
                .await?;
        }
        if (self.err_is_terminal || self.manner == Manner::Outcomes) && self.runs.len() > 1 {
            let took = quantity::show_ms(elapsed_ms(self.began));
            let line = format!("{} machines: {} in {took}", self.runs.len(), show_counts(counts));
            printer.print(Piece::Note(line)).await?;
        }
        Ok(code)
    }

    async fn progress(&self, printer: &Printer) -> Result<(), End> {
        if self.is_json() || !self.has_progress || self.began.elapsed() < QUIET {
            return Ok(());
        }
        let counts = &self.counts;
        // Output of a single machine speaks for itself; that it is waited for does not.
        let waits = counts.keys().any(|state| matches!(state, RunState::Held | RunState::Pending));
        if self.runs.len() == 1 && !waits {
            return Ok(printer.print(Piece::Progress(String::new())).await?);
        }
        let settled = settled(counts);
        let elapsed = elapsed_ms(self.began);
        let mut parts =
            vec![format!("{settled}/{}", self.runs.len()), show_counts(counts), quantity::show_age(elapsed)];
        if let Some(rollout) = &self.rollout {
            parts.insert(0, format!("wave {}/{}", rollout.wave, rollout.waves));
            let left = self.runs.len().saturating_sub(settled as usize);
            let since = self.first.map(|(at, before)| (settled.saturating_sub(before), elapsed_ms(at)));
            if let Some(left) = since.and_then(|since| time_left(rollout.state, since, left)) {
                parts.push(format!("about {} left", quantity::show_age(left)));
            }
        }
        let line = parts.join(&format!(" {} ", self.dot));
        Ok(printer.print(Piece::Progress(line)).await?)
    }
}

/// Runs that have settled.
fn settled(counts: &Counts) -> u32 {
    counts.iter().filter(|(state, _)| state.is_settled()).map(|(_, n)| n).sum()
}

/// How long the rest takes at the rate since it is followed, ms; `None`: it stands still, or too little has ended to tell. `ended`:
/// runs that have settled since, and the time since, ms.
fn time_left(state: RolloutState, (ended, elapsed_ms): (u32, u64), left: usize) -> Option<u64> {
    if state != RolloutState::Going || ended < 2 || left == 0 {
        return None;
    }
    let left = u64::try_from(left).unwrap_or(u64::MAX);
    Some(elapsed_ms.saturating_mul(left) / u64::from(ended))
}

async fn write(printer: &Printer, stream: OutputStream, data: bytes::Bytes) -> Result<(), Hangup> {
    match stream {
        _ if data.is_empty() => Ok(()),
        OutputStream::Stdout => printer.print(Piece::Out(data)).await,
        OutputStream::Stderr => printer.print(Piece::Err(data)).await,
    }
}

/// Whether nothing changed but how much output has come so far.
fn says_the_same(known: &RunView, new: &RunView) -> bool {
    if new.state.is_settled() { known == new } else { known.state == new.state }
}

/// What people must know of a run's end. A plain exit code speaks for itself where one machine is meant.
pub(super) fn trouble(run: &RunView, exit_codes_too: bool) -> Option<String> {
    let machine = clean::line(run.machine.as_str());
    let state = run.state;
    let mut why = Vec::new();
    if let Some(signal) = &run.signal {
        why.push(format!("ended by {}", clean::line(signal)));
    }
    if let Some(error) = &run.error {
        why.push(clean::line(&error.message));
    }
    if let Some(code) = run.exit_code.filter(|code| *code != 0 && exit_codes_too) {
        why.push(format!("exit code {code}"));
    }
    for (name, stream) in [("stdout", &run.stdout), ("stderr", &run.stderr)] {
        if stream.truncated {
            why.push(format!("{name} is not complete, {} were written", quantity::show_bytes(stream.bytes)));
        }
    }
    let is_plain = matches!(state, RunState::Completed | RunState::Failed);
    match (is_plain, why.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("{machine}: {state}")),
        (_, false) => Some(format!("{machine}: {state}, {}", why.join(", "))),
    }
}

/// `2 completed, 1 failed`.
pub(super) fn show_counts(counts: &Counts) -> String {
    let present = counts.iter().filter(|(_, n)| **n > 0);
    present.map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ")
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_seen_to_end() {
        assert_eq!(time_left(RolloutState::Going, (4, 1_000), 8), Some(2_000));
        // Whatever had ended before it was followed says nothing.
        assert_eq!(time_left(RolloutState::Going, (0, 1_000), 8), None);
        assert_eq!(time_left(RolloutState::Going, (4, 1_000), 0), None);
    }
}
