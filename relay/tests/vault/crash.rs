//! Programs that are killed in the middle of a change: the vault is the old one or the new one, and opens.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use signalbox_schemas::credential::CredentialValue;
use signalbox_testkit::process::Daemon;

use crate::{
    harness::{Home, password},
    import::{kept, store, words},
};

const BOUND: Duration = Duration::from_secs(20);
/// Kills at random moments.
const KILLS: u32 = 60;

type State = BTreeMap<String, CredentialValue>;

/// A change: its words, and what it makes of a state.
struct Change {
    words: Vec<String>,
    stdin: &'static str,
    next: fn(State) -> State,
}

fn with(mut state: State, names: &[&str], value: &str) -> State {
    state.extend(names.iter().map(|name| ((*name).to_owned(), password(value))));
    state
}

fn changes(home: &Home) -> Result<Vec<Change>> {
    let later = u64::MAX >> 12;
    let old = store(home, &[kept("i1", "password", "x", later), kept("i2", "password", "x", later)])?;
    let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let add = strings(&["add", "a", "--type", "password", "--value-file", "-"]);
    Ok(vec![
        Change { words: add, stdin: "second", next: |state| with(state, &["a"], "second") },
        Change { words: strings(&["rotate"]), stdin: "", next: |state| state },
        Change {
            words: strings(&words(old.to_str().context("the path is no text")?)),
            stdin: "sk_test",
            next: |state| with(state, &["i1", "i2"], "x"),
        },
        Change { words: strings(&["rewrap"]), stdin: "", next: |state| state },
        Change {
            words: strings(&["remove", "a"]),
            stdin: "",
            next: |mut state| {
                state.remove("a");
                state
            },
        },
    ])
}

impl Change {
    fn command(&self, home: &Home) -> Result<Command> {
        // What is started here has no standard input.
        let stdin = home.file("stdin", self.stdin)?;
        let stdin = stdin.to_str().context("the path is no text")?;
        let words: Vec<&str> = self.words.iter().map(|word| if word == "-" { stdin } else { word }).collect();
        Ok(home.command(&words))
    }
}

/// After a kill: one of both states; and the next change leaves nothing of what was cut short.
fn assert_one_of(home: &Home, before: &State, after: &State, what: &str) -> Result<State> {
    let found = home.all().with_context(|| format!("after {what} it does not open"))?;
    ensure!(found == *before || found == *after, "after {what} it is neither: {:?}", found.keys());
    Ok(found)
}

fn assert_tidy(home: &Home) -> Result<()> {
    assert_eq!(home.files()?, ["vault.json", "vault.lock", "vault.secret"]);
    Ok(())
}

#[rstest]
#[case::add(0, "relay:vault.drafted", false)]
#[case::add(0, "relay:vault.replaced", true)]
#[case::rotate(1, "relay:vault.drafted", false)]
#[case::rotate(1, "relay:vault.replaced", true)]
#[case::import(2, "relay:vault.drafted", false)]
#[case::import(2, "relay:vault.replaced", true)]
#[case::rewrap(3, "relay:vault.secret.drafted", false)]
#[case::rewrap(3, "relay:vault.drafted", false)]
#[case::rewrap(3, "relay:vault.replaced", true)]
#[case::remove(4, "relay:vault.drafted", false)]
#[case::remove(4, "relay:vault.replaced", true)]
#[tokio::test]
async fn a_change_that_is_killed_is_made_or_not(
    #[case] which: usize,
    #[case] point: &str,
    #[case] is_made: bool,
) -> Result<()> {
    let home = Home::new()?;
    home.add("a", "first")?;
    home.add("b", "other")?;
    let (before, bytes) = (home.all()?, fs::read(home.place().file())?);
    let change = changes(&home)?.swap_remove(which);
    let killed = Daemon::spawn(change.command(&home)?.env("SIGNALBOX_CRASH_AT", point))?;
    let status = killed.wait(BOUND).await?;
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "{status}: {}",
        killed.stderr()?
    );
    let after = (change.next)(before.clone());
    let found = assert_one_of(&home, &before, &after, point)?;
    assert_eq!(found, if is_made { after.clone() } else { before });
    assert_eq!(fs::read(home.place().file())? != bytes, is_made);
    // What the kill left goes with the next change, and the change itself can be made again.
    let mut again = change.command(&home)?;
    let status = Daemon::spawn(&mut again)?.wait(BOUND).await?;
    ensure!(status.success() || found == after, "it cannot be made again: {status}");
    home.add("c", "third")?;
    home.ok(&["remove", "c"], "")?;
    assert_eq!(home.all()?, after);
    assert_tidy(&home)
}

#[rstest]
#[case("relay:vault.drafted")]
#[case("relay:vault.replaced")]
#[tokio::test]
async fn the_first_change_that_is_killed_leaves_a_vault_or_none(#[case] point: &str) -> Result<()> {
    let home = Home::new()?;
    let change = changes(&home)?.swap_remove(0);
    let killed = Daemon::spawn(change.command(&home)?.env("SIGNALBOX_CRASH_AT", point))?;
    killed.wait(BOUND).await?;
    let after = with(State::new(), &["a"], "second");
    assert_one_of(&home, &State::new(), &after, point)?;
    home.add("a", "second")?;
    assert_eq!(home.all()?, after);
    assert_tidy(&home)
}

#[tokio::test]
async fn whenever_it_is_killed_the_vault_opens() -> Result<()> {
    let home = Home::new()?;
    home.add("a", "first")?;
    let changes = changes(&home)?;
    let mut state = home.all()?;
    let mut moment: u32 = 7;
    let mut killed = 0;
    for round in 0..KILLS {
        let change = changes.get(round as usize % changes.len()).context("no change")?;
        let running = Daemon::spawn(&mut change.command(&home)?)?;
        // Anywhere in the time that one takes: the numbers of a generator that everybody knows.
        moment = moment.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let life = Duration::from_millis(u64::from(moment >> 24));
        if running.wait(life).await.is_err() {
            running.kill()?;
            killed += 1;
        }
        running.wait(BOUND).await?;
        let after = (change.next)(state.clone());
        state = assert_one_of(&home, &state, &after, &format!("{:?} killed after {life:?}", change.words))?;
    }
    ensure!(killed > KILLS / 4, "only {killed} were killed");
    home.add("z", "last")?;
    assert_tidy(&home)
}
