//! Where values come from: a file, standard input, or a terminal that is asked.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use signalbox_schemas::{
    Secret,
    credential::{CredentialType, CredentialValue},
    limit::CREDENTIAL_VALUE_BYTES,
};
use signalbox_tty::AskError;
use zeroize::Zeroizing;

use super::{CliError, args::AddArgs};
use crate::vault::key::{self, KeyFault};

/// Stands for standard input.
const STDIN: &str = "-";

/// Reads what is to be kept, and checks that a private key opens with its passphrase.
pub(super) fn value(args: &AddArgs) -> Result<CredentialValue, CliError> {
    check_options(args)?;
    match args.credential_type {
        CredentialType::SshKey => ssh_key(args),
        CredentialType::Password => Ok(CredentialValue::Password { password: text(args, "Password")? }),
        CredentialType::ApiKey => Ok(CredentialValue::ApiKey { key: text(args, "Token")? }),
    }
}

/// Which options go with which type.
fn check_options(args: &AddArgs) -> Result<(), CliError> {
    let AddArgs { credential_type, key_file, cert_file, passphrase_file, value_file, .. } = args;
    let of_keys =
        [("--key-file", key_file), ("--cert-file", cert_file), ("--passphrase-file", passphrase_file)];
    let is_key = *credential_type == CredentialType::SshKey;
    let stray = if is_key {
        value_file.as_ref().map(|_| "--value-file")
    } else {
        of_keys.iter().find_map(|(option, file)| file.as_ref().map(|_| *option))
    };
    if let Some(option) = stray {
        let type_name = credential_type.as_str();
        return Err(CliError::Usage(format!("{option} does not go with --type {type_name}")));
    }
    let on_stdin = of_keys.iter().filter(|(_, file)| file.as_deref().is_some_and(is_stdin)).count();
    if on_stdin > 1 {
        return Err(CliError::Usage("standard input (-) can be one of the files only".to_owned()));
    }
    Ok(())
}

fn ssh_key(args: &AddArgs) -> Result<CredentialValue, CliError> {
    let Some(path) = &args.key_file else {
        let missing = "the private key is missing: --key-file FILE, or - for standard input";
        return Err(CliError::Usage(missing.to_owned()));
    };
    let fault = |fault| CliError::Key { path: path.clone(), fault };
    let key = read(path)?;
    let passphrase = match &args.passphrase_file {
        Some(path) => Some(line(path)?),
        None if key::is_encrypted(&key).map_err(fault)? => Some(asked_passphrase(path)?),
        None => None,
    };
    let certificate = args.cert_file.as_deref().map(read).transpose()?;
    let certificate = certificate.map(|text| text.expose().trim().to_owned());
    let value = CredentialValue::SshKey { key, passphrase, certificate };
    let opened = key::open(&value).map_err(fault)?;
    key::certificate(&value, &opened).map_err(fault)?;
    Ok(value)
}

fn asked_passphrase(path: &Path) -> Result<Secret, CliError> {
    match asked(&format!("Passphrase of {}", path.display())) {
        // Without anybody to ask it is simply missing.
        Err(AskError::NoTerminal(_)) => {
            Err(CliError::Key { path: path.to_owned(), fault: KeyFault::Passphrase })
        }
        asked => asked.map_err(|source| CliError::Prompt { what: "the passphrase", source }),
    }
}

/// A password or token.
fn text(args: &AddArgs, what: &'static str) -> Result<Secret, CliError> {
    if let Some(path) = &args.value_file {
        return line(path);
    }
    let failed = |source| match source {
        AskError::NoTerminal(_) => CliError::Usage(
            "the value is missing: --value-file FILE, or - for standard input; there is no terminal to ask"
                .to_owned(),
        ),
        source => CliError::Prompt { what: "the value", source },
    };
    let first = asked(what).map_err(failed)?;
    if asked("Once more").map_err(failed)? != first {
        return Err(CliError::Differ);
    }
    Ok(first)
}

/// What is typed at the terminal.
pub(super) fn asked(what: &str) -> Result<Secret, AskError> {
    signalbox_tty::ask_blocking(what, CREDENTIAL_VALUE_BYTES)
}

pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new(STDIN)
}

/// A file's text without the line end behind it.
pub(super) fn line(path: &Path) -> Result<Secret, CliError> {
    let line = read(path)?.without_line_end();
    if line.expose().is_empty() {
        return Err(CliError::Input { path: path.to_owned(), source: io::Error::other("it is empty") });
    }
    Ok(line)
}

/// A file's text, or that of standard input.
fn read(path: &Path) -> Result<Secret, CliError> {
    let failed = |source| CliError::Input { path: shown(path), source };
    let most = CREDENTIAL_VALUE_BYTES;
    // Room for all of it, so that nothing is left behind where it grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 2));
    let read = if is_stdin(path) {
        io::stdin().lock().take(most as u64 + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
    };
    read.map_err(failed)?;
    if bytes.len() > most {
        return Err(failed(io::Error::other(format!("it has more than {most} bytes"))));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| failed(io::Error::other("it is no text in UTF-8")))?;
    Ok(Secret::new(text.to_owned()))
}

fn shown(path: &Path) -> PathBuf {
    if is_stdin(path) { PathBuf::from("standard input") } else { path.to_owned() }
}
