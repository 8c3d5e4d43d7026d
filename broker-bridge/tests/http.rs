//! The HTTP front against a real broker: every route, and every refusal by its code.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a broken bridge ends the test")]

#[path = "fronts/bench.rs"]
#[expect(dead_code, reason = "consoles are used by the tests of feeds")]
mod bench;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bench::Bench;
use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_link::Link;
use signalbox_schemas::{
    api::AuditView,
    audit,
    output::OutputStream::Stdout,
    stream,
    subject::{CommandPiece, Subject},
};
use signalbox_testkit::{
    eventually,
    http::{Answer, Http},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

const COMMANDS: &str = "/api/v1/commands";

/// Status and code of a refusal, which must be a problem document.
fn refused(answer: &Answer) -> Result<(u16, String)> {
    ensure!(answer.header("content-type") == Some("application/problem+json"), "{answer:?}");
    let problem = answer.json()?;
    ensure!(problem["status"] == answer.status, "{problem}");
    for member in ["type", "title", "detail"] {
        ensure!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {problem}");
    }
    Ok((answer.status, problem["code"].as_str().context("no code")?.to_owned()))
}

async fn keyed(http: &Http, key: &str, body: &Value) -> Result<Answer> {
    http.request("POST", COMMANDS, &[("idempotency-key", key)], serde_json::to_vec(body)?).await
}

async fn specs_stored(link: &Link) -> Result<u64> {
    let state = link.stream_state(stream::CMD).await?;
    let mut specs = 0;
    for sequence in state.first.max(1)..=state.last {
        let message = link.by_sequence(stream::CMD, sequence).await?;
        let subject = message.map(|message| Subject::parse(&message.subject)).transpose()?;
        specs += u64::from(matches!(subject, Some(Subject::Command(_, _, CommandPiece::Spec))));
    }
    Ok(specs)
}

#[tokio::test]
async fn health_needs_no_token_and_everything_else_does() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let nobody = bench.http.with_token("");
    let health = nobody.json("/health").await?;
    assert_eq!(health["status"], "ok");
    assert_eq!(health["bridge"], "b1");
    assert_eq!(health["caught_up"], true);
    assert_eq!(health["broker"], "connected");
    assert!(health["counters"].is_object());
    // The authors document of this fleet lives ten days.
    assert!(health["warnings"][0].as_str().context("a warning")?.contains("authors document"), "{health}");
    eventually("the lease is held", || async {
        ensure!(nobody.json("/health").await?["lease"] == "held");
        Ok(())
    })
    .await?;
    for http in [&nobody, &bench.http.with_token("sbt_tesT"), &bench.http.with_token("sbt_test2")] {
        for path in ["/api/v1/machines", COMMANDS, "/api/v1/nothing"] {
            assert_eq!(refused(&http.get(path).await?)?, (401, "unauthenticated".to_owned()), "{path}");
        }
        let answer = http.post(COMMANDS, &json!({"on": "all", "command": "true"})).await?;
        assert_eq!(refused(&answer)?.0, 401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(specs_stored(&bench.link).await?, 0);
    Ok(())
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    for path in ["/", "/api", "/api/v1/", "/api/v1/nothing", "/api/v2/machines", "/health/x"] {
        assert_eq!(refused(&bench.http.get(path).await?)?, (404, "not_found".to_owned()), "{path}");
    }
    for (method, path) in [
        ("DELETE", COMMANDS),
        ("PUT", "/api/v1/machines"),
        ("POST", "/health"),
        ("PUT", "/api/v1/assignments"),
    ] {
        let answer = bench.http.request(method, path, &[], vec![]).await?;
        assert_eq!(refused(&answer)?.0, 405, "{method} {path}");
        assert!(answer.header("allow").is_some(), "{method} {path}");
    }
    Ok(())
}

#[tokio::test]
async fn machines_are_listed_in_pages() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2", "Web 1"]).await?;
    let all = bench.http.json("/api/v1/machines").await?;
    let ids: Vec<_> = all["items"].as_array().context("items")?.iter().map(|m| &m["id"]).collect();
    assert_eq!(ids, ["a-1", "a-2", "Web 1"], "sorted by token");
    assert_eq!(all["next"], Value::Null);
    assert_eq!(all["items"][0]["state"], "offline");
    assert_eq!(all["items"][0]["token"], "a-1");
    let first = bench.http.json("/api/v1/machines?limit=2").await?;
    let after = first["next"].as_str().context("next")?;
    let second = bench.http.json(&format!("/api/v1/machines?limit=2&after={after}")).await?;
    assert_eq!(second["items"][0]["id"], "Web 1");
    assert_eq!(second["next"], Value::Null);
    for query in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limt=1", "limit=1&limit=2"] {
        let answer = bench.http.get(&format!("/api/v1/machines?{query}")).await?;
        assert_eq!(refused(&answer)?, (422, "invalid".to_owned()), "{query}");
    }
    Ok(())
}

