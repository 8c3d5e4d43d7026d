//! The world: real processes on hosts, disks and clocks of their own, and harm that is done to them and healed.
//!
//! Harms are kept as a list of what is in force; what should be true of each part follows from it ([`mod@wanted`]), and the part
//! is made so. So harms may overlap, and healing one leaves the others in force.

mod broker;
mod build;
mod disk;
mod host;
mod machine;
mod member;
mod net;
pub(crate) mod place;
mod process;
mod wanted;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use signalbox_testkit::eventually_within;
use signalbox_testkit::http::Http;
use tempfile::TempDir;

use self::broker::Listens;
use self::disk::Disk;
use self::member::Member;
use self::net::Net;
use self::place::Abilities;
use self::wanted::wanted;
use crate::fault::{Fault, Part};
use crate::plan::Plan;

/// How long a part may take to be ready once nothing hinders it.
const READY: Duration = Duration::from_secs(90);

/// A running world; everything is gone on drop.
#[derive(Debug)]
pub(crate) struct World {
    // Dropped in this order: processes, then their network, then what they had on disk.
    members: Vec<Member>,
    /// Bridges that were started to be asked, and that nothing happens to.
    fresh: Vec<Member>,
    net: Option<Net>,
    abilities: Abilities,
    /// What is in force, in the order in which it began.
    active: Vec<Fault>,
    /// Harms of keepers that found none.
    missed: Vec<Fault>,
    servers: Vec<Listens>,
    /// Base URLs of the bridges.
    bridges: Vec<String>,
    machines: Vec<String>,
    marks: Vec<PathBuf>,
    admin_token: String,
    state_dir: PathBuf,
    programs: PathBuf,
    replicas: u8,
    _disk: Disk,
    root: TempDir,
}

impl World {
    /// Builds what the plan asks for and waits until all parts are ready. `programs` is the folder of the built programs.
    /// What can be harmed depends on the place: see [`place::enter`], which comes first.
    ///
    /// # Errors
    /// When a program or a tool is missing, or a part is not ready in time; the error quotes it.
    pub(crate) async fn start(plan: &Plan, programs: &Path) -> Result<Self> {
        let mut world = build::world(plan, programs).await?;
        world.all_ready().await?;
        for member in &mut world.members {
            if !matches!(member.part, Part::Broker(_)) {
                member.keep_store()?;
            }
        }
        world.all_ready().await?;
        Ok(world)
    }

    /// Whether this place can do it, and this world has such a part.
    pub(crate) fn can(&self, fault: &Fault) -> bool {
        let has_part = fault
            .part()
            .is_some_and(|part| self.members.iter().any(|member| member.part == part.with_relay()));
        has_part
            && match fault {
                Fault::Kill(_) | Fault::Halt(_) | Fault::Twin(_) | Fault::Upgrade(_) => true,
                Fault::Cut(part) | Fault::Weather(part, _) => {
                    self.abilities.namespaces && !matches!(part, Part::Keeper(_))
                }
                Fault::Fill(_) => self.abilities.namespaces,
                Fault::Jump(part, _) => self.abilities.faketime.is_some() && !matches!(part, Part::Broker(_)),
                Fault::Forget(part) | Fault::Rollback(part) => {
                    matches!(part, Part::Bridge(_) | Part::Relay(_))
                }
                Fault::SlowReader => false,
            }
    }

    /// Begins a harm. It is done when this returns. Answers whether it met anybody: a machine is without a keeper at times.
    ///
    /// # Errors
    /// When this place cannot do it, or the system refuses.
    pub(crate) async fn harm(&mut self, fault: &Fault) -> Result<bool> {
        ensure!(self.can(fault), "{fault:?} cannot be done here");
        self.active.push(fault.clone());
        self.settle(fault).await.with_context(|| format!("doing {fault:?}"))?;
        let mut has_met = true;
        match fault {
            Fault::Kill(Part::Keeper(number)) => {
                has_met = self.member(Part::Relay(*number))?.machine()?.kill_keepers().await?;
            }
            Fault::Halt(Part::Keeper(number)) => {
                has_met = self.member(Part::Relay(*number))?.machine()?.has_halted();
            }
            Fault::Forget(hurt) => self.member(*hurt)?.lose_store(false).await?,
            Fault::Rollback(hurt) => self.member(*hurt)?.lose_store(true).await?,
            Fault::Upgrade(number) => {
                let member = self.member(Part::Relay(*number))?;
                member.machine()?.replace_program()?;
                member.process.terminate()?;
            }
            _ => {}
        }
        if !has_met {
            self.missed.push(fault.clone());
        }
        Ok(has_met)
    }

    /// Ends a harm: what was killed is started, what was cut off is joined. Does not wait until the part is ready, which it
    /// may not become while other harms are in force.
    ///
    /// # Errors
    /// When it is not in force, or the system refuses.
    pub(crate) async fn heal(&mut self, fault: &Fault) -> Result<()> {
        let Some(at) = self.active.iter().position(|active| active == fault) else {
            bail!("{fault:?} is not in force");
        };
        self.active.remove(at);
        self.settle(fault).await.with_context(|| format!("healing {fault:?}"))
    }

