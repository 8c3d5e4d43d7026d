//! The positional command line, `signalbox-relay <API_KEY> <URL> [options]`: what its arguments say. Pure.
//!
//! It is that of the relay which this program replaces, so that a unit file or an image needs another program name and
//! nothing else: the same options, defaults, messages and exit codes. What is new is marked so in [`USAGE`].

use std::{path::PathBuf, time::Duration};

use signalbox_schemas::signed::PublicKey;

use crate::{api_key::ApiKey, ssh::route::HostKeyPolicy};

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: signalbox-relay <API_KEY> <URL> [options]
       signalbox-relay <URL> [options]            the key is in SIGNALBOX_API_KEY or in --api-key-file
       signalbox-relay - <URL> [options]          the key is the first line of standard input
       signalbox-relay run --help                 the agent of an enrolled machine

Options:
  --api-key-file <path>       file with the key, readable by this user alone
  --transport <auto|http>     auto: enrol where the center can, or else speak HTTP (default: auto)
  --fleet-key <key>           the key that signs who may author what (default: the one that the center tells first;
                              over plain http anybody on the way can change it)
  --ssh-host-keys <policy>    hosts whose key is not known: strict refuses them, accept-new writes their key down
                              (default: strict; `signalbox-relay known-hosts scan` shows and adds keys)
  --shared-secret-file <path> secret that the center's shared credentials are sealed with, readable by this user alone
  --poll-interval <ms>        between two questions for commands, at least 1000 (default: 5000)
  --heartbeat-interval <ms>   between two signs of life, at least 5000 (default: 30000)
  --log-level <level>         debug, info, warn or error (default: info)
  --store-dir <path>          what survives a restart (default: ~/.signalbox-relay)
  --deployment-url <url>      accepted, without effect
  --component-name <name>     accepted, without effect
  --public-api-module <name>  accepted, without effect
  -h, --help                  this text
  -v, --version               the version
";

/// Longest interval, ms: what a 32-bit timer can hold.
const MAX_INTERVAL_MS: u64 = 0x7fff_ffff;
/// What stands for the key when it is on standard input.
const STDIN: &str = "-";

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The usage, as an answer.
    Help,
    /// The version.
    Version,
    /// Nothing at all: the usage, as a complaint.
    Nothing,
    /// Running a relay.
    Run(Box<Options>),
}

/// How a relay is to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the key is.
    pub key: KeySource,
    /// The center, with a scheme and without a slash at its end.
    pub url: String,
    /// From the beginning of a question for commands to that of the next one.
    pub poll_interval: Duration,
    /// Between two signs of life, and between two reports until the center says otherwise.
    pub heartbeat_interval: Duration,
    /// What is logged.
    pub log_level: LogLevel,
    /// Where the store is, if not at its usual place.
    pub store_dir: Option<PathBuf>,
    /// How the center is spoken to.
    pub transport: Transport,
    /// The key that signs who may author what, if it is known beforehand.
    pub fleet_key: Option<PublicKey>,
    /// What becomes of hosts whose key is not known.
    pub host_keys: HostKeyPolicy,
    /// File with the secret that the center's shared credentials are sealed with.
    pub shared_secret_file: Option<PathBuf>,
    /// Options that were given and change nothing.
    pub without_effect: Vec<&'static str>,
    /// All arguments but the key and where it is.
    pub others: Vec<String>,
}

/// Where the key is.
#[derive(Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Among the arguments, where everybody on the machine sees it.
    Argument(ApiKey),
    /// In the environment.
    Environment,
    /// In a file.
    File(PathBuf),
    /// On standard input.
    Stdin,
}

/// How the center is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// As the center can.
    Auto,
    /// By HTTP.
    Http,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What is not as it should be.
    Warn,
    /// What failed.
    Error,
}

impl LogLevel {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// A command line that asks for nothing that can be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Key or URL are missing. The usage belongs to it.
    #[error("API_KEY and CONVEX_URL are required")]
    Missing,
    /// One argument too many.
    #[error("Unexpected argument: {0}")]
    Unexpected(String),
    /// The key is in two places; one of them may be in a file of long ago.
    #[error("API_KEY is given as an argument and by --api-key-file")]
    TwoKeys,
    /// No such option.
    #[error("Unknown option: {0}")]
    Unknown(String),
    /// An option without a value that it can use.
    #[error("{option} {rule}")]
    Value {
        /// Which one.
        option: &'static str,
        /// What it needs.
        rule: &'static str,
    },
    /// The key cannot be one.
    #[error("API_KEY must be 1 to 4096 visible ASCII characters")]
    Key,
}

