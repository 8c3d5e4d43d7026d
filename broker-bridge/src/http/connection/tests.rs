//! Clients that are slow, silent or rude, against a server with little patience.

use super::*;
use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use std::future::IntoFuture as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::timeout,
};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(5);

/// A server with little patience: `/slow` works longer than it has, `/big` answers 64 MiB.
async fn server() -> (SocketAddr, JoinSet<()>) {
    server_that_keeps(SHORT).await
}

async fn server_that_keeps(kept: Duration) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = |ConnectInfo(pace): ConnectInfo<Pace>| async move {
        let _guard = pace.begin();
        sleep(SHORT * 3).await;
        "done"
    };
    let big = |ConnectInfo(pace): ConnectInfo<Pace>| async move {
        let _guard = pace.begin();
        Body::from(vec![0; 64 << 20])
    };
    let router = Router::new().route("/slow", get(slow)).route("/big", get(big));
    let service = router.into_make_service_with_connect_info::<Pace>();
    let bounded =
        Bounded::new(listener, Patience { head: SHORT, kept, write: SHORT, linger: SHORT }, Arc::new(|_| {}));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(bounded, service).into_future().await.unwrap() });
    (address, tasks)
}

/// Everything until the server closes, in bounded time.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is a close too.
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server does not close");
    bytes
}

#[test]
fn connections_leave_descriptors_for_the_rest() {
    for (descriptors, most) in
        [(0, 64), (256, 64), (1_024, 768), (4_096, 3_840), (20_000, 16_384), (u64::MAX, 16_384)]
    {
        assert_eq!(most_connections(descriptors), most, "{descriptors}");
    }
}

#[tokio::test]
async fn no_read_makes_the_servers_buffer_grow() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut bounded = Bounded::new(listener, Patience::default(), Arc::new(|_| {}));
    let (mut guarded, _) = bounded.accept().await;
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    let (mut came, mut space) = (Vec::new(), vec![0; 64 * 1024]);
    client.write_all(&sent).await.unwrap();
    while came.len() < sent.len() {
        let read = timeout(LONG, guarded.read(&mut space)).await.unwrap().unwrap();
        assert!((1..8 * 1024).contains(&read), "{read} bytes");
        came.extend_from_slice(&space[..read]);
    }
    assert!(came == sent);
}

#[test]
fn only_bare_statuses_are_exchanged() {
    let bare =
        "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(bare_status(bare.as_bytes()), Some(431));
    for other in [
        "HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK",
        "content-length: 0\r\n\r\n",
        "",
    ] {
        assert_eq!(bare_status(other.as_bytes()), None, "{other}");
    }
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off() {
    let (address, _tasks) = server().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let drip = async {
        for byte in b"GET /slow HTTP/1.1\r\nhost: x\r\nx-long: ".iter().chain([b'a'; 1_000].iter()) {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(SHORT / 20).await;
        }
    };
    let mut bytes = Vec::new();
    let closed = timeout(LONG, read.read_to_end(&mut bytes));
    tokio::select! {
        closed = closed => drop(closed.expect("the server does not close")),
        () = drip => panic!("the server listens for ever"),
    }
    assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
}

#[tokio::test]
async fn a_request_in_progress_is_not_idle_and_a_kept_connection_is() {
    let (address, _tasks) = server().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(until_closed(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
}

#[tokio::test]
async fn a_kept_connection_may_be_silent_for_longer_than_a_head_may_drip() {
    let (address, _tasks) = server_that_keeps(LONG).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut space = [0; 1_024];
    for _ in 0..3 {
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let read = timeout(LONG, stream.read(&mut space)).await.unwrap().unwrap();
        assert!(space[..read].starts_with(b"HTTP/1.1 200"), "{read}");
        sleep(SHORT * 3).await;
    }
    stream.write_all(b"GET /slow HT").await.unwrap();
    let since = Instant::now();
    assert!(until_closed(&mut stream).await.is_empty());
    assert!(since.elapsed() < LONG / 2, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off_and_a_slow_one_is_not() {
    let (address, _tasks) = server().await;
    let request = b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    sleep(SHORT * 3).await;
    assert!(until_closed(&mut stream).await.len() < 64 << 20, "it was sent all");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let (mut space, mut len) = (vec![0; 8 << 20], 0);
    loop {
        sleep(SHORT / 10).await;
        match timeout(LONG, stream.read(&mut space)).await.unwrap().unwrap() {
            0 => break,
            n => len += n,
        }
    }
    assert!(len > 64 << 20, "{len}");
}
