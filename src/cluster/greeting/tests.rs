//! Two hosts meet, or one of them and a stranger.

use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use super::*;
use crate::progress::JobStart;

const PATIENCE: Duration = Duration::from_secs(30);

fn host(process: usize, secret: Option<&str>) -> Host {
    let greeting = Greeting {
        identity: "the job".to_owned(),
        processes: 3,
        workers: 2,
        heartbeat_timeout_ms: 10_000,
        generation: Some(7),
    };
    Host { process, greeting, secret: secret.map(Secret::new) }
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (connecting, listener.accept().unwrap().0)
}

/// How either end sees the encounter: what the one was handed over or told, and who the other is found to be.
type Seen = (Result<Option<JobStart>, String>, Result<(usize, Purpose), String>);

fn meet(connecting: &Host, accepting: &Host, purpose: Purpose) -> Seen {
    let start = JobStart::fresh(4);
    let (there, here) = connection();
    let start = (accepting.process == 0).then_some(&start);
    thread::scope(|scope| {
        let welcome = scope.spawn(move || accepting.welcome(here, start));
        let met = connecting.introduce_itself(there, purpose, 0, Instant::now() + PATIENCE);
        let met = match met {
            Ok(Met::Welcome(_, start)) => Ok(start.map(|start| *start)),
            Ok(Met::Refused(reason)) => Err(reason),
            Err(error) => Err(error.to_string()),
        };
        let welcomed = welcome.join().unwrap();
        (met, welcomed.map(|(peer, purpose, _)| (peer, purpose)).map_err(|error| error.to_string()))
    })
}

#[test]
fn those_who_share_a_secret_or_have_none_meet() {
    for secret in [None, Some("a secret that is shared")] {
        for (purpose, start) in [(Purpose::Workers, Some(JobStart::fresh(4))), (Purpose::Heartbeat, None)] {
            let seen = meet(&host(2, secret), &host(0, secret), purpose);
            assert_eq!(seen, (Ok(start), Ok((2, purpose))));
        }
    }
}

#[test]
fn another_secret_or_none_is_turned_away_and_both_know_why() {
    for (one, other) in [(Some("right"), Some("wrong")), (None, Some("right")), (Some("right"), None)] {
        let why = "the secret differs between processes 0 and 1".to_owned();
        assert_eq!(meet(&host(1, one), &host(0, other), Purpose::Workers), (Err(why.clone()), Err(why)));
    }
}

#[test]
fn what_has_to_be_the_same_is_compared() {
    let check = |change: &dyn Fn(&mut Host), purpose, expected: &str| {
        let mut other = host(1, None);
        change(&mut other);
        let (met, welcomed) = meet(&other, &host(0, None), purpose);
        let (met, welcomed) = (met.unwrap_err(), welcomed.unwrap_err());
        assert!(met == welcomed && met.contains(expected), "{met} / {welcomed}");
    };
    let workers = Purpose::Workers;
    check(&|other| other.greeting.identity.push('s'), workers, "the job or its configuration differs: \"the job\"");
    check(&|other| other.greeting.workers = 3, workers, "-n and -w differs: (3, 2) in process 0, (3, 3)");
    check(
        &|other| other.greeting.heartbeat_timeout_ms = 9,
        workers,
        "cluster.heartbeat_timeout (ms) differs: 10000 in",
    );
    check(&|other| other.process = 0, workers, "process 0 connects to process 0");
    check(&|other| other.process = 3, workers, "-n differs: 3 in process 0, \"above 3\"");
    check(&|other| other.greeting.generation = Some(6), Purpose::Heartbeat, "the run differs: Some(7)");
    // A process that looks for process 0 and finds process 1.
    let (met, _) = meet(&host(2, None), &host(1, None), workers);
    assert!(met.unwrap_err().contains("which process is here by the hosts file differs: 1"));
}

/// What is sent by one who knows how to speak and has no secret, and what it hears.
struct Stranger(TcpStream);

impl Stranger {
    fn say(&mut self, message: &Value) {
        write_line(&mut self.0, message).unwrap();
    }

    fn hear(&mut self) -> Value {
        read_line(&mut self.0, ANSWER_BYTES_MAX, Instant::now() + PATIENCE).unwrap()
    }

    /// Everything that still comes, until the other end closes the connection.
    fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // It may be reset, when not all that was said has been heard.
        self.0.read_to_end(&mut rest).ok();
        String::from_utf8(rest).unwrap()
    }
}

