//! What all Kafka clients share: how they are set up, and what their errors mean in plain words.

use std::fs;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub use super::cause::Cause;
use super::cause::Witness;
use super::properties::Properties;
use crate::exit::Exit;

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
    /// A file that a property names can't be used.
    #[error("kafka.properties.{property} = {file:?}: {reason}")]
    File {
        /// The property.
        property: String,
        /// The file.
        file: String,
        /// What is the matter with it, and what would be right.
        reason: String,
    },
    /// The properties do not go together, or what they name is not what it should be.
    #[error("no Kafka client can be made by kafka.properties: {reason}")]
    Unusable {
        /// What librdkafka says.
        reason: String,
    },
    /// A broker could not be asked, or refused.
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

impl ClientError {
    /// How the program ends for it.
    pub fn exit(&self) -> Exit {
        match self {
            ClientError::TlsMissing { .. }
            | ClientError::Property { .. }
            | ClientError::File { .. }
            | ClientError::Unusable { .. } => Exit::Configuration,
            ClientError::Failed { cause, .. } => cause.exit(),
        }
    }
}

impl Connection {
    /// Brokers and properties for a client of librdkafka, to which the caller adds what its kind of client needs.
    ///
    /// # Errors
    /// When the properties ask for TLS and this program was built without, or name a file that can't be used.
    pub(in crate::kafka) fn client_config(&self) -> Result<ClientConfig, ClientError> {
        self.check_tls()?;
        self.check_files()?;
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

    /// The files and folders that properties name, each with its property.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        // "probe" means the usual places.
        self.properties.iter().filter(|(property, file)| property.ends_with(".location") && *file != "probe")
    }

    /// Whether the files that properties name can be read, which librdkafka says in words that do not name them.
    ///
    /// # Errors
    /// When one can't, or is a key under a password that is not given.
    pub fn check_files(&self) -> Result<(), ClientError> {
        for (property, file) in self.files() {
            let shown = if self.properties.is_hidden(property) { "***" } else { file };
            let refuse = |reason: String| {
                let (property, file) = (property.to_owned(), shown.to_owned());
                ClientError::File { property, file, reason }
            };
            // A directory of certificates is as good.
            if fs::metadata(file).map_err(|error| refuse(error.to_string()))?.is_dir() {
                continue;
            }
            let bytes = fs::read(file).map_err(|error| refuse(error.to_string()))?;
            let encrypted = String::from_utf8_lossy(&bytes).lines().any(|line| {
                line.starts_with("-----BEGIN ENCRYPTED")
                    || (line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
            });
            if property == "ssl.key.location" && encrypted && self.properties.get("ssl.key.password").is_none() {
                let reason = "the key is encrypted, and there is no ssl.key.password; \"env:NAME\" reads it from an \
                              environment variable, \"file:/path\" from a file";
                return Err(refuse(reason.to_owned()));
            }
        }
        Ok(())
    }

    /// What an error means. `witness` is the context of the client that had it, which may know more.
    pub(in crate::kafka) fn explain(&self, attempt: &str, error: &KafkaError, witness: &Witness) -> ClientError {
        match error {
            KafkaError::ClientConfig(_, _, property, _) => {
                return ClientError::Property { property: property.clone() };
            }
            KafkaError::ClientCreation(reason) => return self.unusable(reason),
            _ => {}
        }
        let (cause, reason) = self.understand(error, witness);
        ClientError::Failed { attempt: attempt.to_owned(), brokers: self.brokers.clone(), cause, reason }
    }

    /// What is the matter when a client has this error, also in words.
    pub(in crate::kafka) fn understand(&self, error: &KafkaError, witness: &Witness) -> (Cause, String) {
        match (error.rdkafka_error_code().map(Cause::of), witness.telling()) {
            // That there was no answer is explained by what happened meanwhile, if anything did.
            (Some(Cause::Unreachable | Cause::TimedOut | Cause::Other) | None, Some(seen)) => seen,
            (Some(cause), _) => (cause, error.to_string()),
            (None, None) => (Cause::Other, error.to_string()),
        }
    }

    /// What it means that a client can't be made.
    fn unusable(&self, said: &str) -> ClientError {
        let under_password = self.properties.get("ssl.key.password").is_some();
        let advice = match said.split_once(" failed").map(|(property, _)| property) {
            Some("ssl.key.location") if said.contains("mismatch") => {
                "; the key must be that of the certificate in ssl.certificate.location"
            }
            Some("ssl.key.location") if under_password => "; is ssl.key.password right, and the file a key in PEM?",
            Some("ssl.key.location" | "ssl.certificate.location" | "ssl.ca.location") => {
                "; the file must hold a key, or certificates, in PEM"
            }
            _ if said.starts_with("No provider for SASL mechanism") => {
                "; set sasl.mechanism to one of those, such as SCRAM-SHA-512: Kerberos (GSSAPI), the default, is not built in"
            }
            _ => "",
        };
        ClientError::Unusable { reason: format!("{said}{advice}") }
    }

    /// What the refusal of one topic means.
    pub(in crate::kafka) fn refused(&self, attempt: &str, code: RDKafkaErrorCode) -> ClientError {
        let (attempt, brokers) = (attempt.to_owned(), self.brokers.clone());
        ClientError::Failed { attempt, brokers, cause: Cause::of(code), reason: code.to_string() }
    }
}

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
                | Code::OffsetNotAvailable
                | Code::UnknownPartition,
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
            // The client asks after a group that it only needs the name of; where it matters, `clicktide check` says so.
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => tracing::debug!(%error, "Kafka: {reason}"),
            // Said dozens of times a second, after each broker has been named.
            Some(RDKafkaErrorCode::AllBrokersDown) => tracing::debug!(%error, "Kafka: {reason}"),
            // What is an error, librdkafka tries again by itself.
            _ => tracing::warn!(%error, "Kafka: {reason}"),
        }
    }
}
impl ConsumerContext for LogContext {}

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

    #[test]
    fn files_that_properties_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let check = |properties: &[(&str, &str)], expected: Option<&str>| {
            let error = connection(properties).check_files().err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(error, None),
                Some(expected) => assert!(error.as_ref().is_some_and(|error| error.contains(expected)), "{error:?}"),
            }
        };
        fs::write(file("plain.key"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
        fs::write(file("encrypted.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
        fs::write(file("old.key"), "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n").unwrap();
        check(&[("ssl.ca.location", dir.path().to_str().unwrap())], None);
        check(&[("ssl.key.location", &file("plain.key"))], None);
        check(&[("ssl.key.location", &file("none.key"))], Some("none.key\": No such file"));
        for key in ["encrypted.key", "old.key"] {
            check(&[("ssl.key.location", &file(key))], Some("the key is encrypted, and there is no ssl.key.password"));
            check(&[("ssl.key.location", &file(key)), ("ssl.key.password", "hunter2")], None);
        }
    }
}
