//! One question to the bridge's HTTP front: which machines were heard? Enough of HTTP/1.1 for that, and no more.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;
use signalbox_schemas::{api::Liveness, id::MachineId};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for the whole answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Most pages that are read: far more machines than one directory was ever set up for.
const PAGES: usize = 100;
/// Largest answer: 64 machines with metrics are below 200 KiB.
const ANSWER_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Debug, Deserialize)]
struct Machines {
    items: Vec<Machine>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Machine {
    id: MachineId,
    state: Liveness,
}

/// The machines that are online; none when the bridge does not answer or not yet.
pub async fn online(bridge: SocketAddr, token: &str) -> Vec<MachineId> {
    let mut found = Vec::new();
    let mut after = String::new();
    for _ in 0..PAGES {
        let Some(page) = page(bridge, &after, token).await else { break };
        found.extend(page.items.into_iter().filter(|m| m.state == Liveness::Online).map(|m| m.id));
        let Some(next) = page.next else { break };
        after = format!("&after={next}");
    }
    found
}

async fn page(bridge: SocketAddr, after: &str, token: &str) -> Option<Machines> {
    let path = format!("/api/v1/machines?limit=1000{after}");
    let answer = timeout(ANSWER_WITHIN, get(bridge, &path, token)).await.ok()?.ok()?;
    serde_json::from_slice(&body(&answer)?).ok()
}

async fn get(bridge: SocketAddr, path: &str, token: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(bridge).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {bridge}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The body of an answer with status 200.
fn body(answer: &[u8]) -> Option<Vec<u8>> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end + 4)?;
    let head = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    let is_ok = head.starts_with("http/1.1 200 ") && !head.contains("transfer-encoding: chunked");
    is_ok.then(|| body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_ok_has_a_body() {
        assert_eq!(body(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap(), b"{}");
        for bad in ["HTTP/1.1 503 Service Unavailable\r\n\r\n{}", "HTTP/1.1 200 OK\r\n", ""] {
            assert_eq!(body(bad.as_bytes()), None, "{bad}");
        }
    }
}
