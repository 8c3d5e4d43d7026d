//! Output that the session reads in ranges, and writes to files.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use signalbox_console::client::{
    Ask, Told,
    nats::OutputRange,
    session,
    session::save::{Save, Saved, Target},
};
use signalbox_schemas::{
    api::{ReadOutput, op},
    error::{ErrorCode, Problem},
    id::MachineId,
    output::OutputStream,
};
use signalbox_testkit::Broker;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{
    command,
    fake::{Fake, SOON, access, broker},
};

fn machine() -> MachineId {
    MachineId::new("demo-1").unwrap()
}

/// A session whose bridge is the test.
struct Session {
    fake: Fake,
    asks: mpsc::Sender<Ask>,
    told: mpsc::Receiver<Told>,
    tasks: JoinSet<Result<(), signalbox_console::client::ClientError>>,
    _broker: Broker,
}

impl Session {
    async fn start() -> Self {
        let broker = broker().await;
        let fake = Fake::start(&broker).await;
        let (asks, asked) = mpsc::channel(64);
        let (tell, told) = mpsc::channel(256);
        let mut tasks = JoinSet::new();
        tasks.spawn(session(access(&broker), asked, tell));
        Self { fake, asks, told, tasks, _broker: broker }
    }

    /// The next telling about what is tested.
    async fn told(&mut self) -> Told {
        loop {
            match timeout(SOON, self.told.recv()).await.unwrap().unwrap() {
                Told::Link(_) | Told::Stale { .. } => {}
                told => return told,
            }
        }
    }

    /// Answers one question for a range of a stream.
    async fn answer(&mut self, stream: &[u8], most: usize) -> ReadOutput {
        let (rid, asked): (_, ReadOutput) = self.fake.wait_for(op::COMMANDS_OUTPUT).await;
        let from = usize::try_from(asked.offset).unwrap();
        let to = stream.len().min(from + most.min(asked.limit as usize));
        self.fake.range(&rid, from, stream.len(), stream.get(from..to).unwrap_or_default()).await;
        asked
    }
}

fn target(stream: OutputStream, path: &Path) -> Target {
    Target { machine: machine(), stream, path: path.to_owned() }
}

