//! `docs/performance.md` out of what was measured: the words are here, so that whoever measures again has the page again.

use std::fmt::Write as _;

use crate::{
    figures::Figure,
    report::{At, Budget, Report, Row, Style, number, table},
};

const HEAD: &str = "\
# Performance

Written by `cargo xtask bench`, then `signalbox-meter page`; not by hand. Every figure stands beside its floors and its peers,
measured in the same run and interleaved, so that drift of the machine hits all of them. Broker, bridge, relays and whoever
measures share the processors of one machine. Read ratios, not milliseconds.
";

const HOW: &str = "\
Every figure starts a system of its own: `signalbox up` in a new directory, one broker (R1, the broker's default sync interval),
everything over loopback. A floor is the least that the same machine can do: a round trip through the broker, an acknowledgement
of JetStream, a process that is started and reaped. A peer is another program doing the same job beside ours. `ratio` is the
median by the median of the line that it names.

«Visible» means: it has arrived in an operator's feed, as a console gets it. Simulated relays are everything of a relay on the
wire, signatures included, with a connection each, and no child process. CPU is what the kernel has counted for the process; RSS
and PSS are from `smaps_rollup`. Medians are of all rounds; nothing is left out but a first round where a line says so.

`cargo xtask bench NAME…` measures some of it, `--quick` a tenth; the JSON is in `target/bench`. `cargo xtask profile NAME` draws
where the time goes. `cargo xtask fleet --relays N` keeps a fleet alive for looking at.
";

const RECIPE: &str = "\
## Other systems, by recipe

SSH is measured where `sshd` and `ssh` are installed, asyncssh where `python3` can import it (`pip install asyncssh`). Salt and
Ansible are not started by the meter: their set-up would be measured as much as they. On the same machine:

```sh
# Ansible, warm SSH connections, 100 forks, the least that a module can do. HOSTS: 100 lines `h001 ansible_host=127.0.0.1 …`
ANSIBLE_PIPELINING=1 ANSIBLE_SSH_ARGS='-o ControlMaster=auto -o ControlPersist=60s' \\
  ansible all -i HOSTS -f 100 -m raw -a /bin/true >/dev/null     # once, to make the connections
time ANSIBLE_PIPELINING=1 ANSIBLE_SSH_ARGS='-o ControlMaster=auto -o ControlPersist=60s' \\
  ansible all -i HOSTS -f 100 -m raw -a /bin/true >/dev/null

# Salt, one master and 100 minions, each with a configuration directory of its own (`id`, `root_dir`, `master: 127.0.0.1`).
salt-master -c MASTER -d
for n in $(seq -w 1 100); do salt-minion -c MINION$n -d; done
salt-key -c MASTER -A -y
time salt -c MASTER '*' cmd.run /bin/true --out=quiet            # several times; the first one is slower
```

Compare with «100 real relays» above, and one machine (`-l h001`, `salt m001`) with the line of `signalbox run`: both are whole
programs from start to end.
";

/// The page.
pub(crate) fn page(reports: &[(Figure, Report)]) -> String {
    let mut text = HEAD.to_owned();
    text += &misses(reports);
    text += "\n## How it is measured\n\n";
    text += HOW;
    text += &places(reports);
    for (figure, report) in reports {
        let (title, about) = words(*figure);
        let _in_memory = write!(text, "\n## {title}\n\n{about}\n\n");
        text += &settings(report);
        text += &table(report, Style::Markdown);
    }
    text.push('\n');
    text += RECIPE;
    text
}

/// What a section says before its table.
fn words(figure: Figure) -> (&'static str, &'static str) {
    match figure {
        Figure::Dispatch => (
            "`dispatch`: one command on one machine",
            "From the submission to the exit code in a feed, on a fleet with nothing else to do. The chain without a process is \
             ours on the wire: submit, mailbox, claim, exit, feed; what a real relay adds should be the process and little more.",
        ),
        Figure::Fanout => (
            "`fanout`: one command on many machines",
            "A hundred relay processes with their keepers, then simulated relays. A command on 10,000 machines is granted in ten \
             parts; its author signs each machine's grant, which is part of the time from the preview on.",
        ),
        Figure::Submit => (
            "`submit`: how fast work is accepted",
            "Accepted means acknowledged by JetStream. Each client has a connection and a machine of its own, whose simulated \
             relay takes the work up at once, beside the submissions.",
        ),
        Figure::Idle => (
            "`idle`: what nothing costs",
            "After everything has started, watched for the time below. Bytes are what the kernel counted on the TCP connections \
             of the process, both ways, without headers.",
        ),
        Figure::Output => (
            "`output`: 100 MiB",
            "`head -c 100M /dev/zero` on one relay. Everything is signed for, stored by JetStream, and arrives in order.",
        ),
        Figure::Project => (
            "`project`: streams into a view",
            "Facts of a thousand machines are stored as fast as the broker takes them; then further bridges with an empty folder \
             read all of it. Both check every signature.",
        ),
        Figure::Login => (
            "`login`: connections",
            "A login checks a token and a signature over a nonce. The broker is killed with SIGKILL and started again by its \
             bridge.",
        ),
        Figure::Console => (
            "`console`: what somebody sees",
            "In a real pseudo-terminal of 120 × 40, beside what `cargo xtask fleet` shows in another: all machines give a sign of \
             life every 10 s, and broker, bridge and relays share this machine's processors with the console. The clock in the \
             corner moves once a second.",
        ),
        Figure::ConsoleMany => (
            "`console-many`: ten times as many machines",
            "The same with 100,000 machines, whose signs of life come over one connection: 10,000 a second.",
        ),
        Figure::OldRelays => (
            "`old-relays`: relays of the older system",
            "Each has two kept connections, polls every 5 s and reports every 30 s, as the original does.",
        ),
        Figure::Ssh => (
            "`ssh`: a command on a host behind a machine",
            "What a relay adds to the chain of `dispatch` when the command runs elsewhere: its keeper alone, from the moment at \
             which it is asked to the one at which it says how the run ended. Host keys are checked; asyncssh does not.",
        ),
    }
}

