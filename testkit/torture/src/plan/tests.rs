use std::collections::BTreeSet;

use super::*;
use crate::script;
use signalbox_schemas::id::Sha256;

const LENGTH_MS: u64 = 30_000;

fn plan(seed: u64) -> Plan {
    Plan::from_seed(seed, LENGTH_MS)
}

fn kind(fault: &Fault) -> String {
    let json = serde_json::to_value(fault).unwrap();
    let Some(members) = json.as_object() else { return json.to_string() };
    let (name, rest) = members.iter().next().unwrap();
    let part = rest.as_array().map_or(rest, |parts| &parts[0]);
    let part = part.as_object().and_then(|part| part.keys().next().cloned()).unwrap_or_default();
    format!("{name} {part}")
}

#[test]
fn a_seed_is_the_same_plan_for_ever() {
    let sha256 = |plan: &Plan| Sha256::of(&serde_json::to_vec(plan).unwrap()).to_string();
    // As it was before anything wrote all the time: what is drawn for one purpose changes nothing of the others.
    assert_eq!(
        sha256(&Plan { chatter: vec![], distances_ms: vec![], ..plan(1) }),
        "29853ae4193a04697e0b49eb9357084fb5e25bf6a145cb85de322ab2f0c334f0",
        "seeds that were run and written down mean other harms or wishes now"
    );
    assert_eq!(
        sha256(&plan(1)),
        "134884ba907ad86fa7b4b17b30ef7db131c058c3f984e234b32de8462edc4b38",
        "seeds that were run and written down mean other plans now"
    );
    assert_ne!(plan(1).harms, plan(2).harms);
}

#[test]
fn few_seeds_do_everything() {
    let seen: BTreeSet<String> =
        (0..40).flat_map(|seed| plan(seed).harms).map(|harm| kind(&harm.fault)).collect();
    let of =
        |name: &str, parts: &[&str]| parts.iter().map(|part| format!("{name} {part}")).collect::<Vec<_>>();
    let wanted = [
        of("kill", &["broker", "bridge", "relay", "keeper"]),
        of("halt", &["broker", "bridge", "relay", "keeper"]),
        of("cut", &["broker", "bridge", "relay"]),
        of("weather", &["broker", "bridge", "relay"]),
        of("fill", &["broker", "bridge", "relay"]),
        of("jump", &["bridge", "relay"]),
        of("forget", &["bridge", "relay"]),
        of("rollback", &["bridge", "relay"]),
        vec!["twin ".to_owned(), "upgrade ".to_owned(), "\"slow_reader\"".to_owned()],
    ];
    let wanted: BTreeSet<String> = wanted.concat().into_iter().collect();
    assert_eq!(seen, wanted);
}

#[test]
fn clusters_lose_one_two_and_all() {
    let mut lost = BTreeSet::new();
    for plan in (3..200).step_by(4).map(plan) {
        assert_eq!(plan.brokers, 3);
        let kills = plan.harms.iter().filter(|harm| matches!(harm.fault, Fault::Kill(Part::Broker(_))));
        let mut at: std::collections::BTreeMap<u64, usize> = std::collections::BTreeMap::new();
        kills.for_each(|harm| *at.entry(harm.at_ms).or_default() += 1);
        lost.extend(at.into_values());
    }
    assert_eq!(lost, BTreeSet::from([1, 2, 3]));
    assert!((0..200).filter(|seed| seed % 4 != 3).all(|seed| plan(seed).brokers == 1));
}

#[test]
fn what_is_planned_is_in_its_range() {
    let (mut two_bridges, mut overlaps) = (0, 0);
    for plan in (0..200).map(plan) {
        two_bridges += u32::from(plan.bridges == 2);
        assert!((2..=4).contains(&plan.machines) && (1..=2).contains(&plan.bridges));
        assert!((5..=36).contains(&plan.harms.len()), "{} harms", plan.harms.len());
        assert_eq!(plan.wishes.len(), 60);
        assert!(plan.harms.is_sorted_by_key(|harm| harm.at_ms));
        for harm in &plan.harms {
            assert!(harm.at_ms + harm.for_ms <= plan.length_ms, "{harm:?}");
            let (Fault::Kill(part) | Fault::Cut(part) | Fault::Fill(part)) = harm.fault else { continue };
            match part {
                Part::Broker(n) => assert!(n < plan.brokers),
                Part::Bridge(n) => assert!(n < plan.bridges),
                Part::Relay(n) | Part::Keeper(n) => assert!(n < plan.machines),
            }
        }
        overlaps +=
            plan.harms.windows(2).filter(|pair| pair[1].at_ms < pair[0].at_ms + pair[0].for_ms).count();
        for wish in &plan.wishes {
            assert!(wish.at_ms <= plan.length_ms && !wish.on.is_empty());
            assert!(wish.on.is_sorted() && wish.on.iter().all(|n| *n < plan.machines));
            assert!(wish.not_before_in_ms.is_none_or(|ms| ms < wish.expires_in_ms && !wish.by_http));
        }
    }
    assert!((70..130).contains(&two_bridges), "{two_bridges} of 200 have two bridges");
    assert!(overlaps > 200, "{overlaps} overlaps");
}

