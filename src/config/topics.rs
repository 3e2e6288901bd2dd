//! What the configuration says about Kafka, in the words of [`crate::kafka`].

use std::collections::BTreeMap;

use super::{Config, Kafka};
use crate::kafka::admin::TopicSpec;
use crate::kafka::client::Connection;
use crate::millis::Millis;

/// The broker's own least, and more often than the cleaner runs anyway.
const SEGMENT_MS_MIN: i64 = 60_000;

impl Config {
    /// How to reach the brokers.
    pub fn connection(&self) -> Connection {
        let Kafka { brokers, properties, statistics_interval, .. } = self.kafka.clone();
        Connection { brokers, properties, statistics_interval: statistics_interval.map(Millis::duration) }
    }

    /// The topics that the job uses, as they should be: events, results, dead letters, progress, and sanitised events if they are
    /// wanted.
    pub fn topic_specs(&self) -> Vec<TopicSpec> {
        let topics = &self.topics;
        let kept = |retention: Millis| {
            // Only whole segments are deleted, and none that is still written to: without this, what is kept for hours by
            // its setting would stay for days.
            let segment_ms = (retention.0 / 4).max(SEGMENT_MS_MIN);
            [
                ("cleanup.policy", "delete".into()),
                ("retention.ms", retention.0.to_string()),
                ("segment.ms", segment_ms.to_string()),
            ]
        };
        // The time of the log's own clock: with the producers' times, old events would be deleted on arrival, and a clock
        // that runs ahead could not be told.
        let events = [("message.timestamp.type", "LogAppendTime".into()), ("compression.type", "snappy".into())];
        let results = [("compression.type", "gzip".into())];
        let sanitised = self.kafka.sanitised_events_topic.as_ref().map(|name| {
            let kept = kept(topics.sanitised_events_retention).into_iter();
            self.topic(name, topics.sanitised_events_partitions, kept.chain([("compression.type", "gzip".into())]))
        });
        let mut specs = vec![
            self.topic(
                &self.kafka.events_topic,
                topics.events_partitions,
                kept(topics.events_retention).into_iter().chain(events),
            ),
            self.topic(
                &self.kafka.results_topic,
                topics.results_partitions,
                kept(topics.results_retention).into_iter().chain(results),
            ),
            self.topic(&self.kafka.dead_letters_topic, 1, kept(topics.dead_letters_retention)),
            self.topic(&self.kafka.progress_topic, 1, [("cleanup.policy", "compact".into())]),
        ];
        specs.extend(sanitised);
        specs
    }

    fn topic(
        &self,
        name: &str,
        partitions: i32,
        config: impl IntoIterator<Item = (&'static str, String)>,
    ) -> TopicSpec {
        let mut config: BTreeMap<&'static str, String> = config.into_iter().collect();
        config.insert("min.insync.replicas", self.topics.min_insync_replicas.to_string());
        let replication_factor = self.topics.replication_factor;
        TopicSpec { name: name.to_owned(), partitions, replication_factor, config }
    }
}
