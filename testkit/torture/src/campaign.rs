//! Seed after seed, each in a process of its own, some side by side, until the time is over.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;
use tokio::{
    process::Command,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    args::Run,
    check::{Promise, violations},
    observe,
    observed::Observed,
    plan::Plan,
    report::{Outcome, Summary},
    shrink::Search,
    world::place::may_enter,
};

/// How long a world may take to be built, healed and looked at, beyond its harm and the end of its runs.
const AROUND: Duration = Duration::from_mins(8);
/// What a world is thought to take, beyond its harm, until one was seen.
const GUESSED: Duration = Duration::from_secs(30);
/// How much of a failed world's words is quoted, bytes.
const QUOTED: usize = 2_000;
/// Name of the file that `check` reads.
const OBSERVED: &str = "observed.json";

/// What all worlds of a call share.
struct Chamber {
    programs: PathBuf,
    out: PathBuf,
    shrink: u32,
}

/// What came of one plan: its outcome, or why the chamber failed.
struct Ended {
    seed: u64,
    took: Duration,
    outcome: Result<Outcome>,
}

/// Runs what was asked for.
///
/// # Errors
/// When nothing can be run at all.
pub(crate) async fn run(run: &Run) -> Result<Summary> {
    let programs = match &run.programs {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?.parent().context("this program lies in no folder")?.to_owned(),
    };
    let programs =
        fs::canonicalize(&programs).with_context(|| format!("looking for {}", programs.display()))?;
    fs::create_dir_all(&run.out).with_context(|| format!("making {}", run.out.display()))?;
    let out = fs::canonicalize(&run.out)?;
    let shrink = if run.until_broken.is_some() { 0 } else { run.shrink };
    let chamber = Arc::new(Chamber { programs, out, shrink });
    let regressions = if run.regressions { regressions()? } else { vec![] };
    let length_ms = run.seed.length * 1_000;
    let seeds = (run.seed.seed..).take(usize::try_from(run.seeds.unwrap_or(u64::MAX)).unwrap_or(usize::MAX));
    let mut plans = regressions.into_iter().chain(seeds.map(|seed| Plan::from_seed(seed, length_ms)));
    let until = Instant::now() + Duration::from_secs(run.minutes * 60);
    let mut longest = Duration::from_millis(length_ms) + GUESSED;
    let (mut worlds, mut summary) = (JoinSet::new(), Summary::default());
    let (mut has_begun, mut is_over) = (false, false);
    loop {
        while !is_over
            && worlds.len() < usize::try_from(run.parallel)?
            && (!has_begun || Instant::now() + longest <= until)
        {
            let Some(plan) = plans.next() else { break };
            let chamber = Arc::clone(&chamber);
            worlds.spawn(async move { chamber.one(plan).await });
            has_begun = true;
        }
        let Some(ended) = worlds.join_next().await else { return Ok(summary) };
        let Ended { seed, took, outcome } = ended?;
        longest = longest.max(took);
        match outcome {
            Ok(outcome) => {
                eprintln!("{} ({} s)", outcome.line(), took.as_secs());
                let is_found = run.until_broken.is_some_and(|promise| outcome.breaks(promise));
                summary.outcomes.push(outcome);
                if is_found && may_enter() {
                    // The other worlds are in places of their own, and all that is in these ends with their tasks.
                    return Ok(summary);
                }
                is_over |= is_found;
            }
            Err(error) => {
                eprintln!("seed {seed}: the chamber failed: {error:#}");
                summary.failures.push((seed, format!("{error:#}")));
            }
        }
    }
}

/// Plans that failed once.
fn regressions() -> Result<Vec<Plan>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

/// Reads a JSON file.
///
/// # Errors
/// When it cannot be read, or says something else.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))
}

/// Writes what a world observed to its folder.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn keep(into: &Path, observed: &Observed) -> Result<()> {
    write(&into.join(OBSERVED), &serde_json::to_vec(observed)?)
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))
}

