//! The ground the other tests stand on: the broker they are given, and the guards they use.

mod support;

use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use support::{Broker, Process};

const PATIENCE: Duration = Duration::from_secs(30);

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn create_topic(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create().expect("an admin client");
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let created = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).expect("an answer");
    created[0].as_ref().expect("the topic is created");
}

/// Writes one record in a transaction, and commits it or not.
fn write(brokers: &str, topic: &str, value: &str, commit: bool) {
    let mut config = client(brokers);
    let producer: BaseProducer = config.set("transactional.id", topic).create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("init_transactions");
    producer.begin_transaction().expect("begin_transaction");
    producer.send(BaseRecord::<(), str>::to(topic).payload(value)).map_err(|(error, _)| error).expect("send");
    producer.flush(PATIENCE).expect("flush");
    if commit {
        producer.commit_transaction(PATIENCE).expect("commit_transaction");
    } else {
        producer.abort_transaction(PATIENCE).expect("abort_transaction");
    }
}

fn read_committed(brokers: &str, topic: &str) -> Vec<String> {
    let mut config = client(brokers);
    config.set("group.id", "unused").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&partitions).expect("assign");
    let mut values = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("an answer") {
            Ok(message) => values.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned()),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return values,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_broker_serves_transactions() {
    let Some(brokers) = support::brokers() else { return };
    let topic = support::unique("environment");
    create_topic(&brokers, &topic);
    write(&brokers, &topic, "first", true);
    write(&brokers, &topic, "aborted", false);
    write(&brokers, &topic, "second", true);
    assert_eq!(read_committed(&brokers, &topic), ["first", "second"]);
}

#[test]
fn a_killed_broker_comes_back_with_its_data() {
    let Some(_) = support::brokers() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(&dir.path().join("kafka"), &[]);
    let topic = support::unique("environment");
    create_topic(&broker.address, &topic);
    write(&broker.address, &topic, "before", true);
    broker.kill();
    broker.start_again();
    write(&broker.address, &topic, "after", true);
    assert_eq!(read_committed(&broker.address, &topic), ["before", "after"]);
}

#[test]
fn a_process_ends_with_its_guard() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("sh");
    command.args(["-c", "echo started; trap 'echo stopped; exit 7' TERM; while :; do sleep 0.02; done"]);
    let mut process = Process::spawn("script", dir.path(), command);
    process.until("it starts", PATIENCE, |process| process.stdout().contains("started").then_some(()));
    assert!(process.exited().is_none());
    process.signal("TERM");
    process.wait_for_code(7, PATIENCE);
    assert_eq!(process.stdout(), "started\nstopped\n");

    let mut command = Command::new("sleep");
    command.arg("600");
    let id = Process::spawn("sleep", dir.path(), command).id();
    let alive = Command::new("kill").args(["-s", "0", &id.to_string()]).stderr(std::process::Stdio::null()).status();
    assert!(!alive.expect("kill").success());
}

#[test]
fn free_ports_are_different() {
    let ports = support::free_ports(20);
    let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
    assert_eq!(distinct.len(), 20);
}