/// Process 0 under a secret hears a stranger; returns what it says of it.
fn welcome(speak: impl FnOnce(Stranger) + Send) -> String {
    let (there, here) = connection();
    thread::scope(|scope| {
        scope.spawn(move || speak(Stranger(there)));
        let start = JobStart::fresh(4);
        host(0, Some("a secret")).welcome(here, Some(&start)).map(|_| ()).unwrap_err().to_string()
    })
}

fn hello() -> Value {
    json!({"protocol": PROTOCOL, "purpose": "workers", "connecting": 1, "accepting": 0, "nonce": vec![1; 32]})
}

#[test]
fn a_proof_that_was_overheard_is_worth_nothing_later() {
    // What process 1 says when it meets process 0, for its greeting to be said again.
    let (overheard, told) = (connection(), std::sync::mpsc::channel());
    let (there, here) = overheard;
    let proof: Value = thread::scope(|scope| {
        scope.spawn(|| {
            host(1, Some("a secret")).introduce_itself(there, Purpose::Workers, 0, Instant::now() + PATIENCE)
        });
        let mut stranger = Stranger(here);
        told.0.send(stranger.hear()).unwrap();
        stranger.say(&json!({"Yes": vec![2; 32]}));
        stranger.hear()
    });
    let hello = told.1.recv().unwrap();
    let error = welcome(|mut stranger| {
        stranger.say(&hello);
        assert!(stranger.hear().get("Yes").is_some());
        stranger.say(&proof);
        let rest = stranger.rest();
        assert!(rest.contains("the secret differs") && !rest.contains("the job"), "{rest}");
    });
    assert!(error.contains("the secret differs"), "{error}");
}

#[test]
fn a_proof_that_is_sent_back_is_none() {
    // The stranger plays process 0 towards process 1, and hands it its own nonce and proof back.
    let (there, here) = connection();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut stranger = Stranger(here);
            let hello = stranger.hear();
            stranger.say(&json!({"Yes": hello["nonce"]}));
            let proof = stranger.hear();
            stranger.say(&json!({ "Yes": proof }));
            assert_eq!(stranger.rest(), "");
        });
        let met = host(1, Some("a secret")).introduce_itself(there, Purpose::Workers, 0, Instant::now() + PATIENCE);
        let error = met.map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "whoever is there does not know the secret");
    });
}

#[test]
fn strangers_are_turned_away_and_learn_nothing() {
    let check = |bytes: &[u8], expected: &str| {
        let error = welcome(|mut stranger| {
            // It may be turned away before it has said it all.
            stranger.0.write_all(bytes).ok();
            let rest = stranger.rest();
            assert!(!rest.contains("the job") && !rest.contains("generation"), "{rest}");
        });
        assert!(error.contains(expected), "{error}");
    };
    let line = |value: Value| format!("{value}\n").into_bytes();
    check(b"GET / HTTP/1.1\r\n\r\n", "expected value");
    check(&[0xff, 0xfe, b'\n'], "expected value");
    check(b"{}\n", "missing field");
    check(&[b'['; 20_000], "too long");
    let mut other = hello();
    other["protocol"] = json!("clicktide/0\n\u{1b}[31m");
    check(&line(other), "the version differs");
    let mut short = hello();
    short["nonce"] = json!([1, 2]);
    check(&line(short), "invalid length");
    // A greeting without a proof, at once.
    check(
        &[line(hello()), line(json!({"identity": "", "processes": 3, "workers": 2, "generation": 7}))].concat(),
        "invalid type",
    );
    check(&[line(hello()), line(json!(vec![0; 32]))].concat(), "the secret differs");
}

#[test]
fn one_that_breaks_off_or_falls_silent_is_let_go_of() {
    let error = welcome(|mut stranger| stranger.0.write_all(br#"{"protocol":"#).unwrap());
    assert_eq!(error, "the connection was closed");
    let mut silent = None;
    let error = welcome(|stranger| silent = Some(stranger));
    assert_eq!(error, "no whole line came in time");
}

#[test]
fn a_refusal_is_shown_in_one_line() {
    assert_eq!(shown("a\nb\u{1b}[31m\rc"), "ab[31mc");
    assert_eq!(shown(&"x".repeat(5_000)).len(), REASON_CHARS_MAX);
}
