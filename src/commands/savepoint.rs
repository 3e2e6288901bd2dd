//! `clicktide checkpoint savepoint`: asks the running job for one.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde::Deserialize;

use crate::checkpoint::names;
use crate::commands::client::exchange;
use crate::config::{Config, Secret};
use crate::exit::{Exit, Failure};

/// How long the job may take: it has to commit, write what is missing, and write the manifest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Asks process 0 at `url`, or where `http.listen` says, for a savepoint called `name`, and prints what it answers.
///
/// # Errors
/// When the name can't be one, nobody answers, or the job refuses.
pub fn savepoint(name: &str, url: Option<&str>, config: &Config) -> Result<(), Failure> {
    names::savepoint(name).map_err(|error| Failure::new(Exit::Configuration, error))?;
    let address = address(url, config)?;
    let body = serde_json::json!({ "name": name }).to_string();
    let (status, answer) = post(&address, "/v1/savepoints", config.http.token.as_ref(), body)
        .map_err(|reason| Failure::new(Exit::Failure, format!("http://{address}/v1/savepoints: {reason}")))?;
    if status != StatusCode::CREATED {
        return Err(Failure::new(Exit::Failure, format!("no savepoint: {}", refusal(status, &answer))));
    }
    println!("{answer}");
    Ok(())
}

/// `host:port` of `http://host:port`, or of the configuration.
fn address(url: Option<&str>, config: &Config) -> Result<String, Failure> {
    let refuse = |why: String| Failure::new(Exit::Configuration, why);
    let Some(url) = url else {
        let listen = config.http.listen;
        let mut listen = listen.ok_or_else(|| refuse("http.listen is off; say --http http://HOST:PORT".into()))?;
        if listen.ip().is_unspecified() {
            listen.set_ip(match listen {
                std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        return Ok(listen.to_string());
    };
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if address.contains('/') || port.is_none() {
        return Err(refuse(format!("--http {url}: must be http://HOST:PORT")));
    }
    Ok(address.to_owned())
}

fn post(address: &str, path: &str, token: Option<&Secret>, body: String) -> Result<(StatusCode, String), String> {
    let mut request =
        Request::post(path).header(header::HOST, address).header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    let request = request.body(Body::from(body)).map_err(|e| e.to_string())?;
    exchange(address, request, ANSWER_TIMEOUT).map_err(|reason| format!("{reason}; is process 0 running there?"))
}

/// What a job that refuses has to say: the detail of a problem+json (RFC 9457), or whatever it answered.
fn refusal(status: StatusCode, answer: &str) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    match serde_json::from_str(answer) {
        Ok(Problem { detail }) => detail,
        Err(_) => format!("{status}: {answer}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses() {
        let check = |url: Option<&str>, listen: Option<&str>, expected: &str| {
            let mut config = Config::default();
            config.http.listen = listen.map(|listen| listen.parse().unwrap());
            let address = address(url, &config).unwrap_or_else(|failure| failure.why);
            assert!(address.contains(expected), "{address}");
        };
        check(None, Some("127.0.0.1:8080"), "127.0.0.1:8080");
        check(None, Some("0.0.0.0:8080"), "127.0.0.1:8080");
        check(None, Some("[::]:8080"), "[::1]:8080");
        check(None, None, "http.listen is off");
        check(Some("http://job-0:8080/"), None, "job-0:8080");
        check(Some("[::1]:80"), None, "[::1]:80");
        for bad in ["https://job-0:8080", "job-0", "http://job-0/x:1", "http://a:b"] {
            check(Some(bad), None, "must be http://HOST:PORT");
        }
    }

    /// What the command makes of an answer: its failure, or `good`, and what it sent.
    fn ask(answer: &'static str) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4_096];
            let mut length = 0;
            while !request[..length].ends_with(b"}") {
                length += stream.read(&mut request[length..]).unwrap();
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let mut config = Config::default();
        config.http.token = Some(Secret::new("sixteen-bytes-or-more"));
        let told = savepoint("mine", Some(&url), &config);
        (told.map_or_else(|failure| failure.why, |()| "good".into()), server.join().unwrap())
    }

    #[test]
    fn the_answer_is_told() {
        let (told, request) = ask("HTTP/1.1 201 Created\r\ncontent-length: 15\r\n\r\n{\"name\":\"mine\"}");
        assert_eq!(told, "good");
        assert!(request.starts_with("POST /v1/savepoints HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer sixteen-bytes-or-more\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"name\":\"mine\"}"), "{request}");
        let (told, _) = ask("HTTP/1.1 409 Conflict\r\ncontent-length: 28\r\n\r\n{\"detail\":\"is there before\"}");
        assert_eq!(told, "no savepoint: is there before");
        let (told, _) = ask("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno");
        assert_eq!(told, "no savepoint: 404 Not Found: no");
        let told = savepoint("mine", Some("127.0.0.1:1"), &Config::default()).unwrap_err().why;
        assert!(told.contains("Connection refused") && told.contains("is process 0 running there?"), "{told}");
        assert!(savepoint("a/b", None, &Config::default()).unwrap_err().why.contains("1 to 200 letters"));
    }
}
