//! What machines are for, as operators, assignments and relays say, over both fronts and a real broker.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a broken bridge ends the test")]

#[path = "fronts/bench.rs"]
#[expect(dead_code, reason = "some of it is for the tests of feeds")]
mod bench;

use anyhow::{Context as _, Result, ensure};
use bench::{Bench, Console, TOKEN};
use serde_json::{Value, json};
use signalbox_link::Store;
use signalbox_schemas::{
    api::{Previewed, op},
    error::ErrorCode,
    heartbeat::Facts,
    id::{MachineToken, Workspace},
    inventory::Inventory,
    label::{LABELS, LabelKey, LabelMap, LabelValue},
    sealed::OpeningKey,
    signed::Signed,
};
use signalbox_testkit::{eventually, http::Http};

fn labels(pairs: &[(&str, &str)]) -> Result<LabelMap> {
    pairs.iter().map(|(key, value)| Ok((LabelKey::new(*key)?, LabelValue::new(*value)?))).collect()
}

/// A machine's relay says what it is for, and what it is.
async fn say(bench: &Bench, machine: &str, labels: LabelMap) -> Result<()> {
    let key = bench.machine_key(machine)?;
    let facts = Facts { os: "Debian 12".to_owned(), ..Facts::default() };
    let list = Inventory {
        ws: Workspace::main(),
        mid: MachineToken::new(machine)?,
        revision: 1,
        sealing_key: OpeningKey::of_machine(key)?.public().clone(),
        credentials: Vec::new(),
        left_out: 0,
        problem: None,
        labels,
        facts: Some(facts),
        crit: Vec::new(),
    };
    let body = Signed::sign(&list, key)?.to_json();
    bench.link.store(Store::new(format!("inv.main.{machine}"), body)).await?;
    Ok(())
}

async fn meant(console: &Console, on: &str, is_secret: bool) -> Result<Vec<String>> {
    let asked = json!({"on": on, "secret": is_secret});
    match console.read(op::COMMANDS_PREVIEW, &asked).await? {
        Ok(previewed) => {
            let targets = previewed["targets"].as_array().context("no targets")?;
            Ok(targets.iter().filter_map(|target| target["token"].as_str().map(str::to_owned)).collect())
        }
        Err(problem) if problem.code == ErrorCode::NoTargets => Ok(Vec::new()),
        Err(problem) => Err(problem.into()),
    }
}

/// Waits until a selector means these machines.
async fn means(console: &Console, on: &str, wanted: &[&str]) -> Result<()> {
    eventually("the machines that are meant", || async {
        let found = meant(console, on, false).await?;
        ensure!(found == wanted, "`{on}` means {found:?} instead of {wanted:?}");
        Ok(())
    })
    .await
}

async fn set(console: &Console, args: Value) -> Result<Vec<String>> {
    let set = console.write(op::LABELS_SET, &args).await??;
    let machines = set["machines"].as_array().context("no machines")?;
    let line = |it: &Value| {
        format!("{} {}", it["machine"].as_str().unwrap_or(""), it["outcome"].as_str().unwrap_or(""))
    };
    Ok(machines.iter().map(line).collect())
}

