//! Looking at what is left: first until nothing is on its way any more, then at everything.

mod answers;
mod settle;
mod streams;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use signalbox_link::{Link, Login, Options};
use signalbox_schemas::{id::MachineToken, layout::Layout, signed::PublicKey, stream};
use signalbox_testkit::{http::Http, operator::now_ms};
use tokio::time::{Instant, sleep};

use crate::{
    check,
    observed::{Answers, MachineSeen, Observed},
    plan::{Harm, Plan},
    told::Said,
    workload::Doors,
};

/// How long bridges may take until they say what the others say.
const AGREE: Duration = Duration::from_secs(20);
/// Between two looks.
const STEP: Duration = Duration::from_millis(500);

/// Where the rest of the world is.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Where operators go.
    pub(crate) doors: Doors,
    /// The file of marks of each machine.
    pub(crate) marks: Vec<PathBuf>,
}

/// What is known when the harm is over.
pub(crate) struct Healed {
    /// When the machine had been up for 0 s, Unix ms.
    pub(crate) booted_at: u64,
    /// What could not be done here.
    pub(crate) skipped: Vec<Harm>,
    /// When all was healthy, Unix ms.
    pub(crate) at: u64,
}

/// A reader of the streams after the harm.
pub(crate) struct Observer {
    link: Link,
    fleet_key: PublicKey,
    places: Places,
}

impl Observer {
    /// Connects as the administrator.
    ///
    /// # Errors
    /// When there is no broker, or a file is missing.
    pub(crate) async fn connect(places: Places) -> Result<Self> {
        let layout = Layout::new(&places.doors.state_dir);
        let login = Login::from_creds_file(&layout.creds("ctrl"))?;
        let link = Link::connect(Options::plain(&places.doors.nats, "torture", Some(login))).await?;
        let path = layout.fleet_pub();
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { link, fleet_key: text.trim().parse().context("reading the fleet key")?, places })
    }

    /// Waits until every accepted command is settled on each of its machines, or its bound is over; and until all of it
    /// stands in the audit chain, or the time for that is over.
    ///
    /// # Errors
    /// When the streams cannot be read.
    pub(crate) async fn until_settled(&self, healed_at: u64) -> Result<()> {
        settle::wait(&self.link, &self.fleet_key, healed_at).await
    }

    /// Looks at everything. `fresh` is a bridge that began with nothing.
    ///
    /// # Errors
    /// When something cannot be read at all.
    pub(crate) async fn look(
        &self,
        plan: &Plan,
        said: Said,
        healed: Healed,
        fresh: &str,
    ) -> Result<Observed> {
        let answers = self.agreed(fresh).await?;
        let seen_at = now_ms()?;
        let mut stored = Vec::new();
        for name in [stream::DOC, stream::STATE, stream::CMD, stream::RUN, stream::DONE, stream::MBOX] {
            stored.extend(streams::read(&self.link, name).await?.into_iter().map(streams::stored));
        }
        let audit = streams::read(&self.link, stream::AUDIT).await?;
        let out = streams::read(&self.link, stream::OUT).await?;
        Ok(Observed {
            plan: plan.clone(),
            skipped: healed.skipped,
            missed: vec![],
            done: None,
            ends: vec![],
            booted_at: healed.booted_at,
            said,
            healed_at: healed.at,
            seen_at,
            fleet_key: self.fleet_key.clone(),
            machines: self.machines()?,
            stored,
            audit: Some(audit.into_iter().map(streams::stored).collect()),
            chunks: out.into_iter().map(streams::chunk).collect(),
            answers,
        })
    }

    fn machines(&self) -> Result<Vec<MachineSeen>> {
        let both = self.places.doors.machines.iter().zip(&self.places.marks);
        both.map(|(token, path): (&MachineToken, &PathBuf)| {
            let marks = match std::fs::read(path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                // Nothing has run there.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
            };
            Ok(MachineSeen { token: token.clone(), marks })
        })
        .collect()
    }

    /// What all bridges answer, once they answer the same and nothing was written meanwhile; or after a while.
    async fn agreed(&self, fresh: &str) -> Result<Vec<Answers>> {
        let bridges = &self.places.doors.bridges;
        let named = bridges.iter().enumerate().map(|(n, url)| (format!("bridge {n}"), url.as_str()));
        let all: Vec<(String, &str)> = named.chain([("a bridge from nothing".to_owned(), fresh)]).collect();
        let until = Instant::now() + AGREE;
        loop {
            let mut answers = Vec::new();
            for (name, url) in &all {
                let http = Http::new(url, &self.places.doors.token);
                let asked = answers::ask(&http, name).await;
                answers.push(asked.with_context(|| format!("asking {name} at {url}"))?);
            }
            if are_same(&answers) || Instant::now() >= until {
                return Ok(answers);
            }
            sleep(STEP).await;
        }
    }
}

fn are_same(answers: &[Answers]) -> bool {
    answers.windows(2).all(|pair| match pair {
        [one, other] => {
            (&one.listed, &one.commands, &one.outputs) == (&other.listed, &other.commands, &other.outputs)
        }
        _ => true,
    })
}

/// When the machine had been up for 0 s, Unix ms.
///
/// # Errors
/// When there is no `/proc/uptime`.
pub(crate) fn booted_at() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/uptime").context("reading /proc/uptime")?;
    let uptime: f64 = text.split(' ').next().context("it is empty")?.parse()?;
    let uptime = Duration::try_from_secs_f64(uptime)?;
    Ok(now_ms()?.saturating_sub(u64::try_from(uptime.as_millis())?))
}

/// Longest time for which the end of all runs is waited for after the harm, beyond the bounds themselves.
pub(crate) const LONGEST: Duration = Duration::from_millis(check::SLACK_MS + 240_000);
