//! Who is meant: fields, what is not known, samples and limits.

use proptest::prelude::*;
use rstest::rstest;

use super::super::*;
use crate::{
    api::Liveness,
    heartbeat::{Disk, Facts, Metrics},
    label::{Label, LabelKey, LabelSource, LabelValue, Labels},
};

struct Machine {
    id: MachineId,
    token: MachineToken,
    labels: Labels,
    facts: Facts,
    metrics: Metrics,
}

fn machine(id: &str) -> Machine {
    let id = MachineId::new(id).unwrap();
    let label = |key: &str, value: &str, source| {
        (LabelKey::new(key).unwrap(), Label { value: LabelValue::new(value).unwrap(), source })
    };
    Machine {
        token: id.token(),
        id,
        labels: Labels::from([
            label("role", "web", LabelSource::Operator),
            label("os", "custom", LabelSource::Enrolment),
            label("rack", "r12", LabelSource::Relay),
            label("tier", "2", LabelSource::Operator),
        ]),
        facts: Facts {
            hostname: "web-01.fra".into(),
            os: "Debian 12.11".into(),
            kernel: "6.1.0-18-amd64".into(),
            arch: "x86_64".into(),
        },
        metrics: Metrics {
            cpu_percent: 50.0,
            cpus: 4,
            memory_used_bytes: 3 << 30,
            memory_total_bytes: 8 << 30,
            load: [0.5, 1.0, 2.0],
            uptime_secs: 7_200,
            disks: vec![
                Disk { mount: "/".into(), used_bytes: 10, total_bytes: 100 },
                Disk { mount: "/data".into(), used_bytes: 95, total_bytes: 100 },
            ],
            ..Metrics::default()
        },
    }
}

impl Machine {
    fn traits(&self) -> Traits<'_> {
        Traits {
            labels: Some(&self.labels),
            facts: Some(&self.facts),
            metrics: Some(&self.metrics),
            relay: Some("1.4.0"),
            state: Some(Liveness::Online),
            heard_ms: Some(3_000),
            running: Some(2),
            waiting: Some(0),
            ..Traits::named(&self.id, &self.token)
        }
    }
}

fn truth(text: &str, traits: &Traits<'_>) -> Truth {
    Selector::parse(text).unwrap_or_else(|error| panic!("{}", error.shown())).truth(traits)
}

#[rstest]
#[case("os=debian")]
#[case("os=DEBIAN")]
#[case("os=\"debian 12\"")]
#[case("os=\"Debian 12.11\"")]
#[case("os=deb*")]
#[case("os~\"^debian 1[12]\"")]
#[case("not os=deb")]
#[case("not os=\"debian 1\"")]
#[case("not os=\"\"")]
#[case("os!=ubuntu")]
#[case("host=WEB-01.fra")]
#[case("not host=web-01")]
#[case("host=web-[01-20].fra")]
#[case("kernel=6.1")]
#[case("kernel=6")]
#[case("kernel>=6.1 and kernel<6.2")]
#[case("kernel<6.10")]
#[case("arch=x86_64")]
#[case("relay=1.4")]
#[case("relay<1.10.0 and relay>=1.4 and relay<=1.4.0 and not relay<1.4.0")]
#[case("cpu>=50% and cpu<51 and cpu=50")]
#[case("mem>37 and mem<38")]
#[case("disk=95")]
#[case("load<0.6")]
#[case("cpus=4 and cpus!=5")]
#[case("memory>=8GiB and memory>8GB and memory<9G")]
#[case("up>=2h and up<0.1d")]
#[case("heard<5s and not heard>5m")]
#[case("running>1 and waiting=0")]
#[case("state=online and state!=offline")]
#[case("role=web and role=w* and role=* and role~w.b")]
#[case("not role=Web and not role=we")]
#[case("label.os=custom")]
#[case("rack=r[1-20]")]
#[case("tier<3 and tier>1 and tier!=3")]
#[case("not dc=fra and dc!=fra and not dc=* and dc!~x")]
#[case("not dc<3")]
fn is_true_of_the_machine(#[case] text: &str) {
    assert_eq!(truth(text, &machine("web-01").traits()), Truth::Yes);
    // Who knows its names only finds that it may be.
    let (id, token) = (machine("web-01").id, machine("web-01").token);
    assert!(Selector::parse(text).unwrap().could_mean(&id, &token));
}

#[rstest]
#[case("not kernel=6", "6.1.0", Truth::No)]
#[case("kernel<7", "linux", Truth::Unknown)]
#[case("kernel=linux", "linux-6", Truth::No)]
fn a_fact_is_compared_up_to_the_end_of_a_word(
    #[case] text: &str,
    #[case] kernel: &str,
    #[case] wanted: Truth,
) {
    let mut machine = machine("web-01");
    machine.facts.kernel = kernel.into();
    assert_eq!(truth(text, &machine.traits()), wanted);
}

