//! Topics and transactions against a real Kafka.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A topic of the test's own.
pub struct Topic {
    pub brokers: String,
    pub name: String,
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an admin client")
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

impl Topic {
    /// Creates one under a name that no other test uses.
    pub fn create(brokers: &str, prefix: &str, partitions: i32, config: &[(&str, &str)]) -> Topic {
        let name = super::unique(prefix);
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        topic.config = config.to_vec();
        let admin = admin(brokers);
        let created = admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(TIMEOUT)));
        for result in block_on(created).expect("the broker answers") {
            result.expect("the topic is created");
        }
        // That it is created is the controller's word; a broker that is busy leads it a moment later.
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a consumer");
        for partition in 0..partitions {
            super::eventually("the topic can be read", TIMEOUT, || {
                consumer.fetch_watermarks(&name, partition, TIMEOUT).ok()
            });
        }
        Topic { brokers: brokers.to_owned(), name }
    }

    /// Deletes it if it is there, and makes another one of the same name.
    pub fn make_anew(&self, partitions: i32) {
        // It may have been deleted already.
        block_on(admin(&self.brokers).delete_topics(&[&self.name], &AdminOptions::new())).expect("the broker answers");
        let topic = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
        // The name is taken until the brokers are done with the deletion.
        super::eventually("the topic is made anew", TIMEOUT, || {
            let created = block_on(admin(&self.brokers).create_topics([&topic], &AdminOptions::new()));
            created.expect("the broker answers")[0].is_ok().then_some(())
        });
    }

    /// Deletes it.
    pub fn delete(&self) {
        let deleted = block_on(admin(&self.brokers).delete_topics(&[&self.name], &AdminOptions::new()));
        deleted.expect("the broker answers").into_iter().for_each(|result| drop(result.expect("the topic is deleted")));
    }

    /// Has so many partitions from now on.
    pub fn add_partitions(&self, partitions: usize) {
        let asked = NewPartitions::new(&self.name, partitions);
        let admin = admin(&self.brokers);
        for result in block_on(admin.create_partitions([&asked], &AdminOptions::new())).expect("an answer") {
            result.expect("the partitions are added");
        }
        super::eventually("the partitions are known", TIMEOUT, || {
            let metadata = admin.inner().fetch_metadata(Some(&self.name), TIMEOUT).expect("metadata");
            (metadata.topics()[0].partitions().len() == partitions).then_some(())
        });
    }

    /// Deletes the records of a partition before an offset, as retention would.
    pub fn delete_before(&self, partition: i32, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.name, partition, Offset::Offset(offset)).expect("an offset");
        let admin = admin(&self.brokers);
        block_on(admin.delete_records(&offsets, &AdminOptions::new())).expect("the records are deleted");
    }

    /// Produces a record in the transaction that is open.
    pub fn produce(&self, to: &Transactions, partition: i32, key: &str, value: impl AsRef<[u8]>) {
        to.send(BaseRecord::to(&self.name).partition(partition).key(key).payload(value.as_ref()));
    }

    /// Produces a record without a key and with a timestamp of its own, in the transaction that is open.
    pub fn produce_at(&self, to: &Transactions, partition: i32, timestamp_ms: i64, value: &[u8]) {
        let record = BaseRecord::<str, [u8]>::to(&self.name).partition(partition).timestamp(timestamp_ms);
        to.send(record.payload(value));
    }

    /// Deletes a key in the transaction that is open.
    pub fn tombstone(&self, to: &Transactions, partition: i32, key: &str) {
        to.send(BaseRecord::<str, [u8]>::to(&self.name).partition(partition).key(key));
    }

    /// Produces a record without a key and with headers, in the transaction that is open.
    pub fn produce_with_headers(&self, to: &Transactions, value: &[u8], headers: &[(&str, &str)]) {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
        to.send(BaseRecord::<str, [u8]>::to(&self.name).partition(0).payload(value).headers(headers));
    }
}

/// A transactional producer.
pub struct Transactions(ThreadedProducer<DefaultProducerContext>);

impl Transactions {
    pub fn new(brokers: &str) -> Transactions {
        Transactions::of(brokers, &super::unique("transactions"))
    }

    /// With this transactional id, which it takes from whoever had it before.
    pub fn of(brokers: &str, transactional_id: &str) -> Transactions {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("transactional.id", transactional_id)
            // Some are held open for as long as a test lasts: the longest that brokers allow.
            .set("transaction.timeout.ms", "900000")
            .create()
            .expect("a producer");
        producer.init_transactions(TIMEOUT).expect("transactions are possible");
        Transactions(producer)
    }

    pub fn begin(&self) {
        self.0.begin_transaction().expect("a transaction begins");
    }

    /// Waits until all that was produced has been written.
    pub fn flush(&self) {
        self.0.flush(TIMEOUT).expect("the records are written");
    }

    /// Commits the transaction that is open.
    pub fn end(&self) {
        self.0.commit_transaction(TIMEOUT).expect("the transaction is committed");
    }

    /// One transaction around `produce`.
    pub fn commit(&self, produce: impl FnOnce()) {
        self.begin();
        produce();
        self.end();
    }

    /// One transaction around `produce` that is aborted once everything has been written.
    pub fn abort(&self, produce: impl FnOnce()) {
        self.begin();
        produce();
        self.flush();
        self.abort_open();
    }

    /// Aborts the transaction that is open, all of which has been written.
    pub fn abort_open(&self) {
        self.0.abort_transaction(TIMEOUT).expect("the transaction is aborted");
    }

    fn send<K: ToBytes + ?Sized, V: ToBytes + ?Sized>(&self, record: BaseRecord<'_, K, V>) {
        self.0.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }
}

/// A producer without transactions, to partitions of the caller's choice.
pub struct Plain(ThreadedProducer<DefaultProducerContext>);

impl Plain {
    pub fn new(brokers: &str) -> Plain {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("linger.ms", "2");
        Plain(config.create().expect("a producer"))
    }

    /// Produces a record, or a tombstone where there is no value, with the time of its creation as its timestamp.
    pub fn send(&self, topic: &str, partition: i32, value: Option<&[u8]>) {
        self.keyed(topic, partition, None, value);
    }

    /// Deletes a key.
    pub fn tombstone(&self, topic: &str, key: &str) {
        self.keyed(topic, 0, Some(key), None);
    }

    fn keyed(&self, topic: &str, partition: i32, key: Option<&str>, value: Option<&[u8]>) {
        let mut record = BaseRecord::<str, [u8]>::to(topic).partition(partition);
        (record.key, record.payload) = (key, value);
        self.0.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }

    /// Waits until all that was produced has been written.
    pub fn flush(&self) {
        self.0.flush(TIMEOUT).expect("the records are written");
    }
}
