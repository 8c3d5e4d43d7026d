//! Lives of keepers: having one, recognising a former one, and making sure that it is over.

use std::{fs, path::PathBuf, time::Duration};

use signalbox_schemas::{
    error::report,
    id::{CommandId, Nonce, Sha256},
};
use tokio::time::sleep;

use crate::{
    backoff::Backoff,
    counters::Counters,
    journal::KeeperMark,
    keeper::{
        client::{KeeperClient, Welcome},
        reap::end_marked,
    },
};

/// First and longest wait before a keeper is started again.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// How often it is looked whether a former keeper is gone. One that lost its lock file ends within 1 s.
const GONE_POLL: Duration = Duration::from_millis(50);
/// After this long it is a keeper that lives on elsewhere (its store was copied), and is looked at less often.
const GONE_SOON: Duration = Duration::from_secs(5);
const GONE_POLL_LATER: Duration = Duration::from_secs(10);

/// Connects to the keeper of `store`, or starts one, for as long as it takes.
pub(crate) async fn bring_up(store: PathBuf, exe: PathBuf, counters: Counters) -> (KeeperClient, Welcome) {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        match KeeperClient::connect_or_start(&store, &exe).await {
            Ok(up) => return up,
            Err(error) => {
                counters.count("keeper_not_up");
                tracing::error!(error = report(&error), "no keeper, nothing can run");
            }
        }
        sleep(backoff.delay()).await;
    }
}

/// The mark of a keeper that is alive.
pub(crate) fn mark(welcome: &Welcome) -> KeeperMark {
    KeeperMark {
        instance: welcome.instance,
        pid: welcome.pid,
        started_ticks: started_ticks(welcome.pid).unwrap_or_default(),
        boot_id: boot_id(),
        nonce_sha256: Sha256::of(&welcome.nonce.0),
    }
}

/// Waits until a former keeper is gone for sure, then ends what it left running of its open runs. What ended ones
/// left on request stays.
pub(crate) async fn bury(mark: KeeperMark, open: Vec<CommandId>) -> Nonce {
    let mut waited = Duration::ZERO;
    while is_alive(&mark) {
        let pause = if waited < GONE_SOON { GONE_POLL } else { GONE_POLL_LATER };
        waited += pause;
        sleep(pause).await;
    }
    let ended = end_marked(mark.instance, &open).await;
    tracing::info!(instance = %mark.instance, ended = ended.ended, none_left = ended.none_left, "former keeper is gone");
    mark.instance
}

fn is_alive(mark: &KeeperMark) -> bool {
    mark.boot_id == boot_id() && started_ticks(mark.pid) == Some(mark.started_ticks)
}

/// Start time of a process in clock ticks since boot: the 22nd field of `proc_pid_stat(5)`. None when there is no
/// such process, or only its zombie.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok()).flatten()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark_of(pid: u32) -> KeeperMark {
        KeeperMark {
            instance: Nonce([1; 16]),
            pid,
            started_ticks: started_ticks(pid).unwrap(),
            boot_id: boot_id(),
            nonce_sha256: Sha256::of(b""),
        }
    }

    #[test]
    fn a_process_is_known_by_pid_start_and_boot() {
        let mine = mark_of(std::process::id());
        assert!(is_alive(&mine));
        assert!(!is_alive(&KeeperMark { started_ticks: mine.started_ticks + 1, ..mine.clone() }));
        assert!(!is_alive(&KeeperMark { boot_id: "another".into(), ..mine }));
    }

    #[test]
    fn a_dead_process_is_not_alive_even_before_it_is_reaped() {
        let mut child =
            std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mark = mark_of(child.id());
        assert!(is_alive(&mark));
        child.kill().unwrap();
        wait_for_zombie(&mark);
        child.wait().unwrap();
        assert!(!is_alive(&mark));
    }

    /// A killed process becomes a zombie in its own time.
    fn wait_for_zombie(mark: &KeeperMark) {
        let until = std::time::Instant::now() + Duration::from_secs(5);
        while is_alive(mark) && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        assert!(!is_alive(mark), "a zombie counts as alive");
    }
}
