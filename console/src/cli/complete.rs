//! Completion of what is only known when it is asked for: machines, commands, contexts.
//!
//! The shell runs this program again for each Tab (`COMPLETE=bash signalbox …`). Contexts are read from the configuration;
//! machines and commands are asked of a bridge, for a moment only: whoever waits for Tab would rather type. Whatever goes wrong,
//! nothing is offered and nothing is said.

use std::{ffi::OsStr, time::Duration};

use clap_complete::{
    ArgValueCompleter, CompletionCandidate,
    env::{CompleteEnv, Shells},
};
use signalbox_schemas::{
    api::{CommandSummary, MachineView, Page, op},
    selector::Selector,
};

use super::{
    call, clean,
    exit::{self, Failure},
};
use crate::{
    args::Args,
    client::Client,
    config::{Asked, Config, Environment},
    contexts::NONE,
};

/// Longest wait for a bridge.
const PATIENCE: Duration = Duration::from_millis(700);
/// Most machines that are offered; more is not read on a screen.
const MACHINES: usize = 2_000;
/// Most commands that are offered: the newest.
const COMMANDS: usize = 50;
/// The variable that asks for completion.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks for completion, and ends the program then; returns at once where none does.
pub fn answer() {
    CompleteEnv::with_factory(whole).var(VARIABLE).complete();
}

/// Prints what a shell needs.
///
/// # Errors
/// [`Failure`].
pub async fn script(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let shells = Shells::builtins();
    let Some(completer) = shells.completer(&shell.to_string()) else {
        return Err(Failure::new(exit::USAGE, format!("cannot complete in {shell}: it is not known here")));
    };
    let mut text = Vec::new();
    completer
        .write_registration(VARIABLE, "signalbox", "signalbox", "signalbox", &mut text)
        .map_err(|error| Failure::system("print the completions", &error))?;
    call::print(text).await
}

/// The command line, with what is completed at run time.
fn whole() -> clap::Command {
    within(Args::whole())
}

fn within(mut command: clap::Command) -> clap::Command {
    let is_context = command.get_name() == "context";
    command = command.mut_args(|arg| {
        let id = arg.get_id().as_str().to_owned();
        // By the names that they have everywhere.
        let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        match (id.as_str(), name.as_deref()) {
            ("context", _) => arg.add(ArgValueCompleter::new(contexts)),
            ("saved", _) => arg.add(ArgValueCompleter::new(saved)),
            (_, Some("SELECTOR" | "MACHINE")) | ("machine", _) => arg.add(ArgValueCompleter::new(machines)),
            ("id", Some("ID")) => arg.add(ArgValueCompleter::new(commands)),
            _ => arg,
        }
    });
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |sub| {
            let sub = within(sub);
            match (is_context, sub.get_name()) {
                (true, "show" | "use" | "remove" | "rename") => {
                    sub.mut_arg("name", |arg| arg.add(ArgValueCompleter::new(contexts)))
                }
                _ => sub,
            }
        });
    }
    if command.get_name() == "machine" {
        command = command.mut_arg("name", |arg| arg.add(ArgValueCompleter::new(machines)));
    }
    command
}

fn config() -> Option<Config> {
    let environment = Environment::read(|name| std::env::var_os(name));
    // What stands in the line so far names the fleet.
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let value = |flag: &str| {
        let with = format!("{flag}=");
        let at = words.iter().rposition(|word| word == flag || word.starts_with(&with))?;
        let word = words.get(at)?;
        word.strip_prefix(&with).or_else(|| words.get(at + 1).map(String::as_str)).map(str::to_owned)
    };
    let asked = Asked {
        state_dir: value("--state-dir").map(Into::into),
        nats_url: value("--nats"),
        context: value("--context"),
    };
    Config::read(asked, environment).ok()
}

fn contexts(typed: &OsStr) -> Vec<CompletionCandidate> {
    // The context that stands in the line may be the one that is being typed.
    let environment = Environment::read(|name| std::env::var_os(name));
    let file = crate::settings::file::path(&environment);
    let settings = file.and_then(|file| crate::settings::file::read(&file).ok()).unwrap_or_default();
    let names: Vec<String> = settings.contexts.into_keys().chain([NONE.to_owned()]).collect();
    beginning(typed, names.into_iter().map(|name| (name, None)))
}

fn saved(typed: &OsStr) -> Vec<CompletionCandidate> {
    let commands = config().map(|config| config.settings.commands).unwrap_or_default();
    beginning(typed, commands.into_iter().map(|saved| (saved.name, Some(saved.text))))
}

fn machines(typed: &OsStr) -> Vec<CompletionCandidate> {
    let machines: Vec<MachineView> =
        ask(async |client| client.list(op::MACHINES_LIST, Page::default(), MACHINES).await.ok());
    let named =
        |machine: MachineView| (machine.id.as_str().to_owned(), Some(machine.state.as_str().to_owned()));
    beginning(typed, machines.into_iter().filter(|machine| means_itself(machine.id.as_str())).map(named))
}

fn commands(typed: &OsStr) -> Vec<CompletionCandidate> {
    let commands: Vec<CommandSummary> =
        ask(async |client| client.list(op::COMMANDS_LIST, Page::default(), COMMANDS).await.ok());
    beginning(typed, commands.into_iter().map(|command| (command.id.to_string(), Some(command.command))))
}

/// Whether a shell hands this word over as it stands, whatever shell it is, and it is no option. Names are foreign: in another
/// one a shell might see a quote to take away, or a command of its own.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+%-".contains(&byte);
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(is_plain)
}

/// A machine's id, if a selector means that machine by it without quotes: a shell would take them away, and what is left of
/// `"all"` means every machine.
fn means_itself(id: &str) -> bool {
    Selector::of_machine(id) == id
}

/// What begins as it was typed. What is foreign is shown by the shell: it is cleaned, and what would not come back as it is
/// named is not offered.
fn beginning(
    typed: &OsStr,
    names: impl IntoIterator<Item = (String, Option<String>)>,
) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let fits = |name: &String| name.starts_with(typed) && is_plain(name);
    names
        .into_iter()
        .filter(|(name, _)| fits(name))
        .map(|(name, help)| {
            let help = help.map(|help| super::table::shorten(&clean::line(&help), 60, '~'));
            CompletionCandidate::new(name).help(help.map(Into::into))
        })
        .collect()
}

/// Asks a bridge, for a moment.
fn ask<T: Default>(question: impl AsyncFn(Client) -> Option<T>) -> T {
    let Some(access) = config().and_then(|config| config.access().ok()) else { return T::default() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return T::default();
    };
    let asked = async {
        let client = Client::connect(access, false).await.ok()?;
        question(client).await
    };
    let answered = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
    runtime.shutdown_background();
    answered.ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_shell_hands_over_as_it_stands_is_offered() {
        let names = [
            "web-1",
            "eu.web:1/a@b+c%",
            "web&halt",
            "a b",
            "$(halt)",
            "`halt`",
            "\"all\"",
            "-x",
            "",
            "w~",
            "é",
        ];
        let offered = beginning(OsStr::new(""), names.map(|name| (name.to_owned(), None)));
        let offered: Vec<_> = offered.iter().map(|it| it.get_value().to_str().unwrap()).collect();
        assert_eq!(offered, ["web-1", "eu.web:1/a@b+c%"]);
        assert!(means_itself("web-1") && !means_itself("all") && !means_itself("web-*"));
    }
}
