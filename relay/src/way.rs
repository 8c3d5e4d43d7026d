//! From a host that a command names to a route that the keeper can go: which credentials open it, and as whom.
//!
//! The user that a command names goes before a credential's own, see [`Vault::find`]; where it names none, it is that of the
//! closest credential. Relays of centers that speak HTTP go by the older rule, the other way round: those centers always name
//! one.

use std::path::Path;

use signalbox_schemas::{
    Secret,
    command::SshTarget,
    credential::{CredentialType, CredentialValue},
    error::report,
    id::CredentialName,
    run::RunError,
    ssh::SshFault,
};

use crate::{
    config::Ssh,
    ssh::route::{Hop, Route, SetBy, WAYS, Way},
    vault::{Entry, Vault, VaultError, hold::Hold},
};

/// Whose user goes first, where command and credential name different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precedence {
    /// The command's.
    Command,
    /// The credential's.
    Credential,
}

/// What routes are made by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) ssh: &'a Ssh,
    /// Where host keys are known.
    pub(crate) known_hosts: &'a Path,
    pub(crate) precedence: Precedence,
    /// Who says so.
    pub(crate) set_by: SetBy,
}

/// A host, as the command names it.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    host: &'a str,
    port: u16,
    user: Option<&'a str>,
    credential: Option<&'a CredentialName>,
}

/// The route to a target, with the vault as it is now. Blocks on it.
///
/// # Errors
/// `no_credential` where nothing opens one of its hosts, `vault` where that cannot be read.
pub(crate) fn find(target: &SshTarget, vault: &Hold, rules: Rules<'_>) -> Result<Route, RunError> {
    vault.with(|vault| Ok(route(target, vault, rules))).unwrap_or_else(|error| Err(unreadable(&error)))
}

/// The route to a target with one key for its host, and nothing else.
///
/// # Errors
/// `no_credential` where the command names no user, or hosts to go through.
pub(crate) fn with_key(
    target: &SshTarget,
    (name, key): (String, Secret),
    rules: Rules<'_>,
) -> Result<Route, RunError> {
    let (host, port) = (target.host.clone(), target.port);
    let user = target.username.clone().filter(|_| target.jump.is_empty());
    let user = user.ok_or_else(|| fault(format!("no login name for {host}")))?;
    let ways = vec![Way::Key { name, key, passphrase: None, certificate: None }];
    let allow_non_strict = rules.ssh.allows_non_strict(&host, port);
    fitting(of_hops(vec![Hop { host, port, user, ways, allow_non_strict }], rules))
}

fn of_hops(hops: Vec<Hop>, rules: Rules<'_>) -> Route {
    Route {
        hops,
        known_hosts: rules.known_hosts.to_owned(),
        host_keys: rules.ssh.host_keys,
        targets: rules.ssh.targets.clone(),
        set_by: rules.set_by,
    }
}

fn unreadable(error: &VaultError) -> RunError {
    RunError { code: "vault".to_owned(), message: report(error) }
}

fn route(target: &SshTarget, vault: &Vault, rules: Rules<'_>) -> Result<Route, RunError> {
    let jumps = target.jump.iter().map(|hop| Asked {
        host: &hop.host,
        port: hop.port,
        user: hop.username.as_deref(),
        credential: None,
    });
    let last = Asked {
        host: &target.host,
        port: target.port,
        user: target.username.as_deref(),
        credential: target.credential.as_ref(),
    };
    let hops = jumps.chain([last]).map(|asked| hop(asked, vault, rules)).collect::<Result<_, _>>()?;
    fitting(of_hops(hops, rules))
}

/// A route that the keeper takes: where there are more credentials than fit, the ones that go with a host least closely are
/// left out.
fn fitting(mut route: Route) -> Result<Route, RunError> {
    loop {
        let Err(error) = route.validate() else { return Ok(route) };
        let richest = route.hops.iter_mut().max_by_key(|hop| hop.ways.len());
        match richest.filter(|hop| hop.ways.len() > 1) {
            Some(hop) => drop(hop.ways.pop()),
            None => return Err(fault(format!("there is no way that can be gone: {error}"))),
        }
    }
}