#[tokio::test]
async fn machines_are_chosen_by_the_label_that_counts() -> Result<()> {
    let mut bench = Bench::start(&["web-1", "web-2", "db-1"]).await?;
    let admin = bench.console("admin").await?;
    let asked =
        json!({"machines": ["web-1", "web-2", "web-9", "web-1"], "set": {"role": "web", "dc": "fra"}});
    assert_eq!(set(&admin, asked.clone()).await?, ["web-1 changed", "web-2 changed", "web-9 refused"]);
    assert_eq!(set(&admin, asked).await?, ["web-1 unchanged", "web-2 unchanged", "web-9 refused"]);
    means(&admin, "role=web", &["web-1", "web-2"]).await?;
    // Of `db-1` nobody has said anything yet, its relay not even that it says nothing.
    means(&admin, "role!=web", &[]).await?;
    for (machine, role) in [("db-1", "db"), ("web-1", "x"), ("web-2", "y")] {
        say(&bench, machine, labels(&[("role", role), ("rack", machine)])?).await?;
    }
    means(&admin, "role!=web", &["db-1"]).await?;
    means(&admin, "role=x or role=db or rack=web-2", &["db-1", "web-2"]).await?;
    assert_eq!(meant(&admin, "role=x", false).await?, Vec::<String>::new(), "it is overruled");
    let removed = json!({"machines": ["web-1"], "remove": ["role"], "set": {"dc": "lon"}});
    assert_eq!(set(&admin, removed).await?, ["web-1 changed"]);
    means(&admin, "role=x", &["web-1"]).await?;
    assert_eq!(set(&admin, json!({"on": "role=db", "set": {"role": "web"}})).await?, ["db-1 changed"]);
    let shown = bench.http.json("/api/v1/machines").await?;
    assert_eq!(
        shown["items"][0]["labels"]["role"],
        json!({"value": "web", "source": "operator", "overruled": [{"value": "db", "source": "relay"}]})
    );
    assert_eq!(shown["items"][0]["labels"]["rack"], json!({"value": "db-1", "source": "relay"}));
    // A view that is built anew says the same, before any relay is heard again; and what the machine is, too.
    let again = bench.start_again().await?;
    let http = Http::new(&again.base, TOKEN);
    assert_eq!(http.json("/api/v1/machines").await?, shown);
    means(&admin, "role=web and dc!=fra and os=debian", &["db-1"]).await
}

#[tokio::test]
async fn nobody_chooses_himself_for_a_secret() -> Result<()> {
    let bench = Bench::start(&["web-1", "web-2", "web-3"]).await?;
    let admin = bench.console("admin").await?;
    set(&admin, json!({"machines": ["web-1"], "set": {"role": "web"}})).await?;
    set(&admin, json!({"machines": ["web-2"], "set": {"role": "db"}})).await?;
    for machine in ["web-1", "web-2", "web-3"] {
        say(&bench, machine, labels(&[("role", "web"), ("dc", "fra")])?).await?;
    }
    means(&admin, "dc=fra", &["web-1", "web-2", "web-3"]).await?;
    assert_eq!(meant(&admin, "role=web", false).await?, ["web-1", "web-3"]);
    for (on, wanted) in [
        ("role=web", vec!["web-1"]),
        ("role!=web", vec!["web-2"]),
        ("role!=db", vec!["web-1"]),
        ("dc=fra", vec![]),
        ("dc!=fra", vec![]),
        ("rack!=1", vec![]),
        ("os=debian", vec![]),
    ] {
        let found = meant(&admin, on, true).await;
        let found = if wanted.is_empty() { found.unwrap_or_default() } else { found? };
        assert_eq!(found, wanted, "{on}");
    }
    Ok(())
}

