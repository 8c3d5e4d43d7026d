//! Stage lines on stderr: which of how many, what it is, and how long it took.

use std::time::{Duration, Instant};

/// Numbers the stages of one task and keeps their times.
#[derive(Debug)]
pub(crate) struct Stages {
    total: usize,
    started: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Stages {
    /// A task of `total` stages.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, started: Instant::now(), done: Vec::new() }
    }

    /// Announces the next stage, runs it and notes its time under `name`.
    pub(crate) fn run<T>(&mut self, name: &'static str, what: &str, stage: impl FnOnce() -> T) -> T {
        self.announce(what);
        let started = Instant::now();
        let result = stage();
        self.done.push((name, started.elapsed()));
        result
    }

    /// Announces a stage that nothing follows.
    pub(crate) fn announce(&self, what: &str) {
        eprintln!("[{}/{}] {what}", self.done.len() + 1, self.total);
    }

    /// One line with the time of every stage so far, for example `1 min 02 s: fmt 0.8 s, clippy 61 s`.
    pub(crate) fn times(&self) -> String {
        let each: Vec<String> =
            self.done.iter().map(|(name, time)| format!("{name} {}", spelled(*time))).collect();
        format!("{}: {}", spelled(self.started.elapsed()), each.join(", "))
    }
}

/// A duration for eyes: tenths below ten seconds, whole seconds below a minute, then minutes.
fn spelled(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{secs} s"),
        _ => format!("{} min {:02} s", secs / 60, secs % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_for_eyes() {
        assert_eq!(spelled(Duration::from_millis(840)), "0.8 s");
        assert_eq!(spelled(Duration::from_secs(59)), "59 s");
        assert_eq!(spelled(Duration::from_secs(62)), "1 min 02 s");
    }
}