/// What was read so far.
struct Reading {
    positional: Vec<String>,
    key_file: Option<PathBuf>,
    options: Options,
}

/// Reads the arguments after the program's name. `has_variable`: the environment has a key.
///
/// # Errors
/// [`LineError`], for the first thing from the left that is wrong.
pub fn parse(args: &[String], has_variable: bool) -> Result<Asked, LineError> {
    if args.is_empty() {
        return Ok(Asked::Nothing);
    }
    let options = Options {
        key: KeySource::Environment,
        url: String::new(),
        poll_interval: Duration::from_secs(5),
        heartbeat_interval: Duration::from_secs(30),
        log_level: LogLevel::Info,
        store_dir: None,
        transport: Transport::Auto,
        fleet_key: None,
        host_keys: HostKeyPolicy::Strict,
        shared_secret_file: None,
        without_effect: Vec::new(),
        others: Vec::new(),
    };
    let mut reading = Reading { positional: Vec::new(), key_file: None, options };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--help" | "-h" => return Ok(Asked::Help),
            "--version" | "-v" => return Ok(Asked::Version),
            option if option.starts_with("--") => reading.take_option(option, rest.next())?,
            _ if reading.positional.len() < 2 => reading.positional.push(arg.clone()),
            _ => return Err(LineError::Unexpected(arg.clone())),
        }
    }
    reading.finish(has_variable).map(|options| Asked::Run(Box::new(options)))
}

impl Reading {
    fn take_option(&mut self, option: &str, value: Option<&String>) -> Result<(), LineError> {
        let options = &mut self.options;
        let text = |option, rule| {
            let given = value.filter(|value| !value.is_empty() && !value.starts_with("--"));
            given.ok_or(LineError::Value { option, rule })
        };
        let mut ineffective = |option, rule| text(option, rule).map(|_| options.without_effect.push(option));
        match option {
            "--poll-interval" => {
                let rule = "must be a number >= 1000";
                options.poll_interval = interval("--poll-interval", rule, value, 1_000)?;
            }
            "--heartbeat-interval" => {
                let rule = "must be a number >= 5000";
                options.heartbeat_interval = interval("--heartbeat-interval", rule, value, 5_000)?;
            }
            "--log-level" => options.log_level = log_level(value)?,
            "--store-dir" => {
                options.store_dir = Some(text("--store-dir", "requires a path argument")?.into());
            }
            "--deployment-url" => ineffective("--deployment-url", "requires a URL argument")?,
            "--component-name" => ineffective("--component-name", "requires a name argument")?,
            "--public-api-module" => {
                ineffective("--public-api-module", "requires a module name argument")?;
            }
            "--transport" => options.transport = transport(value)?,
            "--ssh-host-keys" => options.host_keys = host_keys(value)?,
            "--shared-secret-file" => {
                options.shared_secret_file =
                    Some(text("--shared-secret-file", "requires a path argument")?.into());
            }
            "--fleet-key" => options.fleet_key = Some(fleet_key(value)?),
            "--api-key-file" => {
                self.key_file = Some(text("--api-key-file", "requires a path argument")?.into());
                return Ok(());
            }
            _ => return Err(LineError::Unknown(option.to_owned())),
        }
        options.others.push(option.to_owned());
        options.others.extend(value.cloned());
        Ok(())
    }

    fn finish(self, has_variable: bool) -> Result<Options, LineError> {
        let Self { positional, key_file, mut options } = self;
        // A variable of a script that is not set is an argument without a text.
        if positional.iter().any(String::is_empty) {
            return Err(LineError::Missing);
        }
        let mut positional = positional.into_iter();
        let (key, url) = match (positional.next(), positional.next(), key_file) {
            (Some(_), Some(_), Some(_)) => return Err(LineError::TwoKeys),
            (Some(key), Some(url), None) if key == STDIN => (KeySource::Stdin, url),
            (Some(key), Some(url), None) => {
                (KeySource::Argument(ApiKey::new(&key).ok_or(LineError::Key)?), url)
            }
            (Some(url), None, Some(file)) => (KeySource::File(file), url),
            (Some(url), None, None) if has_variable => (KeySource::Environment, url),
            _ => return Err(LineError::Missing),
        };
        options.key = key;
        options.others.insert(0, url.clone());
        options.url = normalised(url);
        Ok(options)
    }
}

