//! `signalbox machines` and `signalbox commands`.

use std::io::IsTerminal as _;

use signalbox_schemas::api::{CommandSummary, Listed, MachineView, Page, op};

use super::{
    clean, event,
    exit::{self, Failure},
    printer::{Piece, Printer},
    quantity, run,
    table::{Column, Table, shorten},
};
use crate::{args, client::Client, config::Config};

/// Commands per page.
const PAGE: u32 = 1_000;
/// Columns of the two lists.
const MACHINE_COLUMNS: [Column; 9] = [
    ("MACHINE", 0),
    ("STATE", 0),
    ("CPU", 1),
    ("MEMORY", 2),
    ("LOAD", 3),
    ("RUNS", 4),
    ("WAIT", 5),
    ("HEARD", 0),
    ("SYSTEM", 6),
];
const COMMAND_COLUMNS: [Column; 6] =
    [("ID", 0), ("AGE", 1), ("BY", 4), ("ON", 3), ("STATES", 2), ("COMMAND", 0)];
/// A selector may be 4 KiB long, and the column is as wide as the longest.
const ON_COLUMNS: usize = 32;
/// What stands for what is not known.
const NOTHING: &str = "-";

/// Connects for one question.
pub(super) async fn connect(config: &Config, what: &str) -> Result<Client, Failure> {
    let access = config.access().map_err(|error| Failure::client(what, &error))?;
    Client::connect(access, false).await.map_err(|error| Failure::client(what, &error))
}

/// Prints everything and waits until it is written.
pub(crate) async fn print(text: impl Into<bytes::Bytes>) -> Result<u8, Failure> {
    let printer = Printer::start().map_err(|error| Failure::system("print", &error))?;
    let written = printer.print(Piece::Out(text.into())).await;
    printer.finish().await.map_err(|error| Failure::written(&error))?;
    written.map(|()| exit::OK).map_err(|_| Failure::hangup())
}

/// Width to fit into: the terminal's, if stdout is one.
pub(super) fn columns() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = rustix::termios::tcgetwinsize(&stdout).ok().filter(|_| stdout.is_terminal())?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Lists the machines.
///
/// # Errors
/// [`Failure`].
pub async fn machines(config: &Config, args: &args::Listing) -> Result<u8, Failure> {
    let what = "list the machines";
    let client = connect(config, what).await?;
    let machines = client.machines().await.map_err(|error| Failure::client(what, &error))?;
    if args.json {
        return print(machines.iter().flat_map(event::line).collect::<Vec<u8>>()).await;
    }
    let mut table = Table::new(&MACHINE_COLUMNS);
    for machine in &machines {
        table.push(machine_row(machine));
    }
    print(table.render(columns(), config.environment.ellipsis())).await
}

fn machine_row(machine: &MachineView) -> Vec<String> {
    let metrics = machine.metrics.as_ref();
    let nothing = || NOTHING.to_owned();
    let memory = metrics.and_then(|m| (m.memory_used_bytes * 100).checked_div(m.memory_total_bytes));
    let system = machine.facts.as_ref().map(|facts| format!("{} {}", facts.os, facts.arch));
    vec![
        clean::line(machine.id.as_str()),
        machine.state.as_str().to_owned(),
        metrics.map_or_else(nothing, |m| format!("{:.0} %", m.cpu_percent)),
        memory.map_or_else(nothing, |percent| format!("{percent} %")),
        metrics.map_or_else(nothing, |m| format!("{:.2}", m.load[0])),
        machine.running.to_string(),
        machine.pending.to_string(),
        machine
            .last_seen_at
            .map_or_else(|| "never".to_owned(), |at| format!("{} ago", quantity::show_age(run::age_ms(at)))),
        clean::line(system.unwrap_or_default().trim()),
    ]
}

/// Lists commands, newest first.
///
/// # Errors
/// [`Failure`].
pub async fn commands(config: &Config, args: &args::Commands) -> Result<u8, Failure> {
    let what = "list the commands";
    let client = connect(config, what).await?;
    let mut commands: Vec<CommandSummary> = Vec::new();
    let mut after = None;
    let most = args.limit as usize;
    while commands.len() < most {
        let left = u32::try_from(most - commands.len()).unwrap_or(PAGE).min(PAGE);
        let page = Page { limit: Some(left), after };
        let listed: Listed<CommandSummary> =
            client.ask(op::COMMANDS_LIST, &page).await.map_err(|error| Failure::client(what, &error))?;
        let is_empty = listed.items.is_empty();
        commands.extend(listed.items);
        after = listed.next;
        if after.is_none() || is_empty {
            break;
        }
    }
    commands.truncate(most);
    if args.listing.json {
        return print(commands.iter().flat_map(event::line).collect::<Vec<u8>>()).await;
    }
    let mut table = Table::new(&COMMAND_COLUMNS);
    for command in &commands {
        table.push(command_row(command, config.environment.ellipsis()));
    }
    print(table.render(columns(), config.environment.ellipsis())).await
}

fn command_row(command: &CommandSummary, ellipsis: char) -> Vec<String> {
    vec![
        command.id.to_string(),
        quantity::show_age(run::age_ms(command.created_at)),
        clean::line(&command.by),
        shorten(&clean::line(&command.on), ON_COLUMNS, ellipsis),
        run::show_counts(&command.counts),
        clean::line(&command.command),
    ]
}
