//! A command on more machines than one message has grants for.

use signalbox_schemas::{api::PartTaken, command::Part};

use super::*;

fn part(signed: &Signed<Request>) -> Part {
    let request = signed.open(|signer| signer == key().public()).unwrap();
    serde_json::from_value(request.args).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_go_ahead_part_by_part_and_a_lost_one_goes_again_alone() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { client.run(&draft()).await });
    let names = names();
    let mut pages = names.chunks(1_000).peekable();
    let mut after = None;
    while let Some(page) = pages.next() {
        let (rid, asked): (_, signalbox_schemas::api::Preview) = fake.wait_for(op::COMMANDS_PREVIEW).await;
        assert_eq!((asked.limit, asked.after), (Some(1_000), after));
        after = pages.peek().map(|_| page[999].clone());
        let targets = page.iter().map(|name| target(name)).collect();
        fake.ok(&rid, Previewed { targets, next: after.clone(), ..Previewed::default() }).await;
    }
    let (mut sent, mut machines) = (Vec::new(), Vec::new());
    for answered in [true, false, true, true] {
        let (rid, signed): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_PART).await;
        let Part { cid, n, of, grants } = part(&signed);
        sent.push((n, of));
        if answered {
            machines.extend(grants.iter().map(|grant| grant.peek().unwrap().mid.to_string()));
            fake.ok(&rid, PartTaken { id: cid, n, cursor: String::new() }).await;
        } else {
            fake.refuse(&rid, Problem::new(ErrorCode::NotAccepted, "try again")).await;
        }
    }
    assert_eq!(sent, [(1, 3), (2, 3), (2, 3), (3, 3)]);
    assert_eq!(machines, names);
    let (rid, signed): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_SUBMIT).await;
    let (_, submit, spec) = open(&signed);
    assert_eq!((submit.grants.len(), spec.targets), (0, 2_500));
    fake.ok(&rid, Accepted { id: spec.cid, targets: Vec::new(), cursor: String::new() }).await;
    let accepted = tasks.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(accepted.targets.iter().map(ToString::to_string).collect::<Vec<_>>(), names);
}

fn names() -> Vec<String> {
    (0..2_500).map(|n| format!("demo-{n:04}")).collect()
}

/// What becomes of a command on many machines whose parts and submits are answered as told: `None` says that it is not
/// accepted, a code that it is refused.
async fn answered(parts: &[Option<ErrorCode>], submits: &[Option<ErrorCode>]) -> ClientError {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let targets = names().iter().map(|name| target(name)).collect();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let prepared = prepare_aside(&draft(), client.access(), targets).await?;
        client.submit(&prepared).await
    });
    let problem = |code: Option<ErrorCode>| Problem::new(code.unwrap_or(ErrorCode::NotAccepted), "no");
    for code in parts {
        let (rid, _): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_PART).await;
        fake.refuse(&rid, problem(*code)).await;
    }
    if !submits.is_empty() {
        for _ in 0..3 {
            let (rid, signed): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_PART).await;
            let Part { cid, n, .. } = part(&signed);
            fake.ok(&rid, PartTaken { id: cid, n, cursor: String::new() }).await;
        }
    }
    for code in submits {
        let (rid, _): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_SUBMIT).await;
        fake.refuse(&rid, problem(*code)).await;
    }
    tasks.join_next().await.unwrap().unwrap().unwrap_err()
}

/// Without all of its parts nothing is a command, so there is nothing to be unsure of.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_submit_that_was_sent_leaves_one_unsure() {
    let refused =
        |error: &ClientError, code| matches!(error, ClientError::Refused(problem) if problem.code == code);
    let error = answered(&[None, Some(ErrorCode::RateLimited)], &[]).await;
    assert!(refused(&error, ErrorCode::RateLimited), "{error:?}");
    let error = answered(&[None, None, None], &[]).await;
    assert!(refused(&error, ErrorCode::NotAccepted), "{error:?}");
    // A lost part takes none of the submit's tries, and what is refused after a lost submit says nothing about that one.
    let error = answered(&[None, None], &[None, Some(ErrorCode::Forbidden), None]).await;
    assert!(matches!(error, ClientError::Unsure(_)), "{error:?}");
}

