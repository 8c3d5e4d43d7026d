//! `signalbox run` and `signalbox exec`.

use clap::{ArgGroup, Args as ClapArgs};
use signalbox_schemas::{
    command::{SshHop, SshTarget},
    id::CredentialName,
};

use super::{
    Reach,
    rollout::{Sure, Waves},
    ssh,
};
use crate::cli::{exit, quantity};

/// `signalbox run`.
#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = exit::TABLE)]
#[command(group = ArgGroup::new("which"))]
pub struct Run {
    /// Which machines: a name, a glob such as 'web-*', or `all`.
    #[arg(long, value_name = "SELECTOR", group = "which", required_unless_present_any = ["via", "saved"])]
    pub on: Option<String>,
    /// One machine, by its name as it is.
    #[arg(long, value_name = "MACHINE", group = "which")]
    pub via: Option<String>,
    /// A saved command of the configuration, instead of one after `--`; its own machines, if --on names none.
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    pub saved: Option<String>,
    /// What stands for a placeholder of it; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", requires = "saved", value_parser = with)]
    pub with: Vec<(String, String)>,
    /// Prints the id once the command is accepted, and leaves.
    #[arg(long)]
    pub no_wait: bool,
    /// In waves.
    #[command(flatten)]
    pub waves: Waves,
    /// Whether that is meant.
    #[command(flatten)]
    pub sure: Sure,
    /// What, and how.
    #[command(flatten)]
    pub order: Order,
}

/// `signalbox exec`.
#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = exit::TABLE)]
pub struct Exec {
    /// The machine, by its name.
    pub machine: String,
    /// How long this waits for the end, whatever --timeout says; 0s prints the id and leaves [default: --timeout and
    /// 5s].
    #[arg(long, value_name = "TIME", value_parser = quantity::duration_ms)]
    pub wait: Option<u64>,
    /// Cancels the command when the wait is over; otherwise it goes on.
    #[arg(long)]
    pub cancel_on_give_up: bool,
    /// Makes it one command however often it is asked for: the same key comes back to it.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// What, and how.
    #[command(flatten)]
    pub order: Order,
}

/// What shall run, and how.
#[derive(Debug, Clone, ClapArgs)]
pub struct Order {
    /// How long it may run: 250ms, 30s, 5m, 2h; up to 2d [default: as configured, 30s].
    #[arg(long, value_name = "TIME", value_parser = quantity::duration_ms)]
    pub timeout: Option<u64>,
    /// How long it waits for machines that are offline, up to 7d [default: as configured, 24h; of `exec`: as long as
    /// --wait, if that waits].
    #[arg(long, value_name = "TIME", value_parser = quantity::duration_ms)]
    pub expires_in: Option<u64>,
    /// Output kept per machine: 10MiB, 1GiB; up to 4GiB.
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = quantity::size_bytes)]
    pub max_output: u64,
    /// Not on the machine itself but on a host that it reaches by SSH; port 22 unless said. Relays of the older system need
    /// the user.
    #[arg(long, value_name = "[USER@]HOST[:PORT]", value_parser = ssh::target)]
    pub ssh: Option<SshTarget>,
    /// A host to go through to that one; may be given up to four times, the first one first.
    #[arg(long, value_name = "[USER@]HOST[:PORT]", value_parser = ssh::hop, requires = "ssh")]
    pub jump: Vec<SshHop>,
    /// The credential to use there, by its name [default: those whose target means the host, the closest first].
    #[arg(long, value_name = "NAME", requires = "ssh")]
    pub credential: Option<CredentialName>,
    /// In whose name, for those who read it later.
    #[arg(long, value_name = "NAME")]
    pub created_by: Option<String>,
    /// Prints events, one JSON document per line.
    #[arg(long)]
    pub json: bool,
    /// Which broker.
    #[command(flatten)]
    pub reach: Reach,
    /// The command, for `sh -c`, after `--`; several words are joined by spaces.
    #[arg(value_name = "COMMAND", required = true, last = true)]
    pub command: Vec<String>,
}

fn with(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Order {
    /// The host that it runs on, with the way there.
    pub fn target(&self) -> Option<SshTarget> {
        let (jump, credential) = (self.jump.clone(), self.credential.clone());
        self.ssh.clone().map(|ssh| SshTarget { jump, credential, ..ssh })
    }
}
