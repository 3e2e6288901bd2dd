//! Requests that change something: who may send them, and how.

use std::net::SocketAddr;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::auth::Authorized;
use super::limits::{BODY_BYTES_MAX, BODY_READ_MAX};
use super::problem::Problem;

/// The other end of a connection.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// What a request that changes something asks for.
pub(super) trait Asked: DeserializeOwned {
    /// What it can look like in JSON.
    const LIKE: &str;
}

/// The body of a request that changes something.
///
/// Such a request needs the token, if there is one. If there is none it has to come from this machine, and not from a page of
/// another site in a browser there: neither may a browser send JSON to another site unasked, nor is a site trusted whose name
/// has been made to mean this machine.
pub(super) struct Change<T>(pub(super) T);

impl<T: Asked, S: Sync> FromRequest<S> for Change<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if request.extensions().get::<Authorized>().is_none() {
            let local = request.extensions().get::<Peer>().is_some_and(|Peer(peer)| is_loopback(*peer));
            if !local || !is_from_here(request.headers()) {
                let detail = "without http.token, changes can be asked for from the process's own machine only";
                return Err(Problem::new(StatusCode::FORBIDDEN, detail));
            }
        }
        if !is_json(request.headers()) {
            let detail = "the request's Content-Type must be application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let body = timeout(BODY_READ_MAX, to_bytes(request.into_body(), BODY_BYTES_MAX)).await.map_err(|_| {
            let detail = format!("the body has not come within {} s", BODY_READ_MAX.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
        })?;
        let body = body.map_err(|error| {
            let source = std::error::Error::source(&error);
            if source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
                let detail = format!("the body has more than {BODY_BYTES_MAX} bytes");
                return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail);
            }
            Problem::bad_request("the body ends before its time")
        })?;
        let asked = serde_json::from_slice(&body);
        asked.map(Change).map_err(|error| Problem::bad_request(format!("the body must be like {}: {error}", T::LIKE)))
    }
}

fn is_loopback(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

/// Whether a request comes from no page in a browser, or from one of this machine.
fn is_from_here(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    origin.as_ref().and_then(Uri::authority).map(Authority::host).is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn pages_of_other_sites() {
        let check = |origin: Option<&'static str>, from_here: bool| {
            let origin = origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin)));
            assert_eq!(is_from_here(&origin.clone().into_iter().collect()), from_here, "{origin:?}");
        };
        check(None, true);
        check(Some("http://127.0.0.1:8080"), true);
        check(Some("http://[::1]:8080"), true);
        check(Some("http://localhost"), true);
        check(Some("http://localhost.example"), false);
        check(Some("https://shop.example"), false);
        check(Some("null"), false);
        check(Some(""), false);
    }

    #[test]
    fn content_types() {
        let check = |content_type: &'static str, json: bool| {
            let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))].into_iter().collect();
            assert_eq!(is_json(&headers), json, "{content_type:?}");
        };
        check("application/json", true);
        check("Application/JSON; charset=utf-8", true);
        check("text/plain", false);
        check("application/jsonp", false);
        check("text/plain; application/json", false);
        check("", false);
    }
}
