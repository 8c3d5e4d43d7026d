//! What a center's answer to an enrolment is worth. Pure.

use std::path::PathBuf;

use serde::Deserialize;
use signalbox_link::Login;
use signalbox_schemas::{enrol::Enrolled, signed::PublicKey};

use super::{EnrollError, files::Keys};
use crate::{
    config::Config,
    legacy_link::http::{Answer, HIDDEN, StatusCode},
};

/// Most brokers that are told.
const MAX_BROKERS: usize = 8;
/// Longest URL of a broker, bytes.
const MAX_URL_BYTES: usize = 512;
/// Longest text of a center that is shown, characters.
const MAX_TEXT: usize = 512;

/// What a center said.
#[derive(Debug)]
pub(super) enum Said {
    /// It enrols this relay.
    Enrolled(Box<Enrolled>),
    /// It does not know what is meant.
    NotKnown,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Reads an answer. What is no JSON is some other server's word for a path that it does not know.
///
/// # Errors
/// [`EnrollError`], as the center refuses.
pub(super) fn read(answer: &Answer) -> Result<Said, EnrollError> {
    let is_json = answer.content_type.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    let status = answer.status;
    let text = || {
        let refusal: Refusal = serde_json::from_slice(&answer.body).ok().filter(|_| is_json)?;
        if answer.has_key {
            return Some(HIDDEN.to_owned());
        }
        Some(refusal.error.chars().filter(|letter| !letter.is_control()).take(MAX_TEXT).collect::<String>())
    };
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            Ok(Said::NotKnown)
        }
        status if is_of_this_moment(status) => Err(EnrollError::Trouble { status, error: text() }),
        status if status.is_success() && is_json => {
            let enrolled = serde_json::from_slice(&answer.body);
            let unusable = |error: serde_json::Error| {
                EnrollError::Unusable(if answer.has_key { HIDDEN.to_owned() } else { error.to_string() })
            };
            Ok(Said::Enrolled(Box::new(enrolled.map_err(unusable)?)))
        }
        _ => match (status, text()) {
            (_, None) => Ok(Said::NotKnown),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(error)) => {
                Err(EnrollError::Refused(error))
            }
            (StatusCode::CONFLICT, Some(error)) => Err(EnrollError::Conflict(error)),
            (status, error) => Err(EnrollError::Trouble { status, error }),
        },
    }
}