/// Ids of a page, and where the next one begins.
async fn page(http: &Http, query: &str) -> Result<(Vec<Value>, Value)> {
    let page = http.json(&format!("{COMMANDS}?{query}")).await?;
    let items = page["items"].as_array().context("items")?;
    Ok((items.iter().map(|command| command["id"].clone()).collect(), page["next"].clone()))
}

#[tokio::test]
async fn commands_are_listed_in_pages_newest_first() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, json!(bench.submit("all").await?));
    }
    let (first, next) = page(&bench.http, "limit=2").await?;
    assert_eq!(first, ids[..2]);
    // What comes meanwhile moves nothing.
    let newest = json!(bench.submit("all").await?);
    let (second, next) =
        page(&bench.http, &format!("limit=2&after={}", next.as_str().context("next")?)).await?;
    assert_eq!(second, ids[2..4]);
    let (third, next) =
        page(&bench.http, &format!("limit=2&after={}", next.as_str().context("next")?)).await?;
    assert_eq!((&third[..], next), (&ids[4..], Value::Null));
    ids.insert(0, newest);
    assert_eq!(page(&bench.http, "limit=6").await?, (ids, Value::Null), "a full page that is the last");
    Ok(())
}

#[tokio::test]
async fn a_command_is_followed_from_its_submit_to_its_exit() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let answer =
        bench.http.post(COMMANDS, &json!({"on": "a-*", "command": "uptime", "timeout_ms": 5000})).await?;
    assert_eq!(answer.status, 202);
    let accepted = answer.json()?;
    assert_eq!(accepted["targets"], json!(["a-1", "a-2"]));
    assert_eq!(accepted.as_object().map(serde_json::Map::len), Some(2));
    let cursor = answer.header("signalbox-cursor").context("no cursor")?;
    let id = accepted["id"].as_str().context("id")?;
    let path = format!("{COMMANDS}/{id}");
    let answer = bench.http.request("GET", &path, &[("signalbox-cursor", cursor)], vec![]).await?;
    let shown = answer.json()?;
    assert_eq!(shown["command"], "uptime");
    assert_eq!(shown["counts"], json!({"pending": 2}));
    assert_eq!(shown["runs"][1]["machine"], "a-2");
    assert_eq!(shown["runs"][0]["exit_code"], Value::Null);

    let polled = bench.http.get(&format!("{path}/wait?timeout_ms=50")).await?;
    assert_eq!(polled.status, 202);
    let short = bench.http.get(&format!("{path}/wait?timeout_ms=50&limit=1")).await?.json()?;
    assert_eq!((short["runs"].as_array().map(Vec::len), &short["next"]), (Some(1), &json!("a-1")));
    let path = format!("{path}/wait?timeout_ms=20000");
    let running = async {
        for machine in ["a-1", "a-2"] {
            let relay = bench.relay(machine)?;
            relay.claim(id.parse()?).await?;
            relay.exit_inline(id.parse()?, b"up").await?;
        }
        anyhow::Ok(())
    };
    let (settled, ran) = tokio::join!(bench.http.get(&path), running);
    ran?;
    let settled = settled?;
    assert_eq!(settled.status, 200);
    let settled = settled.json()?;
    assert_eq!(settled["counts"], json!({"completed": 2}));
    let run = &settled["runs"][0];
    assert_eq!(
        (&run["exit_code"], &run["duration_ms"], &run["group_dead"]),
        (&json!(0), &json!(5), &json!(true))
    );
    assert_eq!(run["stdout"]["bytes"], 2);
    assert_eq!(run["stdout"]["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(bench.http.output(id, "a-1", "stdout").await?, b"up");
    let listed = bench.http.json(&format!("{COMMANDS}?limit=1")).await?;
    assert_eq!(listed["items"][0]["id"], id);
    Ok(())
}

#[rstest]
#[case(json!({"on": "all"}), 422, "invalid")]
#[case(json!({"command": "true"}), 422, "invalid")]
#[case(json!({"on": "all", "machine_id": "a-1", "command": "true"}), 422, "invalid")]
#[case(json!({"on": "all", "command": "true", "timout_ms": 1}), 422, "invalid")]
#[case(json!({"on": "all", "command": "true", "timeout_ms": 0}), 422, "invalid")]
#[case(json!({"on": "all", "command": "true", "timeout_ms": 1.5}), 422, "invalid")]
#[case(json!({"on": "all", "command": "a\u{0}b"}), 422, "invalid")]
#[case(json!({"on": "[", "command": "true"}), 422, "invalid")]
#[case(json!({"on": "b-*", "command": "true"}), 422, "no_targets")]
#[case(json!({"machine_id": "b-1", "command": "true"}), 422, "no_targets")]
#[case(json!({"on": "all", "command": "x".repeat(65_537)}), 413, "too_large")]
#[case(json!({"on": "all", "command": "\u{1}".repeat(65_536)}), 413, "too_large")]
#[case(json!([1, 2]), 422, "invalid")]
#[tokio::test]
async fn a_submit_that_cannot_be_is_refused(
    #[case] body: Value,
    #[case] status: u16,
    #[case] code: &str,
) -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let answer = bench.http.post(COMMANDS, &body).await?;
    assert_eq!(refused(&answer)?, (status, code.to_owned()));
    assert_eq!(specs_stored(&bench.link).await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_limits_themselves_are_accepted() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    for body in [
        json!({"machine_id": "a-1", "command": "x".repeat(65_536)}),
        json!({"machine_id": "a-1", "command": "true", "timeout_ms": 1, "expires_in_ms": 604_800_000}),
        json!({"on": "all", "command": "true", "timeout_ms": 172_800_000, "max_output": 0}),
    ] {
        bench.http.submit_with(&body).await?;
    }
    Ok(())
}

#[tokio::test]
async fn bodies_are_bounded_and_must_be_json() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    for size in [1_048_577, 10 << 20] {
        let answer = bench.http.request("POST", COMMANDS, &[], vec![b' '; size]).await?;
        assert_eq!(refused(&answer)?, (413, "too_large".to_owned()), "{size}");
    }
    for body in ["", "{", "{\"on\":\"all\",\"on\":\"all\"}", "null", "{}x", "\u{fffd}"] {
        let answer = bench.http.request("POST", COMMANDS, &[], body.into()).await?;
        assert_eq!(refused(&answer)?, (422, "invalid".to_owned()), "{body:?}");
    }
    // A broken byte in a text is not repaired.
    let body = b"{\"on\":\"all\",\"command\":\"echo \xff\"}";
    let answer = bench.http.request("POST", COMMANDS, &[], body.to_vec()).await?;
    assert_eq!(refused(&answer)?, (422, "invalid".to_owned()));
    let answer = bench.http.post(COMMANDS, &json!({"on": "all", "command": "true", "timout_ms": 1})).await?;
    let detail = answer.json()?["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("timout_ms"), "{detail}");
    // Another content type is no reason to refuse JSON.
    let body = json!({"on": "all", "command": "true"}).to_string();
    let answer = bench.http.request("POST", COMMANDS, &[("content-type", "text/plain")], body.into()).await?;
    assert_eq!(answer.status, 202);
    let counters = bench.http.json("/health").await?["counters"].clone();
    assert_eq!(
        (&counters["http.too_large"], &counters["http.invalid"]),
        (&json!(2), &json!(8)),
        "{counters}"
    );
    Ok(())
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let mut stream = TcpStream::connect(bench.base.trim_start_matches("http://")).await?;
    let head = format!(
        "POST {COMMANDS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        bench::TOKEN
    );
    stream.write_all(head.as_bytes()).await?;
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..160 {
        stream.write_all(&chunk).await?;
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"HTTP/1.1 413");
    Ok(())
}

#[tokio::test]
async fn a_repeated_key_is_the_same_command_and_another_request_under_it_is_a_conflict() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let body = json!({"on": "all", "command": "true"});
    let all = join_all((0..8).map(|_| keyed(&bench.http, "k1", &body))).await;
    let mut ids = Vec::new();
    for answer in all {
        let answer = answer?;
        assert_eq!(answer.status, 202, "{answer:?}");
        let accepted = answer.json()?;
        assert_eq!(accepted["targets"], json!(["a-1", "a-2"]));
        ids.push(accepted["id"].clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(specs_stored(&bench.link).await?, 1);
    for other in [
        json!({"on": "all", "command": "false"}),
        json!({"on": "a-*", "command": "true"}),
        json!({"on": "all", "command": "true", "timeout_ms": 1}),
        json!({"on": "all", "command": "true", "expires_in_ms": 1}),
        json!({"on": "all", "command": "true", "max_output": 1}),
    ] {
        assert_eq!(refused(&keyed(&bench.http, "k1", &other).await?)?, (409, "id_conflict".to_owned()));
    }
    assert_ne!(keyed(&bench.http, "k2", &body).await?.json()?["id"], ids[0]);
    for bad in ["", &"k".repeat(256)] {
        assert_eq!(refused(&keyed(&bench.http, bad, &body).await?)?.0, 422, "{bad:?}");
    }
    assert_eq!(specs_stored(&bench.link).await?, 2);
    Ok(())
}

/// What is logged, at `info` and above.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn refusals_do_not_fill_the_log() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let stranger = Http::new(&bench.base, "wrong");
    let log = Log::default();
    let writer = log.clone();
    // The bridge runs on this very thread.
    let listening = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish(),
    );
    for _ in 0..40 {
        assert_eq!(refused(&stranger.get(COMMANDS).await?)?.0, 401);
    }
    assert_eq!(refused(&bench.http.get("/nothing").await?)?.0, 404);
    drop(listening);
    let log = String::from_utf8(log.0.lock().expect("nobody panicked").clone())?;
    // 1, 2, 4, 8, 16, 32, and the first of another code.
    assert_eq!(log.matches("request refused").count(), 7, "{log}");
    let counters = bench.http.json("/health").await?["counters"].clone();
    assert_eq!(counters["http.unauthenticated"], 40, "{counters}");
    Ok(())
}

