//! A job whose events and results are in the wire format of a schema registry, against a real Kafka and a real registry: what it
//! does while the registry is gone, slow or says no, and that a change of the schema in mid-stream loses nothing.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::Command;
use std::thread;

use clicktide::avro::wire::{SchemaId, decode_result, split};
use clicktide::avro::{CLICK_EVENT_LATER_SCHEMA, CLICK_EVENT_SCHEMA, PAGE_ANALYTICS_SCHEMA};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use support::job::{DEADLINE, Job, all_closed_ms, body, event, now_ms, stop};
use support::proxy::Network;
use support::registry::{behind_proxy, client, flags, later, published, schema_registry};
use support::topics::{Plain, Topic};
use support::watched::Watched;
use support::{Process, brokers, free_port, free_ports};

/// A job that uses the registry at `url`.
fn job_with_registry(brokers: &str, url: &str) -> Job {
    let mut job = Job::new(brokers, 3);
    job.flags = flags(url);
    job
}

/// The ids of both versions of the schema of a job's events, registered under its subject.
fn versions(job: &Job, url: &str) -> (SchemaId, SchemaId) {
    let subject = format!("{}-value", job.events.name);
    let register = |schema| client(url).register(&subject, schema).unwrap_or_else(|error| panic!("{error}"));
    (register(CLICK_EVENT_SCHEMA), register(CLICK_EVENT_LATER_SCHEMA))
}

