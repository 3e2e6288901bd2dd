//! The client against a server that is told what to answer: right, wrong, late or not at all.

mod tls;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::avro::wire::SchemaId;
use crate::avro::{CLICK_EVENT_LATER_SCHEMA, CLICK_EVENT_SCHEMA, PAGE_ANALYTICS_SCHEMA};
use crate::avro::{encode_event, encode_later_event};
use crate::config::Secret;
use crate::generator::Model;

/// Nothing is asserted about how long anything takes: this is when a test gives up.
const DEADLINE: Duration = Duration::from_secs(60);

/// A request as it came.
#[derive(Clone, Debug)]
struct Request {
    /// Method and path.
    line: String,
    authorization: Option<String>,
    body: String,
}

/// What is answered: a status and a body.
type Answer = (u16, String);
type Answers = Box<dyn Fn(&Request) -> Answer + Send>;

/// A server on loopback that answers as it is told. Gone with the guard.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    answers: Arc<Mutex<Answers>>,
    over: Arc<AtomicBool>,
}

impl Server {
    fn start(answers: impl Fn(&Request) -> Answer + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            requests: Arc::default(),
            answers: Arc::new(Mutex::new(Box::new(answers))),
            over: Arc::default(),
        };
        let (requests, answers, over) = (server.requests.clone(), server.answers.clone(), server.over.clone());
        thread::spawn(move || {
            for connection in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Some(request) = connection.as_ref().ok().and_then(read_request) else { continue };
                requests.lock().unwrap().push(request.clone());
                let (status, body) = (*answers.lock().unwrap())(&request);
                let head =
                    format!("HTTP/1.1 {status} S\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                // Whoever asked may have given up.
                connection.unwrap().write_all((head + &body).as_bytes()).ok();
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api", self.port)
    }

    fn answers(&self, answers: impl Fn(&Request) -> Answer + Send + 'static) {
        *self.answers.lock().unwrap() = Box::new(answers);
    }

    fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

fn read_request(connection: &TcpStream) -> Option<Request> {
    let mut input = BufReader::new(connection);
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        input.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "authorization" => authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, authorization, body: String::from_utf8(body).ok()? })
}

fn settings(urls: &str) -> RegistrySettings {
    RegistrySettings {
        urls: urls.parse().unwrap(),
        login: None,
        ca_file: None,
        identity_files: None,
        request_timeout: Duration::from_millis(500),
        retry: (Duration::from_millis(5), Duration::from_millis(20)),
        negative_answers_kept: Duration::from_millis(200),
    }
}

fn registry(urls: &str) -> Registry {
    Registry::new(settings(urls))
}

fn schema(text: &str) -> Answer {
    (200, json!({ "schema": text, "schemaType": "AVRO" }).to_string())
}

fn missing() -> Answer {
    (404, json!({ "error_code": 40403, "message": "Schema 7 not found" }).to_string())
}

fn broken() -> Answer {
    (500, json!({ "error_code": 50001, "message": "Error in the backend data store" }).to_string())
}

/// A port on which nobody listens.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

/// An event written with the published schema, or with the later one, under an id.
fn payload(id: u32, later: bool) -> Vec<u8> {
    let mut payload = SchemaId(id).prefix().to_vec();
    let encode = if later { encode_later_event } else { encode_event };
    let mut event = Model::blank_event();
    event.user_id = "u".into();
    encode(&event, &mut payload);
    payload
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_asked_and_how() {
    let server = Server::start(|request| match request.line.split_once(' ') {
        Some(("GET", _)) => schema("\"string\""),
        _ => (200, json!({ "id": 7, "subject": "s" }).to_string()),
    });
    let login = Some(("user".to_owned(), Secret::new("pass")));
    let registry = Registry::new(RegistrySettings { login, ..settings(&format!("{}/", server.url())) });
    let expected = RegisteredSchema { text: "\"string\"".to_owned(), unusable: None };
    assert_eq!(registry.schema(SchemaId(3)), Ok(expected));
    assert_eq!(registry.register("a/b-value", "{}"), Ok(SchemaId(7)));
    assert_eq!(registry.look_up("s", "{}"), Ok(SchemaId(7)));
    let requests = server.requests.lock().unwrap();
    let lines: Vec<&str> = requests.iter().map(|request| request.line.as_str()).collect();
    let expected =
        ["GET /api/schemas/ids/3?deleted=true", "POST /api/subjects/a%2Fb%2Dvalue/versions", "POST /api/subjects/s"];
    assert_eq!(lines, expected);
    assert!(requests.iter().all(|request| request.authorization.as_deref() == Some("Basic dXNlcjpwYXNz")));
    assert_eq!(requests[1].body, r#"{"schema":"{}"}"#);
}

#[test]
fn what_an_answer_means() {
    let server = Server::start(|_| missing());
    let registry = registry(&server.url());
    let check = |status: u16, body: &str, expected: &str| {
        let body = body.to_owned();
        server.answers(move |_| (status, body.clone()));
        let error = registry.schema(SchemaId(7)).unwrap_err();
        let kind = match &error {
            RegistryError::Files(_) => "files",
            RegistryError::Unavailable(_) => "unavailable",
            RegistryError::Missing { .. } => "missing",
            RegistryError::Refused { .. } => "refused",
        };
        let said = format!("{kind}: {error}").replace(&server.url(), "URL");
        assert!(said.starts_with(expected), "{said}");
    };
    let said = r#"{"error_code": 40403, "message": "Schema 7\nnot found"}"#;
    check(
        404,
        said,
        "missing: the schema registry at URL has none: 404 Not Found: Schema 7 not found (error code 40403)",
    );
    let wrong_path = "unavailable: the schema registry does not answer: URL: 404 Not Found to GET schemas/ids/7?deleted=true, in words";
    check(404, "<html>", wrong_path);
    check(
        401,
        "<html>",
        "refused: the schema registry at URL refuses: 401 Unauthorized to GET schemas/ids/7?deleted=true; are",
    );
    check(
        403,
        r#"{"error_code": 403, "message": "no"}"#,
        "refused: the schema registry at URL refuses: 403 Forbidden: no",
    );
    check(
        409,
        r#"{"error_code": 409}"#,
        "refused: the schema registry at URL refuses: 409 Conflict: no message (error code 409)",
    );
    check(500, said, "unavailable: the schema registry does not answer: URL: 500 Internal Server Error: Schema 7");
    check(503, "", "unavailable: the schema registry does not answer: URL: 503 Service Unavailable");
    check(429, said, "unavailable");
    check(200, "", "unavailable: the schema registry does not answer: URL: what it says is no answer to GET");
    check(200, "<html>", "unavailable");
    check(200, r#"{"schema": 7}"#, "unavailable");
    check(
        200,
        &"x".repeat(5 << 20),
        "unavailable: the schema registry does not answer: URL: its answer is longer than 4194304 bytes",
    );
}

#[test]
fn several_urls_are_one_registry() {
    let (first, second) = (Server::start(|_| missing()), Server::start(|_| schema("\"int\"")));
    let asked = || (first.asked(), second.asked());
    let both = registry(&format!("{}, {}", first.url(), second.url()));
    // What one of them does not know yet another one does, and that is asked first from then on.
    assert!(both.schema(SchemaId(1)).is_ok());
    assert!(both.schema(SchemaId(1)).is_ok());
    assert_eq!(asked(), (1, 2));
    second.answers(|_| broken());
    assert!(matches!(both.schema(SchemaId(1)), Err(RegistryError::Missing { .. })));
    first.answers(|_| broken());
    let error = both.schema(SchemaId(1)).unwrap_err().to_string();
    assert!(error.contains(&first.url()) && error.contains(&second.url()), "{error}");
    let down = registry(&format!("{},{}", nobody(), second.url()));
    second.answers(|_| schema("\"int\""));
    assert!(down.schema(SchemaId(1)).is_ok());
}

#[test]
fn schemas_that_are_no_use() {
    let check = |answer: serde_json::Value, expected: &str| {
        let answer = answer.to_string();
        let server = Server::start(move |_| (200, answer.clone()));
        let schema = registry(&server.url()).schema(SchemaId(1)).unwrap();
        let reason = schema.decoder().err().unwrap_or_default();
        assert!(reason.contains(expected), "{reason}");
    };
    check(json!({ "schema": CLICK_EVENT_SCHEMA }), "");
    check(json!({ "schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF" }), "it is PROTOBUF, and not Avro");
    check(json!({ "schema": CLICK_EVENT_SCHEMA, "references": [{ "name": "x" }] }), "refers to schemas");
    check(json!({ "schema": PAGE_ANALYTICS_SCHEMA }), "no field \"user_id\"");
    check(json!({ "schema": "{" }), "not an Avro schema");
}

#[test]
fn a_schema_is_fetched_once_and_waited_for_until_then() {
    let server = Server::start(|_| broken());
    let schemas = Arc::new(Schemas::new(registry(&server.url())));
    let woken = Arc::new(AtomicBool::new(false));
    let wake = Arc::clone(&woken);
    schemas.on_news(move || wake.store(true, Ordering::Relaxed));
    let (early, late) = (payload(1, false), payload(2, true));
    assert_eq!(schemas.decode(&early), None);
    assert_eq!(schemas.awaited(&early), Some(SchemaId(1)));
    assert_eq!(schemas.awaited(&late), Some(SchemaId(2)));
    until("it is asked again and again", || server.asked() > 6);
    let waits = schemas.waits();
    assert_eq!(waits.len(), 2, "{waits:?}");
    assert!(waits[0].starts_with("waits for schema 1 from the schema registry at http://127.0.0.1"), "{waits:?}");
    assert!(waits[0].contains("Error in the backend data store"), "{waits:?}");
    assert!(!woken.load(Ordering::Relaxed));

    server.answers(|request| {
        schema(if request.line.contains("ids/1") { CLICK_EVENT_SCHEMA } else { CLICK_EVENT_LATER_SCHEMA })
    });
    schemas.wait_for(&early);
    schemas.wait_for(&late);
    assert!(woken.load(Ordering::Relaxed));
    assert_eq!((schemas.awaited(&early), schemas.awaited(&late)), (None, None));
    assert!(schemas.waits().is_empty());
    let asked = server.asked();
    for _ in 0..3 {
        assert_eq!(schemas.decode(&early).unwrap().user_id, "u");
        assert_eq!(schemas.decode(&late), schemas.decode(&early));
    }
    assert_eq!(server.asked(), asked, "each was fetched once");
    // The bytes of one version are not those of the other.
    assert_eq!(schemas.decode(&[&SchemaId(2).prefix()[..], &early[5..]].concat()), None);
}

#[test]
fn that_there_is_none_is_believed_for_a_while() {
    let server = Server::start(|_| missing());
    let schemas = Arc::new(Schemas::new(registry(&server.url())));
    let early = payload(7, false);
    schemas.wait_for(&early);
    assert_eq!((schemas.awaited(&early), schemas.decode(&early), server.asked()), (None, None, 1));
    server.answers(|_| schema(CLICK_EVENT_SCHEMA));
    until("it is asked again", || schemas.awaited(&early).is_some());
    schemas.wait_for(&early);
    assert!(schemas.decode(&early).is_some());
    assert_eq!(server.asked(), 2);
}

#[test]
fn nothing_is_asked_for_what_is_not_in_the_wire_format() {
    let server = Server::start(|_| missing());
    let schemas = Arc::new(Schemas::new(registry(&server.url())));
    for payload in [&b""[..], b"\0", b"\0\0\0\0", b"\x02\0\0\0\x01abc", b"{\"user_id\": 1}"] {
        assert_eq!((schemas.awaited(payload), schemas.decode(payload)), (None, None), "{payload:?}");
    }
    assert_eq!(server.asked(), 0);
}

#[test]
fn a_registry_that_is_slow_or_silent_is_waited_for() {
    let slow = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&slow);
    let server = Server::start(move |_| {
        if seen.swap(false, Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(800));
        }
        schema(CLICK_EVENT_SCHEMA)
    });
    let schemas = Arc::new(Schemas::new(registry(&server.url())));
    schemas.wait_for(&payload(1, false));
    assert!(schemas.decode(&payload(1, false)).is_some());

    let down = registry(&nobody()).schema(SchemaId(1)).unwrap_err();
    assert!(matches!(&down, RegistryError::Unavailable(why) if why.contains("refused")), "{down}");
}

#[test]
fn our_own_schema_is_registered_or_has_to_be_there() {
    let server = Server::start(|_| broken());
    let schemas = Schemas::new(registry(&server.url()));
    let answering = |server: &Server, status: u16, body: serde_json::Value| {
        let body = body.to_string();
        server.answers(move |_| (status, body.clone()));
    };
    let publication = Publication { naming: SubjectNaming::Topic, register: true };
    let subject = publication.results("stats");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| schemas.id_of(publication, &subject));
        until("it says what it waits for", || {
            schemas.waits().iter().any(|line| line.contains("subject \"stats-value\"") && line.contains("backend"))
        });
        answering(&server, 200, json!({ "id": 5 }));
        assert_eq!(waiting.join().unwrap(), Ok(SchemaId(5)));
    });
    assert!(schemas.waits().is_empty());

    answering(&server, 409, json!({ "error_code": 409, "message": "Incompatible" }));
    let refused = schemas.id_of(publication, &subject).unwrap_err().to_string();
    assert!(
        refused.contains("to register the schema of subject \"stats-value\": 409 Conflict: Incompatible"),
        "{refused}"
    );
    let required = Publication { register: false, ..publication };
    answering(&server, 404, json!({ "error_code": 40401, "message": "Subject not found" }));
    let refused = schemas.id_of(required, &subject).unwrap_err().to_string();
    assert!(refused.contains("our schema is not registered under subject \"stats-value\" (404"), "{refused}");
    answering(&server, 401, json!({ "error_code": 401, "message": "Unauthorized" }));
    let refused = schemas.id_of(required, &subject).unwrap_err().to_string();
    assert!(refused.contains("are schema_registry.username and password right"), "{refused}");
}