fn save(tag: u64, targets: Vec<Target>, skips_empty: bool) -> Ask {
    Ask::Save(Save { tag, id: command(), targets, folder: None, skips_empty })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_read_and_a_refusal_is_told() {
    let mut session = Session::start().await;
    let ask =
        Ask::ReadOutput { id: command(), machine: machine(), stream: OutputStream::Stderr, from: 3, most: 4 };
    session.asks.send(ask.clone()).await.unwrap();
    let asked = session.answer(b"0123456789", 100).await;
    assert_eq!((asked.machine.as_str(), asked.stream, asked.limit), ("demo-1", OutputStream::Stderr, 4));
    let Told::OutputRange { from: 3, range: Ok(range), .. } = session.told().await else {
        panic!("no range")
    };
    let OutputRange { offset, total_bytes, data, .. } = range;
    assert_eq!((offset, total_bytes, &*data), (3, 10, b"3456".as_slice()));

    session.asks.send(ask).await.unwrap();
    let (rid, _): (_, ReadOutput) = session.fake.wait_for(op::COMMANDS_OUTPUT).await;
    session.fake.refuse(&rid, Problem::new(ErrorCode::NotFound, "no such run")).await;
    let Told::OutputRange { from: 3, range: Err(problem), .. } = session.told().await else {
        panic!("no refusal")
    };
    assert_eq!(problem.code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_written_byte_for_byte_for_their_owner_alone() {
    let mut session = Session::start().await;
    let dir = tempfile::tempdir().unwrap();
    let [out, err] = ["log.stdout", "log.stderr"].map(|name| dir.path().join(name));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let targets = vec![target(OutputStream::Stdout, &out), target(OutputStream::Stderr, &err)];
    session.asks.send(save(7, targets, true)).await.unwrap();
    // Where the next one begins is asked for before the first one is there.
    let (first, asked): (_, ReadOutput) = session.fake.wait_for(op::COMMANDS_OUTPUT).await;
    assert_eq!(session.answer(b"", usize::MAX).await.stream, OutputStream::Stderr);
    session.fake.range(&first, 0, bytes.len(), &bytes[..asked.limit as usize]).await;
    for _ in 0..5 {
        assert_eq!(session.answer(&bytes, usize::MAX).await.stream, OutputStream::Stdout);
    }
    let mut told_bytes = vec![];
    let saved = loop {
        match session.told().await {
            Told::Saving { tag: 7, bytes, of: 3_000_000 } => told_bytes.push(bytes),
            Told::Saved { tag: 7, saved } => break saved,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(saved, Saved { files: 1, bytes: 3_000_000, missing: 0, absent: 0 });
    assert!(!told_bytes.is_empty() && told_bytes.is_sorted(), "{told_bytes:?}");
    assert!(fs::read(&out).unwrap() == bytes, "the bytes differ");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!err.exists(), "a stream with nothing in it has a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_in_a_file_is_said_in_it() {
    let mut session = Session::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    session.asks.send(save(7, vec![target(OutputStream::Stdout, &path)], false)).await.unwrap();
    for (offset, data) in [(0, b"begin".as_slice()), (105, b"end"), (108, b"")] {
        let (rid, _): (_, ReadOutput) = session.fake.wait_for(op::COMMANDS_OUTPUT).await;
        session.fake.range(&rid, offset, 110, data).await;
    }
    let Told::Saved { saved, .. } = session.told().await else { panic!("not saved") };
    assert_eq!(saved, Saved { files: 1, bytes: 8, missing: 102, absent: 0 });
    let text = fs::read_to_string(&path).unwrap();
    let expected = "begin\n[signalbox: 100 bytes are missing]\nend\n[signalbox: 2 bytes are missing]\n";
    assert_eq!(text, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_stays_as_it_is() {
    let mut session = Session::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("log"), dir.path().join("link"));
    fs::write(&path, "mine").unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
    for there in [&path, &link] {
        session.asks.send(save(7, vec![target(OutputStream::Stdout, there)], false)).await.unwrap();
        session.answer(b"theirs", usize::MAX).await;
        let Told::Refused { tag: 7, problem } = session.told().await else { panic!("not refused") };
        assert!(problem.message.contains("is there already; choose another name"), "{}", problem.message);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert!(!dir.path().join("elsewhere").exists(), "a link was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_file_is_removed() {
    let mut session = Session::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for is_stopped in [true, false] {
        session.asks.send(save(7, vec![target(OutputStream::Stdout, &path)], false)).await.unwrap();
        session.answer(&[b'x'; 100], 10).await;
        let (rid, asked): (_, ReadOutput) = session.fake.wait_for(op::COMMANDS_OUTPUT).await;
        assert_eq!(asked.offset, 10);
        assert!(path.exists());
        if is_stopped {
            session.asks.send(Ask::StopSave { tag: 7 }).await.unwrap();
        } else {
            session.fake.refuse(&rid, Problem::new(ErrorCode::NotFound, "it is gone")).await;
        }
        let Told::Refused { tag: 7, problem } = session.told().await else { panic!("not refused") };
        assert!(problem.message.contains(if is_stopped { "stopped" } else { "it is gone" }));
        assert!(!path.exists(), "half of it is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_leaves_no_half_of_a_file() {
    let mut session = Session::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    session.asks.send(save(7, vec![target(OutputStream::Stdout, &path)], false)).await.unwrap();
    session.answer(&[b'x'; 100], 10).await;
    let _: (_, ReadOutput) = session.fake.wait_for(op::COMMANDS_OUTPUT).await;
    assert!(path.exists());
    let Session { asks, told, mut tasks, .. } = session;
    drop((asks, told));
    timeout(SOON, tasks.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    assert!(!path.exists(), "half of it is left");
}
