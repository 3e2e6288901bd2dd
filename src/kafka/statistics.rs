//! What librdkafka says of itself, as metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, gauge};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::statistics::{Broker, Statistics, Window};

use super::client::LogContext;
use crate::metrics as names;

/// The metrics of one Kafka client, under a name that no other of this process has at the time.
#[derive(Clone, Debug)]
pub(in crate::kafka) struct ClientMetrics {
    client: String,
}

/// What is said of a broker, or of several that are shown together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct BrokerFigures {
    requests: u64,
    in_flight: i64,
    errors: u64,
    timeouts: u64,
    retries: u64,
    sent_bytes: u64,
    received_bytes: u64,
    connects: i64,
    disconnects: i64,
    round_trips: i64,
    round_trips_us: i64,
    round_trip_p99_us: i64,
}

impl ClientMetrics {
    /// The metrics of the client that is called so.
    pub fn of(client: impl Into<String>) -> ClientMetrics {
        ClientMetrics { client: client.into() }
    }

    /// Takes in what the client says.
    pub fn record(&self, statistics: &Statistics) {
        let label = || [("client", self.client.clone())];
        counter!(names::KAFKA_SENT_MESSAGES, &label()).absolute(count(statistics.txmsgs));
        counter!(names::KAFKA_RECEIVED_MESSAGES, &label()).absolute(count(statistics.rxmsgs));
        gauge!(names::KAFKA_SEND_QUEUE_MESSAGES, &label()).set(statistics.msg_cnt as f64);
        gauge!(names::KAFKA_SEND_QUEUE_BYTES, &label()).set(statistics.msg_size as f64);
        let partitions = || statistics.topics.values().flat_map(|topic| topic.partitions.values());
        let fetched: i64 = partitions().map(|partition| partition.fetchq_cnt).sum();
        let fetched_bytes: u64 = partitions().map(|partition| partition.fetchq_size).sum();
        gauge!(names::KAFKA_FETCH_QUEUE_MESSAGES, &label()).set(fetched as f64);
        gauge!(names::KAFKA_FETCH_QUEUE_BYTES, &label()).set(fetched_bytes as f64);

        for (broker, figures) in by_broker(statistics.brokers.values()) {
            let labels = [("client", self.client.clone()), ("broker", broker)];
            counter!(names::KAFKA_REQUESTS, &labels).absolute(figures.requests);
            gauge!(names::KAFKA_REQUESTS_IN_FLIGHT, &labels).set(figures.in_flight as f64);
            counter!(names::KAFKA_REQUEST_ERRORS, &labels).absolute(figures.errors);
            counter!(names::KAFKA_REQUEST_TIMEOUTS, &labels).absolute(figures.timeouts);
            counter!(names::KAFKA_REQUEST_RETRIES, &labels).absolute(figures.retries);
            counter!(names::KAFKA_SENT_BYTES, &labels).absolute(figures.sent_bytes);
            counter!(names::KAFKA_RECEIVED_BYTES, &labels).absolute(figures.received_bytes);
            counter!(names::KAFKA_CONNECTS, &labels).absolute(count(figures.connects));
            counter!(names::KAFKA_DISCONNECTS, &labels).absolute(count(figures.disconnects));
            if figures.round_trips > 0 {
                let mean_us = figures.round_trips_us as f64 / figures.round_trips as f64;
                gauge!(names::KAFKA_ROUND_TRIP_MEAN, &labels).set(mean_us / 1e6);
                gauge!(names::KAFKA_ROUND_TRIP_P99, &labels).set(figures.round_trip_p99_us as f64 / 1e6);
            }
        }
    }
}

/// Has a client say every so often how it is; without, it never does.
pub(in crate::kafka) fn every(config: &mut ClientConfig, interval: Option<Duration>) {
    let interval_ms = interval.map_or(0, |interval| interval.as_millis());
    config.set("statistics.interval.ms", interval_ms.to_string());
}

