//! What becomes of a job when Kafka is lost, or its input has grown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::commands::signals::stop_in_good_order;
use crate::config::Config;
use crate::exit::Failure;
use crate::http::Status;
use crate::kafka::watch::{Sight, TopicWatch, Vigil};

/// Watches Kafka and the events topic for one process of a job: without Kafka the program ends, and for more partitions
/// the job stops in good order, to be started again.
pub struct InputWatch {
    topic: TopicWatch,
    partitions: usize,
    until_end: bool,
    grown: Arc<AtomicBool>,
}

impl InputWatch {
    /// Begins to watch a job that reads so many partitions; `status` is told whether Kafka answers. A bounded run ends where its input ended when it began, and does
    /// not care for more. For growth `stop` is set.
    ///
    /// # Errors
    /// When the client can't be made from the configuration.
    pub fn start(
        config: &Config,
        partitions: usize,
        until_end: bool,
        stop: &Arc<AtomicBool>,
        status: Arc<Status>,
    ) -> Result<InputWatch, Failure> {
        let vigil = Vigil {
            lost_after: config.kafka.lost_after.duration(),
            partitions,
            check_every: (!until_end).then(|| config.kafka.partitions_check_every.duration()),
        };
        let grown = Arc::new(AtomicBool::new(false));
        let (has_grown, stop) = (Arc::clone(&grown), Arc::clone(stop));
        status.set_kafka_silence(None);
        let see = move |sight| match sight {
            Sight::Silent(why) => status.set_kafka_silence(Some(why)),
            Sight::Answers => status.set_kafka_silence(None),
            Sight::Lost(cause, why) => cause.exit().now(why),
            // Already stopping, for another reason.
            Sight::Grown(_) if stop.load(Ordering::Relaxed) => {}
            Sight::Grown(now) => {
                tracing::info!(
                    from = partitions,
                    to = now,
                    "the events topic has grown: stopping, to be started again"
                );
                has_grown.store(true, Ordering::Relaxed);
                stop_in_good_order(&stop);
            }
        };
        let topic = TopicWatch::start(&config.connection(), &config.kafka.events_topic, vigil, see)
            .map_err(|e| Failure::new(e.exit(), e))?;
        Ok(InputWatch { topic, partitions, until_end, grown })
    }

    /// Whether the job, which has stopped, has done so because its input has grown. Another process may have noticed first
    /// and had all stop; but a process that was itself `asked` to stop has not been stopped for that.
    pub fn grown(&self, asked: bool) -> bool {
        let more = || self.topic.partitions().is_some_and(|now| now > self.partitions);
        self.grown.load(Ordering::Relaxed) || (!asked && !self.until_end && more())
    }
}
