use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::fault::Weather;
use crate::world::host::Host;
use crate::world::place::enter_test;

const BOUND: Duration = Duration::from_mins(1);

#[test]
fn only_ipv4_has_ends() {
    let mut packet = [0; 20];
    packet[0] = 0x45;
    packet[12..20].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2]);
    assert_eq!(ends(&packet), Some((Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2))));
    assert_eq!(ends(&packet[..19]), None);
    packet[0] = 0x60;
    assert_eq!(ends(&packet), None);
}

/// `bytes` through a `cat` on another host and back.
async fn echoed(to: (Ipv4Addr, u16), bytes: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let (mut read, mut write) = TcpStream::connect(to).await?.into_split();
    let sent = async {
        write.write_all(&bytes).await?;
        write.shutdown().await
    };
    let mut back = Vec::new();
    let (sent, read) = tokio::join!(sent, read.read_to_end(&mut back));
    sent.and(read)?;
    Ok(back)
}

/// A listener whose socket belongs to the namespace that this thread is in when it is made.
fn listen_in(namespace: &str, address: (Ipv4Addr, u16)) -> std::net::TcpListener {
    let path = format!("{}/{namespace}", crate::world::place::NETNS);
    let listening = std::thread::spawn(move || {
        let there = std::fs::File::open(path).unwrap();
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&there),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
        std::net::TcpListener::bind(address).unwrap()
    });
    listening.join().unwrap()
}

async fn echo(listener: std::net::TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.into_split();
        // A peer that is cut off in the middle is what is tested.
        let _ = tokio::io::copy(&mut read, &mut write).await;
    }
}

#[test]
fn heavy_tcp_arrives_whole_through_bad_weather() {
    if !enter_test("world::net::tests::heavy_tcp_arrives_whole_through_bad_weather") {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut net = Net::new(1);
        let (here, there) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 40));
        let _host = Host::namespace("m0", there).unwrap();
        let distance = Duration::from_millis(20);
        net.join(here, None, Duration::ZERO).unwrap();
        net.join(there, Some("m0"), distance).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(echo(listen_in("m0", (there, 7))));

        let began = Instant::now();
        assert_eq!(timeout(BOUND, echoed((there, 7), b"x".to_vec())).await.unwrap().unwrap(), b"x");
        // A connection is made, and a byte comes back.
        assert!(began.elapsed() >= 4 * distance, "{:?} for {distance:?} each way", began.elapsed());

        // 3 MB each way, numbered so that a block in a wrong place shows.
        let sent: Vec<u8> = (0..750_000_u32).flat_map(u32::to_be_bytes).collect();
        let clear = timeout(BOUND, echoed((there, 7), sent.clone())).await.unwrap().unwrap();
        assert!(clear == sent, "{} of {} bytes came back, or others", clear.len(), sent.len());

        let weather = Weather { delay_ms: 3, jitter_ms: 2, lost: 10, doubled: 20 };
        net.set(there, Line { cut: false, weather: Some(weather) });
        let back = timeout(BOUND, echoed((there, 7), sent.clone())).await.unwrap().unwrap();
        assert!(back == sent, "{} of {} bytes came back, or others", back.len(), sent.len());

        net.set(there, Line { cut: true, weather: None });
        let cut = timeout(Duration::from_millis(1_500), echoed((there, 7), b"x".to_vec())).await;
        assert!(cut.is_err(), "a cut line carried {cut:?}");
        net.set(there, Line::default());
        assert_eq!(timeout(BOUND, echoed((there, 7), b"x".to_vec())).await.unwrap().unwrap(), b"x");
    });
}
