//! What all Kafka clients share: how they are set up, and what their errors mean in plain words.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::properties::Properties;

/// How to reach the brokers. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The brokers to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// Further properties of librdkafka.
    pub properties: Properties,
    /// How often the clients of a running job say how they are, for the metrics; none: never.
    pub statistics_interval: Option<Duration>,
}

/// Why something could not be done with Kafka.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The configuration asks for TLS, or for SASL that needs OpenSSL, and this program has neither.
    #[error(
        "kafka.properties has {property} = {value:?}, but this clicktide was built without TLS; build it with \
         `cargo build --release --features tls`"
    )]
    TlsMissing {
        /// The property that asks for it.
        property: &'static str,
        /// Its value.
        value: String,
    },
    /// A property is not known to librdkafka, or its value is not right. The value is not said, since it may be a secret.
    #[error("kafka.properties.{property} is not a property that librdkafka knows, or its value is not usable")]
    Property {
        /// The property.
        property: String,
    },
    /// A client could not be made, or a broker could not be asked or refused.
    #[error("cannot {attempt} at {brokers}: {cause}: {reason}")]
    Failed {
        /// What was tried, as in `read the topics`.
        attempt: String,
        /// The brokers that were asked.
        brokers: String,
        /// What is the matter.
        cause: Cause,
        /// What librdkafka or the broker says.
        reason: String,
    },
}

/// What is the matter, so far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No broker answers.
    Unreachable,
    /// The brokers do not accept who we are.
    Authentication,
    /// A connection by TLS could not be made.
    Tls,
    /// We may not do that.
    Authorization,
    /// There is no such topic or partition.
    UnknownTopic,
    /// Another has the same transactional id.
    Fenced,
    /// A broker answered, but not this in time.
    TimedOut,
    /// Anything else.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Unreachable => "no broker can be reached; is Kafka running there, and is kafka.brokers right?",
            Cause::Authentication => "the brokers do not accept the credentials; see sasl.* in kafka.properties",
            Cause::Tls => "no TLS connection can be made; see security.protocol and ssl.* in kafka.properties",
            Cause::Authorization => "the Kafka user is not allowed to do this; it needs an ACL",
            Cause::UnknownTopic => "the topic is not there; `clicktide topics create` makes it",
            Cause::Fenced => "another job of the same name has taken over",
            Cause::TimedOut => "no answer in time",
            Cause::Other => "it is refused",
        })
    }
}

impl Connection {
    /// Brokers and properties for a client of librdkafka, to which the caller adds what its kind of client needs.
    ///
    /// # Errors
    /// When the properties ask for TLS and this program was built without.
    pub(in crate::kafka) fn client_config(&self) -> Result<ClientConfig, ClientError> {
        self.check_tls()?;
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        // A broker that is back is found again soon. The default of 10 s is most of what a transaction may take.
        config.set("reconnect.backoff.max.ms", "1000");
        self.properties.iter().for_each(|(property, value)| _ = config.set(property, value));
        config.set("bootstrap.servers", &self.brokers);
        Ok(config)
    }

    /// Whether this program can connect in the way the properties ask for.
    ///
    /// # Errors
    /// When they ask for TLS and it was built without.
    pub fn check_tls(&self) -> Result<(), ClientError> {
        let asks = |property: &'static str, value: &str| {
            let value = value.to_ascii_uppercase();
            let needed = match property {
                "security.protocol" => value.ends_with("SSL"),
                _ => value.starts_with("SCRAM-") || value == "OAUTHBEARER",
            };
            (needed && !cfg!(feature = "tls")).then_some(ClientError::TlsMissing { property, value })
        };
        ["security.protocol", "sasl.mechanism", "sasl.mechanisms"]
            .into_iter()
            .find_map(|property| asks(property, self.properties.get(property)?))
            .map_or(Ok(()), Err)
    }

    /// What an error means. `witness` is the context of the client that had it, which may know more.
    pub(in crate::kafka) fn explain(&self, attempt: &str, error: &KafkaError, witness: &Witness) -> ClientError {
        if let KafkaError::ClientConfig(_, _, property, _) = error {
            return ClientError::Property { property: property.clone() };
        }
        let (cause, reason) = match (error.rdkafka_error_code().map(cause_of), witness.telling()) {
            // That there was no answer is explained by what happened meanwhile, if anything did.
            (Some(Cause::Unreachable | Cause::TimedOut | Cause::Other) | None, Some(seen)) => seen,
            (Some(cause), _) => (cause, error.to_string()),
            (None, None) => (Cause::Other, error.to_string()),
        };
        ClientError::Failed { attempt: attempt.to_owned(), brokers: self.brokers.clone(), cause, reason }
    }

    /// What the refusal of one topic means.
    pub(in crate::kafka) fn refused(&self, attempt: &str, code: RDKafkaErrorCode) -> ClientError {
        let (attempt, brokers) = (attempt.to_owned(), self.brokers.clone());
        ClientError::Failed { attempt, brokers, cause: cause_of(code), reason: code.to_string() }
    }
}

/// What is the matter when this is the answer.
pub(in crate::kafka) fn cause_of(code: RDKafkaErrorCode) -> Cause {
    use RDKafkaErrorCode as Code;
    match code {
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::NetworkException => {
            Cause::Unreachable
        }
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => Cause::Authentication,
        Code::SSL => Cause::Tls,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => Cause::Authorization,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => Cause::UnknownTopic,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Cause::Fenced,
        Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue | Code::MessageTimedOut => {
            Cause::TimedOut
        }
        _ => Cause::Other,
    }
}

