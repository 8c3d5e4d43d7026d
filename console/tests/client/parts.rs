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
    let names: Vec<String> = (0..2_500).map(|n| format!("demo-{n:04}")).collect();
    let mut pages = names.chunks(1_000).peekable();
    let mut after = None;
    while let Some(page) = pages.next() {
        let (rid, asked): (_, signalbox_schemas::api::Preview) = fake.wait_for(op::COMMANDS_PREVIEW).await;
        assert_eq!((asked.limit, asked.after), (Some(1_000), after));
        after = pages.peek().map(|_| page[999].clone());
        let targets = page.iter().map(|name| target(name)).collect();
        fake.ok(&rid, Previewed { targets, next: after.clone() }).await;
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
