//! Crash points: the one table of places at which a test build dies on purpose.
//!
//! `SIGNALBOX_CRASH_AT=PART:POINT[:K]` makes the named part kill itself with SIGKILL when it reaches the point
//! for the K-th time (default 1). `broker` is not ours to instrument: with it, whoever reaches the point stops
//! itself (SIGSTOP), the test does to the broker what it wants and sends SIGCONT.
//!
//! Without the feature `crash-points`, [`hit`] is empty and the environment is not read.

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The relay process.
    Relay,
    /// The keeper process.
    Keeper,
    /// The bridge process.
    Bridge,
    /// The broker: the process that reaches the point stops, for the test to act.
    Broker,
}

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The command is stored, nobody was told.
    SubmitAcked,
    /// A mailbox with the offer is stored.
    MailboxWritten,
    /// A rollout's next edition is stored, nothing follows from it yet.
    RolloutWritten,
    /// The claim is sent, not acknowledged.
    ClaimSent,
    /// The claim is acknowledged, nothing started.
    ClaimAcked,
    /// The process is started.
    Spawned,
    /// Some output is out, more is to come.
    OutputHalf,
    /// The exit is written down, not sent.
    ExitWritten,
    /// The exit is sent, not acknowledged.
    ExitUnacked,
    /// A vault's next secret is written, its file is the old one.
    VaultSecretDrafted,
    /// A vault's next file is written beside it.
    VaultDrafted,
    /// A vault's file is the new one, and nobody was told.
    VaultReplaced,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Relay, Self::Keeper, Self::Bridge, Self::Broker];

    /// As it stands in the environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Keeper => "keeper",
            Self::Bridge => "bridge",
            Self::Broker => "broker",
        }
    }
}

impl Point {
    /// All of them, in the order of a command's life, then of a vault's change.
    pub const ALL: [Self; 12] = [
        Self::SubmitAcked,
        Self::MailboxWritten,
        Self::RolloutWritten,
        Self::ClaimSent,
        Self::ClaimAcked,
        Self::Spawned,
        Self::OutputHalf,
        Self::ExitWritten,
        Self::ExitUnacked,
        Self::VaultSecretDrafted,
        Self::VaultDrafted,
        Self::VaultReplaced,
    ];

    /// As it stands in the environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SubmitAcked => "submit.acked",
            Self::MailboxWritten => "mailbox.written",
            Self::RolloutWritten => "rollout.written",
            Self::ClaimSent => "claim.sent",
            Self::ClaimAcked => "claim.acked",
            Self::Spawned => "spawned",
            Self::OutputHalf => "output.half",
            Self::ExitWritten => "exit.written",
            Self::ExitUnacked => "exit.unacked",
            Self::VaultSecretDrafted => "vault.secret.drafted",
            Self::VaultDrafted => "vault.drafted",
            Self::VaultReplaced => "vault.replaced",
        }
    }
}

/// Says that `part` has reached `point`.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn hit(_part: Part, _point: Point) {}

#[cfg(feature = "crash-points")]
pub use armed::hit;

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::{Part, Point};

    /// More than enough for a signal to reach all threads; after SIGCONT it has passed long ago.
    const SETTLE: Duration = Duration::from_millis(100);

    static TARGET: OnceLock<Option<Target>> = OnceLock::new();

    /// What the environment asks for.
    #[derive(Debug)]
    pub(super) struct Target {
        pub(super) part: Part,
        pub(super) point: Point,
        pub(super) hits_left: AtomicU32,
    }

    /// Says that `part` has reached `point`: the process may end here.
    pub fn hit(part: Part, point: Point) {
        let target = TARGET.get_or_init(|| {
            let text = std::env::var("SIGNALBOX_CRASH_AT").ok()?;
            let target = parse(&text);
            if target.is_none() {
                tracing::error!(text, "crash point is not PART:POINT[:K]");
            }
            target
        });
        let Some(target) = target else { return };
        let is_meant = target.part == part || target.part == Part::Broker;
        if !is_meant || target.point != point || target.hits_left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        let signal = if target.part == Part::Broker { Signal::STOP } else { Signal::KILL };
        if let Err(error) = kill_process(getpid(), signal) {
            tracing::error!(%error, "crash point could not signal its own process");
        }
        // The signal may go to another thread, and this one run on for a moment: not beyond this line.
        std::thread::park_timeout(SETTLE);
    }

    pub(super) fn parse(text: &str) -> Option<Target> {
        let mut words = text.split(':');
        let part = words.next()?;
        let point = words.next()?;
        let hits = words.next().map_or(Some(1), |k| k.parse().ok().filter(|k| *k > 0))?;
        if words.next().is_some() {
            return None;
        }
        Some(Target {
            part: Part::ALL.into_iter().find(|known| known.name() == part)?,
            point: Point::ALL.into_iter().find(|known| known.name() == point)?,
            hits_left: AtomicU32::new(hits),
        })
    }
}

#[cfg(all(test, feature = "crash-points"))]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{Part, Point, armed::parse};

    #[test]
    fn the_environment_is_read() {
        let target = parse("relay:claim.acked:3").unwrap();
        assert_eq!((target.part, target.point), (Part::Relay, Point::ClaimAcked));
        assert_eq!(target.hits_left.load(Ordering::SeqCst), 3);
        assert_eq!(parse("broker:spawned").unwrap().hits_left.load(Ordering::SeqCst), 1);
        for text in
            ["", "relay", "relay:", "relay:claim", "who:spawned", "relay:spawned:0", "relay:spawned:1:2"]
        {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