/// A client's context that remembers what went wrong in the background, where librdkafka says why nobody answers.
#[derive(Debug, Default)]
pub(in crate::kafka) struct Witness(Mutex<Option<(Cause, String)>>);

impl Witness {
    /// The most telling of what it has seen.
    fn telling(&self) -> Option<(Cause, String)> {
        lock(&self.0).clone()
    }

    fn see(&self, cause: Cause, reason: &str) {
        let mut telling = lock(&self.0);
        // Why a connection fails says more than that all have failed.
        let better = match (telling.as_ref().map(|(cause, _)| *cause), cause) {
            (_, Cause::Authentication | Cause::Tls | Cause::Authorization) | (None, _) => true,
            (Some(Cause::Unreachable), Cause::Unreachable) => !reason.contains("brokers are down"),
            _ => false,
        };
        if better {
            *telling = Some((cause, reason.to_owned()));
        }
    }
}

impl ClientContext for Witness {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Whoever asked gets it as an error; what librdkafka tries meanwhile is for those who look.
        tracing::debug!(severity = ?level, facility, "{message}");
        if facility == "FAIL" {
            let lower = message.to_ascii_lowercase();
            let cause = match () {
                () if lower.contains("authentication") || lower.contains("sasl") => Cause::Authentication,
                () if lower.contains("ssl") => Cause::Tls,
                () => Cause::Unreachable,
            };
            self.see(cause, without_thread(message));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "{reason}");
        let cause = error.rdkafka_error_code().map_or(Cause::Other, cause_of);
        if matches!(cause, Cause::Unreachable | Cause::Authentication | Cause::Tls | Cause::Authorization) {
            self.see(cause, reason);
        }
    }
}

impl ConsumerContext for Witness {}

/// The low and the high watermark of a partition. A broker that has just been started may not lead its partitions yet, so
/// that answer is not taken for one until `timeout`.
///
/// # Errors
/// When no broker answers in time, or the partition is not there.
pub(in crate::kafka) fn fetch_watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> Result<(i64, i64), KafkaError> {
    use RDKafkaErrorCode as Code;
    let deadline = Instant::now() + timeout;
    loop {
        let answer = consumer.fetch_watermarks(topic, partition, timeout);
        match answer.as_ref().err().and_then(KafkaError::rdkafka_error_code) {
            Some(
                Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::ReplicaNotAvailable
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::OffsetNotAvailable,
            ) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            _ => return answer,
        }
    }
}

/// What librdkafka has to say goes to the program's log.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::kafka) struct LogContext;

impl ClientContext for LogContext {
    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // The end of a partition is asked for and no error.
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            // Said dozens of times a second, after each broker has been named.
            Some(RDKafkaErrorCode::AllBrokersDown) => tracing::debug!(%error, "Kafka: {reason}"),
            // What is an error, librdkafka tries again by itself.
            _ => tracing::warn!(%error, "Kafka: {reason}"),
        }
    }
}
impl ConsumerContext for LogContext {}

/// Log lines begin with librdkafka's own thread: `[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to …`.
fn without_thread(message: &str) -> &str {
    match message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        Some((_, message)) => message,
        None => message,
    }
}

/// What is behind this lock is right whatever happened to another holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(properties: &[(&str, &str)]) -> Connection {
        Connection {
            brokers: "127.0.0.1:1".into(),
            properties: properties.iter().copied().collect(),
            statistics_interval: None,
        }
    }

    #[test]
    fn tls_that_is_not_built_in_is_missed() {
        let check = |properties: &[(&str, &str)], needed: bool| {
            let missing = connection(properties).check_tls().err();
            assert_eq!(missing.is_some(), needed && !cfg!(feature = "tls"), "{properties:?}: {missing:?}");
        };
        check(&[], false);
        check(&[("security.protocol", "plaintext")], false);
        check(&[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN")], false);
        check(&[("security.protocol", "ssl")], true);
        check(&[("security.protocol", "SASL_SSL")], true);
        check(&[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanisms", "SCRAM-SHA-512")], true);
    }

    #[test]
    fn a_silence_is_explained_by_what_happened_meanwhile() {
        let connection = connection(&[]);
        let explain = |code, seen: &[(Cause, &str)]| {
            let witness = Witness::default();
            seen.iter().for_each(|(cause, reason)| witness.see(*cause, reason));
            match connection.explain("read the topics", &KafkaError::MetadataFetch(code), &witness) {
                ClientError::Failed { cause, .. } => cause,
                other => panic!("{other}"),
            }
        };
        use RDKafkaErrorCode as Code;
        let down = (Cause::Unreachable, "1/1 brokers are down");
        assert_eq!(explain(Code::OperationTimedOut, &[]), Cause::TimedOut);
        assert_eq!(explain(Code::OperationTimedOut, &[down]), Cause::Unreachable);
        assert_eq!(explain(Code::OperationTimedOut, &[(Cause::Authentication, "no"), down]), Cause::Authentication);
        assert_eq!(explain(Code::OperationTimedOut, &[down, (Cause::Tls, "no")]), Cause::Tls);
        assert_eq!(explain(Code::TopicAuthorizationFailed, &[down]), Cause::Authorization);
        assert_eq!(explain(Code::UnknownTopicOrPartition, &[]), Cause::UnknownTopic);
    }

    #[test]
    fn a_wrong_property_is_named_and_its_value_is_not() {
        let config = connection(&[("sasl.pasword", "hunter2")]).client_config().unwrap();
        let error = config.create_native_config().err().expect("refused");
        let error = connection(&[]).explain("connect", &error, &Witness::default()).to_string();
        assert!(error.contains("sasl.pasword") && !error.contains("hunter2"), "{error}");
    }
}