#[tokio::test]
async fn only_who_may_sets_what_is_right() -> Result<()> {
    let bench = Bench::start(&["web-1"]).await?;
    let admin = bench.console("admin").await?;
    let good = json!({"machines": ["web-1"], "set": {"role": "web"}});
    for operator in ["local", "viewer"] {
        let problem = bench.console(operator).await?.write(op::LABELS_SET, &good).await?.unwrap_err();
        assert_eq!(problem.code, ErrorCode::Forbidden, "{operator}");
    }
    let unsigned = admin.read(op::LABELS_SET, &good).await?.unwrap_err();
    assert_eq!(unsigned.code, ErrorCode::Invalid);
    let many = (0..=LABELS).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    for wrong in [
        json!({"machines": ["web-1"]}),
        json!({"set": {"role": "web"}}),
        json!({"machines": ["web-1"], "on": "all", "set": {"role": "web"}}),
        json!({"machines": ["web-1"], "set": {"Role": "web"}}),
        json!({"machines": ["web-1"], "set": {"role": " web"}}),
        json!({"machines": ["web-1"], "set": {"role": "web"}, "remove": ["role"]}),
        json!({"machines": ["web-1"], "set": many}),
        json!({"machines": vec!["web-1"; 1_001], "set": {"role": "web"}}),
        json!({"on": "[", "set": {"role": "web"}}),
        json!({"machines": ["web-1"], "set": {"role": "web"}, "more": 1}),
    ] {
        let problem = admin.write(op::LABELS_SET, &wrong).await?.unwrap_err();
        assert_eq!(problem.code, ErrorCode::Invalid, "{wrong}");
    }
    let none =
        admin.write(op::LABELS_SET, &json!({"on": "web-9", "set": {"role": "web"}})).await?.unwrap_err();
    assert_eq!(none.code, ErrorCode::NoTargets);
    // A machine has no more than so many of them, whenever they were set.
    let most = (0..LABELS).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    assert_eq!(set(&admin, json!({"machines": ["web-1"], "set": most})).await?, ["web-1 changed"]);
    let full = admin.write(op::LABELS_SET, &good).await??;
    assert_eq!(full["machines"][0]["problem"]["code"], "invalid", "{full}");
    let swapped = json!({"machines": ["web-1"], "set": {"role": "web"}, "remove": ["k0"]});
    assert_eq!(set(&admin, swapped).await?, ["web-1 changed"]);
    // Over HTTP the same.
    let answer = bench.http.post("/api/v1/labels", &json!({"on": "role=web", "remove": ["role"]})).await?;
    assert_eq!(
        (answer.status, answer.json()?),
        (200, json!({"machines": [{"machine": "web-1", "outcome": "changed"}]}))
    );
    assert!(answer.header("signalbox-cursor").is_some());
    assert_eq!(bench.http.post("/api/v1/labels", &json!({"on": "all"})).await?.status, 422);
    // Who asked stands beside the record.
    let subject = "$KV.state.main.machines.web-1";
    let last = bench.link.last_from_leader("KV_state", subject).await?.context("no record")?;
    assert_eq!(last.headers.get("Sb-For"), Some("token:admin"));
    Ok(())
}

