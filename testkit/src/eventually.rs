//! Waiting for something that cannot be awaited.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Time between two probes.
const STEP: Duration = Duration::from_millis(20);
/// Far above the usual wait, so that hitting it means a real defect.
const LIMIT: Duration = Duration::from_secs(10);

/// Retries `probe` every 20 ms until it succeeds, for at most 10 s.
///
/// Only where nothing can be awaited directly.
///
/// # Errors
/// After 10 s, with `what` and the last error of `probe`.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// let file = tempfile::NamedTempFile::new()?;
/// let text = signalbox_testkit::eventually("the file", || async { Ok(std::fs::read(file.path())?) }).await?;
/// assert!(text.is_empty());
/// # Ok(())
/// # }
/// ```
pub async fn eventually<T, F, Fut>(what: &str, probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    eventually_within(what, LIMIT, probe).await
}

/// Like [`eventually`], for at most `limit`.
///
/// # Errors
/// After `limit`, with `what` and the last error of `probe`.
pub async fn eventually_within<T, F, Fut>(what: &str, limit: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => bail!("{what}: not within {limit:?}: {error:#}"),
            Err(_) => sleep(STEP).await,
        }
    }
}