#[test]
fn wishes_are_of_every_kind() {
    let wishes: Vec<Wish> = (0..4).flat_map(|seed| plan(seed).wishes).collect();
    let count = |is: &dyn Fn(&Wish) -> bool| wishes.iter().filter(|wish| is(wish)).count();
    assert!(count(&|wish| wish.by_http) > 40);
    assert!(count(&|wish| !wish.by_http) > 40);
    assert!(count(&|wish| wish.on.len() > 1) > 40);
    assert!(count(&|wish| wish.cancel_after_ms.is_some_and(|ms| ms <= 60)) > 5);
    assert!(count(&|wish| wish.cancel_after_ms.is_some_and(|ms| ms > 60)) > 5);
    assert!(count(&|wish| wish.not_before_in_ms.is_some()) > 5);
    assert!(count(&|wish| wish.expires_in_ms <= 3_000) > 10);
    assert!(count(&|wish| wish.max_output.is_some()) > 3);
    for is in [
        |work: &Work| matches!(work, Work::Nothing),
        |work: &Work| matches!(work, Work::Wait(_)),
        |work: &Work| matches!(work, Work::Lines(_, 0)),
        |work: &Work| matches!(work, Work::Lines(_, 1..)),
        |work: &Work| matches!(work, Work::Fail(_)),
        |work: &Work| matches!(work, Work::Die),
    ] {
        assert!(count(&|wish| is(&wish.work)) > 5);
    }
}

#[test]
fn every_machine_writes_all_the_time() {
    for (seed, length_ms) in [(0, 5_000), (1, 30_000), (2, 30_000), (3, 45_000), (4, 600_000)] {
        let plan = Plan::from_seed(seed, length_ms);
        assert!(plan.chatter.is_sorted_by_key(|wish| wish.at_ms));
        for machine in 0..plan.machines {
            let mut writes_until = 1_000;
            for wish in plan.chatter.iter().filter(|wish| wish.on == [machine]) {
                assert!(wish.at_ms <= writes_until, "machine {machine} is silent until {}", wish.at_ms);
                let takes_ms = script::least_ms(&wish.work).unwrap();
                assert!((500..=13_000).contains(&takes_ms), "{wish:?}");
                assert!(wish.timeout_ms >= takes_ms + 9_800, "{wish:?}");
                assert!((1..1 << 20).contains(&script::output_bytes(&wish.work)), "{wish:?}");
                assert!(wish.expires_in_ms >= 30_000 && wish.cancel_after_ms.is_none());
                writes_until = wish.at_ms + takes_ms;
            }
            assert!((20..=80).contains(&plan.distances_ms[usize::from(machine)]));
            assert!(writes_until >= length_ms, "machine {machine} is silent from {writes_until} on");
        }
    }
    let all: Vec<Wish> = (0..4).flat_map(|seed| plan(seed).chatter).collect();
    let by_http = all.iter().filter(|wish| wish.by_http).count();
    assert!((1..all.len()).contains(&by_http), "{by_http} of {} come by HTTP", all.len());
}

#[test]
fn what_cannot_be_done_is_left_out_and_nothing_else_changes() {
    let all = plan(5);
    let is_cut = |fault: &Fault| matches!(fault, Fault::Cut(_));
    let (some, skipped) = all.without(is_cut);
    assert!(!skipped.is_empty() && skipped.iter().all(|harm| is_cut(&harm.fault)));
    assert_eq!(some.harms.len() + skipped.len(), all.harms.len());
    assert!(!some.harms_any(is_cut) && some.harms.is_sorted_by_key(|harm| harm.at_ms));
    assert_eq!((some.wishes, some.chatter), (all.wishes, all.chatter));
}

#[test]
fn a_prefix_is_the_beginning() {
    let all = plan(5);
    assert_eq!(all.prefix(3).harms, all.harms[..3]);
    assert_eq!(all.prefix(3).wishes, all.wishes);
    assert_eq!(all.prefix(usize::MAX), all);
}