fn interval(
    option: &'static str,
    rule: &'static str,
    value: Option<&String>,
    least_ms: u64,
) -> Result<Duration, LineError> {
    let number = value.and_then(|value| leading_number(value)).filter(|number| *number >= least_ms);
    let number = number.ok_or(LineError::Value { option, rule })?;
    Ok(Duration::from_millis(number.min(MAX_INTERVAL_MS)))
}

/// The number that a text begins with, as JavaScript's `parseInt` finds it; none also for a negative one, which no option
/// takes.
fn leading_number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).map_or(text, |end| text.split_at(end).0);
    // More digits than fit are a very large number all the same.
    (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX))
}

fn log_level(value: Option<&String>) -> Result<LogLevel, LineError> {
    let levels = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];
    let level = value.and_then(|value| levels.into_iter().find(|level| level.as_str() == value));
    let rule = "must be one of: debug, info, warn, error";
    level.ok_or(LineError::Value { option: "--log-level", rule })
}

fn transport(value: Option<&String>) -> Result<Transport, LineError> {
    match value.map(String::as_str) {
        Some("auto") => Ok(Transport::Auto),
        Some("http") => Ok(Transport::Http),
        _ => Err(LineError::Value { option: "--transport", rule: "must be one of: auto, http" }),
    }
}

fn host_keys(value: Option<&String>) -> Result<HostKeyPolicy, LineError> {
    match value.map(String::as_str) {
        Some("strict") => Ok(HostKeyPolicy::Strict),
        Some("accept-new") => Ok(HostKeyPolicy::AcceptNew),
        _ => Err(LineError::Value { option: "--ssh-host-keys", rule: "must be one of: strict, accept-new" }),
    }
}

fn fleet_key(value: Option<&String>) -> Result<PublicKey, LineError> {
    let rule = "must be a public key, U and 55 more characters";
    let key = value.and_then(|value| value.parse().ok());
    key.ok_or(LineError::Value { option: "--fleet-key", rule })
}