#[tokio::test]
async fn a_machine_whose_name_reads_like_a_glob_is_no_glob() -> Result<()> {
    let bench = Bench::start(&["a*", "a1"]).await?;
    let machine = json!({"machine_id": "a*", "command": "true"});
    let answer = keyed(&bench.http, "k", &machine).await?.json()?;
    assert_eq!(answer["targets"], json!(["a*"]));
    assert_eq!(keyed(&bench.http, "k", &machine).await?.json()?["id"], answer["id"]);
    let glob = json!({"on": "a*", "command": "true"});
    assert_eq!(refused(&keyed(&bench.http, "k", &glob).await?)?, (409, "id_conflict".to_owned()));
    // What is shown as its selector means this machine.
    let id = answer["id"].as_str().context("id")?;
    assert_eq!(bench.http.json(&format!("{COMMANDS}/{id}")).await?["on"], "\"a*\"");
    let same = json!({"on": "\"a*\"", "command": "true"});
    assert_eq!(bench.http.post(COMMANDS, &same).await?.json()?["targets"], json!(["a*"]));
    Ok(())
}

#[tokio::test]
async fn a_page_that_does_not_exist_is_refused() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    for path in [
        format!("{COMMANDS}?after=rubbish"),
        format!("{COMMANDS}?after=1.x"),
        "/api/v1/machines?after=%20".into(),
    ] {
        assert_eq!(refused(&bench.http.get(&path).await?)?, (422, "invalid".to_owned()), "{path}");
    }
    bench.submit("all").await?;
    bench.submit("all").await?;
    for path in [COMMANDS, "/api/v1/machines"] {
        let next = bench.http.json(&format!("{path}?limit=1")).await?["next"]
            .as_str()
            .context("no next")?
            .to_owned();
        let rest = bench.http.json(&format!("{path}?after={next}")).await?;
        assert_eq!(rest["items"].as_array().map(Vec::len), Some(1), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn without_the_brokers_word_nothing_is_accepted_and_a_retry_does_not_double() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let body = json!({"on": "all", "command": "true"});
    bench.broker.stop()?;
    let answer = keyed(&bench.http, "k", &body).await?;
    bench.broker.cont()?;
    assert_eq!(refused(&answer)?, (503, "not_accepted".to_owned()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    let again = eventually("it is accepted", || async {
        let answer = keyed(&bench.http, "k", &body).await?;
        ensure!(answer.status == 202, "{answer:?}");
        Ok(answer)
    });
    again.await?;
    assert_eq!(specs_stored(&bench.link).await?, 1);
    Ok(())
}

#[tokio::test]
async fn waiting_has_bounds() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = bench.submit("all").await?;
    let began = Instant::now();
    let answer = bench.http.get(&format!("{COMMANDS}/{id}/wait?timeout_ms=0")).await?;
    assert_eq!(answer.status, 202);
    assert!(began.elapsed() < Duration::from_secs(1));
    for query in ["timeout_ms=60001", "timeout_ms=-1", "timeout=1"] {
        let answer = bench.http.get(&format!("{COMMANDS}/{id}/wait?{query}")).await?;
        assert_eq!(refused(&answer)?, (422, "invalid".to_owned()), "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_is_an_object_and_a_query_of_a_write_is_empty() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    // The members of a command in their order.
    let array = json!(["a-1", null, "true", null, null, null]);
    assert_eq!(refused(&bench.http.post(COMMANDS, &array).await?)?, (422, "invalid".to_owned()));
    assert_eq!(
        refused(&bench.http.post("/api/v1/assignments", &json!(["a-1", "x"])).await?)?,
        (422, "invalid".to_owned())
    );
    let command = json!({"on": "a-1", "command": "true"});
    for path in ["/api/v1/commands?timeout_ms=5", "/api/v1/assignments?x"] {
        assert_eq!(refused(&bench.http.post(path, &command).await?)?, (422, "invalid".to_owned()), "{path}");
    }
    assert_eq!(specs_stored(&bench.link).await?, 0);
    Ok(())
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = bench.submit("all").await?;
    let unknown = "0193a2b4-0000-7000-8000-000000000000";
    let output = "output?machine=a-1&stream=stdout";
    for path in [
        unknown.to_owned(),
        format!("{unknown}/wait"),
        format!("{unknown}/{output}"),
        "not-a-uuid".to_owned(),
        "%ff".to_owned(),
        format!("{id}/output?machine=a-9&stream=stdout"),
        format!("{id}/nothing"),
    ] {
        let answer = bench.http.get(&format!("{COMMANDS}/{path}")).await?;
        assert_eq!(refused(&answer)?, (404, "not_found".to_owned()), "{path}");
    }
    let answer = bench.http.post(&format!("{COMMANDS}/{unknown}/cancel"), &Value::Null).await?;
    assert_eq!(refused(&answer)?, (404, "not_found".to_owned()));
    Ok(())
}

#[tokio::test]
async fn output_is_raw_bytes_at_true_offsets() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = bench.submit("all").await?;
    let relay = bench.relay("a-1")?;
    relay.claim(id).await?;
    let head: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for (n, chunk) in head.chunks(100_000).enumerate() {
        relay.output(id, Stdout, n as u64 * 100_000, chunk.to_vec()).await?;
    }
    relay.output(id, Stdout, 900_000, "the end").await?;
    relay.exit(id, 900_007, true).await?;
    bench.http.settled(&id.to_string()).await?;
    let read = async |query: &str| {
        let answer =
            bench.http.get(&format!("{COMMANDS}/{id}/output?machine=a-1&stream=stdout&{query}")).await?;
        ensure!(answer.header("content-type") == Some("application/octet-stream"), "{answer:?}");
        ensure!(answer.header("signalbox-total") == Some("900007"), "{answer:?}");
        ensure!(answer.header("signalbox-truncated") == Some("true"), "{answer:?}");
        let next = answer.header("signalbox-next-offset").map(str::to_owned);
        Ok((answer.body, next))
    };
    assert_eq!(read("").await?, (head.clone(), None), "up to the gap");
    assert_eq!(read("offset=99999&limit=100002").await?, (head[99_999..200_001].to_vec(), None));
    assert_eq!(read("offset=300000").await?, (vec![], Some("900000".to_owned())));
    assert_eq!(read("offset=900000").await?, (b"the end".to_vec(), None));
    assert_eq!(read("offset=900004&limit=2").await?, (b"en".to_vec(), None));
    assert_eq!(read("offset=900007").await?, (vec![], None));
    assert_eq!(read("offset=18446744073709551615").await?, (vec![], None));
    for query in
        ["stream=stdin", "stream=stdout&limit=0", "stream=stdout&limit=-1", "stream=stdout&offset=-1"]
    {
        let answer = bench.http.get(&format!("{COMMANDS}/{id}/output?machine=a-1&{query}")).await?;
        assert_eq!(refused(&answer)?, (422, "invalid".to_owned()), "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn a_run_that_has_said_nothing_has_output_of_no_length() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = bench.submit("all").await?;
    let is_empty = async |what: &str| {
        for stream in ["stdout", "stderr"] {
            let answer =
                bench.http.get(&format!("{COMMANDS}/{id}/output?machine=a-1&stream={stream}")).await?;
            ensure!(answer.status == 200 && answer.body.is_empty(), "{what}: {answer:?}");
            ensure!(answer.header("signalbox-total") == Some("0"), "{what}: {answer:?}");
            ensure!(answer.header("signalbox-truncated") == Some("false"), "{what}: {answer:?}");
            ensure!(answer.header("signalbox-next-offset").is_none(), "{what}: {answer:?}");
        }
        let wait = bench.http.get(&format!("{COMMANDS}/{id}/wait?timeout_ms=0")).await?;
        ensure!(wait.status == 202, "{what}: {wait:?}");
        Ok::<_, anyhow::Error>(())
    };
    is_empty("pending").await?;
    bench.relay("a-1")?.claim(id).await?;
    eventually("the claim is read", || async {
        let command = bench.http.json(&format!("{COMMANDS}/{id}")).await?;
        ensure!(command["counts"] == json!({"executing": 1}), "{command}");
        Ok(())
    })
    .await?;
    is_empty("claimed").await
}

#[tokio::test]
async fn output_is_read_to_its_end_whatever_its_size() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let id = bench.submit("all").await?;
    let relay = bench.relay("a-1")?;
    relay.claim(id).await?;
    // Above what is looked up at once, and not a multiple of it.
    let whole: Vec<u8> = (0..=250).cycle().take(9_000_001).collect();
    let chunk = 128 * 1024;
    for (n, bytes) in whole.chunks(chunk).enumerate() {
        relay.output(id, Stdout, (n * chunk) as u64, bytes.to_vec()).await?;
    }
    relay.exit(id, whole.len() as u64, false).await?;
    bench.http.settled(&id.to_string()).await?;
    for (query, expected) in [
        ("", &whole[..]),
        ("&limit=18446744073709551615", &whole),
        ("&limit=8388609", &whole[..8_388_609]),
        ("&offset=17&limit=4194305", &whole[17..4_194_322]),
        ("&offset=4194304", &whole[4_194_304..]),
    ] {
        let answer =
            bench.http.get(&format!("{COMMANDS}/{id}/output?machine=a-1&stream=stdout{query}")).await?;
        ensure!(answer.status == 200 && answer.header("signalbox-total") == Some("9000001"), "{query}");
        assert!(answer.body == expected, "{query}: {} bytes came", answer.body.len());
    }
    Ok(())
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_a_problem_too() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let long = "x".repeat(500_000);
    for (head, status, code) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "invalid"),
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000)), 414, "too_large"),
        (format!("GET /health HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n"), 431, "too_large"),
        (format!("GET /health HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(500)), 431, "too_large"),
    ] {
        let mut stream = TcpStream::connect(bench.base.trim_start_matches("http://")).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(head.contains("content-type: application/problem+json"), "{answer}");
        let problem: Value = serde_json::from_str(body)?;
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{answer}");
    }
    let counters = bench.http.json("/health").await?["counters"].clone();
    assert_eq!(
        (&counters["http.invalid"], &counters["http.too_large"]),
        (&json!(1), &json!(3)),
        "{counters}"
    );
    Ok(())
}

#[tokio::test]
async fn cancelling_counts_what_had_not_ended() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let id = bench.submit("all").await?;
    let path = format!("{COMMANDS}/{id}/cancel");
    let answer = bench.http.post(&path, &Value::Null).await?;
    assert_eq!((answer.status, answer.json()?), (202, json!({"cancelling": 2})));
    assert!(answer.header("signalbox-cursor").is_some());
    let settled = bench.http.settled(&id.to_string()).await?;
    assert_eq!(settled["counts"], json!({"cancelled": 2}));
    let answer = bench.http.post(&path, &Value::Null).await?;
    assert_eq!((answer.status, answer.json()?), (202, json!({"cancelling": 0})));
    Ok(())
}

