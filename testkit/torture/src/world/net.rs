//! A network in user space: one TUN device per host, moved into the host's namespace, and this process as the switch
//! between them. The kernels of many machines have no netem, and every one has TUN.
//!
//! A packet goes over its sender's line and its receiver's; each has its length, and can be cut, late, lossy and doubling. What is late waits in
//! its receiver's queue, which is bounded: what finds no room is dropped and counted.

pub(crate) mod fate;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_tun::Tun;

use crate::world::place::run;
use fate::{Dice, Line, through};

/// Largest packet, as on most lines.
const MTU: i32 = 1_500;
/// Packets that wait to be looked at by a receiver.
const ARRIVALS: usize = 1_024;
/// Packets that are late on a receiver's line. 12 MB a second that are 1 s late fit.
const LATE: usize = 8_192;

/// A packet on its way: when it arrives, its turn among those of the same moment, and its bytes.
type Late = Reverse<(Instant, u64, Vec<u8>)>;

/// The network of one world; gone on drop, with all its devices.
#[derive(Debug)]
pub(crate) struct Net {
    switch: Arc<Switch>,
    tasks: JoinSet<()>,
}

/// What the lines are like, and where they lead.
#[derive(Debug)]
struct Switch {
    ports: Mutex<BTreeMap<Ipv4Addr, Port>>,
    dice: Mutex<Dice>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Port {
    line: Line,
    /// How much later everything comes over this line, whatever the weather.
    distance: Duration,
    arrivals: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Net {
    /// A network without hosts, whose weather comes from this seed.
    pub(crate) fn new(seed: u64) -> Self {
        let (ports, dice) = (Mutex::default(), Mutex::new(Dice::new(seed)));
        Self { switch: Arc::new(Switch { ports, dice, dropped: AtomicU64::new(0) }), tasks: JoinSet::new() }
    }

    /// Lays a line to `address`, in the named network namespace or, without one, in this process's own. Over it each packet
    /// takes `distance`.
    ///
    /// # Errors
    /// When the system refuses a device.
    pub(crate) fn join(
        &mut self,
        address: Ipv4Addr,
        namespace: Option<&str>,
        distance: Duration,
    ) -> Result<()> {
        let [.., number] = address.octets();
        let name = format!("sb{number}");
        let made = Tun::builder().name(&name).mtu(MTU).build();
        let tun = made.context("making a TUN device")?.pop().context("no TUN device came")?;
        let inside: &[&str] = match namespace {
            Some(namespace) => {
                run("ip", &["link", "set", &name, "netns", namespace])?;
                &["-n", namespace]
            }
            None => &[],
        };
        let net = format!("{address}/24");
        run("ip", &[inside, &["address", "add", &net, "dev", &name]].concat())?;
        run("ip", &[inside, &["link", "set", &name, "mtu", &MTU.to_string(), "up"]].concat())?;

        let (arrivals, arriving) = mpsc::channel(ARRIVALS);
        self.switch.ports().insert(address, Port { line: Line::default(), distance, arrivals });
        let tun = Arc::new(tun);
        self.tasks.spawn(send(Arc::clone(&tun), Arc::clone(&self.switch)));
        self.tasks.spawn(deliver(tun, arriving, Arc::clone(&self.switch), address));
        Ok(())
    }

    /// From now on a host's line is like this. Nothing for a host that is not there.
    pub(crate) fn set(&self, address: Ipv4Addr, line: Line) {
        if let Some(port) = self.switch.ports().get_mut(&address) {
            port.line = line;
        }
    }

    /// Packets that found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.switch.dropped.load(Ordering::Relaxed)
    }
}

impl Switch {
    fn ports(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self, address: Ipv4Addr) -> bool {
        self.ports().get(&address).is_none_or(|port| port.line.cut)
    }

    /// Lays a packet into its receiver's queue, as often as the lines between them let it through.
    fn forward(&self, packet: &[u8]) {
        let Some((from, to)) = ends(packet) else { return };
        let ports = self.ports();
        let Some((from, to)) = ports.get(&from).zip(ports.get(&to)) else { return };
        let copies = {
            let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
            through([&from.line, &to.line], &mut dice)
        };
        let due = Instant::now() + from.distance + to.distance;
        for late in copies {
            if to.arrivals.try_send((due + late, packet.to_vec())).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Sender and receiver of an IPv4 packet; none for anything else.
fn ends(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (head, _) = packet.split_first_chunk::<20>()?;
    let (addresses, [version, ..]) = (head.last_chunk::<8>()?, head);
    let (from, to) = (addresses.first_chunk::<4>()?, addresses.last_chunk::<4>()?);
    (version >> 4 == 4).then_some((Ipv4Addr::from(*from), Ipv4Addr::from(*to)))
}

/// Takes what a host sends, until its device is gone.
async fn send(tun: Arc<Tun>, switch: Arc<Switch>) {
    let mut packet = vec![0; usize::try_from(MTU).unwrap_or_default()];
    while let Ok(length) = tun.recv(&mut packet).await {
        switch.forward(packet.get(..length).unwrap_or_default());
    }
}

/// Brings a host what is for it, each packet in its time.
async fn deliver(
    tun: Arc<Tun>,
    mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
    switch: Arc<Switch>,
    address: Ipv4Addr,
) {
    let mut late: BinaryHeap<Late> = BinaryHeap::new();
    let mut order = 0;
    loop {
        // Not by the timer, which rounds up to the next millisecond.
        while late.peek().is_some_and(|Reverse((due, ..))| *due <= Instant::now()) {
            let Some(Reverse((_, _, packet))) = late.pop() else { break };
            // What the device does not take is lost, as on any line.
            if switch.is_cut(address) || tun.send(&packet).await.is_err() {
                switch.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        let next = late.peek().map(|Reverse((due, ..))| *due);
        tokio::select! {
            arrived = arriving.recv(), if late.len() < LATE => {
                let Some((due, packet)) = arrived else { return };
                order += 1;
                late.push(Reverse((due, order, packet)));
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests;
