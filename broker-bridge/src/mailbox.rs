//! What a machine's mailbox should say now. Pure: a function of memory and the clock.

use signalbox_schemas::{
    Base64Url,
    id::{CommandId, MachineToken, Workspace},
    limit,
    mailbox::{AuthorsRef, Basis, Mailbox, Offer},
};

use crate::projection::{MailboxRow, memory::Memory};

/// What should be true of a machine, without time and number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// In the order of CMD.
    pub(crate) offers: Vec<(CommandId, Offer)>,
    /// In the order of CMD.
    pub(crate) cancels: Vec<CommandId>,
    pub(crate) authors: AuthorsRef,
}

/// How a mailbox that stands differs from what should stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Not at all.
    None,
    /// It holds things that could be taken out.
    Surplus,
    /// It lacks something.
    Lacks,
}

/// Room for offers in one mailbox.
struct Room {
    offers: usize,
    bytes: usize,
}

impl Room {
    /// Takes an offer if it fits; the first one always does, its size was checked at submit.
    fn take(&mut self, offer: &Offer) -> bool {
        let bytes = self.bytes + offer.encoded_bytes();
        let fits = self.offers < limit::OFFERS && (self.offers == 0 || bytes <= limit::OFFERS_BYTES);
        if fits {
            (self.offers, self.bytes) = (self.offers + 1, bytes);
        }
        fits
    }
}

/// Collects what should stand in a machine's mailbox at `now`, Unix ms. `None`: it needs none, or the machine or the
/// authors document is not known.
///
/// Offered is what waits and is not held back, strictly in the order of CMD: what does not fit waits for room, and so does
/// everything behind it. What a relay has claimed stays on offer, as far as there is room, until it settles, so
/// that a relay which died between its claim and the start finds it again.
pub(crate) fn content(memory: &Memory, mid: &MachineToken, now: u64) -> Option<Content> {
    let machine = memory.machines.get(mid)?;
    if machine.record.keys.is_none() && !memory.mailboxes.contains_key(mid) {
        // Where no relay has a key there is nobody to read it.
        return None;
    }
    let is_served = memory.is_served(machine);
    let authors = memory.authors.as_ref()?.reference();
    let mut room = Room { offers: 0, bytes: 0 };
    let (mut offers, mut claimed, mut cancels) = (Vec::new(), Vec::new(), Vec::new());
    let (mut is_full, mut running) = (false, 0);
    for (order, cid) in &machine.queue {
        if is_full && running >= machine.running {
            break;
        }
        let Some(command) = memory.open.get(cid) else { continue };
        let (Some(run), Some(grant)) = (command.runs.get(mid), command.grants.get(mid)) else { continue };
        let waits = !run.state.is_running();
        let may_begin = is_served && command.may_begin(mid, now);
        if waits && (is_full || !may_begin) {
            continue;
        }
        if !waits {
            running += 1;
            if command.cancelled && cancels.len() < limit::CANCELS {
                cancels.push(*cid);
            }
        }
        let offer = Offer { spec: Base64Url(command.spec_bytes.to_vec()), grant: grant.signed.clone() };
        if waits {
            is_full = !room.take(&offer);
            if !is_full {
                offers.push((*order, *cid, offer));
            }
        } else {
            claimed.push((*order, *cid, offer));
        }
    }
    offers.extend(claimed.into_iter().filter(|(_, _, offer)| room.take(offer)));
    offers.sort_by_key(|(order, _, _)| *order);
    let offers = offers.into_iter().map(|(_, cid, offer)| (cid, offer)).collect();
    Some(Content { offers, cancels, authors })
}

impl Content {
    /// How what stands there differs from this.
    pub(crate) fn difference(&self, stands: Option<&MailboxRow>) -> Difference {
        let Some(stands) = stands else { return Difference::Lacks };
        let offers: Vec<CommandId> = self.offers.iter().map(|(cid, _)| *cid).collect();
        if stands.authors != Some(self.authors)
            || !offers.iter().all(|cid| stands.offers.contains(cid))
            || !self.cancels.iter().all(|cid| stands.cancels.contains(cid))
        {
            Difference::Lacks
        } else if stands.offers != offers || stands.cancels != self.cancels {
            Difference::Surplus
        } else {
            Difference::None
        }
    }