#[rstest]
#[case("os=debian")]
#[case("not os=debian")]
#[case("os!=debian")]
#[case("os~debian")]
#[case("cpu>0")]
#[case("not cpu>90")]
#[case("disk<100")]
#[case("relay<2")]
#[case("heard>5m")]
#[case("running=0")]
#[case("state=online")]
#[case("role=web")]
#[case("not role=web")]
#[case("os=debian or cpu>1")]
#[case("web-01 and os=debian")]
#[case("db-1 or os=debian")]
fn what_is_not_known_is_not_meant(#[case] text: &str) {
    let machine = machine("web-01");
    assert_eq!(truth(text, &Traits::named(&machine.id, &machine.token)), Truth::Unknown);
    assert!(Selector::parse(text).unwrap().could_mean(&machine.id, &machine.token));
    assert!(
        Selector::parse(text).unwrap().select([&machine], |it| Traits::named(&it.id, &it.token)).is_empty()
    );
}

#[rstest]
#[case("db-1 and os=debian", Truth::No)]
#[case("web-01 or os=debian", Truth::Yes)]
#[case("not (db-1 and os=debian)", Truth::Yes)]
fn what_is_known_may_be_enough(#[case] text: &str, #[case] wanted: Truth) {
    let machine = machine("web-01");
    assert_eq!(truth(text, &Traits::named(&machine.id, &machine.token)), wanted);
    assert_eq!(Selector::parse(text).unwrap().could_mean(&machine.id, &machine.token), wanted != Truth::No);
}

#[test]
fn an_empty_fact_is_not_known_and_an_offline_machine_has_no_figures() {
    let mut machine = machine("web-01");
    machine.facts.os = String::new();
    let offline = Traits { state: Some(Liveness::Offline), ..machine.traits() };
    assert_eq!(truth("not os=debian", &offline), Truth::Unknown);
    assert_eq!(truth("cpu>0", &offline), Truth::Unknown);
    assert_eq!(truth("up>1h", &offline), Truth::Unknown);
    assert_eq!(truth("cpus=4 and memory>1GiB and arch=x86_64", &offline), Truth::Yes);
}

#[test]
fn what_a_relay_says_of_itself_selects_nobody_for_a_secret() {
    let machine = machine("web-01");
    let secret = Traits { is_own_word_ignored: true, ..machine.traits() };
    for text in [
        "rack=r12",
        "not rack=x",
        "os=debian",
        "not os=x",
        "cpu>0",
        "cpus=4",
        "relay=1.4",
        "not relay<1",
        // A machine speaks or is silent as it likes, and a label it leaves out is its word, too.
        "state=online",
        "not state=offline",
        "running=2",
        "heard<1m",
        "not env=test",
        "env!=test",
    ] {
        assert_eq!(truth(text, &machine.traits()), Truth::Yes, "{text}");
        assert_eq!(truth(text, &secret), Truth::Unknown, "{text}");
    }
    for text in ["role=web", "label.os=custom", "web-*"] {
        assert_eq!(truth(text, &secret), Truth::Yes, "{text}");
    }
}

fn chosen(text: &str, count: usize) -> Vec<String> {
    let machines: Vec<Machine> = (1..=count).map(|n| machine(&format!("web-{n}"))).collect();
    let chosen = Selector::parse(text).unwrap().select(machines.iter(), |it| it.traits());
    chosen.into_iter().map(|machine| machine.id.to_string()).collect()
}

#[test]
fn a_limit_takes_the_first_as_people_count() {
    assert_eq!(chosen("all limit 3", 20), ["web-1", "web-2", "web-3"]);
    assert_eq!(chosen("not web-1 limit 10%", 20), ["web-2", "web-3"]);
    assert_eq!(chosen("all limit 1%", 3), ["web-1"]);
    assert_eq!(chosen("all limit 100", 2).len(), 2);
    assert!(chosen("db-* limit 50%", 2).is_empty());
    // In the order in which they came, and not by rank.
    let (two, ten) = (machine("web-2"), machine("web-10"));
    let kept = Selector::parse("all limit 2").unwrap().select([&ten, &two], |it| it.traits());
    assert_eq!(kept.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["web-10", "web-2"]);
}

#[rstest]
#[case("all", None)]
#[case("all limit 50%", None)]
#[case("all limit 5", Some(5))]
#[case("all sample 10% limit 5", Some(5))]
#[case("all sample 3 limit 5", Some(3))]
fn a_number_bounds_what_is_meant(#[case] text: &str, #[case] most: Option<u64>) {
    assert_eq!(Selector::parse(text).unwrap().most(), most);
}

