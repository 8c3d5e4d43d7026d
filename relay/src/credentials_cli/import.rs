//! Taking the credentials of an older relay.

use std::{env, fs::File, io::Read as _, path::Path};

use signalbox_schemas::Secret;
use signalbox_tty::AskError;
use zeroize::Zeroizing;

use super::{CliError, args::ImportArgs, input};
use crate::{
    api_key::VARIABLE,
    identity::read_secret,
    metrics,
    vault::{
        Arrival, Arrived, Vault, key,
        seed::{self, MAX_STORE_BYTES, Seed},
    },
};

/// What that relay called this system.
const PLATFORM: &str = "linux";
const MACHINE_ID: &str = "/etc/machine-id";

/// Takes what can be taken; the lines that say what became of each, and whether all of them are here now.
pub(super) fn import(vault: &mut Vault, args: &ImportArgs) -> Result<(Vec<String>, bool), CliError> {
    let bytes = read(&args.file)?;
    let api_key = api_key(args.api_key_file.as_deref())?;
    let Seed { arrivals, refused } = seed::open_store(&bytes, api_key.expose(), &machine_id(args))
        .map_err(|fault| CliError::Seed { path: args.file.clone(), fault })?;
    let arrived = vault.take_in(&arrivals)?;
    let mut lines: Vec<String> =
        arrivals.iter().zip(&arrived).map(|(one, arrived)| line(one, *arrived)).collect();
    lines.extend(arrivals.iter().filter_map(remark));
    lines.extend(refused.iter().map(|refused| format!("refused {:?}: {}", refused.name, refused.why)));
    if lines.is_empty() {
        lines.push("there are no credentials in it".to_owned());
    }
    Ok((lines, refused.is_empty() && !arrived.contains(&Arrived::Full)))
}

fn line(arrival: &Arrival, arrived: Arrived) -> String {
    let name = &arrival.label.name;
    match arrived {
        Arrived::Added => format!("added `{name}`"),
        Arrived::Replaced => format!("replaced `{name}`, which was older"),
        Arrived::Known => format!("left `{name}` as it is: the one here is as new, or newer"),
        Arrived::Full => format!("refused `{name}`: the vault is full; remove credentials and import again"),
    }
}

/// A private key that cannot be used yet is kept, and that is said.
fn remark(arrival: &Arrival) -> Option<String> {
    let fault = match &arrival.value {
        value @ signalbox_schemas::credential::CredentialValue::SshKey { .. } => key::open(value).err()?,
        _ => return None,
    };
    let name = &arrival.label.name;
    Some(format!(
        "note: `{name}` cannot be used as it is: {fault}; add it again under this name, with what is missing"
    ))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |source| CliError::Input { path: path.to_owned(), source };
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_STORE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn api_key(path: Option<&Path>) -> Result<Secret, CliError> {
    let text = match path {
        Some(path) if input::is_stdin(path) => return input::line(path),
        Some(path) => read_secret(path)?,
        None => match env::var(VARIABLE) {
            Ok(key) if !key.is_empty() => key,
            _ => {
                let failed = |source| match source {
                    AskError::NoTerminal(_) => CliError::Usage(format!(
                        "the API key is missing: --api-key-file FILE, or - for standard input, or the variable {VARIABLE}"
                    )),
                    source => CliError::Prompt { what: "the API key", source },
                };
                return input::asked("API key that the store was made with").map_err(failed);
            }
        },
    };
    Ok(Secret::new(text.trim().to_owned()))
}

fn machine_id(args: &ImportArgs) -> String {
    let hostname = args.hostname.clone().unwrap_or_else(|| metrics::facts().hostname);
    // A machine without one has the same id as others without one.
    let specific =
        args.machine_id.clone().or_else(|| std::fs::read_to_string(MACHINE_ID).ok()).unwrap_or_default();
    seed::machine_id(&hostname, PLATFORM, &specific)
}
