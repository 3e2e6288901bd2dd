//! All that comes out of a job.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clicktide::avro::sanitised_event_json;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use super::people::PARTITIONS;
use crate::support::job::{DEADLINE, Job};
use crate::support::topics::Topic;
use crate::support::watched::Watched;

/// A record of a topic.
pub struct Kept {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub headers: Vec<u8>,
}

/// All records of a topic: those that were committed, or all.
pub fn records(topic: &Topic, isolation: &str) -> Vec<Kept> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &topic.brokers).set("group.id", "test").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.set("isolation.level", isolation).create().expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(&topic.name), DEADLINE).expect("metadata");
    let mut assigned = TopicPartitionList::new();
    let mut open = 0;
    for partition in metadata.topics()[0].partitions() {
        assigned.add_partition_offset(&topic.name, partition.id(), Offset::Beginning).expect("an offset");
        open += 1;
    }
    consumer.assign(&assigned).expect("it is assigned");
    let mut records = Vec::new();
    while open > 0 {
        // The end of a partition comes as an error.
        let Ok(record) = consumer.poll(DEADLINE).expect("a record or an end") else {
            open -= 1;
            continue;
        };
        let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
        records.push(Kept {
            key: record.key().unwrap_or_default().to_vec(),
            value: record.payload().unwrap_or_default().to_vec(),
            headers: headers
                .flat_map(|header| [header.key.as_bytes(), header.value.unwrap_or_default()].concat())
                .collect(),
        });
    }
    records
}

/// The names and contents of all files below a directory.
pub fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            // What was pruned meanwhile is gone.
            found.extend(fs::read(&path).ok().map(|bytes| (path.display().to_string(), bytes)));
        }
    }
    found
}

/// What a process answers to every GET that its own document has, and for a while on its stream.
pub fn answers(port: u16) -> Vec<(String, Vec<u8>)> {
    let watched = Watched(port);
    let document = watched.until("the document", |watched| watched.json("/v1/openapi.json"));
    let pages = watched.json("/v1/pages?limit=100");
    let pages = pages.iter().flat_map(|pages| pages["pages"].as_array().cloned().unwrap_or_default());
    let pages: Vec<String> = pages.filter_map(|page| Some(page["page_url"].as_str()?.to_owned())).collect();
    let latest = watched.json("/v1/windows/latest").and_then(|window| window["window_end"].as_i64());
    let mut paths: BTreeSet<String> = ["/", "/metrics", "/no/such/path"].map(str::to_owned).into();
    for (path, item) in document["paths"].as_object().expect("paths") {
        if item.get("get").is_none() || path == "/v1/stream" {
            continue;
        }
        let path = path.replace("{window_end}", &latest.unwrap_or(0).to_string());
        if path.contains("{page}") {
            let encoded = |page: &String| page.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            paths.extend(pages.iter().map(|page| path.replace("{page}", &encoded(page))));
        } else {
            paths.insert(path);
        }
    }
    let mut answers: Vec<_> = paths
        .into_iter()
        .map(|path| {
            let (_, answer) = watched.get(&path).unwrap_or_else(|| panic!("{path}: no answer"));
            (path, answer.into_bytes())
        })
        .collect();
    answers.push(("/v1/stream".to_owned(), streamed(port)));
    answers
}

/// What comes on the stream of closed windows, until there is a window or nothing at all for a while.
pub fn streamed(port: u16) -> Vec<u8> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it answers");
    write!(socket, "GET /v1/stream HTTP/1.1\r\nHost: test\r\n\r\n").expect("it is asked");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let (mut received, mut part, start) = (Vec::new(), [0; 65_536], Instant::now());
    while let Ok(length @ 1..) = socket.read(&mut part) {
        received.extend_from_slice(&part[..length]);
        if start.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    received
}

/// What `clicktide` says with these arguments.
pub fn said(arguments: &[&str], flags: &[String]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clicktide"));
    let output = command.args(arguments).args(flags).output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    [output.stdout, output.stderr].concat()
}

/// Has a job take a savepoint, and says what it answers.
pub fn take_savepoint(port: u16) -> Vec<u8> {
    said(&["checkpoint", "savepoint", "mine", "--http", &format!("127.0.0.1:{port}")], &[])
}

/// A topic for sanitised events, and the flag for it.
pub fn sanitised_topic(brokers: &str) -> (Topic, String) {
    let topic = Topic::create(brokers, "sanitised-events", PARTITIONS, &[]);
    let flag = format!("--set=kafka.sanitised_events_topic={}", topic.name);
    (topic, flag)
}

/// Sanitised events of before a time, in an order that does not depend on how they were published.
pub fn before(end_ms: i64, events: impl IntoIterator<Item = Value>) -> Vec<String> {
    let events = events.into_iter().filter(|event| event["timestamp"].as_i64() < Some(end_ms));
    let mut events: Vec<String> = events.map(|event| event.to_string()).collect();
    events.sort();
    events
}

pub fn sanitised_before(end_ms: i64, records: &[Kept]) -> Vec<String> {
    before(
        end_ms,
        records.iter().map(|record| {
            let event = sanitised_event_json(&record.value).expect("a sanitised event");
            assert_eq!(event["user_id"].as_str().map(str::as_bytes), Some(&record.key[..]), "keyed by the user");
            event
        }),
    )
}

/// Everything there is of a job, by where it is.
pub fn everything(job: &Job, sanitised: &Topic, ports: &[u16]) -> Vec<(String, Vec<u8>)> {
    let mut all = files(&job.dir().join("checkpoints"));
    for topic in [&job.results, &job.dead_letters, &job.progress, sanitised] {
        let place = format!("topic {}", topic.name);
        // What was aborted is in the topic, too.
        all.extend(
            records(topic, "read_uncommitted")
                .into_iter()
                .flat_map(|record| [record.key, record.headers, record.value].map(|bytes| (place.clone(), bytes))),
        );
    }
    for port in ports {
        all.extend(answers(*port));
    }
    let flags = job.check_flags();
    all.push(("dead-letters list".to_owned(), said(&["dead-letters", "list"], &flags)));
    all.push(("dead-letters show".to_owned(), said(&["dead-letters", "show", "0/0"], &flags)));
    let store: Vec<_> = flags.iter().filter(|flag| flag.contains("checkpoints.store")).cloned().collect();
    all.push(("checkpoint list".to_owned(), said(&["checkpoint", "list", "--name", &job.name], &store)));
    all.push(("audit".to_owned(), said(&["audit"], &job.job_flags(&job.brokers))));
    all
}