    /// The mailbox, with a generation above the one that stands there.
    pub(crate) fn compose(
        self,
        (ws, mid): (&Workspace, &MachineToken),
        epoch: u64,
        stands: Option<&MailboxRow>,
        basis: Basis,
        now: u64,
    ) -> Mailbox {
        let previous = stands.map_or(0, |row| row.generation);
        Mailbox {
            ws: ws.clone(),
            mid: mid.clone(),
            epoch,
            generation: now.max(previous.saturating_add(1)),
            basis,
            composed_at: now,
            authors: self.authors,
            jwt: None,
            config: None,
            offers: self.offers.into_iter().map(|(_, offer)| offer).collect(),
            cancels: self.cancels,
            crit: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nkeys::{KeyPair, KeyPairType};
    use proptest::prelude::*;
    use signalbox_schemas::{
        authors::Authors,
        command::{CommandSpec, Grant},
        id::{MachineId, Nonce, Sha256},
        record::{MachineRecord, RelayKeys},
        run::RunState,
        signed::{Signed, SigningKey},
    };

    use super::*;
    use crate::projection::{
        grant::by_machine,
        memory::{AuthorsDoc, OpenCommand},
    };

    const NOW: u64 = 1_000_000;

    fn key() -> SigningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [5; 32]).unwrap();
        SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
    }

    fn web1() -> MachineToken {
        MachineToken::new("web-1").unwrap()
    }

    fn cid(i: usize) -> CommandId {
        format!("0193a2b4-0000-7000-8000-{i:012x}").parse().unwrap()
    }

    /// A command as a test wishes it.
    #[derive(Debug, Clone)]
    struct Wish {
        text: usize,
        state: RunState,
        cancelled: bool,
        expired: bool,
    }

    fn memory(wishes: &[Wish]) -> Memory {
        let mut memory = Memory::default();
        let doc = Authors {
            ws: Workspace::main(),
            version: 3,
            issued_at: 0,
            not_after: 1,
            authors: vec![],
            issuers: vec![],
            bridges: vec![],
            former_bridges: Vec::new(),
            next_fleet_key: None,
            crit: vec![],
        };
        memory.authors = Some(AuthorsDoc { doc: Arc::new(doc), sha256: Sha256::of(b"doc") });
        memory.put_machine(MachineRecord {
            ws: Workspace::main(),
            id: MachineId::new("web-1").unwrap(),
            token: web1(),
            keys: Some(RelayKeys { login_key: key().public().clone(), signing_key: key().public().clone() }),
            enrolled_at: 0,
            enrolled_by: None,
            former_keys: Vec::new(),
            allow_legacy: false,
            labels: signalbox_schemas::label::GivenLabels::default(),
            revision: 0,
        });
        for (i, wish) in wishes.iter().enumerate() {
            let spec = CommandSpec {
                ws: Workspace::main(),
                cid: cid(i),
                command: "x".repeat(wish.text),
                timeout_ms: 1,
                created_at: 0,
                expires_at: if wish.expired { NOW } else { NOW + 1 },
                not_before: None,
                rollout: None,
                retry_of: None,
                purpose: None,
                leave_children: false,
                max_output: 0,
                on: "all".into(),
                targets: 1,
                by: "operator:local".into(),
                created_by: None,
                target: None,
                crit: vec![],
                change: None,
            };
            let spec_bytes = serde_json::to_vec(&spec).unwrap();
            let grant = Grant {
                ws: Workspace::main(),
                cid: cid(i),
                mid: web1(),
                spec_sha256: Sha256::of(&spec_bytes),
                expires_at: spec.expires_at,
                sealed: None,
            };
            let grants = by_machine(vec![Signed::sign(&grant, &key()).unwrap()]);
            memory.open.insert(
                cid(i),
                OpenCommand {
                    order: (i as u64, i as u64),
                    spec_bytes: spec_bytes.into(),
                    spec: Arc::new(spec),
                    machines: [web1()].into(),
                    grants,
                    cancelled: wish.cancelled,
                    held: false,
                    rollout: None,
                    runs: [].into(),
                },
            );
            let claim = wish.state.is_running().then_some((Nonce([0; 16]), 1));
            memory.set_run(cid(i), &web1(), wish.state, claim);
        }
        memory
    }

