//! `signalbox output`: what a command printed, in one order or another.

use std::{collections::BTreeMap, io::IsTerminal as _, path::Path};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use signalbox_schemas::{
    api::{Accepted, CommandView, ReadOutput, RunView, Watch},
    id::{CommandId, MachineId},
    limit,
    output::OutputStream,
    run::RunState,
    selector::fold_names_to,
};
use tokio::io::AsyncWriteExt as _;

use super::{
    call, clean, event,
    event::Event,
    exit::{self, Failure},
    follow::{End, Follow, Manner},
    lines::{Lines, Sink},
    printer::{Hangup, Piece, Printer},
    show,
};
use crate::{
    args::look::{By, Output},
    client::{Client, clock::now_ms, digest::Digest, flow},
    config::Config,
    settings::near,
};

/// Output is read in ranges of this size, the most that is allowed.
const RANGE_BYTES: u32 = 512 * 1024;
/// Machines whose output is read at once.
const AT_ONCE: usize = 16;
/// Columns of names above the output that they share.
const NAMES_COLUMNS: usize = 200;

/// Prints the output of a command, or keeps it.
///
/// # Errors
/// [`Failure`].
pub async fn output(config: &Config, args: Output) -> Result<u8, Failure> {
    let what = format!("show the output of {}", args.id);
    if args.follow && args.by == By::Group {
        let line = format!(
            "cannot {what}: what is the same is known when all have ended; leave out --follow or --by group"
        );
        return Err(Failure::new(exit::USAGE, line));
    }
    let client = call::connect(config, &what).await?;
    let view = client.command(args.id).await.map_err(|error| Failure::client(&what, &error))?;
    let runs = chosen(&view, &args.machine)?;
    if let Some(dir) = &args.save {
        return save(&client, args.id, &runs, dir).await;
    }
    let is_over = view.runs.iter().all(|run| run.state.is_settled());
    if args.by == By::Time && !args.follow && !is_over {
        let line = format!("cannot {what} by time: it has not ended; follow it with --follow");
        return Err(Failure::new(exit::USAGE, line));
    }
    let printer = Printer::start().map_err(|error| Failure::system("print", &error))?;
    let written = match args.by {
        _ if args.follow => follow(config, &client, &printer, &args, &runs).await,
        By::Time => follow(config, &client, &printer, &args, &runs).await.map(|_| exit::OK),
        By::Machine => one_by_one(config, &client, &printer, &args, &runs).await,
        By::Group => by_group(config, &client, &printer, &args, &runs).await,
    };
    printer.finish().await.map_err(|error| Failure::written(&error))?;
    written
}

/// The runs on machines that are named, or all.
fn chosen(view: &CommandView, machines: &[String]) -> Result<Vec<RunView>, Failure> {
    let is = |run: &RunView, name: &str| run.machine.as_str() == name || run.machine.token().as_str() == name;
    if let Some(unknown) = machines.iter().find(|name| !view.runs.iter().any(|run| is(run, name.trim()))) {
        let advice = near::advice(unknown, view.runs.iter().map(|run| run.machine.as_str()));
        let line = format!("the command is not for a machine {unknown:?}{advice}");
        return Err(Failure::new(exit::NOT_ACCEPTED, clean::line(&line)));
    }
    let is_chosen = |run: &&RunView| machines.is_empty() || machines.iter().any(|name| is(run, name.trim()));
    Ok(view.runs.iter().filter(is_chosen).cloned().collect())
}

async fn follow(
    config: &Config,
    client: &Client,
    printer: &Printer,
    args: &Output,
    runs: &[RunView],
) -> Result<u8, Failure> {
    let manner = if args.plain.json { Manner::Json } else { Manner::Output };
    let targets = runs.iter().map(|run| run.machine.clone()).collect();
    let accepted = Accepted { id: args.id, targets, cursor: String::new() };
    let mut follow = Follow::new(config, manner, false, &accepted);
    let mut feed = client.feed(Watch::Command { id: args.id, output: true, ended_bytes: None });
    // Nothing lives longer than this.
    let longest = limit::MAX_EXPIRES_IN_MS + limit::TIMEOUT_MS.end() + limit::LOST_GRACE_MS + limit::HOUR_MS;
    let code = follow.follow_to_end(printer, &mut feed, now_ms().saturating_add(longest)).await;
    feed.close().await;
    code.map_err(|end| match end {
        End::Hangup(Hangup) => Failure::hangup(),
        End::Failure(failure) => failure,
    })
}

fn sinks(config: &Config) -> [Sink; 2] {
    let colours = config.environment.has_colours();
    let sink = |is_terminal| Sink { is_terminal, colours };
    [sink(std::io::stdout().is_terminal()), sink(std::io::stderr().is_terminal())]
}