#[tokio::test]
async fn two_bridges_that_label_one_machine_lose_nothing() -> Result<()> {
    const EACH: usize = 12;
    let mut bench = Bench::start(&["web-1", "web-2"]).await?;
    let other = bench.another_bridge("b2").await?;
    let bridges = [bench.http.clone(), Http::new(&other.base, TOKEN)];
    let of_one = async |n: usize| {
        for i in 0..EACH {
            let asked = json!({"on": "all", "set": {format!("b{n}-{i}"): "x"}});
            let set = bridges[n].post("/api/v1/labels", &asked).await?;
            ensure!(!set.text().contains("refused") && set.status == 200, "{}", set.text());
        }
        Ok(())
    };
    let (a, b) = tokio::join!(of_one(0), of_one(1));
    a.and(b)?;
    for http in &bridges {
        eventually("all labels are there", || async {
            let shown = http.json("/api/v1/machines").await?;
            for machine in shown["items"].as_array().context("no items")? {
                let count = machine["labels"].as_object().map_or(0, serde_json::Map::len);
                ensure!(count == 2 * EACH, "{count} labels");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Names of `count` machines, sorted.
fn names(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("m-{n:02}")).collect()
}

/// Tokens of a page, and where it goes on.
fn page(answer: &Value, list: &str) -> Result<(Vec<String>, Option<String>)> {
    let items = answer[list].as_array().context("no items")?;
    let tokens = items.iter().filter_map(|it| it["token"].as_str().map(str::to_owned)).collect();
    Ok((tokens, answer["next"].as_str().map(str::to_owned)))
}

#[tokio::test]
async fn the_pages_of_a_list_are_of_one_list() -> Result<()> {
    let names = names(10);
    let machines: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = Bench::start(&machines).await?;
    let admin = bench.console("admin").await?;
    set(&admin, json!({"machines": names, "set": {"role": "web"}})).await?;
    means(&admin, "role=web", &machines).await?;
    let on = "role=web sample 80% limit 75%";
    let whole = admin.read(op::COMMANDS_PREVIEW, &json!({"on": on})).await??;
    let (all, none) = page(&whole, "targets")?;
    assert_eq!((all.len(), none), (6, None));
    let tokens =
        all.iter().map(|token| Ok(MachineToken::new(token.as_str())?)).collect::<Result<Vec<_>>>()?;
    assert_eq!(whole["sha256"], Previewed::digest(&tokens).to_string());
    assert!(
        whole["at"].as_u64().is_some() && whole["cursor"].as_str().is_some_and(|at| at.contains("KV_state:"))
    );
    for (operation, list) in [(op::COMMANDS_PREVIEW, "targets"), (op::MACHINES_LIST, "items")] {
        let read = async |after: Option<&str>| {
            admin.read(operation, &json!({"on": on, "limit": 4, "after": after})).await
        };
        let (first, next) = page(&read(None).await??, list)?;
        assert_eq!(first, all[..4]);
        // Whatever becomes of the others meanwhile: of other percent of them it would be other machines.
        set(&admin, json!({"machines": names[..6], "remove": ["role"]})).await?;
        means(&admin, "role=web", &machines[6..]).await?;
        let (second, end) = page(&read(next.as_deref()).await??, list)?;
        assert_eq!((second, end), (all[4..].to_vec(), None));
        // What nobody has given is refused, and so is the page of a list that nobody can give any more.
        let next = next.context("no next")?;
        let (place, digest) = next.rsplit_once(',').context("no place")?;
        let other = format!("{place},{}", "0".repeat(digest.len()));
        let token = place.split(',').next().context("no token")?;
        for (after, code) in [
            (other.as_str(), ErrorCode::IdConflict),
            (&format!("{token},1,{digest}"), ErrorCode::IdConflict),
            (&format!("{token},1"), ErrorCode::Invalid),
        ] {
            let problem = read(Some(after)).await?.unwrap_err();
            assert_eq!(problem.code, code, "{after}: {problem}");
        }
        set(&admin, json!({"machines": names[..6], "set": {"role": "web"}})).await?;
        means(&admin, "role=web", &machines).await?;
    }
    // By HTTP alike.
    let first = bench.http.json("/api/v1/machines?on=role%3Dweb%20limit%2050%25&limit=3").await?;
    let (tokens, next) = page(&first, "items")?;
    assert_eq!(tokens, names[..3]);
    let next = next.context("no next")?;
    let path = format!("/api/v1/machines?on=role%3Dweb%20limit%2050%25&limit=3&after={next}");
    assert_eq!(page(&bench.http.json(&path).await?, "items")?, (names[3..5].to_vec(), None));
    assert_eq!(bench.http.get("/api/v1/machines?on=%5B").await?.status, 422);
    assert_eq!(page(&bench.http.json("/api/v1/machines?on=none").await?, "items")?, (Vec::new(), None));
    Ok(())
}

#[tokio::test]
async fn another_bridge_goes_on_with_the_same_list_or_refuses() -> Result<()> {
    let names = names(6);
    let machines: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bench = Bench::start(&machines).await?;
    let other = bench.another_bridge("b2").await?;
    let bridges = [bench.http.clone(), Http::new(&other.base, TOKEN)];
    let path = "/api/v1/machines?on=m-*%20limit%2050%25&limit=2";
    let (first, next) = page(&bridges[0].json(path).await?, "items")?;
    assert_eq!(first, names[..2]);
    let path = format!("{path}&after={}", next.context("no next")?);
    assert_eq!(page(&bridges[1].json(&path).await?, "items")?, (names[2..3].to_vec(), None));
    let one_more =
        bridges[0].post("/api/v1/assignments", &json!({"machine_id": "m-00", "name": "n"})).await?;
    let cursor = one_more.header("signalbox-cursor").context("no cursor")?.to_owned();
    let answers =
        async |http: &Http| http.request("GET", &path, &[("signalbox-cursor", &cursor)], Vec::new()).await;
    assert_eq!(answers(&bridges[0]).await?.status, 200, "it has the list");
    let refused = answers(&bridges[1]).await?;
    assert_eq!(
        (refused.status, refused.json()?["code"].as_str()),
        (409, Some("id_conflict")),
        "{}",
        refused.text()
    );
    Ok(())
}