/// The values of all records of a topic that are committed.
fn values(brokers: &str, topic: &Topic, partitions: i32) -> Vec<Vec<u8>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "test").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assigned = TopicPartitionList::new();
    for partition in 0..partitions {
        assigned.add_partition_offset(&topic.name, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assigned).expect("it is assigned");
    let (mut found, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(DEADLINE).expect("an answer") {
            Ok(record) => found.push(record.payload().unwrap_or_default().to_vec()),
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    found
}

/// A command's exit code and all it has said.
fn said(command: &str, flags: &[String]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_clicktide")).arg(command).args(flags).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

/// What `check` says about the registry.
fn checked(job: &Job) -> String {
    let (_, said) = said("check", &[job.check_flags(), job.flags.clone()].concat());
    let line = said.lines().find(|line| line.contains("schema registry"));
    line.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// Runs a job that must end with the registry's code, and returns why it says it does.
fn refused(job: &Job) -> String {
    let mut process = job.process(1, 0, 1, &[]);
    process.wait_for_code(23, DEADLINE);
    process.stderr()
}

fn a_schema_changes(processes: usize) {
    let (Some(brokers), Some(url)) = (brokers(), schema_registry()) else { return };
    let job = job_with_registry(&brokers, &url);
    let mut running = job.run(processes, 1);
    let change = ["enabled=true", "start=2s", "share=0.5"].map(|key| format!("--set=generator.schema_change.{key}"));
    let flags: Vec<&str> = job.flags.iter().chain(&change).map(String::as_str).collect();
    let mut generator = job.generate_by(&brokers, 250, Some("6s"), &flags);
    generator.wait_for_code(0, DEADLINE);
    let summary: Value = serde_json::from_str(&generator.stdout()).expect("the generator's summary");
    let sent = summary["sent"].as_i64().expect("a number");
    job.until_final(all_closed_ms(), &mut running);
    stop(&mut running, "TERM");

    let (early, late) = versions(&job, &url);
    let events = values(&brokers, &job.events, 3);
    let ids: Vec<SchemaId> = events.iter().map(|event| split(event).expect("the wire format").0).collect();
    let count = |id| ids.iter().filter(|found| **found == id).count() as i64;
    assert_eq!((ids.len() as i64, count(early) + count(late)), (sent, sent));
    assert!(count(late) > sent / 5 && count(early) > count(late), "{} of {sent} are late", count(late));
    // Interleaved: after the first of the later version there are many of the earlier one.
    let first_late = ids.iter().position(|id| *id == late).expect("one of the later version");
    assert!(ids[first_late..].iter().filter(|id| **id == early).count() > 50);

    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/counted"), sent, "{:#}", audit.report);
    assert_eq!(audit.number("/dead_letters/expected"), 0, "{:#}", audit.report);
    let subject = format!("{}-value", job.results.name);
    let id = client(&url).look_up(&subject, PAGE_ANALYTICS_SCHEMA).expect("the results' schema is registered");
    let results = values(&brokers, &job.results, 3);
    assert_eq!(results.len() as i64, audit.number("/results/expected"));
    for result in &results {
        assert_eq!(split(result).map(|(found, _)| found), Some(id));
        assert!(decode_result(result).is_ok());
    }
}

#[test]
fn a_schema_changes_in_one_process() {
    a_schema_changes(1);
}

#[test]
fn a_schema_changes_in_two_processes() {
    a_schema_changes(2);
}

/// The registry is gone when the job starts, in mid-stream, where it also loses answers, and when the job was killed and starts again:
/// the partition whose next record can't be read waits, the others go on, and nothing is lost or counted twice.
#[test]
fn a_registry_that_comes_and_goes() {
    let (Some(brokers), Some(url)) = (brokers(), schema_registry()) else { return };
    let (network, by_proxy) = behind_proxy(&url);
    let job = job_with_registry(&brokers, &by_proxy);
    let (early, late) = versions(&job, &url);
    let plain = Plain::new(&brokers);
    let mut number = 0;
    let mut produce = |partition: i32, write: &dyn Fn(&clicktide::event::ClickEvent) -> Vec<u8>| {
        for _ in 0..20 {
            number += 1;
            plain.send(&job.events.name, partition, Some(&write(&event(number, now_ms()))));
        }
        plain.flush();
    };

    network.set(Network::Cut);
    let ports = free_ports(2);
    let listen = |process: usize| format!("--set=http.listen=127.0.0.1:{}", ports[process]);
    let run = || -> Vec<Process> { (0..2).map(|process| job.process(2, process, 1, &[&listen(process)])).collect() };
    let mut processes = run();
    let watched = Watched(ports[0]);
    let waits = |what: &str| {
        let what = what.to_owned();
        move |watched: Watched| watched.failing("/readyz", "schemas").filter(|reason| reason.contains(&what))
    };
    watched.until("the start waits", waits("waits for the id of the schema of subject"));
    assert!(checked(&job).contains("BAD   schema registry: the schema registry does not answer"), "{}", checked(&job));
    network.set(Network::Passes);
    (0..3).for_each(|partition| produce(partition, &|event| published(early, event)));
    watched.until("all is read", |watched| {
        (watched.cluster("/lag_records")? == json!(0) && watched.cluster("/events")? == json!(60)).then_some(())
    });

    network.set(Network::Cut);
    (0..3).for_each(|partition| produce(partition, &|event| published(early, event)));
    let partition = |watched: Watched, partition: usize, key: &str| {
        let partitions = watched.cluster("/partitions")?;
        partitions.as_array()?.iter().find(|found| found["partition"] == json!(partition))?.get(key).cloned()
    };
    watched.until("what is known is read without the registry", |watched| {
        (watched.cluster("/events")? == json!(120)).then_some(())
    });
    // Partition 0 is worker 0's, in process 0.
    produce(0, &|event| later(late, event));
    let reason = watched.until("the partition waits", waits(&format!("waits for schema {late} from")));
    assert!(reason.contains(&by_proxy), "{reason}");
    watched.until("it says so", |watched| (partition(watched, 0, "awaited_schema")? == json!(late.0)).then_some(()));
    network.set(Network::LosesAnswers);
    produce(1, &|event| published(early, event));
    produce(2, &|event| published(early, event));
    watched.until("the others go on", |watched| (watched.cluster("/events")? == json!(160)).then_some(()));
    // Longer than a partition is idle after.
    thread::sleep(std::time::Duration::from_secs(3));
    let stands = |key: &str| partition(watched, 0, key);
    assert_eq!((stands("position"), stands("idle")), (Some(json!(40)), Some(json!(false))));
    network.reset();
    network.set(Network::Passes);
    watched.until("it goes on", |watched| (watched.cluster("/events")? == json!(180)).then_some(()));
    watched.until("nothing is waited for", |watched| watched.failing("/readyz", "schemas").is_none().then_some(()));

    // What a run has learnt is gone with it: the next one can't read again what is in the open windows.
    network.set(Network::Cut);
    produce(0, &|event| later(late, event));
    processes.iter_mut().for_each(Process::kill);
    processes = run();
    watched.until("the start waits again", waits("waits for the id of the schema of subject"));
    network.set(Network::Passes);
    job.until_final(all_closed_ms(), &mut processes);
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/counted"), 200, "{:#}", audit.report);
    assert_eq!(audit.number("/dead_letters/expected"), 0, "{:#}", audit.report);
    stop(&mut processes, "TERM");
}

#[test]
fn what_no_schema_can_read_is_a_dead_letter() {
    let (Some(brokers), Some(url)) = (brokers(), schema_registry()) else { return };
    let job = job_with_registry(&brokers, &url);
    let (early, _) = versions(&job, &url);
    let foreign = CLICK_EVENT_SCHEMA.replacen(r#""type": "string""#, r#""type": "double""#, 1);
    let foreign = client(&url).register(&format!("{}-other", job.events.name), &foreign).expect("it is registered");
    let plain = Plain::new(&brokers);
    let good = event(1, now_ms());
    let unknown = SchemaId(4_000_000_000);
    let bad = [
        published(unknown, &good),
        published(foreign, &good),
        body(&good),
        SchemaId(early.0).prefix().to_vec(),
        vec![0, 0],
    ];
    for payload in &bad {
        plain.send(&job.events.name, 0, Some(payload));
        plain.send(&job.events.name, 0, Some(&published(early, &event(2, now_ms()))));
    }
    plain.flush();
    let mut processes = job.run(1, 2);
    job.until_final(all_closed_ms(), &mut processes);
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/dead_letters/expected"), bad.len() as i64, "{:#}", audit.report);
    let letters = values(&brokers, &job.dead_letters, 1);
    assert_eq!(letters, bad);
    let log = processes[0].stderr();
    let warned = |words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(warned(&["no such schema", &unknown.to_string()]), "{log}");
    assert!(warned(&["records of this schema are undecodable", "user_id", "double"]), "{log}");
    stop(&mut processes, "TERM");

    let dead_letters = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        said("dead-letters", &[arguments, job.check_flags(), job.flags.clone()].concat()).1
    };
    let list = dead_letters(&["list", "--json"]);
    let listed: Vec<Value> = list.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(listed.len(), bad.len(), "{list}");
    let by_foreign = format!("by schema {foreign} of the registry: the writer schema's field \"user_id\"");
    let expected = [
        "has none: 404",
        &by_foreign,
        "not in the registry's wire format",
        "the body ends inside a value",
        "not in the",
    ];
    for (letter, expected) in listed.iter().zip(expected) {
        let shown = dead_letters(&["show", &format!("{}/{}", letter["partition"], letter["offset"])]);
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn our_schema_has_to_be_there_where_it_is_not_registered() {
    let (Some(brokers), Some(url)) = (brokers(), schema_registry()) else { return };
    let mut job = job_with_registry(&brokers, &url);
    job.flags
        .extend(["register=false", "subject_naming=topic_record"].map(|key| format!("--set=schema_registry.{key}")));
    let subject = format!("{}-analytics.results.PageAnalytics", job.results.name);
    assert!(checked(&job).starts_with("BAD "), "{}", checked(&job));
    let why = refused(&job);
    assert!(why.contains(&format!("our schema is not registered under subject {subject:?}")), "{why}");
    let id = client(&url).register(&subject, PAGE_ANALYTICS_SCHEMA).expect("it is registered");
    assert!(checked(&job).starts_with("good "), "{}", checked(&job));

    // In this order: the schema of the events that the job reads may be registered whenever it is needed.
    let mut processes = job.run(1, 1);
    let (early, _) = versions(&job, &url);
    let plain = Plain::new(&brokers);
    plain.send(&job.events.name, 0, Some(&published(early, &event(1, now_ms()))));
    plain.flush();
    job.until_final(all_closed_ms(), &mut processes);
    job.audit_agrees();
    stop(&mut processes, "TERM");
    let results = values(&brokers, &job.results, 3);
    assert!(!results.is_empty() && results.iter().all(|result| split(result).map(|(found, _)| found) == Some(id)));
}

#[test]
fn a_schema_that_does_not_fit_is_refused_at_the_start() {
    let (Some(brokers), Some(url)) = (brokers(), schema_registry()) else { return };
    let job = job_with_registry(&brokers, &url);
    let subject = format!("{}-value", job.results.name);
    client(&url).register(&subject, r#"{"type": "record", "name": "Other", "fields": []}"#).expect("it is registered");
    // Apicurio's registry allows anything unless told otherwise, unlike Confluent's. New readers have to read what is there, and old
    // readers what is new.
    let port = url.split([':', '/']).nth(4).expect("a port");
    let config = r#"{"compatibility": "FULL"}"#;
    let put = format!(
        "PUT /apis/ccompat/v7/config/{subject} HTTP/1.0\r\nHost: r\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{config}",
        config.len()
    );
    let mut registry = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).expect("the registry");
    registry.write_all(put.as_bytes()).expect("it is asked");
    let mut answer = String::new();
    registry.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("200 OK"), "{answer}");

    let said = checked(&job);
    assert!(said.starts_with("BAD ") && said.contains("our schema is not compatible"), "{said}");
    let why = refused(&job);
    assert!(why.contains(&format!("to register the schema of subject {subject:?}: 409 Conflict")), "{why}");
}

/// A wrong password is what the registry says of it, and no secret is shown.
#[test]
fn a_wrong_password_is_told_at_once() {
    let Some(brokers) = brokers() else { return };
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            let answer = r#"{"error_code": 401, "message": "Unauthorized"}"#;
            let head = format!("HTTP/1.1 401 U\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", answer.len());
            connection.write_all((head + answer).as_bytes()).ok();
            connection.shutdown(Shutdown::Write).ok();
            // Whatever was asked, until the client has had enough.
            std::io::copy(&mut connection, &mut std::io::sink()).ok();
        }
    });
    let mut job = job_with_registry(&brokers, &url);
    job.flags.extend(["username=u", "password=hunter2"].map(|key| format!("--set=schema_registry.{key}")));
    let hint = "401 Unauthorized: Unauthorized (error code 401); are schema_registry.username and password right";
    for said in [checked(&job), refused(&job)] {
        assert!(said.contains(hint) && !said.contains("hunter2"), "{said}");
    }
}