#[tokio::test]
async fn a_rollout_is_paused_resumed_and_aborted() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2", "a-3"]).await?;
    bench.heard(&["a-1", "a-2", "a-3"]).await?;
    let wish =
        json!({"on": "all", "command": "true", "rollout": {"canary": 1, "waves": ["34%"], "pause_after": 1}});
    let made = bench.http.post(COMMANDS, &wish).await?;
    assert_eq!(made.status, 202, "{}", made.text());
    let id = made.json()?["id"].as_str().context("no id")?.to_owned();
    let path = |verb: &str| format!("{COMMANDS}/{id}/{verb}");
    let counts = |wanted: Value| {
        let bench = &bench;
        let id = &id;
        move || {
            let wanted = wanted.clone();
            async move {
                let command = bench.http.json(&format!("{COMMANDS}/{id}")).await?;
                ensure!(command["counts"] == wanted, "{command}");
                Ok(command["rollout"].clone())
            }
        }
    };
    let rollout = eventually("the canary", counts(json!({"held": 2, "pending": 1}))).await?;
    let first =
        json!([rollout["state"], rollout["wave"], rollout["waves"], rollout["released"], rollout["plan"]]);
    assert_eq!(first, json!(["going", 1, 2, 1, wish["rollout"]]));
    let answer = bench.http.post(&path("pause"), &Value::Null).await?;
    let said = answer.json()?;
    assert_eq!((answer.status, &said["rollout"]["state"]), (202, &json!("paused")), "{said}");
    assert_eq!((&said["rollout"]["by"], &said["rollout"]["why"]), (&json!("token:admin"), &Value::Null));
    assert!(answer.header("signalbox-cursor").is_some());
    // It is so already.
    assert_eq!(bench.http.post(&path("pause"), &Value::Null).await?.json()?, said);
    let answer = bench.http.post(&path("resume"), &Value::Null).await?;
    assert_eq!(answer.json()?["rollout"]["state"], "going");
    let answer = bench.http.post(&path("abort"), &Value::Null).await?;
    assert_eq!(answer.json()?["rollout"]["state"], "aborted");
    let rollout = eventually("the end", counts(json!({"cancelled": 3}))).await?;
    assert_eq!(rollout["state"], "aborted");
    for verb in ["pause", "resume", "abort"] {
        assert_eq!(refused(&bench.http.post(&path(verb), &Value::Null).await?)?, (422, "invalid".to_owned()));
    }
    let at_once = bench.submit("all").await?;
    let answer = bench.http.post(&format!("{COMMANDS}/{at_once}/pause"), &Value::Null).await?;
    assert_eq!(refused(&answer)?, (422, "invalid".to_owned()));
    let unknown = uuid::Uuid::now_v7();
    let answer = bench.http.post(&format!("{COMMANDS}/{unknown}/pause"), &Value::Null).await?;
    assert_eq!(refused(&answer)?, (404, "not_found".to_owned()));
    let bad = json!({"on": "all", "command": "true", "rollout": {"canary": "none"}});
    assert_eq!(refused(&bench.http.post(COMMANDS, &bad).await?)?, (422, "invalid".to_owned()));
    Ok(())
}