fn hop(asked: Asked<'_>, vault: &Vault, rules: Rules<'_>) -> Result<Hop, RunError> {
    let Asked { host, port, user, credential } = asked;
    let asked_for = user.filter(|_| rules.precedence == Precedence::Command);
    let found = match credential {
        Some(name) => vec![named(name, &asked, vault)?],
        None => vault.find(host, port, asked_for),
    };
    let found: Vec<&Entry> = found.into_iter().filter(|entry| opens_a_login(entry)).collect();
    let mut users = found.iter().map(|entry| entry.label.username.as_deref());
    let own = users.next().flatten();
    // Where neither the closest one nor the command says who it is, one that goes with the host less closely may.
    let Some(user) = asked_for.or(own).or(user).or_else(|| users.flatten().next()) else {
        return Err(no_credential(&asked, &found));
    };
    let fits = |entry: &&&Entry| {
        asked_for.is_some() || entry.label.username.as_deref().is_none_or(|own| own == user)
    };
    let fitting = found.iter().filter(fits);
    let mut ways = fitting
        .take(WAYS)
        .map(|entry| way(&entry.label.name, vault))
        .collect::<Result<Vec<Way>, RunError>>()?;
    if let Some(socket) = rules.ssh.agent.as_ref().filter(|_| credential.is_none() && ways.len() < WAYS) {
        ways.push(Way::Agent { socket: socket.clone() });
    }
    if ways.is_empty() {
        return Err(no_credential(&asked, &found));
    }
    let allow_non_strict = rules.ssh.allows_non_strict(host, port);
    Ok(Hop { host: host.to_owned(), port, user: user.to_owned(), ways, allow_non_strict })
}

/// The credential that the command names: what is for other hosts is sent to none, whoever asks for it.
fn named<'a>(name: &CredentialName, asked: &Asked<'_>, vault: &'a Vault) -> Result<&'a Entry, RunError> {
    let found =
        vault.entry(name).ok_or_else(|| fault(format!("there is no credential `{name}` on this machine")))?;
    if let Some(target) = found.label.target.as_ref()
        && target.matches(asked.host, asked.port).is_none()
    {
        let place = place(asked.host, asked.port);
        return Err(fault(format!("credential `{name}` is for {target}, and not for {place}")));
    }
    if opens_a_login(found) {
        return Ok(found);
    }
    Err(fault(format!("credential `{name}` is an api_key, which opens no SSH login")))
}

fn opens_a_login(entry: &Entry) -> bool {
    entry.label.credential_type != CredentialType::ApiKey
}

fn way(name: &CredentialName, vault: &Vault) -> Result<Way, RunError> {
    let value = vault.value(name).map_err(|error| unreadable(&error))?;
    let name = name.to_string();
    match value {
        CredentialValue::SshKey { key, passphrase, certificate } => {
            Ok(Way::Key { name, key, passphrase, certificate })
        }
        CredentialValue::Password { password } => Ok(Way::Password { name, password }),
        CredentialValue::ApiKey { .. } => {
            Err(fault(format!("credential `{name}` is an api_key, which opens no SSH login")))
        }
    }
}

fn fault(message: String) -> RunError {
    RunError { code: SshFault::NoCredential.as_str().to_owned(), message }
}

fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Says what is missing, and how to bring it.
fn no_credential(asked: &Asked<'_>, found: &[&Entry]) -> RunError {
    let Asked { host, port, .. } = asked;
    let place = place(host, *port);
    fault(if found.is_empty() {
        format!(
            "no credential for {place} on this machine: push one (`signalbox credential push NAME --target {host}`), or \
             add one there (`signalbox-relay credentials add NAME --target {host}`)"
        )
    } else {
        format!("no login name for {place}: name one in the command (USER@HOST), or with the credential")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::VaultPlace;
    use rstest::rstest;
    use signalbox_schemas::{
        command::SshHop,
        credential::{CredentialLabel, StorageMode},
    };

    struct Kept {
        _folder: tempfile::TempDir,
        vault: Vault,
    }

    /// A vault with these passwords: name, target, user.
    fn kept(credentials: &[(&str, Option<&str>, Option<&str>)]) -> Kept {
        let folder = tempfile::tempdir().unwrap();
        let mut vault = Vault::open(VaultPlace::new(&folder.path().join("store"), None)).unwrap();
        for (name, target, user) in credentials {
            let label = CredentialLabel {
                name: CredentialName::new(*name).unwrap(),
                credential_type: CredentialType::Password,
                target: target.map(|target| target.parse().unwrap()),
                username: user.map(str::to_owned),
                storage_mode: StorageMode::RelayOnly,
            };
            let password = format!("password of {name}").into();
            vault.put(label, &CredentialValue::Password { password }).unwrap();
        }
        Kept { _folder: folder, vault }
    }

    fn target(user: Option<&str>, credential: Option<&str>) -> SshTarget {
        SshTarget {
            host: "db-1.lan".into(),
            port: 22,
            username: user.map(str::to_owned),
            jump: vec![],
            credential: credential.map(|name| CredentialName::new(name).unwrap()),
        }
    }

    fn found(
        kept: &Kept,
        target: &SshTarget,
        precedence: Precedence,
    ) -> Result<(String, Vec<String>), String> {
        let ssh = Ssh::default();
        let rules =
            Rules { ssh: &ssh, known_hosts: Path::new("/known_hosts"), precedence, set_by: SetBy::Owner };
        let route = route(target, &kept.vault, rules).map_err(|error| {
            assert_eq!(error.code, "no_credential");
            error.message
        })?;
        let hop = route.hops.last().unwrap();
        Ok((hop.user.clone(), hop.ways.iter().map(Way::name).collect()))
    }

    #[rstest]
    #[case::the_command_names_the_user(Some("ops"), Precedence::Command, "ops", &["`plain`", "`wide`"])]
    #[case::the_closest_credential_does(None, Precedence::Command, "deploy", &["`own`", "`plain`"])]
    #[case::so_it_does_for_centers_that_speak_http(Some("ops"), Precedence::Credential, "deploy", &["`own`", "`plain`"])]
    fn users_come_from_where_it_is_written(
        #[case] asked: Option<&str>,
        #[case] precedence: Precedence,
        #[case] user: &str,
        #[case] ways: &[&str],
    ) {
        // Of two that go with it as closely the newer one is first, and by its name where they are of one millisecond.
        let kept = kept(&[
            ("wide", Some("*.lan"), Some("ops")),
            ("plain", Some("db-1.lan:22"), None),
            ("own", Some("db-1.lan:22"), Some("deploy")),
            ("other", Some("db-2.lan"), None),
        ]);
        let (found_user, found_ways) = found(&kept, &target(asked, None), precedence).unwrap();
        assert_eq!(found_user, user);
        for way in ways {
            assert!(found_ways.iter().any(|found| found == way), "{found_ways:?}");
        }
        assert!(!found_ways.contains(&"`other`".to_owned()), "{found_ways:?}");
    }

    #[test]
    fn one_that_goes_with_the_host_less_closely_says_who_the_user_is_where_nobody_else_does() {
        let kept = kept(&[("wide", Some("*.lan"), Some("ops")), ("plain", Some("db-1.lan:22"), None)]);
        for precedence in [Precedence::Command, Precedence::Credential] {
            let (user, ways) = found(&kept, &target(None, None), precedence).unwrap();
            assert_eq!((user.as_str(), &ways[..]), ("ops", &["`plain`".to_owned(), "`wide`".to_owned()][..]));
            let (user, _) = found(&kept, &target(Some("me"), None), precedence).unwrap();
            assert_eq!(user, "me");
        }
    }

    /// Whoever may give commands may name a credential, and a host of his own.
    #[test]
    fn a_credential_is_sent_to_no_host_that_it_is_not_for() {
        let kept = kept(&[
            ("for others", Some("db-2.lan"), Some("ops")),
            ("for its port", Some("db-1.lan:2222"), Some("ops")),
            ("for whom it is named", None, Some("ops")),
        ]);
        let found = |name| found(&kept, &target(None, Some(name)), Precedence::Command);
        assert_eq!(
            found("for others").unwrap_err(),
            "credential `for others` is for db-2.lan, and not for db-1.lan:22"
        );
        assert!(found("for its port").is_err());
        assert_eq!(found("for whom it is named"), Ok(("ops".into(), vec!["`for whom it is named`".into()])));
        assert!(found("unknown").unwrap_err().contains("there is no credential `unknown`"));
    }

    fn jump(host: &str, port: u16, user: Option<&str>) -> SshHop {
        SshHop { host: host.into(), port, username: user.map(str::to_owned) }
    }

    /// The hops of a route, in words: user, host, port, and the ways to log in.
    fn hops(kept: &Kept, target: &SshTarget, ssh: &Ssh) -> Result<Vec<String>, String> {
        let rules = Rules {
            ssh,
            known_hosts: Path::new("/known_hosts"),
            precedence: Precedence::Command,
            set_by: SetBy::Owner,
        };
        let route = route(target, &kept.vault, rules).map_err(|error| {
            assert_eq!(error.code, "no_credential");
            error.message
        })?;
        assert_eq!(
            (route.known_hosts.as_path(), route.host_keys),
            (Path::new("/known_hosts"), ssh.host_keys)
        );
        assert_eq!(route.targets, ssh.targets);
        let hop = |hop: &Hop| {
            let ways: Vec<String> = hop.ways.iter().map(Way::name).collect();
            let lax = if hop.allow_non_strict { " lax" } else { "" };
            format!("{}@{}:{} {}{lax}", hop.user, hop.host, hop.port, ways.join(" "))
        };
        Ok(route.hops.iter().map(hop).collect())
    }

    /// A way through two hosts with their own credentials.
    fn through_two(last_user: Option<&str>, credential: Option<&str>) -> SshTarget {
        let jump = vec![jump("gate.net", 2222, None), jump("inner.lan", 22, Some("ops"))];
        SshTarget { jump, ..target(last_user, credential) }
    }

    fn of_three_hosts() -> Kept {
        kept(&[
            ("gate", Some("gate.net:2222"), Some("guest")),
            ("gate on another port", Some("gate.net:22"), Some("wrong")),
            ("inner", Some("inner.lan"), Some("deploy")),
            ("wide", Some("*.lan"), None),
            ("db", Some("db-1.lan"), Some("root")),
        ])
    }

    #[test]
    fn each_host_on_the_way_has_its_own_credentials_in_the_order_of_the_command() {
        let (kept, ssh) = (of_three_hosts(), Ssh::default());
        assert_eq!(
            hops(&kept, &through_two(None, None), &ssh).unwrap(),
            ["guest@gate.net:2222 `gate`", "ops@inner.lan:22 `inner` `wide`", "root@db-1.lan:22 `db` `wide`"]
        );
        let mut turned = through_two(Some("me"), None);
        turned.jump.reverse();
        assert_eq!(
            hops(&kept, &turned, &ssh).unwrap(),
            ["ops@inner.lan:22 `inner` `wide`", "guest@gate.net:2222 `gate`", "me@db-1.lan:22 `db` `wide`"]
        );
    }

    /// It is for the host where the command runs, and no host before it hears of it.
    #[test]
    fn a_named_credential_goes_to_the_last_host_alone() {
        let (mut kept, ssh) = (of_three_hosts(), Ssh::default());
        let label = CredentialLabel {
            name: CredentialName::new("chosen").unwrap(),
            credential_type: CredentialType::Password,
            target: None,
            username: None,
            storage_mode: StorageMode::RelayOnly,
        };
        let password = "chosen password".to_owned().into();
        kept.vault.put(label, &CredentialValue::Password { password }).unwrap();
        assert_eq!(
            hops(&kept, &through_two(Some("me"), Some("chosen")), &ssh).unwrap(),
            ["guest@gate.net:2222 `gate`", "ops@inner.lan:22 `inner` `wide`", "me@db-1.lan:22 `chosen`"]
        );
    }

    #[test]
    fn what_a_way_brings_is_what_is_kept_under_its_name() {
        let (kept, ssh) = (of_three_hosts(), Ssh::default());
        let rules = Rules {
            ssh: &ssh,
            known_hosts: Path::new("/k"),
            precedence: Precedence::Command,
            set_by: SetBy::Owner,
        };
        let route = route(&through_two(None, None), &kept.vault, rules).unwrap();
        for way in route.hops.iter().flat_map(|hop| &hop.ways) {
            let Way::Password { name, password } = way else { panic!("no password: {way:?}") };
            assert_eq!(password.expose(), format!("password of {name}"));
        }
    }

    #[test]
    fn of_a_host_on_the_way_that_nothing_opens_it_is_said_which_one_it_is() {
        let (kept, ssh) = (of_three_hosts(), Ssh::default());
        let mut target = through_two(None, None);
        target.jump[1].host = "unknown.net".into();
        let said = hops(&kept, &target, &ssh).unwrap_err();
        assert!(said.starts_with("no credential for unknown.net:22 on this machine"), "{said}");
    }

    #[test]
    fn rules_of_the_machine_count_for_each_host_on_the_way() {
        let kept = of_three_hosts();
        let ssh: Ssh = toml::from_str(
            "targets = [\"*.lan\", \"gate.net\"]\nallow_non_strict = [\"inner.lan\"]\nagent = \"/run/agent\"\n",
        )
        .unwrap();
        let agent = Way::Agent { socket: "/run/agent".into() }.name();
        assert_eq!(
            hops(&kept, &through_two(None, None), &ssh).unwrap(),
            [
                format!("guest@gate.net:2222 `gate` {agent}"),
                format!("ops@inner.lan:22 `inner` `wide` {agent} lax"),
                format!("root@db-1.lan:22 `db` `wide` {agent}"),
            ]
        );
        // Who names a credential means that one, and not what an agent has.
        let named = hops(&kept, &through_two(None, Some("db")), &ssh).unwrap();
        assert_eq!(named.last().unwrap(), "root@db-1.lan:22 `db`");
        // What an agent has is enough where the command says as whom.
        let mut alone = target(Some("me"), None);
        alone.host = "elsewhere.net".into();
        assert_eq!(hops(&kept, &alone, &ssh).unwrap(), [format!("me@elsewhere.net:22 {agent}")]);
    }

    #[test]
    fn a_token_opens_no_login_and_more_ways_than_fit_are_left_out() {
        let names: Vec<String> = (0..WAYS + 4).map(|n| format!("c{n}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), Some("*.lan"), Some("ops"))).collect();
        let (mut kept, ssh) = (kept(&all), Ssh::default());
        let label = CredentialLabel {
            name: CredentialName::new("token").unwrap(),
            credential_type: CredentialType::ApiKey,
            target: Some("db-1.lan:22".parse().unwrap()),
            username: Some("wrong".into()),
            storage_mode: StorageMode::RelayOnly,
        };
        let key = "sk_secret".to_owned().into();
        kept.vault.put(label, &CredentialValue::ApiKey { key }).unwrap();
        let found = found(&kept, &target(None, None), Precedence::Command).unwrap();
        assert_eq!((found.0.as_str(), found.1.len()), ("ops", WAYS));
        assert!(!found.1.contains(&"`token`".to_owned()), "{found:?}");
        let said = hops(&kept, &target(None, Some("token")), &ssh).unwrap_err();
        assert!(said.contains("`token` is an api_key, which opens no SSH login"), "{said}");
    }

    /// The usual key of a user opens one host, for a center that names the user.
    #[test]
    fn a_single_key_opens_the_last_host_and_none_on_the_way() {
        let ssh = Ssh::default();
        let rules = Rules {
            ssh: &ssh,
            known_hosts: Path::new("/k"),
            precedence: Precedence::Credential,
            set_by: SetBy::Owner,
        };
        let key = || ("id_rsa".to_owned(), Secret::new("a key".to_owned()));
        let route = with_key(&target(Some("ops"), None), key(), rules).unwrap();
        let [hop] = &route.hops[..] else { panic!("{} hops", route.hops.len()) };
        assert_eq!((hop.user.as_str(), hop.host.as_str(), hop.port), ("ops", "db-1.lan", 22));
        assert_eq!(hop.ways.iter().map(Way::name).collect::<Vec<_>>(), ["`id_rsa`"]);
        assert!(with_key(&target(None, None), key(), rules).is_err(), "nobody is named");
        assert!(with_key(&through_two(Some("ops"), None), key(), rules).is_err(), "hosts go before it");
    }

    #[test]
    fn what_is_missing_is_said() {
        let nothing = found(&kept(&[]), &target(Some("ops"), None), Precedence::Command).unwrap_err();
        assert!(
            nothing.contains("no credential for db-1.lan:22") && nothing.contains("credential push"),
            "{nothing}"
        );
        let without_user = kept(&[("any", Some("*"), None)]);
        let no_user = found(&without_user, &target(None, None), Precedence::Command).unwrap_err();
        assert!(no_user.starts_with("no login name for db-1.lan:22"), "{no_user}");
    }

    #[test]
    fn credentials_that_do_not_fit_are_left_out_from_the_end() {
        let long = |name: &str| Way::Password { name: name.into(), password: "x".repeat(24_000).into() };
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let hop = |names: &[&str]| Hop {
            host: "h".into(),
            port: 22,
            user: "u".into(),
            ways: names.iter().map(|name| long(name)).collect(),
            allow_non_strict: false,
        };
        let route = |hops| Route {
            hops,
            known_hosts: "/known_hosts".into(),
            host_keys: crate::ssh::route::HostKeyPolicy::Strict,
            targets: None,
            set_by: SetBy::Owner,
        };
        let fitted = fitting(route(vec![hop(&names), hop(&names[..1])])).unwrap();
        fitted.validate().unwrap();
        let left: Vec<_> = fitted.hops.iter().map(|hop| hop.ways.len()).collect();
        assert!(left[0] >= 3 && left[1] == 1, "{left:?}");
        assert_eq!(fitted.hops[0].ways[0].name(), "`a`");
        assert!(fitting(route(vec![])).is_err());
    }
}
