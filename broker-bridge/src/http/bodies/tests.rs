use std::io::Read as _;

use futures_util::{FutureExt as _, future::poll_immediate, stream};
use tokio::sync::mpsc;

use super::*;

fn bodies() -> (tempfile::TempDir, Bodies) {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::new(dir.path().to_owned());
    (dir, bodies)
}

fn promising(len: usize) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_LENGTH, (len as u64).into())])
}

/// A body that never ends, of which this much has come.
fn endless(begun: usize) -> Body {
    let begun = stream::iter([Ok::<_, io::Error>(Bytes::from(vec![b' '; begun]))]);
    Body::from_stream(begun.chain(stream::pending()))
}

/// A body that promises `len` bytes and of which much more than its first part has come.
async fn reading(len: usize) -> Reading {
    let reading = Reading::begin(&promising(len), endless(len - 1), LARGEST).await.unwrap();
    assert!(reading.goes_on() && reading.begun.len() == FIRST && reading.begun.capacity() == FIRST);
    reading
}

fn relay(n: usize) -> Client {
    Client::Assignment(format!("asg_{n}"))
}

async fn text_of(mut arrived: Arrived) -> String {
    let read = |source: &mut Source<'_>| {
        let mut text = String::new();
        source.read_to_string(&mut text).map_err(serde_json::Error::io).map(|_| text)
    };
    arrived.parse(read).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_body_comes_back_whatever_it_is_kept_in() {
    let (dir, bodies) = bodies();
    for (len, in_memory) in [
        (0, true),
        (1, true),
        (FIRST, true),
        (FIRST + 1, true),
        (SMALL, true),
        (SMALL + 1, false),
        (5 * PIECE, false),
        (LARGEST, false),
    ] {
        let text = ["é\0x".repeat(len / 4), "y".repeat(len % 4)].concat();
        let reading =
            Reading::begin(&promising(text.len()), Body::from(text.clone()), LARGEST).await.unwrap();
        assert_eq!(reading.goes_on(), text.len() > FIRST);
        let room = bodies.room(&reading, relay(1)).await.unwrap();
        let arrived = bodies.read_on(reading, room).await.unwrap();
        assert_eq!(matches!(arrived.kept, Kept::Memory(_)), in_memory, "{len}");
        assert!(text_of(arrived).await == text, "{len}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a file has a name");
    let all = (bodies.all.memory.available_permits(), bodies.all.files.available_permits());
    assert_eq!((all, bodies.digested.available_permits()), ((IN_MEMORY, FILES), DIGESTED));
}

#[tokio::test]
async fn there_is_an_end_to_bodies() {
    let (_dir, bodies) = bodies();
    for largest in [SMALL, LARGEST] {
        let begin = |headers, body| async move { Reading::begin(&headers, body, largest).await };
        let reading = begin(HeaderMap::new(), Body::from(vec![b' '; largest + 1])).await.unwrap();
        let room = bodies.room(&reading, relay(1)).await.unwrap();
        assert!(matches!(bodies.read_on(reading, room).await, Err(NotTaken::TooLarge(_))));
        assert!(matches!(begin(promising(largest + 1), Body::empty()).await, Err(NotTaken::TooLarge(_))));
    }
}

#[tokio::test]
async fn one_client_takes_its_share_and_leaves_room_for_others() {
    let (_dir, bodies) = bodies();
    for (len, most) in [(SMALL, IN_MEMORY_OF_ONE / SMALL / 2), (SMALL + 1, FILES_OF_ONE)] {
        let mut rooms = Vec::new();
        for _ in 0..most {
            rooms.push(bodies.room(&reading(len).await, relay(1)).await.unwrap());
        }
        let next = reading(len).await;
        assert!(poll_immediate(Box::pin(bodies.room(&next, relay(1)))).await.is_none(), "{len}");
        assert!(bodies.room(&next, relay(2)).now_or_never().is_some_and(|room| room.is_ok()), "{len}");
        rooms.pop();
        assert!(bodies.room(&next, relay(1)).now_or_never().is_some_and(|room| room.is_ok()), "{len}");
    }
}

#[tokio::test]
async fn all_clients_together_take_no_more_than_there_is() {
    let (_dir, bodies) = bodies();
    for (len, of_one, in_all) in
        [(SMALL, IN_MEMORY_OF_ONE / SMALL / 2, IN_MEMORY / SMALL / 2), (LARGEST, FILES_OF_ONE, FILES)]
    {
        let mut rooms = Vec::new();
        for n in 0..in_all {
            rooms.push(bodies.room(&reading(len).await, relay(n / of_one)).await.unwrap());
        }
        let next = reading(len).await;
        assert!(bodies.room(&next, relay(in_all)).now_or_never().is_none(), "{len}");
        // Which keeps nobody out who says little.
        let small = Reading::begin(&promising(7), Body::from("{\"a\":1}"), SMALL).await.unwrap();
        assert!(bodies.room(&small, relay(0)).now_or_never().is_some_and(|room| room.is_ok()), "{len}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_without_an_end_costs_its_room_for_a_while() {
    let (_dir, bodies) = bodies();
    let begun = Reading::begin(&HeaderMap::new(), endless(FIRST), LARGEST).await;
    assert!(matches!(begun, Err(NotTaken::Broken(_))));
    for (len, within) in [(SMALL, SMALL_WITHIN), (LARGEST, PIECE_WITHIN)] {
        // A byte now and then, so that something always comes.
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(1);
        let body =
            stream::unfold(receiver, |mut bytes| async { bytes.recv().await.map(|next| (next, bytes)) });
        let body = stream::iter([Ok(Bytes::from(vec![b' '; FIRST + 1]))]).chain(body);
        let reading = Reading::begin(&promising(len), Body::from_stream(body), LARGEST).await.unwrap();
        let room = bodies.room(&reading, relay(1)).await.unwrap();
        let begun = tokio::time::Instant::now();
        let dripping = async {
            while sender.send(Ok(Bytes::from_static(b" "))).await.is_ok() {
                tokio::time::sleep(PATIENCE / 2).await;
            }
        };
        let read = tokio::select! {
            read = bodies.read_on(reading, room) => read,
            () = dripping => panic!("nobody reads"),
        };
        assert!(matches!(read, Err(NotTaken::Broken(_))), "{len}");
        assert_eq!(begun.elapsed().as_secs(), within.as_secs());
    }
}
