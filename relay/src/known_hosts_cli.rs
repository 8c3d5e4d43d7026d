//! `signalbox-relay known-hosts`: what this machine knows of the hosts behind it.

use std::{
    fmt,
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    config::Ssh,
    lock::make_store,
    ssh::{
        known_hosts::{
            FILE_BYTES, Marker,
            file::{KnownHosts, KnownHostsError},
            host_and_port,
        },
        scan::{self, HostKey, ScanError},
    },
};

/// What `known-hosts` was given.
#[derive(Debug, Args)]
pub struct KnownHostsArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: KnownHostsAction,
    /// The relay's store, whose `known_hosts` is meant.
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Another file, as `known_hosts` of the table `ssh` in relay.toml names it.
    #[arg(long, global = true, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// What to do with known hosts.
#[derive(Debug, Subcommand)]
pub enum KnownHostsAction {
    /// Shows what is known.
    List,
    /// Asks hosts for their keys and shows them; compare them on the hosts themselves.
    Scan {
        /// `host`, `host:port` or `[host]:port`.
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
        /// Then adds them, after asking on a terminal.
        #[arg(long)]
        add: bool,
        /// Does not ask.
        #[arg(long, requires = "add")]
        yes: bool,
    },
    /// Adds lines, as `scan` and `ssh-keyscan` print them.
    Add {
        /// `[@marker] hosts type key`, or `-` for standard input.
        #[arg(required = true, value_name = "LINE")]
        line: Vec<String>,
    },
    /// Forgets what is known of hosts.
    Remove {
        /// `host`, `host:port` or `[host]:port`.
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
    },
}

/// It was not done.
#[derive(Debug, thiserror::Error)]
pub enum KnownHostsCliError {
    /// Nobody said which file is meant.
    #[error("say which relay is meant by `--store DIR`, or which file by `--file FILE`")]
    NoFile,
    /// The file.
    #[error(transparent)]
    File(#[from] KnownHostsError),
    /// A host does not tell its keys.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A host is none.
    #[error("no host: {0:?}; write `host`, `host:port` or `[host]:port`")]
    Host(String),
    /// Who would have to be asked is not there.
    #[error("nothing was added: there is no terminal to ask on; compare the keys, and say --yes")]
    NobodyToAsk,
    /// Who was asked said no.
    #[error("nothing was added")]
    NotWanted,
    /// The system.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl KnownHostsCliError {
    fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// What is known, as `--json` prints it.
#[derive(Serialize)]
struct Shown<'a> {
    line: usize,
    marker: Option<&'static str>,
    hosts: &'a str,
    key_type: &'a str,
    fingerprint: String,
}

/// What was changed, as `--json` prints it.
#[derive(Serialize)]
struct Counted {
    added: usize,
    removed: usize,
}

/// A key that a host showed, as `--json` prints it.
#[derive(Serialize)]
struct Scanned<'a> {
    host: &'a str,
    key_type: &'a str,
    fingerprint: &'a str,
    line: &'a str,
}

/// Does what was asked for.
///
/// # Errors
/// [`KnownHostsCliError`].
pub fn main_blocking(args: KnownHostsArgs) -> Result<(), KnownHostsCliError> {
    let path = match (args.file, args.store) {
        (Some(file), _) => {
            std::path::absolute(file).map_err(KnownHostsCliError::system("the file has no path"))?
        }
        (None, Some(store)) => {
            // Before the relay has begun there may be none.
            if matches!(args.action, KnownHostsAction::Add { .. } | KnownHostsAction::Scan { add: true, .. })
            {
                make_store(&store).map_err(KnownHostsCliError::system("the store cannot be made"))?;
            }
            Ssh::default().known_hosts(&store)
        }
        (None, None) => return Err(KnownHostsCliError::NoFile),
    };
    let (file, json) = (KnownHosts::at(&path), args.json);
    match args.action {
        KnownHostsAction::List => list(&file, json),
        KnownHostsAction::Scan { hosts, add, yes } => scan_hosts(&file, &hosts, add, yes, json),
        KnownHostsAction::Add { line } => {
            let lines = if line == ["-"] { lines_of_stdin()? } else { vec![line.join(" ")] };
            told(&file, json, file.add_lines(&lines)?, 0)
        }
        KnownHostsAction::Remove { hosts } => told(&file, json, 0, file.remove_hosts(&hosts)?),
    }
}

