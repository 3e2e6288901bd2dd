//! Trying things with Kafka before a job starts. Nothing here disturbs a running job, and nothing is written.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::cause::Witness;
use super::client::{ClientError, Connection};
use super::diagnosis::diagnose;

/// Waits until a broker answers. A broker that is not there is tried until `timeout`, as it may be starting; brokers that are there
/// and do not let us in, for two seconds.
///
/// # Errors
/// When none does, with the reason as far as it is known.
pub fn reach(connection: &Connection, timeout: Duration) -> Result<(), ClientError> {
    let attempt = "reach Kafka";
    let consumer = consumer(connection, attempt)?;
    let witness = consumer.client().context();
    let start = Instant::now();
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        if consumer.client().fetch_cluster_id(left.min(LOOK_EVERY)).is_some() {
            return Ok(());
        }
        while consumer.poll(Duration::ZERO).is_some() {}
        if left.is_zero() || witness.denied_for().is_some_and(|denied_for| denied_for >= BELIEVED_AFTER) {
            break;
        }
    }
    let error = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);
    let mut error = connection.explain(attempt, &error, witness);
    if let ClientError::Failed { cause, reason, .. } = &mut error
        && let Some(found) = diagnose(connection, *cause)
    {
        *reason = format!("{found}: {reason}");
    }
    Err(error)
}

/// How often it is looked whether the brokers deny us.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Another broker may let us in, or this one once it knows the users.
const BELIEVED_AFTER: Duration = Duration::from_secs(2);

/// Whether a producer with this transactional id can begin transactions. It fences off no other id.
///
/// # Errors
/// When the brokers refuse or do not answer in time.
pub fn begin_transactions(
    connection: &Connection,
    transactional_id: &str,
    transaction_timeout: Duration,
    timeout: Duration,
) -> Result<(), ClientError> {
    let attempt = format!("begin transactions as {transactional_id:?}");
    let failed = |error, witness: &Witness| connection.explain(&attempt, &error, witness);
    let mut config = connection.client_config()?;
    config.set("transactional.id", transactional_id);
    config.set("transaction.timeout.ms", transaction_timeout.as_millis().to_string());
    let producer: BaseProducer<Witness> =
        config.create_with_context(Witness::default()).map_err(|error| failed(error, &Witness::default()))?;
    producer.init_transactions(timeout).map_err(|error| {
        producer.poll(EVENTS_TIMEOUT);
        failed(error, producer.client().context())
    })
}

/// Whether partition 0 of a topic can be read from its first offset: a record, or the answer that there is none.
///
/// # Errors
/// When the brokers refuse or do not answer in time.
pub fn read(connection: &Connection, topic: &str, timeout: Duration) -> Result<(), ClientError> {
    let attempt = format!("read topic {topic:?}");
    let consumer = consumer(connection, &attempt)?;
    let failed = |error| connection.explain(&attempt, &error, consumer.client().context());
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).map_err(failed)?;
    consumer.assign(&partitions).map_err(failed)?;
    let start = Instant::now();
    while start.elapsed() < timeout {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            // Connections come and go; what lasts is a timeout, which then says why.
            Some(Err(error)) if !passes(&error) => return Err(failed(error)),
            Some(Err(_)) | None => {}
        }
    }
    Err(failed(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut)))
}

/// How long to look through what a client has to say, where the reason of a failure waits.
pub(super) const EVENTS_TIMEOUT: Duration = Duration::from_millis(100);

fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, GroupAuthorizationFailed, OperationTimedOut, Resolve,
    };
    // The group is asked after by the client alone, and its refusal keeps nobody from reading.
    let codes = [AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve, GroupAuthorizationFailed];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

fn consumer(connection: &Connection, attempt: &str) -> Result<BaseConsumer<Witness>, ClientError> {
    let mut config = connection.client_config()?;
    // The client wants a group for every assignment; it never joins or commits to this one.
    config.set("group.id", "clicktide-check").set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("isolation.level", "read_committed");
    // How long a topic that is not there may still be on its way: here it should have been there for long.
    config.set("topic.metadata.propagation.max.ms", "0");
    config
        .create_with_context(Witness::default())
        .map_err(|error| connection.explain(attempt, &error, &Witness::default()))
}