#[test]
fn compatibility() {
    let server = Server::start(|_| missing());
    let registry = registry(&server.url());
    let check = |status: u16, body: serde_json::Value, expected: Option<&str>| {
        let body = body.to_string();
        server.answers(move |_| (status, body.clone()));
        assert_eq!(registry.incompatibility("s", "{}"), Ok(expected.map(str::to_owned)));
    };
    check(200, json!({ "is_compatible": true }), None);
    check(404, json!({ "error_code": 40401 }), None);
    check(200, json!({ "is_compatible": false }), Some("it does not say why"));
    check(200, json!({ "is_compatible": false, "messages": ["a", "b"] }), Some("a; b"));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let check = |settings: RegistrySettings, expected: &str| {
        let error = Registry::new(settings).schema(SchemaId(1)).unwrap_err();
        assert!(matches!(&error, RegistryError::Files(reason) if reason.contains(expected)), "{error}");
    };
    let with = || settings("https://127.0.0.1:1");
    check(
        RegistrySettings { ca_file: Some("/nowhere/ca.pem".into()), ..with() },
        "schema_registry.ca_file = \"/nowhere/ca.pem\": No such file",
    );
    check(RegistrySettings { ca_file: Some(empty.clone()), ..with() }, "there is no certificate (PEM) in it");
    let identity = |certificate: &std::path::Path| Some((certificate.to_owned(), empty.clone()));
    check(
        RegistrySettings { identity_files: identity("/nowhere".as_ref()), ..with() },
        "schema_registry.certificate_file",
    );
    check(RegistrySettings { identity_files: identity(&empty), ..with() }, "schema_registry.certificate_file");
}
