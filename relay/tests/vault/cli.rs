//! The command line: what it keeps, what it says, and how it ends.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use rstest::rstest;
use signalbox_relay::vault::key as private_key;
use signalbox_schemas::credential::CredentialMeta;
use signalbox_testkit::small_disk::SmallDisk;

use crate::harness::{Home, MARKER, key, password};

#[test]
fn what_was_added_is_listed_and_its_value_is_nowhere() -> Result<()> {
    let home = Home::new()?;
    assert_eq!(home.add("db", MARKER)?, "added `db`\n");
    assert_eq!(home.add("db", &format!("{MARKER}\r\n"))?, "changed `db`\n");
    let words =
        ["add", "web", "--type", "api_key", "--target", "*.LAN:22", "--user", "bob", "--mode", "shared"];
    home.ok(&[&words[..], &["--value-file", "-"]].concat(), MARKER)?;
    let list = home.ok(&["list"], "")?;
    assert_eq!(list.lines().count(), 3);
    assert!(list.contains("web   api_key   *.lan:22  bob   shared"), "{list}");
    let metas: Vec<CredentialMeta> = serde_json::from_str(&home.ok(&["export-metadata"], "")?)?;
    assert_eq!(metas, serde_json::from_str::<Vec<CredentialMeta>>(&home.ok(&["list", "--json"], "")?)?);
    assert_eq!(metas.iter().map(|meta| meta.credential_name.as_str()).collect::<Vec<_>>(), ["db", "web"]);
    assert_eq!(home.all()?["db"], password(MARKER));
    for file in home.files()? {
        let bytes = fs::read(home.store().join(&file))?;
        assert!(!String::from_utf8_lossy(&bytes).contains(MARKER), "{file} has it");
    }
    assert_eq!(home.ok(&["remove", "db"], "")?, "removed `db`\n");
    assert_eq!(home.all()?.len(), 1);
    Ok(())
}

#[test]
fn a_private_key_is_kept_if_it_opens() -> Result<()> {
    let home = Home::new()?;
    let [plain, locked, certificate] = ["ed25519", "ed25519_locked", "ed25519-cert.pub"].map(key);
    let [plain, locked, certificate] = [&plain, &locked, &certificate].map(|path| path.to_str().unwrap());
    let text = fs::read_to_string(plain)?;
    let add = |more: &[&str], stdin| home.ok(&[&["add", "k", "--type", "ssh_key"], more].concat(), stdin);
    add(&["--key-file", plain, "--cert-file", certificate], "")?;
    private_key::open(&home.all()?["k"])?;
    add(&["--key-file", "-"], &text)?;
    add(&["--key-file", locked, "--passphrase-file", "-"], "hunter2\n")?;
    private_key::open(&home.all()?["k"])?;
    let before = home.all()?;
    let refused =
        |more: &[&str], stdin| home.fails(1, &[&["add", "k", "--type", "ssh_key"], more].concat(), stdin);
    let error = refused(&["--key-file", locked], "")?;
    assert!(error.contains("--passphrase-file") && error.contains("ed25519_locked"), "{error}");
    refused(&["--key-file", locked, "--passphrase-file", "-"], "hunter3")?;
    let error = refused(&["--key-file", "-"], "no key")?;
    assert!(error.contains("no private key begins in it"), "{error}");
    let other = key("ec_sec1");
    let error = refused(&["--key-file", other.to_str().unwrap(), "--cert-file", certificate], "")?;
    assert!(error.contains("another key's"), "{error}");
    assert_eq!(home.all()?, before);
    Ok(())
}

#[rstest]
#[case::no_word(&[], "Usage")]
#[case::another_word(&["show"], "unrecognized subcommand")]
#[case::no_type(&["add", "a"], "--type")]
#[case::another_type(&["add", "a", "--type", "token"], "ssh_key, password, api_key")]
#[case::another_mode(&["add", "a", "--type", "password", "--mode", "local"], "relay_only, shared")]
#[case::no_name(&["add", "", "--type", "password"], "credential name")]
#[case::no_pattern(&["add", "a", "--type", "password", "--target", "a b"], "not a host pattern")]
#[case::no_user(&["add", "a", "--type", "password", "--user", "a b", "--value-file", "-"], "--user")]
#[case::no_key(&["add", "a", "--type", "ssh_key"], "--key-file")]
#[case::no_value(&["add", "a", "--type", "password"], "--value-file")]
#[case::a_key_for_a_password(&["add", "a", "--type", "password", "--key-file", "-"], "--key-file does not go")]
#[case::a_value_for_a_key(&["add", "a", "--type", "ssh_key", "--value-file", "-"], "--value-file does not go")]
#[case::stdin_twice(&["add", "a", "--type", "ssh_key", "--key-file", "-", "--passphrase-file", "-"], "one of the files")]
#[case::no_api_key(&["import", "/dev/null"], "--api-key-file")]
fn a_wrong_line_is_told_apart(#[case] words: &[&str], #[case] expected: &str) -> Result<()> {
    let home = Home::new()?;
    let error = home.fails(64, words, "x")?;
    assert!(error.contains(expected), "{error}");
    assert!(!home.store().exists(), "something was made");
    Ok(())
}

