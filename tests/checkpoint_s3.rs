//! Checkpoints in something like S3: moto's server, where Python has it. Needs the feature `s3`.
//!
//! `cargo test --features s3 --test checkpoint_s3`

#![cfg(feature = "s3")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clicktide::checkpoint::choose::{RegisterError, find_probe, latest_generation, put_probe, register};
use clicktide::checkpoint::store::{Store, StoreError, open_store};
use clicktide::kafka::properties::Properties;
use support::{Process, eventually, free_port, python};

/// A server like S3 with a bucket, and stores in it.
struct S3 {
    port: u16,
    _server: Process,
    _dir: tempfile::TempDir,
}

impl S3 {
    /// None where Python does not have one, which is reported.
    fn start() -> Option<S3> {
        let python = python()?;
        let found = Command::new(&python).args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            let _ = writeln!(std::io::stderr(), "SKIPPED {}: moto[s3,server] is not there", support::test_name());
            return None;
        }
        let port = free_port();
        let mut command = Command::new(python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let dir = tempfile::tempdir().unwrap();
        let server = Process::spawn("s3", dir.path(), command);
        eventually("a server like S3", Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", port)).ok());
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let made = "PUT /bucket HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(made.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Some(S3 { port, _server: server, _dir: dir })
    }

    fn open(&self, job: &str) -> Result<Arc<dyn Store>, StoreError> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let options: Properties = [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_allow_http", "true"),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", "key"),
            ("aws_secret_access_key", "secret"),
        ]
        .into_iter()
        .collect();
        open_store(&"s3://bucket/a/prefix".parse().unwrap(), &options, job)
    }
}

#[test]
fn what_a_store_promises() {
    let Some(s3) = S3::start() else { return };
    let store = s3.open("job").unwrap();
    assert_eq!(store.list("panes/"), Ok(vec![]));
    assert_eq!(store.get("panes/1-a"), Err(StoreError::Missing("panes/1-a".into())));
    assert_eq!(store.put_new("panes/1-b", vec![7; 3_000_000]), Ok(()));
    assert_eq!(store.put_new("panes/1-a", vec![1]), Ok(()));
    assert_eq!(store.put_new("panes/1-a", vec![2]), Err(StoreError::Exists("panes/1-a".into())));
    // What is there already is what the answer to the first attempt would have been.
    assert_eq!(store.put_new("panes/1-a", vec![1]), Ok(()));
    assert_eq!(store.get("panes/1-a"), Ok(vec![1]));
    assert_eq!(store.get("panes/1-b").map(|body| body.len()), Ok(3_000_000));
    assert_eq!(store.list("panes/"), Ok(vec![("panes/1-a".into(), 1), ("panes/1-b".into(), 3_000_000)]));
    assert_eq!(s3.open("other").unwrap().list("panes/"), Ok(vec![]));
    assert_eq!(store.delete("panes/1-a"), Ok(()));
    assert_eq!(store.delete("panes/1-a"), Ok(()));
    assert_eq!(store.list("panes/"), Ok(vec![("panes/1-b".into(), 3_000_000)]));
    // More than one page of a listing.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                (0..275).for_each(|n| store.put_new(&format!("savepoints/{thread}-{n}"), vec![0]).unwrap());
            });
        }
    });
    assert_eq!(store.list("savepoints/").unwrap().len(), 1_100);

    assert_eq!(register(&*store, 2), Ok(()));
    assert_eq!(register(&*store, 1), Err(RegisterError::Fenced { own: 1, latest: 2 }));
    assert_eq!(latest_generation(&*store), Ok(Some(2)));
    let probe = put_probe(&*store, 2).unwrap();
    assert_eq!(find_probe(&*s3.open("job").unwrap(), &probe), Ok(()));
    assert!(find_probe(&*s3.open("other").unwrap(), &probe).is_err());
}

#[test]
fn of_two_at_once_one_puts() {
    let Some(s3) = S3::start() else { return };
    let stores: Vec<_> = (0..4).map(|_| s3.open("job").unwrap()).collect();
    for round in 0..10 {
        let name = format!("generations/{round}");
        let answers: Vec<_> = std::thread::scope(|scope| {
            let put = |(n, store): (usize, &Arc<dyn Store>)| {
                let (store, name) = (Arc::clone(store), name.clone());
                scope.spawn(move || store.put_new(&name, vec![n as u8]))
            };
            let threads: Vec<_> = stores.iter().enumerate().map(put).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    }
}

#[test]
fn a_connection_that_idled_is_no_failure_and_a_server_that_is_gone_is_one() {
    let Some(s3) = S3::start() else { return };
    let store = s3.open("job").unwrap();
    store.put_new("panes/1-a", vec![1]).unwrap();
    std::thread::sleep(Duration::from_secs(7));
    store.put_new("panes/1-b", vec![1]).unwrap();
    drop(s3);
    let start = std::time::Instant::now();
    let error = store.put_new("panes/1-c", vec![1]).unwrap_err().to_string();
    assert!(error.contains("s3://bucket/a/prefix/job/panes/1-c: "), "{error}");
    assert!(!error.contains("secret"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
}

#[test]
fn an_option_that_does_not_exist_is_said() {
    let options: Properties = [("aws_regoin", "x")].into_iter().collect();
    let error = open_store(&"s3://bucket".parse().unwrap(), &options, "job").err().unwrap().to_string();
    assert!(error.contains("checkpoints.options has \"aws_regoin\", which is no option of S3"), "{error}");
}
