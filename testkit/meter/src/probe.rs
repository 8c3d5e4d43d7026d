//! What the kernel knows of a process.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use signalbox_testkit::process::find;

/// CPU time that a process has used, ms, in steps of 10.
pub(crate) fn cpu_ms(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("odd stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok());
    // Fields 14 and 15 of proc(5), counted from the state; a tick is 10 ms on every Linux we run on.
    let (user, system) = (ticks(11).context("no utime")?, ticks(12).context("no stime")?);
    Ok((user + system) * 10)
}

/// Resident and proportional memory, KiB.
pub(crate) fn memory_kib(pid: u32) -> Result<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok((kib(&text, "Rss:")?, kib(&text, "Pss:")?))
}

/// Highest resident memory so far, KiB.
pub(crate) fn peak_kib(pid: u32) -> Result<u64> {
    kib(&std::fs::read_to_string(format!("/proc/{pid}/status"))?, "VmHWM:")
}

fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    line.trim().trim_end_matches("kB").trim().parse().context("odd number")
}

/// Bytes that the present TCP connections of a process have carried, both ways; none where `ss` is not installed.
pub(crate) fn tcp_bytes(pid: u32) -> Result<Option<u64>> {
    let Some(ss) = find("ss") else { return Ok(None) };
    let output = Command::new(ss).args(["-tinpHO"]).output().context("starting ss")?;
    ensure!(output.status.success(), "ss ended with {}", output.status);
    Ok(Some(carried(&String::from_utf8_lossy(&output.stdout), pid)))
}

/// Sums `bytes_sent` and `bytes_received` over the lines that belong to a process.
fn carried(text: &str, pid: u32) -> u64 {
    let owner = format!("pid={pid},");
    let words = text.lines().filter(|line| line.contains(&owner)).flat_map(str::split_whitespace);
    words
        .filter_map(|word| word.strip_prefix("bytes_sent:").or_else(|| word.strip_prefix("bytes_received:")))
        .filter_map(|number| number.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_process_are_summed() {
        let text = "ESTAB 0 0 127.0.0.1:1 127.0.0.1:2 users:((\"a\",pid=12,fd=3)) cubic bytes_sent:10 bytes_acked:10 bytes_received:5\n\
                    ESTAB 0 0 127.0.0.1:2 127.0.0.1:1 users:((\"b\",pid=2,fd=3)) cubic bytes_sent:5 bytes_received:10\n\
                    ESTAB 0 0 127.0.0.1:3 127.0.0.1:2 users:((\"a\",pid=12,fd=4)) cubic bytes_received:1\n";
        assert_eq!((carried(text, 12), carried(text, 2), carried(text, 1)), (16, 15, 0));
    }

    #[test]
    fn this_process_is_known() {
        let pid = std::process::id();
        let (rss, pss) = memory_kib(pid).unwrap();
        assert!(rss > 0 && pss > 0 && peak_kib(pid).unwrap() >= rss / 2, "{rss} {pss}");
        cpu_ms(pid).unwrap();
    }
}