/// By a broker's id; `bootstrap` for the addresses to begin with, until it is known who answers there, and `coordinator` for the
/// connection on which transactions and groups are coordinated.
fn by_broker<'a>(brokers: impl Iterator<Item = &'a Broker>) -> BTreeMap<String, BrokerFigures> {
    let mut sums: BTreeMap<String, BrokerFigures> = BTreeMap::new();
    for broker in brokers {
        let label = match (broker.source.as_str(), broker.nodeid) {
            // A queue within the client.
            ("internal", _) => continue,
            ("logical", _) => "coordinator".to_owned(),
            (_, ..0) => "bootstrap".to_owned(),
            (_, id) => id.to_string(),
        };
        let sum = sums.entry(label).or_default();
        sum.requests += broker.tx;
        sum.in_flight += broker.outbuf_cnt + broker.waitresp_cnt;
        sum.errors += broker.txerrs + broker.rxerrs;
        sum.timeouts += broker.req_timeouts;
        sum.retries += broker.txretries;
        sum.sent_bytes += broker.txbytes;
        sum.received_bytes += broker.rxbytes;
        sum.connects += broker.connects.unwrap_or(0);
        sum.disconnects += broker.disconnects.unwrap_or(0);
        if let Some(Window { cnt, sum: us, p99, .. }) = broker.rtt {
            sum.round_trips += cnt;
            sum.round_trips_us += us;
            sum.round_trip_p99_us = sum.round_trip_p99_us.max(p99);
        }
    }
    sums
}

fn count(figure: i64) -> u64 {
    u64::try_from(figure).unwrap_or(0)
}

/// The context of a client whose statistics are metrics. What else it has to say goes to the program's log.
#[derive(Clone, Debug)]
pub(in crate::kafka) struct MeasuredContext(pub ClientMetrics);

impl ClientContext for MeasuredContext {
    fn stats(&self, statistics: Statistics) {
        self.0.record(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        LogContext.error(error, reason);
    }
}

impl ConsumerContext for MeasuredContext {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_of_several_connections_is_shown_by_what_they_are_for() {
        let broker = |source: &str, nodeid, tx, rtt_us: &[i64]| Broker {
            source: source.to_owned(),
            nodeid,
            tx,
            rtt: Some(Window {
                cnt: rtt_us.len() as i64,
                sum: rtt_us.iter().sum(),
                p99: rtt_us.iter().copied().max().unwrap_or(0),
                ..Window::default()
            }),
            ..Broker::default()
        };
        let brokers = [
            broker("internal", -1, 1, &[]),
            broker("configured", -1, 2, &[]),
            broker("configured", -1, 4, &[10]),
            broker("configured", 1, 8, &[10, 30]),
            broker("learned", 2, 16, &[]),
            broker("logical", 1, 32, &[]),
        ];
        let recorder = crate::metrics::recorder().expect("valid buckets");
        let page = metrics::with_local_recorder(&recorder, || {
            let brokers = brokers.into_iter().enumerate().map(|(index, broker)| (index.to_string(), broker)).collect();
            ClientMetrics::of("committer").record(&Statistics { txmsgs: 7, brokers, ..Statistics::default() });
            crate::metrics::page(&recorder.handle())
        });
        let check = |line: &str| assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
        check(r#"clicktide_kafka_sent_messages_total{client="committer"} 7"#);
        check(r#"clicktide_kafka_requests_total{client="committer",broker="bootstrap"} 6"#);
        check(r#"clicktide_kafka_requests_total{client="committer",broker="1"} 8"#);
        check(r#"clicktide_kafka_requests_total{client="committer",broker="2"} 16"#);
        check(r#"clicktide_kafka_requests_total{client="committer",broker="coordinator"} 32"#);
        check(r#"clicktide_kafka_round_trip_mean_seconds{client="committer",broker="1"} 0.00002"#);
        check(r#"clicktide_kafka_round_trip_p99_seconds{client="committer",broker="1"} 0.00003"#);
        let brokers = page.lines().filter(|line| line.starts_with("clicktide_kafka_requests_total"));
        assert_eq!(brokers.count(), 4, "{page}");
    }
}