    fn any_wish() -> impl Strategy<Value = Wish> {
        let text = prop_oneof![4 => 1..200_usize, 1 => 1..65_536_usize];
        let state = prop_oneof![3 => Just(RunState::Pending), 1 => Just(RunState::Executing)];
        (text, state, prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(text, state, cancelled, expired)| Wish { text, state, cancelled, expired })
    }

    fn row(content: &Content) -> MailboxRow {
        let names = (&Workspace::main(), &web1());
        let mailbox = content.clone().compose(names, 1, None, Basis::default(), NOW);
        MailboxRow::of(&mailbox, 1, Sha256::of(b"row"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_mailbox_is_bounded_ordered_and_says_what_it_should(wishes in prop::collection::vec(any_wish(), 0..90)) {
            let memory = memory(&wishes);
            let content = content(&memory, &web1(), NOW).unwrap();
            let offers: Vec<CommandId> = content.offers.iter().map(|(cid, _)| *cid).collect();
            prop_assert!(offers.is_sorted());
            let waits = |wish: &Wish| wish.state == RunState::Pending && !wish.cancelled && !wish.expired;
            for (i, wish) in wishes.iter().enumerate() {
                if offers.contains(&cid(i)) {
                    prop_assert!(waits(wish) || wish.state == RunState::Executing);
                }
                let ends = wish.cancelled && wish.state == RunState::Executing;
                prop_assert_eq!(content.cancels.contains(&cid(i)), ends);
            }
            // What waits is offered from the front without gaps, and at least the first.
            let waiting: Vec<_> = (0..wishes.len()).filter(|i| waits(&wishes[*i])).map(cid).collect();
            let offered = waiting.iter().filter(|cid| offers.contains(cid)).count();
            prop_assert!(waiting[..offered].iter().all(|cid| offers.contains(cid)));
            prop_assert!(offered > 0 || waiting.is_empty());
            // It fits.
            let names = (&Workspace::main(), &web1());
            let mailbox = content.clone().compose(names, 1, None, Basis::default(), NOW);
            prop_assert!(mailbox.offers.len() <= limit::OFFERS);
            let encoded = Signed::sign(&mailbox, &key()).unwrap().to_json().len();
            prop_assert!(encoded <= limit::MAILBOX_BYTES, "{encoded} bytes");
            // What was written is not written again.
            prop_assert_eq!(content.difference(Some(&row(&content))), Difference::None);
            prop_assert_eq!(content.difference(None), Difference::Lacks);
        }
    }

    fn wish(state: RunState) -> Wish {
        Wish { text: 10, state, cancelled: false, expired: false }
    }

    #[test]
    fn the_largest_command_fits_alone() {
        // Every byte of a text can take six in JSON, up to the largest spec.
        let memory = memory(&[Wish { text: 65_536, ..wish(RunState::Pending) }]);
        let content = content(&memory, &web1(), NOW).unwrap();
        let mut content = content.clone();
        content.offers[0].1.spec = Base64Url(vec![b'x'; limit::SPEC_BYTES]);
        let mailbox = content.compose((&Workspace::main(), &web1()), 1, None, Basis::default(), NOW);
        assert!(Signed::sign(&mailbox, &key()).unwrap().to_json().len() <= limit::MAILBOX_BYTES);
    }

    #[test]
    fn a_settled_offer_is_surplus_and_a_new_one_is_lacking() {
        let before =
            content(&memory(&[wish(RunState::Pending), wish(RunState::Pending)]), &web1(), NOW).unwrap();
        let less =
            content(&memory(&[wish(RunState::Completed), wish(RunState::Pending)]), &web1(), NOW).unwrap();
        assert_eq!(less.difference(Some(&row(&before))), Difference::Surplus);
        assert_eq!(before.difference(Some(&row(&less))), Difference::Lacks);
    }

    #[test]
    fn a_generation_grows_even_if_the_clock_goes_back() {
        let content = content(&memory(&[]), &web1(), NOW).unwrap();
        let mut stands = row(&content);
        stands.generation = NOW + 5;
        let names = (&Workspace::main(), &web1());
        let next = content.clone().compose(names, 1, Some(&stands), Basis::default(), NOW);
        assert_eq!(next.generation, NOW + 6);
        assert_eq!(content.compose(names, 1, None, Basis::default(), NOW).generation, NOW);
    }

    #[test]
    fn an_unknown_machine_has_no_mailbox() {
        assert_eq!(content(&memory(&[]), &MachineToken::new("web-2").unwrap(), NOW), None);
    }
}