impl Chamber {
    async fn one(&self, plan: Plan) -> Ended {
        let since = Instant::now();
        let mut outcome = self.world(&plan, &format!("seed-{}", plan.seed)).await;
        let took = since.elapsed();
        if let Ok(outcome) = &mut outcome
            && !outcome.violations.is_empty()
        {
            self.broken(&plan, outcome).await;
        }
        Ended { seed: plan.seed, took, outcome }
    }

    /// One world in a process of its own. Its folder stays if anything is wrong.
    async fn world(&self, plan: &Plan, name: &str) -> Result<Outcome> {
        let folder = self.out.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join("plan.json");
        write(&path, &serde_json::to_vec_pretty(plan)?)?;
        let words = folder.join("words.log");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("world").arg(&path).arg(&folder).arg("--programs").arg(&self.programs);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command.stderr(fs::File::create(&words).with_context(|| format!("making {}", words.display()))?);
        let patience = Duration::from_millis(plan.length_ms) + observe::LONGEST + AROUND;
        let mut world = command.spawn().context("starting a world")?;
        let Ok(status) = timeout(patience, world.wait()).await else {
            bail!("its world did not end within {} s; see {}", patience.as_secs(), folder.display());
        };
        let status = status.context("waiting for a world")?;
        ensure!(
            status.success(),
            "its world ended with {status}: {}; see {}",
            last(&words),
            folder.display()
        );
        let observed: Observed = read(&folder.join(OBSERVED))?;
        let outcome = Outcome::new(&observed, violations(&observed));
        if outcome.violations.is_empty() && outcome.ends.is_empty() {
            fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        Ok(outcome)
    }

    /// Says what was broken, and looks for the shortest prefix that still breaks it.
    async fn broken(&self, plan: &Plan, outcome: &Outcome) {
        let folder = self.out.join(format!("seed-{}", plan.seed));
        let text = outcome.violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        eprintln!("seed {}: see {}\n{text}", plan.seed, folder.display());
        if let Err(error) = write(&folder.join("violations.txt"), text.as_bytes()) {
            eprintln!("{error:#}");
        }
        let promises: BTreeSet<Promise> = outcome.violations.iter().map(|one| one.promise).collect();
        match self.shrink(plan, &promises).await {
            Ok(Some((search, path))) => eprintln!(
                "seed {}: the shortest prefix that was seen to fail has {} of {} harms ({} more runs): {}\n\
                 copy it to testkit/torture/regressions, and `run --regressions` runs it first",
                plan.seed,
                search.shortest(),
                plan.harms.len(),
                search.runs(),
                path.display()
            ),
            Ok(None) => {}
            Err(error) => eprintln!("seed {}: looking for the shortest prefix failed: {error:#}", plan.seed),
        }
    }

    async fn shrink(&self, plan: &Plan, promises: &BTreeSet<Promise>) -> Result<Option<(Search, PathBuf)>> {
        if self.shrink == 0 {
            return Ok(None);
        }
        let mut search = Search::new(plan.harms.len(), self.shrink);
        while let Some(harms) = search.next() {
            let name = format!("seed-{}-first-{harms}", plan.seed);
            let outcome = self.world(&plan.prefix(harms), &name).await?;
            search.saw(harms, outcome.violations.iter().any(|one| promises.contains(&one.promise)));
        }
        let path = self.out.join(format!("seed-{}.json", plan.seed));
        write(&path, &serde_json::to_vec_pretty(&plan.prefix(search.shortest()))?)?;
        Ok(Some((search, path)))
    }
}

/// The end of what it said.
fn last(words: &Path) -> String {
    let text = fs::read(words).unwrap_or_default();
    let end = text.get(text.len().saturating_sub(QUOTED)..).unwrap_or_default();
    String::from_utf8_lossy(end).trim().to_owned()
}
