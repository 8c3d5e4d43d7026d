//! Whether a person means as many machines as he has named.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use signalbox_schemas::api::{Liveness, Target};

use super::exit::{self, Failure};
use crate::client::ClientError;

/// Bytes of an answer that are read.
const ANSWER_BYTES: u64 = 64;

/// `120 machines: 100 online, 5 stale, 15 offline`.
pub(super) fn told(targets: &[Target]) -> String {
    let of = |state| targets.iter().filter(|target| target.state == state).count();
    let states = [Liveness::Online, Liveness::Stale, Liveness::Offline];
    let parts = states.map(|state| (of(state), state.as_str()));
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {state}"))
        .collect();
    let machines = if targets.len() == 1 { "machine" } else { "machines" };
    format!("{} {machines}: {}", targets.len(), parts.join(", "))
}

/// Says at a terminal which machines it would be, and asks for their number where it is above `limit`. Where nobody sits
/// (stdin or stderr is no terminal) nothing is asked: scripts say what they mean.
///
/// # Errors
/// [`Unsure`], when something else was typed.
pub(super) async fn ask(targets: &[Target], limit: Option<u32>, is_quiet: bool) -> Result<(), Unsure> {
    let is_seen = std::io::stderr().is_terminal();
    if is_seen && !is_quiet && targets.len() > 1 {
        super::say(&told(targets));
    }
    let asks = limit.is_some_and(|limit| targets.len() > limit as usize);
    if !asks || !is_seen || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    super::say(&format!(
        "type {} and Enter to run it on all of them; anything else runs nothing",
        targets.len()
    ));
    // Nobody waits for what is never typed: this thread ends with the program.
    let typed = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let read = std::io::stdin().lock().take(ANSWER_BYTES).read_line(&mut line);
        read.map(|_| line)
    });
    let typed = typed.await.ok().and_then(Result::ok).unwrap_or_default();
    if typed.trim() == targets.len().to_string() { Ok(()) } else { Err(Unsure) }
}

/// The number of machines was not typed.
#[derive(Debug)]
pub(super) struct Unsure;

/// Why a command was not submitted.
pub(super) enum Refusal {
    Client(ClientError),
    Unsure,
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<Unsure> for Refusal {
    fn from(Unsure: Unsure) -> Self {
        Self::Unsure
    }
}

impl Refusal {
    pub(super) fn failure(&self, client: impl Fn(&ClientError) -> Failure) -> Failure {
        match self {
            Self::Client(error) => client(error),
            Self::Unsure => Failure::new(
                exit::NOT_ACCEPTED,
                "the number of machines was not confirmed; nothing was submitted (--yes asks nothing)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::id::MachineId;

    use super::*;

    #[test]
    fn machines_are_told_by_whether_they_were_heard() {
        let target = |n: u32, state| {
            let id = MachineId::new(format!("m-{n}")).unwrap();
            Target { token: id.token(), id, state }
        };
        let all = [target(1, Liveness::Offline), target(2, Liveness::Online), target(3, Liveness::Online)];
        assert_eq!(told(&all), "3 machines: 2 online, 1 offline");
        assert_eq!(told(&all[..1]), "1 machine: 1 offline");
    }
}
