//! A new login in the middle of the old one's life, for as long as this process has the API key.
//!
//! The login file is read anew at each login, so that nothing else needs to know of it.

use std::{convert::Infallible, path::PathBuf, time::Duration};

use signalbox_link::Claims;
use signalbox_schemas::error::report;
use tokio::time::sleep;

use super::{Outcome, Ready, Terms, trade};
use crate::{backoff::Backoff, clock::unix_ms, legacy_link::http::Center};

/// How often the clock is looked at. A machine that sleeps, or whose clock is set, is so noticed soon.
pub(crate) const LOOK_EVERY: Duration = Duration::from_mins(1);
/// First and longest wait after a login was not renewed. A login has weeks left then, and a center many relays.
const FIRST_RETRY: Duration = Duration::from_mins(1);
const LONGEST_RETRY: Duration = Duration::from_hours(1);

/// Renews the login of a store.
pub(crate) struct Renewal {
    /// Who gives logins.
    pub(crate) center: Center,
    /// Whose login.
    pub(crate) store: PathBuf,
    /// What the owner says about the center.
    pub(crate) terms: Terms,
    /// How often the clock is looked at.
    pub(crate) look_every: Duration,
}

impl Renewal {
    /// Sees that there is always a login that counts, beginning with the one that is `ready`. Ends with whoever runs it.
    pub(crate) async fn run(self, ready: Ready) -> Infallible {
        let Ready { mut claims, mut nats, .. } = ready;
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            sleep(self.look_every).await;
            if !is_due(&claims, unix_ms()) {
                continue;
            }
            match trade(&self.center, &self.store, &self.terms).await {
                Ok(Outcome::Enrolled(renewed)) => {
                    if renewed.nats != nats {
                        tracing::warn!(
                            nats = renewed.nats,
                            "The center names other brokers: restart this relay to use them"
                        );
                    }
                    (claims, nats) = (renewed.claims, renewed.nats);
                    backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
                    continue;
                }
                Ok(Outcome::NotKnown) => {
                    tracing::warn!("The login is not renewed: the center does not enrol relays");
                }
                Err(error) => tracing::warn!(error = report(&error), "The login is not renewed"),
            }
            sleep(backoff.delay()).await;
        }
    }
}

/// Whether half of a login's life is over at `now_ms` (Unix ms).
fn is_due(claims: &Claims, now_ms: u64) -> bool {
    let Some(ends) = claims.expires_at_ms else { return false };
    now_ms >= claims.issued_at_ms + ends.saturating_sub(claims.issued_at_ms) / 2
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
    };

    use signalbox_link::Login;
    use signalbox_schemas::enrol::Enrolled;
    use signalbox_testkit::eventually;

    use super::*;
    use crate::{
        api_key::ApiKey,
        enroll::{
            Folder,
            files::tests::{enrolled, token},
        },
    };

    #[test]
    fn a_login_is_renewed_from_the_middle_of_its_life_on() {
        let claims = |expires_at_ms| Claims {
            name: "web-1".to_owned(),
            subject: "U".to_owned(),
            issued_at_ms: 1_000,
            expires_at_ms,
        };
        for (now, due) in [(0, false), (1_999, false), (2_000, true), (3_000, true), (u64::MAX, true)] {
            assert_eq!(is_due(&claims(Some(3_000)), now), due, "{now}");
        }
        assert!(!is_due(&claims(None), u64::MAX), "one that never ends is renewed");
        assert!(is_due(&claims(Some(500)), 1_000), "one that ended before it began is not");
    }

    /// Answers every request of one connection after the other with what `enrolled` makes of it.
    fn serve(listener: &TcpListener, enrolled: impl Fn() -> Enrolled) -> std::io::Result<()> {
        loop {
            let mut reader = BufReader::new(listener.accept()?.0);
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; length])?;
            let body = serde_json::to_string(&enrolled()).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            reader.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        }
    }

    #[tokio::test]
    async fn a_login_that_is_due_is_renewed_where_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path());
        let keys = folder.keys().unwrap();
        let first = enrolled(&keys, "web-1");
        folder.keep(&keys, &first).unwrap();
        let before = Login::from_creds_file(&folder.creds()).unwrap();
        // It ended in 1970; the next one ends in a day.
        let ready = folder.ready().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ends = unix_ms() + 86_400_000;
        let next = Enrolled { jwt: token(&keys, &first, unix_ms(), ends), ..first };
        // It ends with the process: a thread that waits for a connection cannot be told to stop.
        std::thread::spawn(move || serve(&listener, || next.clone()));
        let center = Center::new(&url, ApiKey::new("k").unwrap()).unwrap();
        let renewal = Renewal {
            center,
            store: dir.path().to_owned(),
            terms: Terms::default(),
            look_every: Duration::from_millis(10),
        };
        let renewed = eventually("the new login", || async {
            let claims = Login::from_creds_file(&folder.creds())?.claims();
            anyhow::ensure!(claims != before.claims(), "the old one");
            Ok(claims)
        });
        tokio::select! {
            never = renewal.run(ready) => match never {},
            renewed = renewed => assert_eq!(renewed.unwrap().expires_at_ms, Some(ends / 1000 * 1000)),
        }
    }
}