/// A URL with a scheme and without a slash at its end.
fn normalised(url: String) -> String {
    let url = if url.starts_with("http") { url } else { format!("https://{url}") };
    url.strip_suffix('/').map_or(url.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(line: &str, has_variable: bool) -> Result<Asked, LineError> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&args, has_variable)
    }

    fn options(line: &str) -> Options {
        match read(line, false) {
            Ok(Asked::Run(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_relay_that_it_replaces() {
        let options = options("k1 https://center");
        assert_eq!(options.key, KeySource::Argument(ApiKey::new("k1").unwrap()));
        assert_eq!((options.url.as_str(), options.transport), ("https://center", Transport::Auto));
        assert_eq!((options.poll_interval, options.heartbeat_interval), (ms(5_000), ms(30_000)));
        assert_eq!((options.log_level, options.store_dir), (LogLevel::Info, None));
        assert_eq!((options.without_effect, options.others), (vec![], vec!["https://center".to_owned()]));
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[rstest]
    #[case("--poll-interval 1000", ms(1000), ms(30_000))]
    #[case("--poll-interval 1000xyz", ms(1000), ms(30_000))]
    #[case("--poll-interval +2000.9", ms(2000), ms(30_000))]
    #[case("--heartbeat-interval 5000", ms(5000), ms(5000))]
    #[case("--poll-interval 99999999999999999999999", ms(MAX_INTERVAL_MS), ms(30_000))]
    fn intervals_are_the_number_that_a_text_begins_with(
        #[case] line: &str,
        #[case] poll: Duration,
        #[case] heartbeat: Duration,
    ) {
        let poll = if line.contains("poll") { poll } else { ms(5000) };
        let options = options(&format!("k u {line}"));
        assert_eq!((options.poll_interval, options.heartbeat_interval), (poll, heartbeat));
    }

    #[rstest]
    #[case("k", "API_KEY and CONVEX_URL are required")]
    #[case("--log-level debug", "API_KEY and CONVEX_URL are required")]
    #[case("k u extra", "Unexpected argument: extra")]
    #[case("k u -x", "Unexpected argument: -x")]
    #[case("k u --poll-interval=2000", "Unknown option: --poll-interval=2000")]
    #[case("k u --nope", "Unknown option: --nope")]
    #[case("k u --poll-interval", "--poll-interval must be a number >= 1000")]
    #[case("k u --poll-interval abc", "--poll-interval must be a number >= 1000")]
    #[case("k u --poll-interval 999", "--poll-interval must be a number >= 1000")]
    #[case("k u --poll-interval -5000", "--poll-interval must be a number >= 1000")]
    #[case("k u --heartbeat-interval 4999", "--heartbeat-interval must be a number >= 5000")]
    #[case("k u --log-level", "--log-level must be one of: debug, info, warn, error")]
    #[case("k u --log-level INFO", "--log-level must be one of: debug, info, warn, error")]
    #[case("k u --store-dir", "--store-dir requires a path argument")]
    #[case("k u --store-dir --help", "--store-dir requires a path argument")]
    #[case("k u --deployment-url", "--deployment-url requires a URL argument")]
    #[case("k u --component-name --x", "--component-name requires a name argument")]
    #[case("k u --public-api-module", "--public-api-module requires a module name argument")]
    #[case("k u --transport nats", "--transport must be one of: auto, http")]
    #[case("k u --fleet-key", "--fleet-key must be a public key, U and 55 more characters")]
    #[case("k u --fleet-key Uabc", "--fleet-key must be a public key, U and 55 more characters")]
    #[case("u --api-key-file", "--api-key-file requires a path argument")]
    #[case("k u --api-key-file f", "API_KEY is given as an argument and by --api-key-file")]
    #[case("k\u{e9}y u", "API_KEY must be 1 to 4096 visible ASCII characters")]
    fn what_is_wrong_is_said(#[case] line: &str, #[case] message: &str) {
        assert_eq!(read(line, false).unwrap_err().to_string(), message);
    }

    #[rstest]
    #[case(&["", "u"], "API_KEY and CONVEX_URL are required")]
    #[case(&["k", ""], "API_KEY and CONVEX_URL are required")]
    #[case(&["k", "u", "--store-dir", ""], "--store-dir requires a path argument")]
    #[case(&["u", "--api-key-file", ""], "--api-key-file requires a path argument")]
    #[case(&["k", "u", "--deployment-url", ""], "--deployment-url requires a URL argument")]
    fn what_is_empty_is_missing(#[case] line: &[&str], #[case] message: &str) {
        let args: Vec<String> = line.iter().map(|arg| (*arg).to_owned()).collect();
        assert_eq!(parse(&args, true).unwrap_err().to_string(), message);
    }

    #[rstest]
    #[case("--help", Asked::Help)]
    #[case("k -h --nope", Asked::Help)]
    #[case("--version", Asked::Version)]
    #[case("k u -v extra", Asked::Version)]
    #[case("", Asked::Nothing)]
    fn help_and_version_win_where_they_are_met(#[case] line: &str, #[case] asked: Asked) {
        assert_eq!(read(line, false), Ok(asked));
    }

    #[rstest]
    #[case("a", "https://a")]
    #[case("http://a:1", "http://a:1")]
    #[case("https://a/b/", "https://a/b")]
    #[case("https://a//", "https://a/")]
    #[case("HTTP://x", "https://HTTP://x")]
    fn urls_get_a_scheme_and_lose_one_slash(#[case] url: &str, #[case] normal: &str) {
        assert_eq!(options(&format!("k {url}")).url, normal);
    }

    #[rstest]
    #[case("- u", false, KeySource::Stdin)]
    #[case("u", true, KeySource::Environment)]
    #[case("k u", true, KeySource::Argument(ApiKey::new("k").unwrap()))]
    #[case("u --api-key-file f", true, KeySource::File("f".into()))]
    #[case("--api-key-file f u", false, KeySource::File("f".into()))]
    fn the_key_is_found_where_it_is(#[case] line: &str, #[case] has_variable: bool, #[case] key: KeySource) {
        let Ok(Asked::Run(options)) = read(line, has_variable) else { panic!("{line} is refused") };
        assert_eq!((options.key, options.url.as_str()), (key, "https://u"));
    }

    #[test]
    fn what_is_handed_on_says_the_same_without_the_key() {
        let first = options("k u --poll-interval 2000");
        let key = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
        let pinned = options(&format!("k u --fleet-key {key}"));
        assert_eq!(pinned.fleet_key, Some(key.parse().unwrap()));
        assert_eq!(options(&format!("- {}", pinned.others.join(" "))).fleet_key, pinned.fleet_key);
        let again = options(&format!("- {}", first.others.join(" ")));
        assert_eq!((again.poll_interval, again.url), (first.poll_interval, first.url));
        let of_file = options("u --api-key-file f --store-dir d --component-name c");
        assert_eq!(of_file.others, ["u", "--store-dir", "d", "--component-name", "c"]);
        assert_eq!(of_file.without_effect, ["--component-name"]);
    }
}
