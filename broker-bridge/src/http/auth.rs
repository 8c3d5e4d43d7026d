//! Who is asking over HTTP: whoever brings the administrators' bearer token.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};
use orion::util::secure_cmp;
use signalbox_schemas::{
    error::{ErrorCode, Problem},
    id::Sha256,
};

use super::{Shared, problem::Refusal};
use crate::api::Caller;

/// Lets a request pass that brings the token, with its [`Caller`] in the extensions.
pub(super) async fn require(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let given = bearer(request.headers());
    if !given.is_some_and(|given| is_token(given, &shared.front.admin_token)) {
        let message = "this needs `Authorization: Bearer TOKEN` with a token that is valid here";
        return Err(Problem::new(ErrorCode::Unauthenticated, message).into());
    }
    request.extensions_mut().insert(Caller::admin_token());
    Ok(next.run(request).await)
}

/// The token of the only `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares hashes in constant time, so that neither the length nor a common beginning shows.
fn is_token(given: &str, expected: &str) -> bool {
    let (given, wanted) = (Sha256::of(given.as_bytes()), Sha256::of(expected.as_bytes()));
    !expected.is_empty() && secure_cmp(&given.0, &wanted.0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use rstest::rstest;

    #[rstest]
    #[case(&["Bearer sbt_x"], true)]
    #[case(&["bearer sbt_x"], true)]
    #[case(&["Bearer  sbt_x "], true)]
    #[case(&["Bearer sbt_"], false)]
    #[case(&["Bearer sbt_xx"], false)]
    #[case(&["Bearer "], false)]
    #[case(&["Bearer"], false)]
    #[case(&["Basic sbt_x"], false)]
    #[case(&["Bearer sbt_x", "Bearer sbt_x"], false)]
    #[case(&[], false)]
    fn only_the_token_passes(#[case] values: &[&'static str], #[case] passes: bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        assert_eq!(bearer(&headers).is_some_and(|given| is_token(given, "sbt_x")), passes);
    }

    #[test]
    fn an_empty_token_lets_nobody_in() {
        assert!(!is_token("", ""));
    }
}
