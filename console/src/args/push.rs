//! `signalbox pushes` and `signalbox push`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use signalbox_schemas::config::{PushState, PushType};

use super::{Listing, Within, choice::one_of};

/// `signalbox pushes`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Pushes {
    /// Those to the relay of this assignment only.
    #[arg(long, value_name = "ASSIGNMENT")]
    pub relay: Option<String>,
    /// Those in this state only.
    #[arg(long, value_name = "STATE", value_parser = one_of::<PushState>(PushState::ALL.map(PushState::as_str)))]
    pub state: Option<PushState>,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}

/// `signalbox push`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Push {
    /// What to do with it.
    #[command(subcommand)]
    pub action: PushAction,
    /// Format and broker.
    #[command(flatten)]
    pub within: Within,
}

/// One thing to do with a configuration push.
#[derive(Debug, Clone, Subcommand)]
pub enum PushAction {
    /// Queues one for a relay of the older system.
    Create {
        /// The assignment's id.
        assignment: String,
        /// What it changes.
        #[arg(value_name = "TYPE", value_parser = one_of::<PushType>(PushType::ALL.map(PushType::as_str)))]
        push_type: PushType,
        /// The change, a JSON object of up to 64 KiB. A credential comes by --payload-file only.
        #[arg(value_name = "PAYLOAD", required_unless_present = "payload_file")]
        payload: Option<String>,
        /// The same from a file, or from stdin with `-`.
        #[arg(long, value_name = "FILE", conflicts_with = "payload")]
        payload_file: Option<PathBuf>,
    },
    /// Shows one.
    Show(PushId),
    /// Its relay was told.
    Sent(PushId),
    /// Its relay has applied it.
    Ack(PushId),
    /// Its relay has not applied it.
    Fail {
        /// The push's id.
        id: String,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
    },
    /// It waits again.
    Retry(PushId),
}

/// Which push.
#[derive(Debug, Clone, ClapArgs)]
pub struct PushId {
    /// The push's id.
    pub id: String,
}