    /// Heals everything and waits until every part runs and is ready, and every bridge hears every machine.
    ///
    /// # Errors
    /// When a part is not ready in time; the error quotes it.
    pub(crate) async fn heal_all(&mut self) -> Result<()> {
        while let Some(fault) = self.active.last().cloned() {
            self.active.pop();
            self.settle(&fault).await.with_context(|| format!("healing {fault:?}"))?;
        }
        self.all_ready().await
    }

    /// URLs of all servers of the broker, separated by commas, as they are reached from this process.
    pub(crate) fn nats(&self) -> String {
        self.servers.iter().map(Listens::url).collect::<Vec<_>>().join(",")
    }

    /// Base URL of bridge `number`, which it keeps.
    pub(crate) fn bridge_http(&self, number: u8) -> Option<String> {
        self.bridges.get(usize::from(number)).cloned()
    }

    /// `keys/`, `creds/` and `machines/` of `init`.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Bearer token of HTTP.
    pub(crate) fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The id, which is the token too, of machine `number`: `m0`, `m1`, …; empty for one that is not there.
    pub(crate) fn machine(&self, number: u8) -> &str {
        self.machines.get(usize::from(number)).map_or("", String::as_str)
    }

    /// The file of machine `number` to which its commands append their marks, on a disk that nothing happens to.
    pub(crate) fn marks(&self, number: u8) -> &Path {
        self.marks.get(usize::from(number)).map_or(Path::new(""), PathBuf::as_path)
    }

    /// Where the parts' logs are collected, one file each. Gone with the world.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.path().join("logs")
    }

    /// How parts ended that nobody had ended, with their last words.
    pub(crate) fn ends(&self) -> Vec<String> {
        self.members.iter().chain(&self.fresh).flat_map(|member| member.process.ends()).collect()
    }

    /// Harms that met nobody: a keeper is looked for by its command line, and there is none between two.
    pub(crate) fn missed(&self) -> &[Fault] {
        &self.missed
    }

    /// Packets for which the network had no room.
    pub(crate) fn dropped_packets(&self) -> u64 {
        self.net.as_ref().map_or(0, Net::dropped)
    }

    /// Starts a further bridge, which has nothing yet and builds its view from the streams. Answers its base URL once it is
    /// ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub(crate) async fn fresh_bridge(&mut self) -> Result<String> {
        let number = u8::try_from(self.fresh.len())?;
        let (member, http) = build::fresh_bridge(self, number)?;
        self.fresh.push(member);
        let member = self.fresh.last().context("the bridge just started")?;
        ready_bridge(member, &http, &self.admin_token, &self.machines).await?;
        Ok(http)
    }

    fn member(&mut self, part: Part) -> Result<&mut Member> {
        let found = self.members.iter_mut().find(|member| member.part == part);
        found.map_or_else(|| place::missing(&format!("{part:?}")), Ok)
    }

    /// Makes the part that a fault is about as it should be now.
    async fn settle(&mut self, fault: &Fault) -> Result<()> {
        let Some(hurt) = fault.part() else { return Ok(()) };
        let wants = wanted(&self.active, hurt.with_relay());
        let keeper = wanted(&self.active, hurt);
        let Some(member) = self.members.iter_mut().find(|member| member.part == hurt.with_relay()) else {
            return place::missing(&format!("{hurt:?}"));
        };
        member.become_as(wants, self.net.as_ref()).await?;
        if matches!((hurt, fault), (Part::Keeper(_), Fault::Halt(_))) {
            member.machine()?.set_halted(keeper.is_halted)?;
        }
        Ok(())
    }

    async fn all_ready(&self) -> Result<()> {
        for server in &self.servers {
            broker::healthy(server).await?;
        }
        for member in &self.members {
            match member.part {
                Part::Broker(_) | Part::Keeper(_) => {}
                Part::Relay(_) => drop(member.process.ready(READY).await?),
                Part::Bridge(number) => {
                    let http = self.bridge_http(number).context("a bridge without an address")?;
                    ready_bridge(member, &http, &self.admin_token, &self.machines).await?;
                }
            }
        }
        Ok(())
    }
}

/// Waits until a bridge is well and hears these machines.
async fn ready_bridge(bridge: &Member, http: &str, token: &str, machines: &[String]) -> Result<()> {
    bridge.process.ready(READY).await?;
    let http = Http::new(http, token);
    let heard = eventually_within("a bridge that hears everybody", READY, || async {
        let health = http.get("/health").await?;
        ensure!(health.status == 200, "it says {}", health.text());
        let known = http.json("/api/v1/machines").await?;
        let items = known.get("items").and_then(serde_json::Value::as_array).context("no machines")?;
        for machine in machines {
            let is_online = |item: &serde_json::Value| {
                item.get("id").is_some_and(|id| id == machine)
                    && item.get("state").is_some_and(|is| is == "online")
            };
            ensure!(items.iter().any(is_online), "{machine} is not online: {known}");
        }
        Ok(())
    });
    heard.await.with_context(|| format!("{:?} said {}", bridge.part, bridge.process.last_words()))
}

#[cfg(test)]
mod tests;
