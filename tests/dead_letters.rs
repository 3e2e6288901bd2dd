//! Dead letters of a job on a real Kafka, looked at and sent back by the program's own commands.

mod support;

use std::process::Command;

use clicktide::event::ClickEvent;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use support::brokers;
use support::job::{DEADLINE, Job, all_closed_ms, body, event, now_ms, stop};
use support::topics::{Plain, Transactions};

/// What `clicktide dead-letters` prints, and its exit code.
fn dead_letters(job: &Job, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clicktide"));
    command.arg("dead-letters").args(arguments).args(job.check_flags());
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

fn json_of(job: &Job, arguments: &[&str]) -> Value {
    let (code, said) = dead_letters(job, arguments);
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The records of a partition of the events that have been sent back: payload and header.
fn sent_back(job: &Job, partition: i32) -> Vec<(Vec<u8>, String)> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &job.brokers).set("group.id", "test").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(&job.events.name, partition, Offset::Beginning).expect("an offset");
    consumer.assign(&assigned).expect("it is assigned");
    let mut found = Vec::new();
    // Until the end of the partition, which comes as an error.
    while let Some(Ok(record)) = consumer.poll(DEADLINE) {
        let header = record.headers().and_then(|headers| headers.iter().find(|header| header.key == "replayed-from"));
        if let Some(header) = header {
            let from = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
            found.push((record.payload().unwrap_or_default().to_vec(), from));
        }
    }
    found
}

#[test]
fn looked_at_and_sent_back_once() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let plain = Plain::new(&brokers);
    let produce = |numbers: std::ops::Range<i64>| {
        for number in numbers {
            plain.send(&job.events.name, (number % 3) as i32, Some(&body(&event(number, now_ms()))));
        }
        plain.flush();
    };
    let garbage = |number: i32| format!("no event {number}").into_bytes();
    produce(0..30);
    for number in 0..5 {
        plain.send(&job.events.name, number % 3, Some(&garbage(number)));
    }
    // One without any bytes, of which there is nothing to send back.
    plain.send(&job.events.name, 0, None);
    let nobody = ClickEvent { user_id: String::new(), ..event(1, now_ms()) };
    plain.send(&job.events.name, 1, Some(&body(&nobody)));
    produce(30..60);

    let mut processes = job.run(1, 2);
    job.until_final(all_closed_ms(), &mut processes);
    stop(&mut processes, "TERM");

    let (code, listed) = dead_letters(&job, &["list", "--limit", "3"]);
    assert_eq!(code, Some(0), "{listed}");
    assert_eq!(listed.lines().filter(|line| line.starts_with("0/")).count(), 3, "{listed}");
    assert!(listed.contains("empty_user_id 1, undecodable 6; the last 3 are listed"), "{listed}");
    let (_, listed) = dead_letters(&job, &["list", "--json", "--reason", "empty_user_id"]);
    let letter: Value = serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"));
    assert_eq!((&letter["source_partition"], &letter["reason"]), (&json!(1), &json!("empty_user_id")), "{letter}");

    let place = format!("{}/{}", letter["partition"], letter["offset"]);
    let (code, shown) = dead_letters(&job, &["show", &place]);
    assert!(code == Some(0) && shown.contains("/page/1"), "{shown}");
    let raw = Command::new(env!("CARGO_BIN_EXE_clicktide"))
        .args(["dead-letters", "show", "--raw", &place])
        .args(job.check_flags())
        .output()
        .expect("the program runs");
    assert_eq!(raw.stdout, body(&nobody));
    let (code, refused) = dead_letters(&job, &["show", "0/999999"]);
    assert!(code != Some(0) && refused.contains("999999"), "{refused}");
    let (code, refused) = dead_letters(&job, &["show", "first"]);
    assert!(code == Some(2) && refused.contains("PARTITION/OFFSET"), "{refused}");

    let (code, refused) = dead_letters(&job, &["replay", "--reason", "ugly"]);
    assert!(code == Some(2) && refused.contains("undecodable, empty_user_id"), "{refused}");

    let replay = ["replay", "--json", "--reason", "undecodable"];
    let summary = |sent: u64, not_whole: u64, elsewhere: u64| json!({"sent": sent, "not_whole": not_whole, "elsewhere": elsewhere});
    assert_eq!(json_of(&job, &[&replay[..], &["--dry-run"]].concat()), summary(5, 1, 0));
    assert_eq!(json_of(&job, &replay), summary(5, 1, 0));
    assert_eq!(json_of(&job, &replay)["sent"], 0, "each is sent back once");
    assert_eq!(json_of(&job, &["replay", "--json", "--reason", "late"]), summary(0, 0, 0));
    for partition in 0..3 {
        let expected: Vec<Vec<u8>> = (0..5).filter(|number| number % 3 == partition).map(garbage).collect();
        let found = sent_back(&job, partition);
        assert!(found.iter().all(|(_, from)| from.starts_with(&format!("{}/0/", job.dead_letters.name))), "{found:?}");
        let found: Vec<Vec<u8>> = found.into_iter().map(|(payload, _)| payload).collect();
        assert_eq!(found, expected, "partition {partition}");
    }

    // To the job they are events like others, and as they are no better than before, they come to the dead letters again.
    produce(60..90);
    let mut processes = job.run(2, 1);
    job.until_final(all_closed_ms(), &mut processes);
    stop(&mut processes, "TERM");
    assert_eq!(job.audit_agrees().number("/input/rejected"), 12);
    // What others have put there: of another topic, of a partition that there is not, and no dead letter at all.
    let others = Transactions::new(&brokers);
    let foreign = |topic: &str, partition: &str| {
        let headers = [
            ("reason", "undecodable"),
            ("source-topic", topic),
            ("source-partition", partition),
            ("source-offset", "7"),
        ];
        job.dead_letters.produce_with_headers(&others, b"foreign", &headers);
    };
    others.commit(|| {
        foreign("elsewhere", "0");
        foreign(&job.events.name, "3");
        foreign(&job.events.name, "-1");
        foreign(&job.events.name, "none");
    });
    assert_eq!(json_of(&job, &replay), summary(5, 0, 3), "those that have come since");
}
