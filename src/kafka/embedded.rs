//! A broker inside this process, for a look: librdkafka's own mock. It speaks the real protocol, keeps 5 MiB per partition
//! and nothing at its end, and knows nothing of read_committed; never test exactly-once with it.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::describe;

/// A broker that lives as long as this value.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts a broker on a free loopback port, with topics of so many partitions.
    ///
    /// # Errors
    /// librdkafka's text for why it can't.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, String> {
        let cluster = MockCluster::new(1).map_err(|e| describe(&e))?;
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).map_err(|e| describe(&e))?;
        }
        Ok(EmbeddedBroker { cluster })
    }

    /// Where clients find it.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}
