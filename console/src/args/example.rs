//! Examples of every command, for `--help` and the pages of man. Each of them is read by a test as it stands here.

use clap::Command;

/// Examples by the command that they are of.
#[rustfmt::skip]
const EXAMPLES: &[(&str, &[&str])] = &[
    ("", &["signalbox up", "signalbox run --on 'web-*' -- uptime", "signalbox --context lab machines"]),
    ("up", &["signalbox up --relays 5", "signalbox up --headless --http 127.0.0.1:0"]),
    ("run", &[
        "signalbox run --on 'web-*' -- uptime",
        "signalbox run --on all --timeout 5m --json -- 'apt-get update -q'",
        "signalbox run --on web-1 --ssh admin@db.lan -- df -h",
        "signalbox run --on 'web-*' --canary 1 --waves 5%,25% --pause-after 2% -- systemctl reload nginx",
        "signalbox run --saved restart --with unit=nginx --on 'web-*'",
    ]),
    ("exec", &["signalbox exec web-1 -- systemctl is-active nginx", "signalbox exec web-1 --wait 0s -- ./backup"]),
    ("machines", &["signalbox machines", "signalbox machines --watch", "signalbox machines --on role=web", "signalbox machines --at 10m --json"]),
    ("history", &["signalbox history web-1 --since 2h", "signalbox history web-1 --json"]),
    ("events", &["signalbox events --since 1h", "signalbox events --type machine.offline --watch --json"]),
    ("operators", &["signalbox operators"]),
    ("health", &["signalbox health", "signalbox health --json"]),
    ("machine", &["signalbox machine web-1", "signalbox machine web-1 --json"]),
    ("label ls", &["signalbox label ls", "signalbox label ls --on 'web-*' --json"]),
    ("label set", &["signalbox label set 'web-*' role=web dc=fra", "signalbox label set 'role=web and not dc=*' dc=lon"]),
    ("label rm", &["signalbox label rm 'web-*' dc"]),
    ("status", &["signalbox status", "signalbox status --json"]),
    ("commands", &["signalbox commands --limit 5", "signalbox commands --watch --json"]),
    ("show", &["signalbox show 0193a2b4-0000-7000-8000-000000000000"]),
    ("output", &[
        "signalbox output 0193a2b4-0000-7000-8000-000000000000 --by group",
        "signalbox output 0193a2b4-0000-7000-8000-000000000000 --machine web-1 --follow",
        "signalbox output 0193a2b4-0000-7000-8000-000000000000 --save ./out",
    ]),
    ("cancel", &["signalbox cancel 0193a2b4-0000-7000-8000-000000000000"]),
    ("pause", &["signalbox pause 0193a2b4-0000-7000-8000-000000000000"]),
    ("resume", &["signalbox resume 0193a2b4-0000-7000-8000-000000000000"]),
    ("abort", &["signalbox abort 0193a2b4-0000-7000-8000-000000000000"]),
    ("retry", &["signalbox retry 0193a2b4-0000-7000-8000-000000000000", "signalbox retry 0193a2b4-0000-7000-8000-000000000000 --only failed,lost --canary 1"]),
    ("runs", &["signalbox runs --state failed --limit 50", "signalbox runs --machine web-1 --watch"]),
    ("assignments", &["signalbox assignments", "signalbox assignments --machine web-1 --json"]),
    ("assignment create", &["signalbox assignment create web-1 'the first web server' --label role=web"]),
    ("assignment show", &["signalbox assignment show a-1"]),
    ("assignment rename", &["signalbox assignment rename a-1 'another name'"]),
    ("assignment enable", &["signalbox assignment enable a-1"]),
    ("assignment disable", &["signalbox assignment disable a-1"]),
    ("assignment remove", &["signalbox assignment remove a-1 --cascade"]),
    ("assignment heartbeat", &["signalbox assignment heartbeat a-1"]),
    ("relays", &["signalbox relays --offline", "signalbox relays --watch"]),
    ("relay show", &["signalbox relay show a-1"]),
    ("relay report", &["signalbox relay report a-1 --file report.json"]),
    ("credential list", &["signalbox credential list --on 'web-*'", "signalbox credential list --reaches db.lan:22"]),
    ("credential push", &[
        "signalbox credential push db --type ssh_key --key-file ~/.ssh/id_ed25519 --target '*.db.lan' --to 'web-*'",
    ]),
    ("credential assign", &["signalbox credential assign db --recovery-key recovery.seed --to web-9"]),
    ("credential unassign", &["signalbox credential unassign db --to web-9"]),
    ("credential remove", &["signalbox credential remove db --to 'web-*'"]),
    ("recovery-key create", &["signalbox recovery-key create --out /media/stick/recovery.seed"]),
    ("host-keys add", &["signalbox host-keys add --file known_hosts --to 'web-*'"]),
    ("host-keys remove", &["signalbox host-keys remove db.lan --to 'web-*'"]),
    ("credentials", &["signalbox credentials --target db.lan", "signalbox credentials --relay a-1 --watch"]),
    ("shared-credentials", &["signalbox shared-credentials"]),
    ("shared-credential create", &[
        "signalbox shared-credential create db --type password --target db.lan --value-file sealed --to a-1",
    ]),
    ("shared-credential update", &["signalbox shared-credential update s-1 --to a-1 --to a-2"]),
    ("shared-credential show", &["signalbox shared-credential show s-1"]),
    ("shared-credential remove", &["signalbox shared-credential remove s-1"]),
    ("pushes", &["signalbox pushes --state failed", "signalbox pushes --watch"]),
    ("push create", &["signalbox push create a-1 ssh_targets --payload-file targets.json"]),
    ("push show", &["signalbox push show p-1"]),
    ("push sent", &["signalbox push sent p-1"]),
    ("push ack", &["signalbox push ack p-1"]),
    ("push fail", &["signalbox push fail p-1 --message 'no such file'"]),
    ("push retry", &["signalbox push retry p-1"]),
    ("work claim", &["signalbox work claim 0193a2b4-0000-7000-8000-000000000000 --assignment a-1"]),
    ("work start", &["signalbox work start 0193a2b4-0000-7000-8000-000000000000 --assignment a-1"]),
    ("work complete", &[
        "signalbox work complete 0193a2b4-0000-7000-8000-000000000000 --assignment a-1 --exit-code 0 --stdout-file out",
    ]),
    ("audit", &["signalbox audit --limit 20", "signalbox audit --verify", "signalbox audit --watch --json"]),
    ("decode", &["nats stream get RUN --last-for 'run.main.web-1.*.exit' | signalbox decode"]),
    ("context list", &["signalbox context list"]),
    ("context show", &["signalbox context show prod"]),
    ("context use", &["signalbox context use prod", "signalbox context use -"]),
    ("context add", &[
        "signalbox context add lab --state-dir ~/lab",
        "signalbox context add prod --login anna.creds --signing-key anna.seed --nats tls://broker.example:4222 --protected",
    ]),
    ("context remove", &["signalbox context remove lab"]),
    ("context rename", &["signalbox context rename lab play"]),
    ("config path", &["$EDITOR \"$(signalbox config path)\""]),
    ("config default", &["signalbox config default > ~/.config/signalbox/config.toml"]),
    ("config check", &["signalbox config check", "signalbox config check ./config.toml"]),
    ("config schema", &["signalbox config schema > signalbox.schema.json"]),
    ("completions", &["source <(signalbox completions bash)", "signalbox completions fish > ~/.config/fish/completions/signalbox.fish"]),
    ("man", &["signalbox man | man -l -", "signalbox man ~/.local/share/man/man1"]),
];

/// The examples of a command, such as `push create`; none for one that has none.
pub fn of(path: &str) -> &'static [&'static str] {
    EXAMPLES.iter().find(|(known, _)| *known == path).map_or(&[], |(_, examples)| examples)
}

/// A command line with the examples of each command below its help.
pub fn add(command: Command) -> Command {
    within(command, "")
}

fn within(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let after = command.get_after_help().map(ToString::to_string);
    let examples = of(path);
    let mut command = command;
    if !examples.is_empty() {
        let lines: String = examples.iter().flat_map(|example| ["\n  ", example]).collect();
        let rest = after.map(|after| format!("\n\n{after}")).unwrap_or_default();
        command = command.after_help(format!("Examples:{lines}{rest}"));
    }
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(name, |sub| within(sub, &path));
    }
    command
}
