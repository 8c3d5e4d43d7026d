//! Whether somebody could bring us back after a stop.
//!
//! The kernel drops SIGTSTP for a process group that is *orphaned* (POSIX, 11.1.4): one in which no process has a
//! parent in another group of the same session, as a shell with job control is. It does not drop SIGSTOP, so that we
//! have to look ourselves: a terminal that starts the console directly would show it stopped for ever.

use std::fs;

/// Parents that are looked at; a job has fewer, and pids may form a ring while they are used again.
const GENERATIONS: usize = 64;

/// A process as `/proc/PID/stat` names it (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    parent: u32,
    group: u32,
    session: u32,
}

impl Place {
    fn of(pid: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name is in brackets and may hold anything, brackets and spaces included.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(1).map(str::parse);
        let mut next = || fields.next()?.ok();
        Some(Self { parent: next()?, group: next()?, session: next()? })
    }
}

/// Whether an ancestor outside our process group is in our session. Where that cannot be known: yes.
pub(super) fn has_shell() -> bool {
    let Some(us) = Place::of("self") else { return true };
    let mut parent = us.parent;
    for _ in 0..GENERATIONS {
        let Some(place) = Place::of(&parent.to_string()) else { return false };
        if place.group != us.group {
            return place.session == us.session;
        }
        parent = place.parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "4711 (a) b (c) S 12 34 56 34816 4711 4194304";
        assert_eq!(Place::parse(stat), Some(Place { parent: 12, group: 34, session: 56 }));
        assert_eq!(Place::parse("4711 (sh) S 12 -1"), None);
        assert_eq!(Place::parse(""), None);
    }
}
