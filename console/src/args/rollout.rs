//! How a command spreads, whether one is sure, and `signalbox retry`.

use clap::Args as ClapArgs;
use signalbox_schemas::{
    id::CommandId,
    rollout::{Rollout, Size},
    run::RunState,
};

use super::{Reach, choice::one_of};
use crate::cli::{exit, quantity};

/// Waves.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Waves {
    /// The first wave: so many machines, or a part of all such as 1%. The next one begins when all of it have settled.
    #[arg(long, value_name = "SIZE")]
    pub canary: Option<Size>,
    /// How many further machines each wave lets go, such as '5%,25%': the last one repeats [default: all the rest at once].
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    pub waves: Vec<Size>,
    /// So many at once, whatever the waves say.
    #[arg(long, value_name = "SIZE")]
    pub parallel: Option<Size>,
    /// Pauses when so many have failed, or such a part of those that have ended.
    #[arg(long, value_name = "SIZE")]
    pub pause_after: Option<Size>,
    /// Waits so long between two waves.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration_ms)]
    pub wave_wait: Option<u64>,
}

impl Waves {
    /// The plan; `None`: to all at once.
    pub fn plan(self) -> Option<Rollout> {
        let Self { canary, waves, parallel, pause_after, wave_wait: min_wait_ms } = self;
        let plan = Rollout { canary, waves, parallel, pause_after, min_wait_ms };
        (plan != Rollout::default()).then_some(plan)
    }
}

/// Whether one is sure.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
pub struct Sure {
    /// Asks nothing for being many machines; where they are protected, only --confirm does.
    #[arg(long)]
    pub yes: bool,
    /// At a terminal, asks for the number of machines where it is above this one [default: as configured, 50].
    #[arg(long, value_name = "N")]
    pub ask_above: Option<u32>,
    /// Says beforehand how many machines it is meant to run on: nothing is asked, and on another number it does not run.
    #[arg(long, value_name = "N")]
    pub confirm: Option<usize>,
}

/// `signalbox retry`.
#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = exit::TABLE)]
pub struct Retry {
    /// The command whose text is run again.
    pub id: CommandId,
    /// On machines whose run ended so; may be several [default: failed,timeout,lost,rejected].
    #[arg(long, value_name = "STATES", value_delimiter = ',',
        value_parser = one_of::<RunState>(ENDED.map(RunState::as_str)))]
    pub only: Vec<RunState>,
    /// How long it waits for machines that are offline, up to 7d [default: as configured, 24h].
    #[arg(long, value_name = "TIME", value_parser = quantity::duration_ms)]
    pub expires_in: Option<u64>,
    /// Output kept per machine: 10MiB, 1GiB; up to 4GiB.
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = quantity::size_bytes)]
    pub max_output: u64,
    /// Prints the id once the command is accepted, and leaves.
    #[arg(long)]
    pub no_wait: bool,
    /// In waves.
    #[command(flatten)]
    pub waves: Waves,
    /// Whether that is meant.
    #[command(flatten)]
    pub sure: Sure,
    /// Prints events, one JSON document per line.
    #[arg(long)]
    pub json: bool,
    /// Which broker.
    #[command(flatten)]
    pub reach: Reach,
}

/// Ends that may be tried once more.
const ENDED: [RunState; 6] = [
    RunState::Failed,
    RunState::Timeout,
    RunState::Lost,
    RunState::Rejected,
    RunState::Expired,
    RunState::Cancelled,
];

impl Retry {
    /// Which ends are tried once more.
    pub fn ends(&self) -> Vec<RunState> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        vec![RunState::Failed, RunState::Timeout, RunState::Lost, RunState::Rejected]
    }
}
