//! Several programs on one vault.

use std::process::Stdio;

use anyhow::{Result, ensure};
use signalbox_relay::vault::Vault;

use crate::harness::{Home, password};

#[test]
fn programs_that_change_it_at_once_lose_nothing() -> Result<()> {
    let home = Home::new()?;
    let value = home.file("value", "x")?;
    let value = value.to_str().unwrap();
    // The first one makes the vault, and each of them may be the first one.
    let names: Vec<String> = (0..12).map(|n| format!("c{n:02}")).collect();
    let spawn = |words: &[&str]| home.command(words).stdout(Stdio::null()).spawn();
    let mut running = Vec::new();
    for (n, name) in names.iter().enumerate() {
        running.push(spawn(&["add", name, "--type", "password", "--value-file", value])?);
        if n == 4 {
            for child in &mut running {
                ensure!(child.wait()?.success(), "an add failed");
            }
            running.clear();
            running.push(spawn(&["rotate"])?);
            running.push(spawn(&["remove", "c00"])?);
        }
    }
    for mut child in running {
        ensure!(child.wait()?.success(), "a change failed");
    }
    let all = home.all()?;
    assert_eq!(all.keys().collect::<Vec<_>>(), names[1..].iter().collect::<Vec<_>>());
    assert!(all.values().all(|value| *value == password("x")));
    Ok(())
}

#[test]
fn a_vault_that_is_open_follows_the_program() -> Result<()> {
    let home = Home::new()?;
    let mut vault = Vault::open(home.place())?;
    home.add("a", "first")?;
    assert!(vault.refresh()?);
    home.ok(&["rewrap"], "")?;
    home.ok(&["rotate"], "")?;
    home.add("a", "second")?;
    assert!(vault.refresh()?);
    assert_eq!(vault.value(&"a".parse()?)?, password("second"));
    Ok(())
}