#[test]
fn a_sample_is_the_same_as_long_as_its_machines_are_meant() {
    let ten = chosen("all sample 10%", 100);
    assert_eq!(ten.len(), 10);
    assert_eq!(chosen("all sample 10% seed 0", 100), ten);
    assert_ne!(chosen("all sample 10% seed 7", 100), ten);
    assert_ne!(ten, chosen("all limit 10", 100));
    // One that is not drawn may go: the others stay.
    let other = (1..=100).map(|n| format!("web-{n}")).find(|name| !ten.contains(name)).unwrap();
    assert_eq!(chosen(&format!("not {other} sample 10"), 100), ten);
    let five = chosen("all sample 10% limit 5", 100);
    assert_eq!(five.len(), 5);
    assert!(five.iter().all(|name| ten.contains(name)));
    // Written down: bridges of other versions must draw the same ones.
    assert_eq!(chosen("all sample 3", 10), ["web-1", "web-3", "web-8"]);
}

/// A condition, and how it is evaluated by who does not know this crate.
#[derive(Debug, Clone)]
enum Model {
    Name(&'static str),
    Os(&'static str),
    Role(&'static str),
    Cpu(u8),
    Not(Box<Model>),
    And(Box<Model>, Box<Model>),
    Or(Box<Model>, Box<Model>),
}

struct Known {
    name: &'static str,
    os: Option<&'static str>,
    /// Empty: it has none.
    role: Option<&'static str>,
    cpu: Option<u8>,
}

impl Model {
    fn text(&self) -> String {
        match self {
            Self::Name(name) => (*name).to_owned(),
            Self::Os(os) => format!("os={os}"),
            Self::Role(role) => format!("role={role}"),
            Self::Cpu(cpu) => format!("cpu>{cpu}"),
            Self::Not(a) => format!("not ({})", a.text()),
            Self::And(a, b) => format!("({}) and ({})", a.text(), b.text()),
            Self::Or(a, b) => format!("({}) or ({})", a.text(), b.text()),
        }
    }

    fn is_true(&self, of: &Known) -> Option<bool> {
        match self {
            Self::Name(name) => Some(*name == of.name),
            Self::Os(os) => of.os.map(|known| known == *os),
            Self::Role(role) => of.role.map(|known| known == *role),
            Self::Cpu(cpu) => of.cpu.map(|known| known > *cpu),
            Self::Not(a) => a.is_true(of).map(|a| !a),
            Self::And(a, b) => match (a.is_true(of), b.is_true(of)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(a, b) => match (a.is_true(of), b.is_true(of)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }
}

fn models() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["a", "b"]).prop_map(Model::Name),
        prop::sample::select(vec!["x", "y"]).prop_map(Model::Os),
        prop::sample::select(vec!["x", "y"]).prop_map(Model::Role),
        (0_u8..3).prop_map(Model::Cpu),
    ];
    leaf.prop_recursive(5, 24, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| Model::Not(Box::new(a))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Model::And(Box::new(a), Box::new(b))),
            (inner.clone(), inner).prop_map(|(a, b)| Model::Or(Box::new(a), Box::new(b))),
        ]
    })
}

proptest! {
    #[test]
    fn a_selector_is_true_when_it_is(
        model in models(),
        name in prop::sample::select(vec!["a", "b", "c"]),
        os in prop::sample::select(vec![None, Some("x"), Some("y")]),
        role in prop::sample::select(vec![None, Some(""), Some("x"), Some("z")]),
        cpu in prop::option::of(0_u8..4),
    ) {
        let id = MachineId::new(name).unwrap();
        let token = id.token();
        let labels = role.map(|role| {
            let label = |role| Label { value: LabelValue::new(role).unwrap(), source: LabelSource::Operator };
            Some(role).filter(|role| !role.is_empty()).map(|role| (LabelKey::new("role").unwrap(), label(role))).into_iter().collect::<Labels>()
        });
        let facts = os.map(|os| Facts { os: os.to_owned(), ..Facts::default() });
        let metrics = cpu.map(|cpu| Metrics { cpu_percent: f32::from(cpu), ..Metrics::default() });
        let traits = Traits {
            labels: labels.as_ref(),
            facts: facts.as_ref(),
            metrics: metrics.as_ref(),
            state: Some(Liveness::Online),
            ..Traits::named(&id, &token)
        };
        let selector = Selector::parse(&model.text()).unwrap();
        let truth = selector.truth(&traits);
        let wanted = match model.is_true(&Known { name, os, role, cpu }) {
            Some(true) => Truth::Yes,
            Some(false) => Truth::No,
            None => Truth::Unknown,
        };
        prop_assert_eq!(truth, wanted);
        // What is certain of its names alone stays so, whatever else is known.
        if !selector.could_mean(&id, &id.token()) {
            prop_assert_eq!(truth, Truth::No);
        }
        prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
    }
}