#[tokio::test]
async fn an_api_key_is_shown_once_and_never_stored() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let path = "/api/v1/assignments";
    let answer = bench.http.post(path, &json!({"machine_id": "a-1", "name": "Büro"})).await?;
    assert_eq!(answer.status, 201);
    let made = answer.json()?;
    assert_eq!(
        (&made["machine_id"], &made["name"], &made["enabled"]),
        (&json!("a-1"), &json!("Büro"), &json!(true))
    );
    let key = made["api_key"].as_str().context("no key")?;
    assert!(key.starts_with("sk_") && key.len() == 46, "{key}");
    let kept = bench.view.assignment(made["id"].as_str().context("id")?).context("not kept")?;
    let secret = orion::auth::SecretKey::try_from(bench.pepper.as_slice())?;
    let hash = signalbox_schemas::id::Sha256::of(key.as_bytes());
    let tag = orion::auth::authenticate(&secret, &hash.0)?;
    assert_eq!(kept.api_key_hash, data_encoding::HEXLOWER.encode(tag.unprotected_as_ref()));
    let state = bench.link.stream_state(stream::STATE).await?;
    let mut with_hash = 0;
    for sequence in state.first..=state.last {
        let Some(message) = bench.link.by_sequence(stream::STATE, sequence).await? else { continue };
        let whole = format!("{} {}", message.subject, String::from_utf8_lossy(&message.payload));
        assert!(!whole.contains(&key[3..]), "the key is stored");
        with_hash += u32::from(message.subject.ends_with(&kept.api_key_hash));
    }
    assert_eq!(with_hash, 1);
    for (body, status, code) in [
        (json!({"machine_id": " a-9", "name": "x"}), 422, "invalid"),
        (json!({"machine_id": "a-1", "name": ""}), 422, "invalid"),
        (json!({"machine_id": "a-1"}), 422, "invalid"),
        (json!({"machine_id": "a-1", "name": "x", "key": "mine"}), 422, "invalid"),
    ] {
        let answer = bench.http.post(path, &body).await?;
        assert_eq!(refused(&answer)?, (status, code.to_owned()), "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn a_read_waits_for_its_cursor_for_a_while() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let state = bench.link.stream_state(stream::CMD).await?;
    let ahead = format!("CMD:{}:{}", state.created_ms, state.last + 2);
    let read = async |cursor: &str| {
        bench.http.request("GET", COMMANDS, &[("signalbox-cursor", cursor)], vec![]).await
    };
    let reading = read(&ahead);
    let (answer, id) = tokio::join!(reading, bench.submit("all"));
    let answer = answer?;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()?["items"][0]["id"], json!(id?));
    let never = format!("CMD:{}:{}", state.created_ms, u64::MAX);
    assert_eq!(refused(&read(&never).await?)?, (503, "not_caught_up".to_owned()));
    for bad in ["x", "CMD:1", "CMD:1:x", &"a".repeat(2_000)] {
        assert_eq!(refused(&read(bad).await?)?, (422, "invalid".to_owned()), "{bad}");
    }
    Ok(())
}