async fn one_by_one(
    config: &Config,
    client: &Client,
    printer: &Printer,
    args: &Output,
    runs: &[RunView],
) -> Result<u8, Failure> {
    let machines: Vec<MachineId> = runs.iter().map(|run| run.machine.clone()).collect();
    let mut lines = Lines::new(&machines, sinks(config));
    for run in runs {
        print_run(client, printer, args, run, &mut lines).await?;
    }
    Ok(exit::OK)
}

async fn print_run(
    client: &Client,
    printer: &Printer,
    args: &Output,
    run: &RunView,
    lines: &mut Lines,
) -> Result<(), Failure> {
    let print = async |piece| printer.print(piece).await.map_err(|Hangup| Failure::hangup());
    for stream in streams(run) {
        each_range(client, args.id, run, stream, async |offset, data| {
            if args.plain.json {
                let piece = flow::Piece { machine: run.machine.clone(), stream, offset, data };
                return print(Piece::Out(Event::output(&piece).line().into())).await;
            }
            print(to(stream, lines.push(&run.machine, stream, &data))).await
        })
        .await?;
        print(to(stream, lines.finish(&run.machine, stream))).await?;
    }
    Ok(())
}

/// The piece that goes to the same stream of ours.
pub(super) fn to(stream: OutputStream, data: Bytes) -> Piece {
    match stream {
        OutputStream::Stdout => Piece::Out(data),
        OutputStream::Stderr => Piece::Err(data),
    }
}

/// The streams that have something.
fn streams(run: &RunView) -> Vec<OutputStream> {
    let all = [(OutputStream::Stdout, &run.stdout), (OutputStream::Stderr, &run.stderr)];
    all.into_iter().filter(|(_, known)| known.bytes > 0).map(|(stream, _)| stream).collect()
}

/// Reads a stream to its end as far as it is known now; `take` gets each piece with its offset.
pub(super) async fn each_range(
    client: &Client,
    id: CommandId,
    run: &RunView,
    stream: OutputStream,
    mut take: impl AsyncFnMut(u64, Bytes) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let what = format!("read the output of {}", clean::line(run.machine.as_str()));
    let mut offset = 0;
    loop {
        let asked = ReadOutput { id, machine: run.machine.to_string(), stream, offset, limit: RANGE_BYTES };
        let range = client.read_output(&asked).await.map_err(|error| Failure::client(&what, &error))?;
        // Nothing more, or an answer that would lead us in a circle.
        if range.data.is_empty() && range.offset <= offset {
            return Ok(());
        }
        offset = range.offset.max(offset) + range.data.len() as u64;
        take(range.offset, range.data).await?;
        if offset >= range.total_bytes {
            return Ok(());
        }
    }
}

/// Writes each stream to a file of its own. Names of machines are foreign, so files are called by their tokens.
async fn save(client: &Client, id: CommandId, runs: &[RunView], dir: &Path) -> Result<u8, Failure> {
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::system(&format!("write {}", clean::line(&path.display().to_string())), error)
    };
    tokio::fs::create_dir_all(dir).await.map_err(|error| failed(dir, &error))?;
    let mut files = 0_usize;
    for run in runs {
        for stream in streams(run) {
            let name = match stream {
                OutputStream::Stdout => "stdout",
                OutputStream::Stderr => "stderr",
            };
            let path = dir.join(format!("{}.{name}", run.machine.token()));
            let file = tokio::fs::OpenOptions::new().write(true).create_new(true).open(&path).await;
            let mut file = file.map_err(|error| failed(&path, &error))?;
            let mut next = 0;
            each_range(client, id, run, stream, async |offset, data| {
                // What was left out is told by `show`; in a file it is a line, so that nobody takes it for whole.
                if offset > next {
                    let gap = format!("\n[signalbox: {} bytes are missing]\n", offset - next);
                    file.write_all(gap.as_bytes()).await.map_err(|error| failed(&path, &error))?;
                }
                next = offset + data.len() as u64;
                file.write_all(&data).await.map_err(|error| failed(&path, &error))
            })
            .await?;
            file.sync_all().await.map_err(|error| failed(&path, &error))?;
            files += 1;
        }
    }
    super::say(&format!(
        "{files} files of {} machines are in {}",
        runs.len(),
        clean::line(&dir.display().to_string())
    ));
    Ok(exit::OK)
}

/// What is the same in a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Same {
    state: RunState,
    end: String,
    /// `None`: it has not settled, and what it printed so far says nothing about others.
    printed: Option<Printed>,
}

/// What a run that has settled printed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Printed {
    stdout: [u8; 32],
    stderr: [u8; 32],
    is_truncated: bool,
}

