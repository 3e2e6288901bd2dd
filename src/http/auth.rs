//! The token without which nothing is answered but health and the dashboard's own files, if one is configured.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::problem::Problem;
use crate::config::Secret;

/// What is kept of the token: enough to know it again.
#[derive(Clone)]
pub(super) struct Token {
    digest: [u8; 32],
}

impl Token {
    pub(super) fn new(token: &Secret) -> Token {
        Token { digest: mac(token.expose().as_bytes()).finalize().into_bytes().into() }
    }

    /// Whether this is the token. Takes as long for one that is wrong in its first byte as in its last.
    fn is(&self, given: &[u8]) -> bool {
        mac(given).verify_slice(&self.digest).is_ok()
    }
}

/// Says of a request that it has the token.
#[derive(Clone, Copy)]
pub(super) struct Authorized;

/// Of the digests of two tokens, where they differ says nothing of where the tokens do, nor of their lengths.
fn mac(token: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(b"clicktide http token").expect("HMAC takes keys of any length");
    mac.chain_update(token)
}

/// Lets a request pass that has the token: `Authorization: Bearer TOKEN` (RFC 6750).
pub(super) async fn require(State(token): State<Token>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(|value| bearer(value.as_bytes()));
    let (challenge, detail) = match given {
        Some(Some(given)) if token.is(given) => {
            request.extensions_mut().insert(Authorized);
            return next.run(request).await;
        }
        None => (r#"Bearer realm="clicktide""#, "a token is needed: send it as Authorization: Bearer TOKEN"),
        Some(None) => (
            r#"Bearer realm="clicktide", error="invalid_request""#,
            "the Authorization is of another kind: send the token as Authorization: Bearer TOKEN",
        ),
        Some(Some(_)) => {
            (r#"Bearer realm="clicktide", error="invalid_token""#, "the token is another one than http.token")
        }
    };
    let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))];
    (challenge, Problem::new(StatusCode::UNAUTHORIZED, detail)).into_response()
}

/// What follows `Bearer`, whose case does not matter.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let token = Token::new(&Secret::new("sixteen bytes, at least"));
        for (given, same) in [
            ("sixteen bytes, at least", true),
            ("sixteen bytes, at leasT", false),
            ("sixteen bytes, at leas", false),
            ("sixteen bytes, at least\0", false),
            ("", false),
        ] {
            assert_eq!(token.is(given.as_bytes()), same, "{given:?}");
        }
    }

    #[test]
    fn authorizations() {
        for (authorization, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Bearerabc", None),
            ("Basic YTpi", None),
            ("", None),
        ] {
            assert_eq!(bearer(authorization.as_bytes()), token.map(str::as_bytes), "{authorization:?}");
        }
    }
}