#[rstest]
#[case::unknown(&["remove", "b"], "no credential `b`")]
#[case::no_value(&["add", "b", "--type", "password", "--value-file", "-"], "it is empty")]
#[case::no_file(&["add", "b", "--type", "password", "--value-file", "/nowhere"], "`/nowhere` cannot be read")]
#[case::no_config(&["list", "--config", "/nowhere/relay.toml"], "/nowhere/relay.toml")]
#[case::no_secret(&["rewrap", "--new-secret-file", "/nowhere"], "`/nowhere`")]
fn what_fails_says_so_and_changes_nothing(#[case] words: &[&str], #[case] expected: &str) -> Result<()> {
    let home = Home::new()?;
    home.add("a", "x")?;
    let before = fs::read(home.place().file())?;
    let error = home.fails(1, words, "")?;
    assert!(error.contains(expected), "{error}");
    assert_eq!(fs::read(home.place().file())?, before);
    Ok(())
}

#[test]
fn where_no_vault_is_there_is_none_to_change() -> Result<()> {
    let home = Home::new()?;
    assert!(home.ok(&["list"], "")?.starts_with("There are no credentials"));
    assert_eq!(home.ok(&["export-metadata"], "")?, "[]\n");
    for word in ["rotate", "rewrap"] {
        let error = home.fails(1, &[word], "")?;
        assert!(error.contains("no vault") && error.contains("credentials add"), "{error}");
    }
    assert!(!home.store().exists());
    Ok(())
}

#[test]
fn the_secret_is_where_the_configuration_says() -> Result<()> {
    let home = Home::new()?;
    let secret = home.file("secret", "from elsewhere")?;
    let fleet_key = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let config = format!(
        "workspace = \"main\"\nmachine_id = \"a\"\nfleet_key = \"{fleet_key}\"\nvault_secret_file = {:?}\n",
        secret.to_str().unwrap()
    );
    let config = home.file("relay.toml", &config)?;
    let words = ["add", "a", "--type", "password", "--value-file", "-", "--config", config.to_str().unwrap()];
    home.ok(&words, "x")?;
    assert_eq!(home.files()?, ["vault.json", "vault.lock"]);
    let error = home.fails(1, &["list"], "")?;
    assert!(error.contains("vault_secret_file") && error.contains("--config"), "{error}");
    // That of an enrolled store is found.
    fs::create_dir(home.store().join("identity"))?;
    fs::copy(&config, home.store().join("identity/relay.toml"))?;
    home.ok(&["rotate"], "")?;
    assert!(home.ok(&["rewrap"], "")?.contains("take vault_secret_file out"));
    fs::remove_file(home.store().join("identity/relay.toml"))?;
    home.ok(&["list"], "")?;
    let said = home.ok(&["rewrap", "--new-secret-file", secret.to_str().unwrap()], "")?;
    assert!(said.contains(&format!("vault_secret_file = {:?}", secret.to_str().unwrap())), "{said}");
    home.ok(&["list", "--config", config.to_str().unwrap()], "")?;
    Ok(())
}

#[test]
fn what_others_can_read_is_refused_or_made_private() -> Result<()> {
    let home = Home::new()?;
    home.add("a", "x")?;
    let chmod =
        |name: &str, mode| fs::set_permissions(home.store().join(name), fs::Permissions::from_mode(mode));
    chmod("vault.json", 0o644)?;
    let output = home.output(&["list"], "")?;
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr)?.contains("others could read it"));
    assert_eq!(fs::metadata(home.place().file())?.permissions().mode() & 0o777, 0o600);
    chmod("vault.secret", 0o644)?;
    let error = home.fails(1, &["list"], "")?;
    assert!(error.contains("make it 0600") && error.contains("rewrap"), "{error}");
    Ok(())
}

#[test]
fn on_a_full_disk_the_old_vault_stays() -> Result<()> {
    let home = Home::new()?;
    let Some(disk) = SmallDisk::over(&home.store(), 1)? else {
        return Ok(());
    };
    disk.fill(&[])?;
    let add = ["add", "a", "--type", "password", "--value-file", "-"];
    let error = home.fails(1, &add, "first")?;
    assert!(error.contains("make room"), "{error}");
    disk.make_room()?;
    home.ok(&add, "first")?;
    let (before, files) = (fs::read(home.place().file())?, home.files()?);
    disk.fill(&[])?;
    for words in [&add[..], &["rotate"], &["rewrap"], &["remove", "a"]] {
        let error = home.fails(1, words, "second")?;
        assert!(error.contains("make room") && error.contains("No space left"), "{words:?}: {error}");
        assert_eq!(fs::read(home.place().file())?, before, "{words:?}");
    }
    assert!(home.ok(&["list"], "")?.contains("password"), "it can still be read");
    assert_eq!(home.all()?["a"], password("first"));
    disk.make_room()?;
    assert_eq!(home.files()?, files, "a draft is left");
    home.ok(&add, "second")?;
    assert_eq!(home.all()?["a"], password("second"));
    Ok(())
}
