//! Why a topic cannot be read to its end.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::exit::Exit;
use crate::kafka::client::{Cause, ClientError};

/// Why a topic cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A client can't be made by the properties.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No broker answered in time.
    #[error("no answer from Kafka at {brokers} about topic {topic:?} within {timeout:?}: {reason}")]
    Unreachable {
        /// The brokers.
        brokers: String,
        /// The topic.
        topic: String,
        /// How long was waited.
        timeout: Duration,
        /// What is the matter.
        cause: Cause,
        /// What librdkafka said last.
        reason: String,
    },
    /// The brokers answered that they do not have the topic, or do not give it out.
    #[error("topic {topic:?} cannot be read at {brokers}: {reason}")]
    Topic {
        /// The brokers.
        brokers: String,
        /// The topic.
        topic: String,
        /// What is the matter.
        cause: Cause,
        /// What the broker says.
        reason: String,
    },
    /// There is no such partition.
    #[error("topic {topic:?} has no partition {partition}; it has {partitions}, counted from 0")]
    Partition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// How many there are.
        partitions: usize,
    },
    /// The offset to begin at is not in the log, any more or yet.
    #[error("offset {offset} of partition {partition} of topic {topic:?} is not there: it holds {first} to {end}")]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        offset: i64,
        /// The first offset that is there.
        first: i64,
        /// The offset after the last.
        end: i64,
    },
    /// A transaction that was open at the beginning has not ended in time.
    #[error(
        "partition {partition} of topic {topic:?} could be read to offset {position} of {until} only: after {waited:?} a \
         transaction there is still open; it ends with its producer, or after the producer's transaction.timeout.ms"
    )]
    OpenTransaction {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How far it was read.
        position: i64,
        /// How far it was to be read.
        until: i64,
        /// How long was waited.
        waited: Duration,
    },
    /// Reading failed.
    #[error("can't read partition {partition} of topic {topic:?} on at offset {position}: {reason}")]
    Read {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How far it was read.
        position: i64,
        /// What is the matter.
        cause: Cause,
        /// What librdkafka says.
        reason: String,
    },
}

impl ScanError {
    /// How the program ends for it.
    pub fn exit(&self) -> Exit {
        match self {
            ScanError::Client(error) => error.exit(),
            ScanError::Unreachable { cause, .. } | ScanError::Topic { cause, .. } | ScanError::Read { cause, .. } => {
                cause.exit()
            }
            ScanError::Partition { .. } | ScanError::OutOfRange { .. } | ScanError::OpenTransaction { .. } => {
                Exit::Kafka
            }
        }
    }
}

pub(super) fn no_answer(brokers: &str, topic: &str, timeout: Duration, error: &KafkaError) -> ScanError {
    let (cause, reason) = reason(error);
    ScanError::Unreachable { brokers: brokers.to_owned(), topic: topic.to_owned(), timeout, cause, reason }
}

/// What is the matter, also in words.
pub(super) fn reason(error: &KafkaError) -> (Cause, String) {
    match error.rdkafka_error_code() {
        None => (Cause::Other, error.to_string()),
        Some(code) => refusal(code),
    }
}

/// What is the matter when this is the answer, also in words.
pub(super) fn refusal(code: RDKafkaErrorCode) -> (Cause, String) {
    let cause = Cause::of(code);
    (cause, if cause.denied() { format!("{cause}: {code}") } else { code.to_string() })
}
