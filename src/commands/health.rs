//! `clicktide health`: asks a process whether it is well, for supervisors that can only run a command.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Uri, header};
use serde::Deserialize;

use crate::commands::client::exchange;
use crate::exit::{Exit, Failure};

/// What is asked, and for how long.
pub struct Ask {
    /// `http://HOST:PORT/PATH` of `/healthz`, `/readyz` or the generator's `/metrics/health`.
    pub url: String,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// The part of such an answer that is shown.
#[derive(Deserialize)]
struct Answer {
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    ok: bool,
    reason: String,
}

/// Prints every check with its reason.
///
/// # Errors
/// When a check fails, or nobody who has checks answers.
pub fn health(Ask { url, timeout }: &Ask) -> Result<(), Failure> {
    let (address, path) = address_and_path(url)?;
    let failure = |why: String| Failure::new(Exit::Failure, format!("{url}: {why}"));
    let request = Request::get(path)
        .header(header::HOST, &address)
        .body(Body::empty())
        .map_err(|error| failure(error.to_string()))?;
    let (status, text) = exchange(&address, request, *timeout).map_err(failure)?;
    let Answer { checks } = serde_json::from_str(&text).map_err(|_| {
        failure(format!("answered {status}, without checks; is it the HTTP port of a job or generator?"))
    })?;
    for Check { name, ok, reason } in &checks {
        println!("{} {name}: {reason}", if *ok { "ok     " } else { "failing" });
    }
    let failing: Vec<&str> = checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
    match failing.is_empty() && status.is_success() {
        true => Ok(()),
        false if failing.is_empty() => Err(failure(format!("answered {status}"))),
        false => Err(failure(format!("not well: {}", failing.join(", ")))),
    }
}

/// `host:port`, and the path with what may follow it.
fn address_and_path(url: &str) -> Result<(String, String), Failure> {
    let refuse = || {
        let why = format!("--url {url}: must be http://HOST:PORT/PATH, such as http://127.0.0.1:8080/readyz");
        Failure::new(Exit::Configuration, why)
    };
    let uri: Uri = url.parse().map_err(|_| refuse())?;
    let (Some("http"), Some(authority), Some(path)) = (uri.scheme_str(), uri.authority(), uri.path_and_query()) else {
        return Err(refuse());
    };
    if authority.port_u16().is_none() || authority.as_str().contains('@') || path.path() == "/" {
        return Err(refuse());
    }
    Ok((authority.to_string(), path.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn ask(url: &str) -> Result<(), String> {
        let timeout = Duration::from_secs(20);
        health(&Ask { url: url.to_owned(), timeout }).map_err(|failure| failure.why)
    }

    #[test]
    fn urls() {
        let check = |url: &str, expected: (&str, &str)| {
            let (address, path) = address_and_path(url).expect("a good URL");
            assert_eq!((address.as_str(), path.as_str()), expected);
        };
        check("http://127.0.0.1:8080/readyz", ("127.0.0.1:8080", "/readyz"));
        check("http://[::1]:80/metrics/health?x=1", ("[::1]:80", "/metrics/health?x=1"));
        for bad in [
            "https://job-0:8080/readyz",
            "job-0:8080",
            "http://job-0/readyz",
            "http://job-0:8080",
            "",
            "http://u@a:1/x",
        ] {
            let why = address_and_path(bad).expect_err("a bad URL").why;
            assert!(why.contains("must be http://HOST:PORT/PATH"), "{why}");
        }
    }

    /// What the command makes of an answer.
    fn answered(status: &'static str, body: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/readyz", listener.local_addr().expect("an address"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("a request") > 0 {
                request.extend(byte);
            }
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").expect("written");
            assert!(request.starts_with(b"GET /readyz HTTP/1.1\r\n"), "{request:?}");
        });
        let told = ask(&url);
        server.join().expect("a good request");
        told
    }

    #[test]
    fn what_is_not_well_is_told() {
        let ok = r#"{"status":"ok","checks":[{"name":"workers","ok":true,"reason":"all stepped"}]}"#;
        assert_eq!(answered("200 OK", ok), Ok(()));
        let failing = r#"{"status":"failing","checks":[{"name":"workers","ok":true,"reason":"all stepped"},
            {"name":"running","ok":false,"reason":"starting"}],"figures":{"x":1}}"#;
        let why = answered("503 Service Unavailable", failing).expect_err("not well");
        assert!(why.ends_with("/readyz: not well: running"), "{why}");
        let why = answered("503 Service Unavailable", ok).expect_err("not well");
        assert!(why.ends_with("answered 503 Service Unavailable"), "{why}");
        let why = answered("404 Not Found", "nothing here").expect_err("no health");
        assert!(why.contains("answered 404 Not Found, without checks"), "{why}");
        let why = ask("http://127.0.0.1:1/readyz").expect_err("nobody");
        assert!(why.contains("Connection refused"), "{why}");
    }
}
