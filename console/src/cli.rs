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

use crate::{
    args::{Action, Args},
    config::Config,
};
use exit::Failure;

/// Does one thing; answers the exit code.
///
/// # Errors
/// [`Failure`] with exit code and line.
pub async fn act(config: &Config, action: Option<Action>) -> Result<u8, Failure> {
    match action {
        None => console::alone(config).await,
        Some(Action::Up(up)) => crate::up::up(config, &up).await,
        Some(Action::Run(run)) => run::run(config, run).await,
        Some(Action::Machines(listing)) => list::machines(config, &listing).await,
        Some(Action::Commands(commands)) => list::commands(config, &commands).await,
        Some(Action::Show(show)) => show::show(config, &show).await,
        Some(Action::Cancel(one)) => show::cancel(config, &one).await,
        Some(Action::Decode(decode)) => decode::decode(config, decode).await,
        Some(Action::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "signalbox", &mut text);
            list::print(text).await
        }
    }
}

/// One line on stderr, with the program's name before it.
pub fn say(line: &str) {
    // There is no third place to tell that stderr is closed.
    let _ = writeln!(std::io::stderr(), "signalbox: {line}");
}
