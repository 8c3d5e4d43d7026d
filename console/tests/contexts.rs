//! Contexts and the configuration, with the program itself.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, path::Path, process::Command};

use signalbox_console::up::lock::StateLock;

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn config(&self) -> String {
        fs::read_to_string(self.path(".config/signalbox/config.toml")).unwrap()
    }

    fn write(&self, text: &str) {
        fs::create_dir_all(self.path(".config/signalbox")).unwrap();
        fs::write(self.path(".config/signalbox/config.toml"), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        self.run_with(args, &[])
    }

    fn run_with(&self, args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_signalbox"));
        program.args(args).env_clear().env("HOME", self.dir.path()).envs(environment.iter().copied());
        let output = program.stdin(std::process::Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {err}");
        out
    }

    /// The name of the context that is meant.
    fn meant(&self, args: &[&str], environment: &[(&str, &str)]) -> String {
        let (code, out, err) = self.run_with(&[args, &["context", "show", "--json"]].concat(), environment);
        assert_eq!(code, Some(0), "{args:?}: {err}");
        let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
        shown.get("name").unwrap().as_str().unwrap().to_owned()
    }
}

#[test]
fn contexts_are_added_used_renamed_and_removed() {
    let home = Home::new();
    home.write("# mine\n[look]\ntheme = \"dark\"\n");
    assert_eq!(home.meant(&[], &[]), "default");
    home.ok(&["context", "add", "lab", "--state-dir", "/lab", "--colour", "green"]);
    home.ok(&[
        "context",
        "add",
        "prod",
        "--login",
        "/p.creds",
        "--signing-key",
        "/p.seed",
        "--nats",
        "nats://p:1",
        "--protected",
    ]);
    assert_eq!(
        home.config(),
        "# mine\n[look]\ntheme = \"dark\"\n\n[contexts.lab]\nstate_dir = \"/lab\"\ncolour = \"green\"\n\n[contexts.prod]\n\
         login = \"/p.creds\"\nsigning_key = \"/p.seed\"\nnats = \"nats://p:1\"\nprotected = true\n"
    );
    home.ok(&["context", "use", "lab"]);
    home.ok(&["context", "use", "prod"]);
    assert_eq!(home.meant(&[], &[]), "prod");
    home.ok(&["context", "use", "-"]);
    assert_eq!(home.meant(&[], &[]), "lab");
    // A flag goes before the environment, and that before what is used.
    assert_eq!(home.meant(&[], &[("SIGNALBOX_CONTEXT", "prod")]), "prod");
    assert_eq!(home.meant(&["--context", "lab"], &[("SIGNALBOX_CONTEXT", "prod")]), "lab");
    assert_eq!(home.meant(&["--context", "default"], &[]), "default");
    home.ok(&["context", "rename", "lab", "play"]);
    assert_eq!(home.meant(&[], &[]), "play");
    let listed = home.ok(&["context", "list"]);
    assert_eq!(
        listed.lines().map(str::trim_end).collect::<Vec<_>>(),
        [
            "   CONTEXT  PROTECTED  IDENTITY  BROKER",
            "*  play     -          /lab      -",
            "   prod     yes        /p.creds  nats://p:1",
        ]
    );
    home.ok(&["context", "remove", "play"]);
    assert_eq!(home.meant(&[], &[]), "default");
    home.ok(&["context", "use", "prod"]);
    home.ok(&["context", "use", "default"]);
    assert_eq!(home.meant(&[], &[]), "default");
    assert!(
        !Path::new(&home.path(".local/state/signalbox")).exists(),
        "the default fleet's directory was made"
    );
}

#[test]
fn a_directory_moves_with_its_context_while_nobody_uses_it() {
    let home = Home::new();
    home.write("[contexts.lab]\n[contexts.far]\nstate_dir = \"/far\"\n");
    let (lab, play) =
        (home.path(".local/state/signalbox-contexts/lab"), home.path(".local/state/signalbox-contexts/play"));
    let mut lock = StateLock::take(Path::new(&lab)).unwrap();
    lock.name().unwrap();
    let (code, _, err) = home.run(&["context", "rename", "lab", "play"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("in use") && err.contains(&format!("pid {}", std::process::id())), "{err}");
    assert!(home.config().contains("[contexts.lab]") && Path::new(&lab).exists());
    drop(lock);
    home.ok(&["context", "rename", "lab", "play"]);
    assert!(
        home.config().contains("[contexts.play]") && !Path::new(&lab).exists() && Path::new(&play).exists()
    );
    // Of one that has its own elsewhere nothing moves, and nothing is in the way.
    fs::create_dir(home.path(".local/state/signalbox-contexts/far")).unwrap();
    home.ok(&["context", "rename", "far", "away"]);
    assert!(Path::new(&home.path(".local/state/signalbox-contexts/far")).exists());
}

#[test]
fn a_context_that_is_not_there_is_told_with_the_names_that_are_near() {
    let home = Home::new();
    home.write("[contexts.prod]\nstate_dir = \"/p\"\n");
    for args in [&["context", "use", "pord"][..], &["--context", "pord", "machines"]] {
        let (code, _, err) = home.run(args);
        assert_eq!(code, Some(2), "{args:?}");
        assert!(err.contains("no context \"pord\"") && err.contains("did you mean \"prod\"?"), "{err}");
    }
    // One that was used and is gone does not lead to another fleet.
    home.ok(&["context", "use", "prod"]);
    home.write("");
    let (code, _, err) = home.run(&["machines"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("`signalbox context use`"), "{err}");
    let (code, _, err) = home.run(&["--context", "prod", "--state-dir", "/s", "machines"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--context and --state-dir name a fleet each"), "{err}");
}

#[test]
fn what_is_used_matters_only_where_nothing_else_says_it() {
    let home = Home::new();
    home.write("[contexts.prod]\nstate_dir = \"/p\"\n");
    home.ok(&["context", "use", "prod"]);
    fs::write(home.path(".local/state/signalbox-contexts/.current"), "../x\n").unwrap();
    for args in [&["machines"][..], &["context", "show"], &["context", "list"]] {
        let (code, _, err) = home.run(args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.contains("choose again with `signalbox context use NAME`"), "{args:?}: {err}");
    }
    assert!(home.run(&["context", "list"]).1.contains("prod"));
    assert_eq!(home.meant(&["--context", "prod"], &[]), "prod");
    for (args, environment) in [
        (&["--context", "default"][..], &[][..]),
        (&["--state-dir", "/s"], &[]),
        (&[], &[("SIGNALBOX_CONTEXT", "prod")]),
        (&[], &[("SIGNALBOX_STATE_DIR", "/s")]),
    ] {
        let (_, _, err) = home.run_with(&[args, &["machines"]].concat(), environment);
        assert!(err.contains("cannot") && !err.contains("context use"), "{args:?} {environment:?}: {err}");
    }
    home.ok(&["context", "use", "prod"]);
    assert_eq!(home.meant(&[], &[]), "prod");
}

#[test]
fn a_context_that_is_removed_is_used_no_more_whatever_comes_next() {
    let home = Home::new();
    // A name that leaves no room for that of a draft: it can be read, and not be replaced.
    let file = home.path(&"x".repeat(250));
    fs::write(&file, "[contexts.prod]\n").unwrap();
    let environment = [("SIGNALBOX_CONFIG", file.as_str())];
    assert_eq!(home.run_with(&["context", "use", "prod"], &environment).0, Some(0));
    let (code, _, err) = home.run_with(&["context", "remove", "prod"], &environment);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.starts_with("signalbox: the context is default now\n"), "{err}");
    assert_eq!(home.meant(&[], &environment), "default");
}

#[test]
fn up_does_not_start_a_fleet_that_runs_elsewhere() {
    let home = Home::new();
    home.write("[contexts.prod]\nnats = \"nats://p:1\"\n");
    let (code, _, err) = home.run(&["--context", "prod", "up", "--headless"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("runs elsewhere"), "{err}");
}

#[test]
fn the_configuration_is_found_printed_and_checked() {
    let home = Home::new();
    let file = home.path(".config/signalbox/config.toml");
    assert_eq!(home.ok(&["config", "path"]), format!("{file}\n"));
    let (_, out, _) = home.run_with(&["config", "path"], &[("SIGNALBOX_CONFIG", "/c.toml")]);
    assert_eq!(out, "/c.toml\n");
    assert!(home.ok(&["config", "check"]).contains("does not exist"));
    home.write(&home.ok(&["config", "default"]));
    assert!(home.ok(&["config", "check"]).contains("is right"));
    let schema: serde_json::Value = serde_json::from_str(&home.ok(&["config", "schema"])).unwrap();
    assert_eq!(schema["properties"]["look"]["properties"]["mouse"]["type"], "boolean");
    home.write("[look]\ntheme = 1\nmose = true\n[run\n");
    assert_eq!(home.run(&["config", "check"]).0, Some(2));
    home.write("[look]\ntheme = 1\nmose = true\n");
    let (code, out, _) = home.run(&["config", "check"]);
    assert_eq!((code, out.lines().count()), (Some(2), 2), "{out}");
    assert!(out.starts_with(&format!("{file}:2:9: look.theme: ")), "{out}");
    // Whatever goes by it does not run; what does not, does.
    let (code, _, err) = home.run(&["machines"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("config.toml:2:9: look.theme") && err.contains("(and 1 more)"), "{err}");
    home.ok(&["config", "default"]);
    assert_eq!(home.run(&["config", "check", "/nonexistent.toml"]).0, Some(2));
}

#[test]
fn the_documents_show_the_default_file() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
    let home = Home::new();
    assert!(
        page.contains(&home.ok(&["config", "default"])),
        "docs/configuration.md has another file; print it with `signalbox config default`"
    );
}

#[test]
fn pages_of_man_are_written_for_every_command() {
    let home = Home::new();
    home.ok(&["man", &home.path("man1")]);
    for page in ["signalbox.1", "signalbox-run.1", "signalbox-context-use.1"] {
        let text = fs::read_to_string(home.path("man1") + "/" + page).unwrap();
        assert!(text.contains("Examples:"), "{page}: {text}");
    }
    assert!(home.ok(&["man"]).starts_with(".ie"), "no page");
}