/// A bridge that goes on with its list for ever is not followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_does_not_go_on_is_refused() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    for next in ["demo", "demo-0"] {
        let client = Client::connect(access(&broker), false).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { client.preview("all").await });
        let mut targets = vec![target("demo-1")];
        for next in ["demo-1", next] {
            let (rid, _): (_, signalbox_schemas::api::Preview) = fake.wait_for(op::COMMANDS_PREVIEW).await;
            let targets = std::mem::take(&mut targets);
            fake.ok(&rid, Previewed { targets, next: Some(next.to_owned()), ..Previewed::default() }).await;
        }
        let error = tasks.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, ClientError::NotAsMeant(_)), "{error:?}");
    }
}

/// One answer of a bridge to a preview.
enum Page {
    /// Machines, where the list goes on, and which list it says it is of.
    Of(&'static [&'static str], Option<&'static str>, &'static [&'static str]),
    /// The same of a bridge that names no list.
    Plain(&'static [&'static str], Option<&'static str>),
    /// The list has changed.
    Changed,
    /// The place is none that this bridge knows.
    Unknown,
}

async fn previewed(pages: Vec<Page>) -> (Result<Vec<Target>, ClientError>, Vec<Option<u32>>) {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { client.preview("all").await });
    let mut limits = Vec::new();
    for page in pages {
        let (rid, asked): (_, signalbox_schemas::api::Preview) = fake.wait_for(op::COMMANDS_PREVIEW).await;
        limits.push(asked.limit);
        match page {
            Page::Of(names, next, list) => {
                let tokens: Vec<_> = list.iter().map(|name| target(name).token).collect();
                let sha256 = Some(Previewed::digest(&tokens));
                let targets = names.iter().map(|name| target(name)).collect();
                let next = next.map(str::to_owned);
                fake.ok(&rid, Previewed { targets, next, sha256, ..Previewed::default() }).await;
            }
            Page::Plain(names, next) => {
                let targets = names.iter().map(|name| target(name)).collect();
                let next = next.map(str::to_owned);
                fake.ok(&rid, Previewed { targets, next, ..Previewed::default() }).await;
            }
            Page::Unknown => fake.refuse(&rid, Problem::new(ErrorCode::Invalid, "no such place")).await,
            Page::Changed => fake.refuse(&rid, Problem::new(ErrorCode::IdConflict, "begin anew")).await,
        }
    }
    (tasks.join_next().await.unwrap().unwrap(), limits)
}

/// Whoever signs for machines has read one list of them, and not a page of each of two.
#[tokio::test(flavor = "multi_thread")]
async fn all_pages_are_of_the_list_that_they_name() {
    use Page::{Changed, Of, Plain, Unknown};
    let (one, two) = (&["demo-1", "demo-2"], &["demo-1", "demo-3"]);
    let first = || Of(&["demo-1"], Some("demo-1,1"), one);
    let (read, _) = previewed(vec![first(), Of(&["demo-2"], None, one)]).await;
    assert_eq!(read.unwrap().len(), 2);
    // It has changed: it is read anew, and at last at once.
    let (read, limits) =
        previewed(vec![first(), Changed, first(), Changed, Changed, Of(two, None, two)]).await;
    assert_eq!(read.unwrap().len(), 2);
    assert_eq!(limits.last(), Some(&None));
    // Of two versions at once, each of which knows its own places only.
    let plain = || Plain(&["demo-1"], Some("demo-1"));
    let mixed =
        vec![plain(), Of(&["demo-2"], None, one), first(), Unknown, first(), Of(&["demo-2"], None, one)];
    assert_eq!(previewed(mixed).await.0.unwrap().len(), 2);
    for wrong in [
        vec![first(), Of(&["demo-2"], None, two)],
        vec![first(), Of(&["demo-3"], None, one)],
        vec![Of(&["demo-1"], None, one)],
    ] {
        let (read, _) = previewed(wrong).await;
        let error = read.unwrap_err();
        assert!(matches!(error, ClientError::NotAsMeant(_)), "{error:?}");
    }
}