/// Whether an answer is about this moment and not about what was asked.
pub(super) fn is_of_this_moment(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// Sees that the center is one whose word this relay takes, and speaks of this store's machine.
///
/// # Errors
/// [`EnrollError::OtherFleet`], [`EnrollError::OtherMachine`].
pub(super) fn check_fleet(
    enrolled: &Enrolled,
    given: Option<&PublicKey>,
    pinned: Option<&(PathBuf, Config)>,
) -> Result<(), EnrollError> {
    let own = pinned.map(|(path, config)| (&config.fleet_key, Some(path.clone())));
    for (trusted, pinned) in given.map(|key| (key, None)).into_iter().chain(own) {
        if *trusted != enrolled.fleet_key {
            let (told, trusted) = (enrolled.fleet_key.clone(), trusted.clone());
            return Err(EnrollError::OtherFleet { told, trusted, pinned });
        }
    }
    match pinned {
        Some((path, config)) if config.machine_id != enrolled.machine_id || config.ws != enrolled.ws => {
            let (told, own) = (enrolled.machine_id.to_string(), config.machine_id.to_string());
            Err(EnrollError::OtherMachine { told, own, path: path.clone() })
        }
        _ => Ok(()),
    }
}

/// Sees that the answer fits together, and is about these keys. Answers the login that it makes with them.
///
/// # Errors
/// [`EnrollError::Unusable`].
pub(super) fn check(enrolled: &Enrolled, keys: &Keys) -> Result<Login, EnrollError> {
    let unusable = |what: &str| Err(EnrollError::Unusable(what.to_owned()));
    if enrolled.machine_id.token() != enrolled.token {
        return unusable("its machine has another token");
    }
    let login = keys.login(&enrolled.jwt)?;
    if login.claims().name != enrolled.token.as_str() {
        return unusable("its token is another machine's");
    }
    let is_url = |url: &String| {
        url.len() <= MAX_URL_BYTES
            && url.contains("://")
            && !url.contains(|c: char| c == ',' || !c.is_ascii_graphic())
    };
    if !(1..=MAX_BROKERS).contains(&enrolled.nats.len()) || !enrolled.nats.iter().all(is_url) {
        return unusable("it names no broker, too many, or one by no URL");
    }
    Ok(login)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enroll::files::tests::{enrolled, keys};
    use rstest::rstest;
    use signalbox_schemas::id::MachineId;

    const JSON: &str = "application/json; charset=utf-8";

    fn answer(status: u16, content_type: &str, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: content_type.to_owned(),
            body: body.as_bytes().to_vec(),
            has_key: false,
        }
    }

    #[rstest]
    #[case(404, JSON, r#"{"error":"Not found"}"#)]
    #[case(405, "text/plain", "")]
    #[case(501, "", "")]
    #[case(200, "text/html", "<html>")]
    #[case(302, "", "")]
    #[case(403, "text/html", "<html>")]
    #[case(400, JSON, "{}")]
    fn a_center_that_knows_nothing_of_it(#[case] status: u16, #[case] kind: &str, #[case] body: &str) {
        assert!(matches!(read(&answer(status, kind, body)), Ok(Said::NotKnown)), "{status}");
    }

    #[rstest]
    #[case(401, "Invalid API key", false)]
    #[case(403, "Relay assignment is disabled", false)]
    #[case(409, "has keys", false)]
    #[case(400, "set the clock right", true)]
    #[case(408, "late", true)]
    #[case(429, "too many", true)]
    #[case(503, "still reading", true)]
    fn a_refusal_says_whether_it_may_pass(#[case] status: u16, #[case] text: &str, #[case] passes: bool) {
        let body = serde_json::json!({ "error": format!("{text}\n") }).to_string();
        let error = read(&answer(status, JSON, &body)).unwrap_err();
        assert_eq!(error.is_passing(), passes, "{error}");
        assert!(error.to_string().ends_with(text), "{error}");
        assert_eq!(matches!(error, EnrollError::Refused(_)), status == 401 || status == 403);
        assert!(read(&answer(500, "", "")).unwrap_err().is_passing());
    }

    #[test]
    fn an_answer_with_the_key_in_it_is_not_shown() {
        for (status, body) in
            [(401, r#"{"error":"no sk_1"}"#), (400, r#"{"error":"sk_1"}"#), (200, r#""sk_1""#)]
        {
            let answer = Answer { has_key: true, ..answer(status, JSON, body) };
            let error = read(&answer).unwrap_err().to_string();
            assert!(!error.contains("sk_1"), "{error}");
        }
    }

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let keys = keys();
        let good = enrolled(&keys, "Web 1");
        let body = serde_json::to_string(&good).unwrap();
        let Ok(Said::Enrolled(read_back)) = read(&answer(200, JSON, &body)) else { panic!("not taken") };
        assert_eq!(*read_back, good);
        for (part, other) in [("fleet_key", "fleet"), (r#""U"#, r#""X"#), ("main", "no workspace")] {
            let read = read(&answer(200, JSON, &body.replace(part, other)));
            assert!(matches!(read, Err(EnrollError::Unusable(_))), "{part}: {read:?}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let (own, others) = (keys(), keys());
        let good = enrolled(&own, "Web 1");
        assert_eq!(check(&good, &own).unwrap().claims().name, good.token.as_str());
        let other = enrolled(&own, "web-2");
        let nats = |urls: &[&str]| {
            let nats = urls.iter().map(|url| (*url).to_owned()).collect();
            Enrolled { nats, ..good.clone() }
        };
        for (what, bad) in [
            ("another key", enrolled(&others, "Web 1")),
            ("another machine's token", Enrolled { jwt: other.jwt.clone(), ..good.clone() }),
            ("another name", Enrolled { token: other.token.clone(), ..good.clone() }),
            ("no token", Enrolled { jwt: "a.b.c".to_owned(), ..good.clone() }),
            ("no broker", nats(&[])),
            ("nine brokers", nats(&["nats://b"; 9])),
            ("two in one", nats(&["nats://a,nats://b"])),
            ("no URL", nats(&["b:4222"])),
            ("a line end", nats(&["nats://b\n"])),
        ] {
            assert!(matches!(check(&bad, &own), Err(EnrollError::Unusable(_))), "{what} is taken");
        }
    }

    #[test]
    fn another_fleet_or_machine_is_refused_by_name() {
        let keys = keys();
        let (first, other) = (enrolled(&keys, "web-1"), enrolled(&keys, "web-1"));
        let pinned = |enrolled: &Enrolled| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("relay.toml");
            let id = &enrolled.machine_id;
            let text = signalbox_schemas::relay_files::relay_toml(&enrolled.ws, id, &enrolled.fleet_key);
            std::fs::write(&path, text).unwrap();
            let config = Config::read(&path).unwrap();
            (path, config)
        };
        let own = pinned(&first);
        assert!(check_fleet(&first, None, None).is_ok());
        assert!(check_fleet(&first, Some(&first.fleet_key), Some(&own)).is_ok());
        let by_option = check_fleet(&first, Some(&other.fleet_key), Some(&own)).unwrap_err().to_string();
        let by_file = check_fleet(&other, None, Some(&own)).unwrap_err().to_string();
        assert!(
            by_option.contains("--fleet-key") && by_option.contains(first.fleet_key.as_str()),
            "{by_option}"
        );
        assert!(by_file.contains("relay.toml") && by_file.contains(other.fleet_key.as_str()), "{by_file}");
        let machine_id = MachineId::new("web-2").unwrap();
        let moved = Enrolled { machine_id, ..first };
        let refused = check_fleet(&moved, None, Some(&own));
        assert!(matches!(refused, Err(EnrollError::OtherMachine { .. })), "{refused:?}");
    }
}
