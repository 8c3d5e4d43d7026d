//! The command line.
//!
//! | room | holds |
//! |---|---|
//! | [`run`] | `run`, `exec` |
//! | [`confirm`] | the question before a command runs |
//! | `follow` | a command that was accepted, to its end |
//! | [`retry`] | `retry` |
//! | [`steer`] | `pause`, `resume`, `abort` |
//! | [`list`] | `machines`, `commands` |
//! | [`show`] | `show`, `cancel` |
//! | [`look`] | `machine`, `status` |
//! | [`output`] | `output` |
//! | [`assignment`] | `assignments`, `assignment`, `relays`, `relay` |
//! | [`credential`] | `credentials`, `shared-credentials`, `shared-credential` |
//! | [`keep`] | `credential`, `host-keys`: what relays keep |
//! | [`shared`] | `recovery-key`, and credentials that more machines get later |
//! | `secret` | what is secret, from a file, stdin or the keyboard |
//! | [`push`] | `pushes`, `push` |
//! | [`work`] | `runs`, `work` |
//! | [`audit`] | `audit` |
//! | [`events`] | `events` |
//! | [`system`] | `machines --at`, `history`, `operators`, `health` |
//! | [`watch`] | `--watch`: a list, drawn over itself, or what changes of it |
//! | `call` | one operation, its answer as JSON, table or card |
//! | `input` | what comes from a file or from stdin |
//! | [`config`], [`context`] | `config`, `context` |
//! | [`complete`] | `completions`, and what is completed at run time |
//! | [`man`] | `man` |
//! | [`decode`] | `decode` |
//! | [`console`] | the terminal console |
//! | [`event`] | the lines of `--json` (pure) |
//! | [`exit`] | exit codes and the one line of a failure (pure) |
//! | [`clean`], [`lines`], [`table`], [`card`], [`quantity`] | text for people (pure) |
//! | [`printer`] | the one writer to stdout and stderr |

pub mod assignment;
pub mod audit;
pub(crate) mod call;
pub mod card;
pub mod clean;
pub mod complete;
pub mod config;
pub mod confirm;
pub mod console;
pub mod context;
pub mod credential;
pub mod decode;
pub mod event;
pub mod events;
pub mod exit;
mod follow;
mod input;
pub mod keep;
pub mod label;
pub mod lines;
pub mod list;
pub mod look;
pub mod man;
pub mod output;
pub mod printer;
pub mod push;
pub mod quantity;
pub mod retry;
pub mod run;
mod secret;
pub mod shared;
pub mod show;
pub mod steer;
pub mod system;
pub mod table;
pub mod watch;
pub mod work;

use std::io::Write as _;

use signalbox_schemas::{error::report, rollout::Steer};

use crate::{
    args::Action,
    config::{Asked, Config, ConfigError, Environment},
};
use exit::Failure;

/// Does one thing; answers the exit code.
///
/// # Errors
/// [`Failure`] with exit code and line.
pub async fn act(
    config: Result<Config, ConfigError>,
    (asked, environment): (Asked, Environment),
    action: Option<Action>,
) -> Result<u8, Failure> {
    let action = match action {
        // These need no fleet, and no configuration that is right.
        Some(Action::Completions { shell }) => return complete::script(shell).await,
        Some(Action::Man { dir }) => return man::man(dir.as_deref()).await,
        Some(Action::Config(config)) => return config::act(&environment, config).await,
        Some(Action::Context(context)) => return context::act(asked, environment, context).await,
        Some(Action::Decode(decode)) => {
            return decode::decode(config.ok().as_ref().map(|config| &config.layout), decode).await;
        }
        other => other,
    };
    let config = &config.map_err(|error| Failure::new(exit::USAGE, clean::line(&report(&error))))?;
    match action {
        None => console::alone(config).await,
        Some(Action::Up(up)) => crate::up::up(config, &up).await,
        Some(Action::Run(run)) => run::run(config, run).await,
        Some(Action::Machines(machines)) => match machines.at {
            Some(at) => system::fleet_at(config, &machines, at).await,
            None => list::machines(config, &machines).await,
        },
        Some(Action::History(history)) => system::history(config, &history).await,
        Some(Action::Events(events)) => events::events(config, &events).await,
        Some(Action::Operators(listing)) => system::operators(config, &listing).await,
        Some(Action::Health(listing)) => system::health(config, &listing).await,
        Some(Action::Commands(commands)) => list::commands(config, &commands).await,
        Some(Action::Show(show)) => show::show(config, &show).await,
        Some(Action::Cancel(one)) => show::cancel(config, &one).await,
        Some(Action::Pause(one)) => steer::steer(config, &one, Steer::Pause).await,
        Some(Action::Resume(one)) => steer::steer(config, &one, Steer::Resume).await,
        Some(Action::Abort(one)) => steer::steer(config, &one, Steer::Abort).await,
        Some(Action::Retry(retry)) => retry::retry(config, retry).await,
        Some(Action::Exec(exec)) => run::exec(config, exec).await,
        Some(Action::Runs(runs)) => work::list(config, runs).await,
        Some(Action::Assignments(assignments)) => assignment::list(config, assignments).await,
        Some(Action::Assignment(assignment)) => assignment::act(config, assignment).await,
        Some(Action::Relays(relays)) => assignment::relays(config, relays).await,
        Some(Action::Relay(relay)) => assignment::relay(config, relay).await,
        Some(Action::Credential(credential)) => keep::credential(config, credential).await,
        Some(Action::RecoveryKey(key)) => shared::recovery_key(config, key).await,
        Some(Action::HostKeys(keys)) => keep::host_keys(config, keys).await,
        Some(Action::Credentials(credentials)) => credential::list(config, credentials).await,
        Some(Action::SharedCredentials(listing)) => credential::shared(config, &listing).await,
        Some(Action::SharedCredential(shared)) => credential::act(config, shared).await,
        Some(Action::Pushes(pushes)) => push::list(config, pushes).await,
        Some(Action::Push(push)) => push::act(config, push).await,
        Some(Action::Audit(asked)) => audit::audit(config, &asked).await,
        Some(Action::Work(work)) => work::act(config, work).await,
        Some(Action::Label(label)) => label::act(config, label).await,
        Some(Action::Machine(args)) => look::machine(config, &args).await,
        Some(Action::Status(args)) => look::status(config, &args).await,
        Some(Action::Output(args)) => output::output(config, args).await,
        // Done above.
        Some(
            Action::Decode(_)
            | Action::Completions { .. }
            | Action::Man { .. }
            | Action::Config(_)
            | Action::Context(_),
        ) => Ok(exit::OK),
    }
}

/// One line on stderr, with the program's name before it.
pub fn say(line: &str) {
    // There is no third place to tell that stderr is closed.
    let _ = writeln!(std::io::stderr(), "signalbox: {line}");
}
