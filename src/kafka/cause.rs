//! What is the matter when Kafka can't be used, so far as librdkafka tells.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::ProducerContext;

use crate::exit::Exit;

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

impl Cause {
    /// Whether the brokers are there and will not let us in or do this, however often they are asked.
    pub fn denied(self) -> bool {
        matches!(self, Cause::Authentication | Cause::Tls | Cause::Authorization)
    }

    /// How the program ends for it.
    pub fn exit(self) -> Exit {
        if self.denied() { Exit::Denied } else { Exit::Kafka }
    }

    /// What is the matter when this is the answer.
    pub(in crate::kafka) fn of(code: RDKafkaErrorCode) -> Cause {
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

    /// What is the matter when a connection has failed with these words. A connection that is closed in the middle of a
    /// handshake tells nothing: a broker that is being stopped does that too, and a proxy that has none behind it.
    fn of_connection(said: &str) -> Cause {
        let says = |words: &str| said.contains(words);
        match () {
            () if says("Disconnected") || says("unexpected eof") || says("timed out") => Cause::Unreachable,
            () if said.starts_with("SASL") => Cause::Authentication,
            () if says("SSL routines") || says("certificate") => Cause::Tls,
            () => Cause::Unreachable,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Unreachable => "no broker can be reached; is Kafka running there, and is kafka.brokers right?",
            Cause::Authentication => "the brokers do not accept the credentials; see sasl.* in kafka.properties",
            Cause::Tls => "no TLS connection can be made; see security.protocol and ssl.* in kafka.properties",
            Cause::Authorization => "the Kafka user is not allowed to do this; it needs an ACL, see docs/security.md",
            Cause::UnknownTopic => "the topic is not there; `clicktide topics create` makes it",
            Cause::Fenced => "another job of the same name has taken over",
            Cause::TimedOut => "no answer in time",
            Cause::Other => "it is refused",
        })
    }
}

/// A client's context that remembers what went wrong in the background, where librdkafka says why nobody answers.
#[derive(Debug, Default)]
pub(in crate::kafka) struct Witness(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The most telling.
    telling: Option<(Cause, String)>,
    /// Since when the brokers deny us.
    denied: Option<Instant>,
}

impl Witness {
    /// The most telling of what it has seen.
    pub fn telling(&self) -> Option<(Cause, String)> {
        self.lock().telling.clone()
    }

    /// For how long the brokers have denied us.
    pub fn denied_for(&self) -> Option<Duration> {
        self.lock().denied.map(|since| since.elapsed())
    }

    /// Forgets what it has seen, as it is over.
    pub fn forget(&self) {
        *self.lock() = Seen::default();
    }

    pub fn see(&self, cause: Cause, reason: &str) {
        let mut seen = self.lock();
        // Why a connection fails says more than that all have failed.
        let better = match (seen.telling.as_ref().map(|(cause, _)| *cause), cause) {
            (_, cause) if cause.denied() => true,
            (None, _) => true,
            (Some(Cause::Unreachable), Cause::Unreachable) => !reason.contains("brokers are down"),
            _ => false,
        };
        if better {
            seen.telling = Some((cause, reason.to_owned()));
        }
        if cause.denied() {
            seen.denied.get_or_insert_with(Instant::now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // What is behind this lock is right whatever happened to another holder.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Witness {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Whoever asked gets it as an error; what librdkafka tries meanwhile is for those who look.
        tracing::debug!(severity = ?level, facility, "{message}");
        if facility == "FAIL" {
            let message = without_thread(message);
            self.see(Cause::of_connection(without_broker(message)), message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "{reason}");
        let cause = match error.rdkafka_error_code().map_or(Cause::Other, Cause::of) {
            // The words tell a refusal from a connection that just broke.
            Cause::Tls | Cause::Authentication | Cause::Unreachable => Cause::of_connection(without_broker(reason)),
            cause => cause,
        };
        if cause == Cause::Unreachable || cause.denied() {
            self.see(cause, reason);
        }
    }
}

impl ConsumerContext for Witness {}

impl ProducerContext for Witness {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, (): ()) {}
}

/// Log lines begin with librdkafka's own thread: `[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to …`.
fn without_thread(message: &str) -> &str {
    match message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        Some((_, message)) => message,
        None => message,
    }
}

/// Then follows the broker, which names the protocol: `sasl_ssl://127.0.0.1:1/bootstrap: Connect to …`.
fn without_broker(message: &str) -> &str {
    match message.split_once(": ") {
        Some((broker, said)) if broker.contains('/') && !broker.contains(' ') => said,
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_connection_that_broke() {
        let check = |said: &str, cause: Cause| {
            let message = format!("[thrd:x]: sasl_ssl://127.0.0.1:1/bootstrap: {said}");
            assert_eq!(Cause::of_connection(without_broker(without_thread(&message))), cause, "{said}");
        };
        check(
            "Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
            Cause::Unreachable,
        );
        check(
            "SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker \
               listener?",
            Cause::Unreachable,
        );
        check(
            "SASL SCRAM-SHA-512 mechanism handshake failed: Local: Broker transport failure: Disconnected",
            Cause::Unreachable,
        );
        check(
            "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could \
               not be verified",
            Cause::Tls,
        );
        check(
            "Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42",
            Cause::Tls,
        );
        check(
            "SASL authentication error: Authentication failed during authentication due to invalid credentials",
            Cause::Authentication,
        );
        check("SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism", Cause::Authentication);
        assert_eq!(without_broker("1/1 brokers are down"), "1/1 brokers are down");
    }

    #[test]
    fn what_tells_most_is_kept_until_it_is_over() {
        let witness = Witness::default();
        assert_eq!((witness.telling(), witness.denied_for()), (None, None));
        witness.see(Cause::Unreachable, "refused");
        witness.see(Cause::Unreachable, "1/1 brokers are down");
        assert_eq!(witness.telling(), Some((Cause::Unreachable, "refused".to_owned())));
        assert_eq!(witness.denied_for(), None);
        witness.see(Cause::Tls, "no");
        witness.see(Cause::Unreachable, "refused");
        assert_eq!(witness.telling(), Some((Cause::Tls, "no".to_owned())));
        assert!(witness.denied_for().is_some());
        witness.forget();
        assert_eq!((witness.telling(), witness.denied_for()), (None, None));
    }
}