/// Every budget that is not met, the farthest first.
fn misses(reports: &[(Figure, Report)]) -> String {
    let mut lines: Vec<(f64, String)> = Vec::new();
    let mut budgets = 0;
    for (figure, report) in reports {
        budgets += report.rows.iter().map(|row| row.budgets.len()).sum::<usize>();
        for (row, budget) in report.misses() {
            let value = row.at(budget.at);
            let by = value.map_or(f64::INFINITY, |value| {
                if budget.at_least { budget.limit / value } else { value / budget.limit }
            });
            lines.push((by, format!("- `{}`: {}\n", figure.name(), miss(row, budget))));
        }
    }
    lines.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut text = "\n## What is not as it should be\n\n".to_owned();
    let _in_memory = writeln!(
        text,
        "{} of {budgets} budgets are missed{}",
        lines.len(),
        if lines.is_empty() { "." } else { ":\n" }
    );
    let is_empty = lines.is_empty();
    for (_, line) in lines {
        text += &line;
    }
    if !is_empty {
        text += "\n[slow-paths.md](slow-paths.md) says where the time goes, and what would help.\n";
    }
    text
}

/// What is beyond its budget, and by how much.
pub(crate) fn miss(row: &Row, budget: &Budget) -> String {
    let value = row.at(budget.at).map_or_else(|| "nothing".to_owned(), |value| number(value, row.unit));
    let at = if budget.at == At::P99 { " (p99)" } else { "" };
    let sign = if budget.at_least { "≥" } else { "≤" };
    format!("{}: {value}{at}, wanted {sign} {}", row.what, number(budget.limit, row.unit))
}

/// Machines and versions, each once.
fn places(reports: &[(Figure, Report)]) -> String {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for (figure, report) in reports {
        let machine = &report.machine;
        let versions: Vec<String> =
            report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let place = format!(
            "{} × {}, {} MiB, Linux {}; {}",
            machine.processors,
            machine.model,
            machine.memory_mib,
            machine.kernel,
            versions.join(", ")
        );
        let here = format!("`{}` (load {:.2})", figure.name(), machine.load);
        match all.iter_mut().find(|(known, _)| *known == place) {
            Some((_, names)) => names.push(here),
            None => all.push((place, vec![here])),
        }
    }
    let mut text = "\n| where | what, and the load when it began |\n|---|---|\n".to_owned();
    for (place, names) in all {
        let _in_memory = writeln!(text, "| {} | {} |", place.replace('|', "\\|"), names.join(", "));
    }
    text
}

fn settings(report: &Report) -> String {
    let all: Vec<String> = report.settings.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    if all.is_empty() { String::new() } else { format!("Settings: {}.\n\n", all.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Samples, tests::report};

    #[test]
    fn misses_come_first_and_the_farthest_of_them_before_the_others() {
        let mut report = report();
        let mut samples = Samples::ms();
        samples.add(3.0);
        report.add(Row::new("little", &samples).within(Budget::most(2.0, "two")));
        report.add(Row::new("much", &samples).within(Budget::least(9.0, "nine")));
        report.add(Row::new("fine", &samples).within(Budget::most(3.0, "three")));
        let page = page(&[(Figure::Dispatch, report)]);
        let list = "2 of 3 budgets are missed:\n\n- `dispatch`: much: 3.00 ms, wanted ≥ 9.00 ms\n\
                    - `dispatch`: little: 3.00 ms, wanted ≤ 2.00 ms\n";
        assert!(page.contains(list), "{page}");
        assert!(page.find(list) < page.find("| little | 1 |"), "{page}");
        assert!(
            page.contains(
                "| 2 × a processor, 4096 MiB, Linux 6.1; signalbox 0.1.0 (abc) | `dispatch` (load 0.25) |"
            ),
            "{page}"
        );
    }

    #[test]
    fn nothing_measured_is_a_page_too() {
        assert!(page(&[]).contains("0 of 0 budgets are missed.\n"));
    }
}