fn list(file: &KnownHosts, json: bool) -> Result<(), KnownHostsCliError> {
    let lines = file.read()?;
    let shown: Vec<Shown<'_>> = lines
        .iter()
        .map(|line| Shown {
            line: line.number,
            marker: line.marker.map(|marker| match marker {
                Marker::Revoked => "@revoked",
                Marker::Authority => "@cert-authority",
            }),
            hosts: &line.hosts,
            key_type: &line.key_type,
            fingerprint: line.fingerprint(),
        })
        .collect();
    if json {
        return print_json(&shown);
    }
    let text = shown.iter().map(|line| {
        let marker = line.marker.map(|marker| format!("{marker} ")).unwrap_or_default();
        format!("{}: {marker}{} {} {}\n", line.line, line.hosts, line.key_type, line.fingerprint)
    });
    print(text.collect::<String>())
}

fn scan_hosts(
    file: &KnownHosts,
    hosts: &[String],
    add: bool,
    yes: bool,
    json: bool,
) -> Result<(), KnownHostsCliError> {
    let places: Vec<(String, u16)> = hosts
        .iter()
        .map(|text| host_and_port(text).ok_or_else(|| no_host(text)))
        .collect::<Result<_, KnownHostsCliError>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(KnownHostsCliError::system("no runtime"))?;
    let found = runtime.block_on(scan_all(&places));
    // A name that is still being resolved must not hold the end, least of all where that is what failed.
    runtime.shutdown_background();
    let found = found?;
    if json {
        let scanned: Vec<Scanned<'_>> = found
            .iter()
            .map(|key| Scanned {
                host: &key.name,
                key_type: &key.key_type,
                fingerprint: &key.fingerprint,
                line: &key.line,
            })
            .collect();
        print_json(&scanned)?;
    } else {
        let text = found.iter().map(|key| format!("# {} {}\n{}\n", key.name, key.fingerprint, key.line));
        print(text.collect::<String>())?;
    }
    if !add {
        return Ok(());
    }
    if !yes {
        ask(file.path())?;
    }
    let lines: Vec<String> = found.into_iter().map(|key| key.line).collect();
    let added = file.add_lines(&lines)?;
    // With --json standard output is one document, which has been printed.
    say(&format!("{added} lines were added to {}", file.path().display()));
    Ok(())
}

async fn scan_all(places: &[(String, u16)]) -> Result<Vec<HostKey>, ScanError> {
    let mut found = Vec::new();
    for (host, port) in places {
        found.extend(scan::scan(host, *port).await?);
    }
    Ok(found)
}

fn no_host(text: &str) -> KnownHostsCliError {
    KnownHostsCliError::Host(text.chars().take(80).collect())
}

/// Asks whether the keys that were shown are right.
fn ask(path: &Path) -> Result<(), KnownHostsCliError> {
    if !io::stdin().is_terminal() {
        return Err(KnownHostsCliError::NobodyToAsk);
    }
    say(&format!("Are these the keys that the hosts themselves show? Add them to {}? [y/N]", path.display()));
    let mut answer = String::new();
    io::stdin().lock().take(16).read_line(&mut answer).map_err(KnownHostsCliError::system("no answer"))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(KnownHostsCliError::NotWanted) }
}

fn lines_of_stdin() -> Result<Vec<String>, KnownHostsCliError> {
    let mut text = String::new();
    let read = io::stdin().lock().take(FILE_BYTES as u64).read_to_string(&mut text);
    read.map_err(KnownHostsCliError::system("standard input cannot be read"))?;
    let is_line = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    Ok(text.lines().filter(is_line).map(str::to_owned).collect())
}

fn told(file: &KnownHosts, json: bool, added: usize, removed: usize) -> Result<(), KnownHostsCliError> {
    if json {
        return print_json(&Counted { added, removed });
    }
    print(format!("{}: {added} added, {removed} removed\n", file.path().display()))
}

fn print_json(value: &impl Serialize) -> Result<(), KnownHostsCliError> {
    let text =
        serde_json::to_string(value).map_err(|error| KnownHostsCliError::system("no JSON")(error.into()))?;
    print(format!("{text}\n"))
}

fn print(text: impl fmt::Display) -> Result<(), KnownHostsCliError> {
    write!(io::stdout(), "{text}").map_err(KnownHostsCliError::system("standard output takes nothing"))
}

fn say(text: &str) {
    // Where nobody reads, nothing is lost.
    drop(writeln!(io::stderr(), "{text}"));
}
