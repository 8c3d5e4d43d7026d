//! `signalbox config`.

use std::path::Path;

use super::{
    call, clean, event,
    exit::{self, Failure},
};
use crate::{
    args::fleet::{Config as Args, ConfigAction},
    config::Environment,
    settings::{
        Settings,
        file::{self, MOST_BYTES},
        page,
    },
};

/// Does one thing with the configuration. Needs none that is right.
///
/// # Errors
/// [`Failure`]; [`exit::USAGE`] for a file that is not what it should be.
pub async fn act(environment: &Environment, args: Args) -> Result<u8, Failure> {
    match args.action {
        ConfigAction::Path => {
            let path = file::path(environment).ok_or_else(no_place)?;
            call::print(format!("{}\n", clean::line(&path.display().to_string()))).await
        }
        ConfigAction::Default => call::print(page::default_file()).await,
        ConfigAction::Schema => call::print(event::line(&page::schema())).await,
        ConfigAction::Check { file } => match file {
            Some(path) if path.as_os_str() == "-" => check("standard input", &stdin().await?).await,
            Some(path) => check_file(&path, true).await,
            None => check_file(&file::path(environment).ok_or_else(no_place)?, false).await,
        },
    }
}

fn no_place() -> Failure {
    let line = "cannot find the configuration: name it with SIGNALBOX_CONFIG, or set HOME";
    Failure::new(exit::USAGE, line)
}

async fn stdin() -> Result<String, Failure> {
    let bytes = super::input::bytes(
        Path::new("-"),
        usize::try_from(MOST_BYTES).unwrap_or(usize::MAX),
        "the configuration",
    )
    .await?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(exit::USAGE, "cannot check the configuration: it is no UTF-8"))
}

/// `must_exist`: it was named.
async fn check_file(path: &Path, must_exist: bool) -> Result<u8, Failure> {
    let name = clean::line(&path.display().to_string());
    let read = file::read_text(path);
    match read.map_err(|error| Failure::system("check the configuration", &error).usage())? {
        Some(text) => check(&name, &text).await,
        None if must_exist => {
            Err(Failure::new(exit::USAGE, format!("cannot check the configuration: there is no {name}")))
        }
        None => call::print(format!("{name} does not exist: everything is as it is without it\n")).await,
    }
}

async fn check(name: &str, text: &str) -> Result<u8, Failure> {
    match Settings::read(text) {
        Ok(settings) => {
            let (contexts, commands) = (settings.contexts.len(), settings.commands.len());
            let line = format!("{name} is right: {contexts} contexts, {commands} saved commands\n");
            call::print(line).await
        }
        Err(problems) => {
            let lines: Vec<String> = problems
                .iter()
                .map(|problem| format!("{name}:{}\n", clean::line(&problem.to_string())))
                .collect();
            call::print(lines.concat()).await?;
            Ok(exit::USAGE)
        }
    }
}
