//! The command line.
//!
//! | room | holds |
//! |---|---|
//! | [`run`] | `run` |
//! | [`list`] | `machines`, `commands` |
//! | [`show`] | `show`, `cancel` |
//! | [`decode`] | `decode` |
//! | [`console`] | the terminal console |
//! | [`event`] | the lines of `--json` (pure) |
//! | [`exit`] | exit codes and the one line of a failure (pure) |
//! | [`clean`], [`lines`], [`table`], [`quantity`] | text for people (pure) |
//! | [`printer`] | the one writer to stdout and stderr |

pub mod clean;
pub mod console;
pub mod decode;
pub mod event;
pub mod exit;
pub mod lines;
pub mod list;
pub mod printer;
pub mod quantity;
pub mod run;
pub mod show;
pub mod table;

use std::io::Write as _;

use clap::CommandFactory as _;

use signalbox_schemas::error::report;

use crate::{
    args::{Action, Args},
    config::{Config, ConfigError},
};
use exit::Failure;

/// Does one thing; answers the exit code.
///
/// # Errors
/// [`Failure`] with exit code and line.
pub async fn act(config: Result<Config, ConfigError>, action: Option<Action>) -> Result<u8, Failure> {
    let action = match action {
        // These two need no state directory.
        Some(Action::Decode(decode)) => {
            return decode::decode(config.ok().as_ref().map(|config| &config.layout), decode).await;
        }
        Some(Action::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "signalbox", &mut text);
            return list::print(text).await;
        }
        other => other,
    };
    let config = &config.map_err(|error| Failure::new(exit::USAGE, report(&error)))?;
    match action {
        None => console::alone(config).await,
        Some(Action::Up(up)) => crate::up::up(config, &up).await,
        Some(Action::Run(run)) => run::run(config, run).await,
        Some(Action::Machines(listing)) => list::machines(config, &listing).await,
        Some(Action::Commands(commands)) => list::commands(config, &commands).await,
        Some(Action::Show(show)) => show::show(config, &show).await,
        Some(Action::Cancel(one)) => show::cancel(config, &one).await,
        // Done above.
        Some(Action::Decode(_) | Action::Completions { .. }) => Ok(exit::OK),
    }
}

/// One line on stderr, with the program's name before it.
pub fn say(line: &str) {
    // There is no third place to tell that stderr is closed.
    let _ = writeln!(std::io::stderr(), "signalbox: {line}");
}
