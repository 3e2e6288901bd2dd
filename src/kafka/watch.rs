//! Whether Kafka still answers, and whether the input has grown.
//!
//! Both are told by the same question, which any broker can answer: which partitions does the topic have? Every process of a
//! job asks it, also one that reads no partition.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::cause::Witness;
use super::client::{Cause, ClientError, Connection};

/// How often it is asked, and how long an answer may take.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A process that was stopped for a while finds one question unanswered, and that means nothing.
const UNANSWERED_MIN: u32 = 3;

/// What is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vigil {
    /// When no broker has answered for as long, Kafka is lost.
    pub lost_after: Duration,
    /// How many partitions the topic has.
    pub partitions: usize,
    /// How often it is looked whether it has more; none: never.
    pub check_every: Option<Duration>,
}

/// What is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// No broker answers: why. It may be over soon.
    Silent(String),
    /// A broker answers again.
    Answers,
    /// No broker has answered for too long: what is the matter, and in words.
    Lost(Cause, String),
    /// The topic has so many partitions now.
    Grown(usize),
}

/// A watch over Kafka and a topic, on a thread that ends with it.
pub struct TopicWatch {
    consumer: Arc<BaseConsumer<Witness>>,
    topic: String,
    /// Nothing is ever sent: the thread ends when it is dropped.
    _watching: mpsc::Sender<()>,
}

impl TopicWatch {
    /// Begins to watch; `see` is told what is seen: that it is lost or has grown once, the others whenever they begin.
    ///
    /// # Errors
    /// When the client can't be made from the settings.
    pub fn start(
        connection: &Connection,
        topic: &str,
        vigil: Vigil,
        see: impl Fn(Sight) + Send + 'static,
    ) -> Result<TopicWatch, ClientError> {
        let attempt = format!("watch topic {topic:?}");
        let config = connection.client_config()?;
        let consumer: BaseConsumer<Witness> = config
            .create_with_context(Witness::default())
            .map_err(|error| connection.explain(&attempt, &error, &Witness::default()))?;
        let (consumer, topic) = (Arc::new(consumer), topic.to_owned());
        let (watching, ended) = mpsc::channel();
        let watch = TopicWatch { consumer: Arc::clone(&consumer), topic: topic.clone(), _watching: watching };
        let brokers = connection.brokers.clone();
        let connection = connection.clone();
        let ask = move || {
            let mut state = State::new(vigil, Instant::now());
            while ended.recv_timeout(ASK_EVERY) == Err(RecvTimeoutError::Timeout) {
                while consumer.poll(Duration::ZERO).is_some() {}
                let answer = partitions(&consumer, &topic).map_err(|error| {
                    while consumer.poll(Duration::ZERO).is_some() {}
                    connection.understand(&error, consumer.client().context())
                });
                if answer.is_ok() {
                    consumer.client().context().forget();
                }
                match &answer {
                    Err((cause, reason)) if state.unanswered == 0 => {
                        tracing::warn!(topic, error = format!("{cause}: {reason}"), "Kafka does not answer");
                        see(Sight::Silent(format!("{cause}: {reason}")));
                    }
                    Ok(_) if state.unanswered > 0 => {
                        tracing::info!(topic, "Kafka answers again");
                        see(Sight::Answers);
                    }
                    _ => {}
                }
                match state.hear(answer, Instant::now()) {
                    Some(Sight::Lost(cause, reason)) => {
                        let (brokers, for_s) = (&connection.brokers, vigil.lost_after.as_secs_f64());
                        let why = format!("Kafka at {brokers} has not answered for {for_s} s: {cause}: {reason}");
                        return see(Sight::Lost(cause, why));
                    }
                    Some(grown) => see(grown),
                    None => {}
                }
            }
        };
        let started = std::thread::Builder::new().name("topic-watch".to_owned()).spawn(ask);
        started.map(|_| watch).map_err(|error| {
            let reason = error.to_string();
            ClientError::Failed { attempt, brokers, cause: Cause::Other, reason }
        })
    }

    /// How many partitions the topic has at this moment, if a broker says so.
    pub fn partitions(&self) -> Option<usize> {
        partitions(&self.consumer, &self.topic).ok().flatten()
    }
}

/// How many partitions a topic has; none when a broker answers without knowing.
fn partitions(consumer: &BaseConsumer<Witness>, topic: &str) -> Result<Option<usize>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT)?;
    let known = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    Ok(known.map(|topic| topic.partitions().len()))
}

/// What the answers so far amount to.
struct State {
    vigil: Vigil,
    answered: Instant,
    unanswered: u32,
    looked: Instant,
    grown: bool,
}

impl State {
    fn new(vigil: Vigil, now: Instant) -> State {
        State { vigil, answered: now, unanswered: 0, looked: now, grown: false }
    }

    /// Takes in an answer, or why there is none.
    fn hear(&mut self, answer: Result<Option<usize>, (Cause, String)>, now: Instant) -> Option<Sight> {
        let partitions = match answer {
            Ok(partitions) => partitions,
            Err((cause, reason)) => {
                self.unanswered += 1;
                let lost = now - self.answered >= self.vigil.lost_after && self.unanswered >= UNANSWERED_MIN;
                return lost.then_some(Sight::Lost(cause, reason));
            }
        };
        (self.answered, self.unanswered) = (now, 0);
        if self.grown || now - self.looked < self.vigil.check_every? {
            return None;
        }
        self.looked = now;
        let more = partitions.filter(|partitions| *partitions > self.vigil.partitions);
        self.grown = more.is_some();
        more.map(Sight::Grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_after_a_silence_and_grown_once() {
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let check_every = Some(Duration::from_secs(30));
        let vigil = Vigil { lost_after: Duration::from_secs(20), partitions: 3, check_every };
        let silence = || Err((Cause::Unreachable, "no answer".to_owned()));
        let mut state = State::new(vigil, begin);
        assert_eq!(state.hear(Ok(Some(5)), at(10)), None);
        assert_eq!(state.hear(silence(), at(20)), None);
        assert_eq!(state.hear(silence(), at(29)), None);
        // Answered: the silence is over. A topic that is unknown, or has no more than it had, has not grown.
        assert_eq!(state.hear(Ok(None), at(31)), None);
        assert_eq!(state.hear(Ok(Some(3)), at(61)), None);
        assert_eq!(state.hear(Ok(Some(5)), at(90)), None);
        assert_eq!(state.hear(Ok(Some(5)), at(91)), Some(Sight::Grown(5)));
        assert_eq!(state.hear(Ok(Some(6)), at(200)), None);
        // One unanswered question after a long time, in which this process may have been stopped, is not enough.
        assert_eq!(state.hear(silence(), at(300)), None);
        assert_eq!(state.hear(silence(), at(301)), None);
        assert_eq!(state.hear(silence(), at(302)), Some(Sight::Lost(Cause::Unreachable, "no answer".to_owned())));
        let mut bounded = State::new(Vigil { check_every: None, ..vigil }, begin);
        assert_eq!(bounded.hear(Ok(Some(5)), at(91)), None);
    }
}
