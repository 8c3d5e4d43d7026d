//! Words of `signalbox audit`.

use std::str::FromStr;

use clap::Args as ClapArgs;
use signalbox_schemas::id::Sha256;

use super::Listing;

/// An entry that was noted down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// Its number.
    pub n: u64,
    /// SHA-256 of its message's body.
    pub sha256: Sha256,
}

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts =
            text.split_once(':').and_then(|(n, sha256)| Some((n.parse().ok()?, sha256.parse().ok()?)));
        let (n, sha256) =
            parts.ok_or("must be a number, a colon and 64 hex digits, as --verify prints them")?;
        Ok(Self { n, sha256 })
    }
}

/// `signalbox audit`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Audit {
    /// Most entries.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Reads the whole chain and checks it here: that a bridge has signed every entry, and that each names the one before
    /// it. What a bridge cannot be caught at is leaving out the newest: note down what this prints, and use --since.
    #[arg(long, conflicts_with_all = ["limit", "watch"])]
    pub verify: bool,
    /// With --verify: an entry that must be there, and be this one, as an earlier check printed it.
    #[arg(long, value_name = "N:SHA256", requires = "verify")]
    pub since: Option<Since>,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}