#[tokio::test]
async fn a_long_poll_ends_when_the_bridge_stops() -> Result<()> {
    let mut bench = Bench::start(&["a-1"]).await?;
    let id = bench.submit("all").await?;
    let http = bench.http.clone();
    let path = format!("{COMMANDS}/{id}/wait?timeout_ms=60000");
    let mut polls = JoinSet::new();
    polls.spawn(async move { http.get(&path).await });
    // One that is there: the bridge answers a later one while it waits.
    bench.http.get(&format!("{COMMANDS}/{id}/wait?timeout_ms=200")).await?;
    let stopping = Instant::now();
    bench.end().await?;
    let answer = polls.join_next().await.context("a poll")???;
    assert_eq!(answer.status, 202);
    assert!(stopping.elapsed() < Duration::from_secs(4), "{:?}", stopping.elapsed());
    Ok(())
}

#[tokio::test]
async fn who_did_what_and_who_might_not_is_listed_newest_first() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let asked = bench.http.post(COMMANDS, &json!({"on": "all", "command": "true"})).await?;
    let id = asked.json()?["id"].clone();
    assert_eq!(bench.http.with_token("sbt_other").get(COMMANDS).await?.status, 401);
    let listed = eventually("both are in the audit chain", || async {
        let all = bench.http.json("/api/v1/audit").await?["items"].as_array().context("items")?.clone();
        let has = |action: &str, actor: &str| {
            all.iter().any(|item| item["entry"]["action"] == action && item["entry"]["actor"] == actor)
        };
        ensure!(has("commands.submit", "token:admin") && has("http", "nobody"), "{all:?}");
        Ok(all)
    })
    .await?;
    let submitted = listed.iter().find(|item| item["entry"]["about"] == id).context("the command")?;
    assert_eq!(submitted["entry"]["outcome"]["stored"]["stream"], "CMD");
    // What was refused and what was done are entered by one after the other, and neither takes the other's place.
    let bodies: Vec<_> = (0..20).map(|n| json!({"on": "all", "command": format!("echo {n}")})).collect();
    for answer in join_all(bodies.iter().map(|body| bench.http.post(COMMANDS, body))).await {
        assert_eq!(answer?.status, 202);
    }
    let chain = eventually("all of them are entered", || async {
        let all =
            bench.http.json("/api/v1/audit?limit=1000").await?["items"].as_array().context("items")?.clone();
        let submits = all.iter().filter(|item| item["entry"]["action"] == "commands.submit").count();
        ensure!(submits == 21, "{submits} are entered");
        Ok(all)
    })
    .await?;
    let mut at = audit::Link::default();
    for item in chain.iter().rev() {
        let view: AuditView = serde_json::from_value(item.clone())?;
        let (entry, envelope) = view.entry.zip(view.envelope).context("no entry")?;
        at.follow(view.sequence, &entry, &envelope.to_json())?;
    }
    let refused_entry = listed.iter().find(|item| item["entry"]["action"] == "http").context("it")?;
    assert_eq!(
        refused_entry["entry"]["outcome"],
        json!({"refused": {"code": "unauthenticated", "count": 1}})
    );
    let numbers: Vec<_> = listed.iter().filter_map(|item| item["entry"]["n"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|a, b| a == &(b + 1)) && numbers.last() == Some(&1), "{numbers:?}");
    // Page by page it is the same.
    let listed = chain;
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = bench.http.json(&format!("/api/v1/audit?limit=2{after}")).await?;
        paged.extend(page["items"].as_array().context("items")?.clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(paged[paged.len() - listed.len()..], listed);
    for query in ["limit=0", "limit=1001", "after=0", "after=x", "lmit=1"] {
        let answer = bench.http.get(&format!("/api/v1/audit?{query}")).await?;
        assert_eq!(refused(&answer)?, (422, "invalid".to_owned()), "{query}");
    }
    Ok(())
}