/// Runs that ended in the same way with the same output, the largest group first; those that go on are told by their state alone.
///
/// The output of each is read and hashed here: the hash that a relay reports of its own would let it pass for others.
async fn by_group(
    config: &Config,
    client: &Client,
    printer: &Printer,
    args: &Output,
    runs: &[RunView],
) -> Result<u8, Failure> {
    let hashed: Vec<(Same, &RunView)> = stream::iter(runs.iter().map(|run| hashed(client, args.id, run)))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    for (same, members) in groups(hashed) {
        let Some(first) = members.first() else { continue };
        let head = heading(&same, &members, args.plain.json);
        printer.print(Piece::Out(head.into())).await.map_err(|Hangup| Failure::hangup())?;
        if same.printed.is_none() {
            continue;
        }
        // Of one machine nothing is told apart.
        let mut lines = Lines::new(std::slice::from_ref(&first.machine), sinks(config));
        print_run(client, printer, args, first, &mut lines).await?;
    }
    Ok(exit::OK)
}

async fn hashed<'a>(
    client: &Client,
    id: CommandId,
    run: &'a RunView,
) -> Result<(Same, &'a RunView), Failure> {
    let mut digests = [Digest::default(), Digest::default()];
    if run.state.is_settled() {
        for stream in streams(run) {
            let [stdout, stderr] = &mut digests;
            let digest = if stream == OutputStream::Stdout { stdout } else { stderr };
            each_range(client, id, run, stream, async |offset, data| {
                digest.take(offset, &data);
                Ok(())
            })
            .await?;
        }
    }
    Ok((same(run, digests), run))
}

/// What a run has in common with others, by what was read of its streams.
fn same(run: &RunView, [mut stdout, mut stderr]: [Digest; 2]) -> Same {
    stdout.end(run.stdout.bytes);
    stderr.end(run.stderr.bytes);
    let printed = run.state.is_settled().then(|| Printed {
        stdout: stdout.get(),
        stderr: stderr.get(),
        is_truncated: run.stdout.truncated || run.stderr.truncated,
    });
    Same { state: run.state, end: show::exit_of(run), printed }
}

fn groups<R>(hashed: Vec<(Same, R)>) -> Vec<(Same, Vec<R>)> {
    let mut groups: BTreeMap<Same, Vec<R>> = BTreeMap::new();
    for (same, run) in hashed {
        groups.entry(same).or_default().push(run);
    }
    let mut groups: Vec<(Same, Vec<R>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    groups
}

fn heading(same: &Same, members: &[&RunView], json: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Group<'a> {
        event: &'static str,
        machines: Vec<&'a MachineId>,
        state: RunState,
        exit: &'a str,
    }
    if json {
        let machines = members.iter().map(|run| &run.machine).collect();
        return event::line(&Group { event: "group", machines, state: same.state, exit: &same.end });
    }
    let names: Vec<String> = members.iter().map(|run| clean::line(run.machine.as_str())).collect();
    let names = fold_names_to(names.iter().map(String::as_str), NAMES_COLUMNS);
    let machines =
        if members.len() == 1 { "1 machine".to_owned() } else { format!("{} machines", members.len()) };
    format!("== {machines}, {}, exit {}: {names}\n", same.state, same.end).into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_ended_in_the_same_way_with_the_same_output_is_one_group() {
        let same = |exit: &str, byte| Same {
            state: RunState::Completed,
            end: exit.to_owned(),
            printed: Some(Printed { stdout: [byte; 32], stderr: [0; 32], is_truncated: false }),
        };
        let grouped =
            groups(vec![(same("0", 1), "a"), (same("0", 2), "b"), (same("1", 2), "c"), (same("0", 2), "d")]);
        let members: Vec<Vec<&str>> = grouped.into_iter().map(|(_, members)| members).collect();
        assert_eq!(members, [vec!["b", "d"], vec!["a"], vec!["c"]]);
    }

    /// A run of which `pieces` of stdout were read, and `bytes` are known to be written.
    fn read(state: &str, pieces: &[(u64, &str)], bytes: u64, truncated: bool) -> Same {
        let stream = |bytes, truncated| json!({ "bytes": bytes, "sha256": null, "truncated": truncated });
        let run = json!({
            "machine": "a", "state": state, "exit_code": null, "signal": null, "error": null, "duration_ms": null,
            "group_dead": null, "stdout": stream(bytes, truncated), "stderr": stream(0, false),
        });
        let mut stdout = Digest::default();
        for (offset, data) in pieces {
            stdout.take(*offset, data.as_bytes());
        }
        same(&serde_json::from_value(run).unwrap(), [stdout, Digest::default()])
    }

    #[test]
    fn what_is_missing_or_cut_is_not_the_same_and_what_goes_on_is_told_by_its_state_alone() {
        let whole = read("completed", &[(0, "abc")], 3, false);
        assert_eq!(read("completed", &[(0, "a"), (1, "bc")], 3, false), whole);
        assert_ne!(read("completed", &[(0, "abc")], 4, false), whole);
        assert_ne!(read("completed", &[(0, "abc")], 3, true), whole);
        assert_eq!(
            read("executing", &[(0, "abc")], 3, false),
            read("executing", &[(0, "x")], 9, true),
            "what comes yet makes them differ"
        );
    }
}
