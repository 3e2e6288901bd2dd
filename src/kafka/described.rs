//! What the brokers tell of a topic beside its partitions: its id, by which a topic that was deleted and made anew is told from
//! the first (KIP-516), and what the Kafka user may do with it (KIP-430). The safe client does not offer it.

use std::ffi::{CStr, CString, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

/// A topic as the brokers describe it to this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its id, base64 as Kafka's own tools print it; none where the brokers know no such ids.
    pub id: Option<String>,
    /// Whether the user may read it, so far as the brokers tell such things.
    pub read: bool,
    /// Whether the user may write to it, so far as the brokers tell such things.
    pub write: bool,
    /// Whether the user may see how it is configured, so far as the brokers tell such things.
    pub describe_configs: bool,
}

/// Why a topic is not described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undescribed {
    /// The brokers refuse.
    Refused(RDKafkaErrorCode),
    /// The brokers do not answer in time, or not as hoped.
    Unanswered(String),
}

/// Describes `topic`.
///
/// # Errors
/// See [`Undescribed`].
pub fn describe_topic<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Described, Undescribed> {
    let name = CString::new(topic).map_err(|_| Undescribed::Unanswered("the topic's name holds a NUL".to_owned()))?;
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let client = client.client().native_ptr();
    let mut names = [name.as_ptr()];
    // SAFETY: the client is alive until this function returns, and so are the name and everything made here, each of
    // which is destroyed once, in `Asked`'s drop; librdkafka copies the names. The event is polled from a queue of our own.
    unsafe {
        let asked = Asked {
            topics: sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            options: sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            queue: sys::rd_kafka_queue_new(client),
        };
        sys::rd_kafka_AdminOptions_set_request_timeout(asked.options, timeout_ms, ptr::null_mut(), 0);
        let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(asked.options, 1);
        if !error.is_null() {
            sys::rd_kafka_error_destroy(error);
        }
        sys::rd_kafka_DescribeTopics(client, asked.topics, asked.options, asked.queue);
        let event = sys::rd_kafka_queue_poll(asked.queue, timeout_ms);
        if event.is_null() {
            return Err(Undescribed::Unanswered(format!("no answer about topic {topic:?} within {timeout_ms} ms")));
        }
        let described = described(event);
        sys::rd_kafka_event_destroy(event);
        described
    }
}

/// What a question needs as long as it is open.
struct Asked {
    topics: *mut sys::rd_kafka_TopicCollection_t,
    options: *mut sys::rd_kafka_AdminOptions_t,
    queue: *mut sys::rd_kafka_queue_t,
}

impl Drop for Asked {
    fn drop(&mut self) {
        // SAFETY: each was made for this value alone, and the client they belong to is alive.
        unsafe {
            sys::rd_kafka_queue_destroy(self.queue);
            sys::rd_kafka_AdminOptions_destroy(self.options);
            sys::rd_kafka_TopicCollection_destroy(self.topics);
        }
    }
}

/// The one topic of an answer.
///
/// # Safety
/// `event` must be a live event, the answer to a question for one topic.
unsafe fn described(event: *mut sys::rd_kafka_event_t) -> Result<Described, Undescribed> {
    use sys::rd_kafka_AclOperation_t::{
        RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS as DESCRIBE_CONFIGS, RD_KAFKA_ACL_OPERATION_READ as READ,
        RD_KAFKA_ACL_OPERATION_WRITE as WRITE,
    };
    const NONE: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: the event is alive, and all that is read here belongs to it; texts are copied.
    unsafe {
        if sys::rd_kafka_event_error(event) != NONE {
            return Err(Undescribed::Unanswered(text(sys::rd_kafka_event_error_string(event))));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(Undescribed::Unanswered("the answer is to another question".to_owned()));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count != 1 {
            return Err(Undescribed::Unanswered(format!("the answer is about {count} topics")));
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && sys::rd_kafka_error_code(error) != NONE {
            return Err(Undescribed::Refused(sys::rd_kafka_error_code(error).into()));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let zero = id.is_null()
            || (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id)) == (0, 0);
        // As numbers: a broker may know operations that this enumeration does not.
        let operations = sys::rd_kafka_TopicDescription_authorized_operations(topic, &mut count).cast::<c_int>();
        let operations = if operations.is_null() { &[][..] } else { std::slice::from_raw_parts(operations, count) };
        // Whoever is told anything may describe the topic at least.
        let may = |operation| operations.is_empty() || operations.contains(&(operation as c_int));
        Ok(Described {
            id: if zero { None } else { Some(text(sys::rd_kafka_Uuid_base64str(id))) },
            read: may(READ),
            write: may(WRITE),
            describe_configs: may(DESCRIBE_CONFIGS),
        })
    }
}

/// A copy of a C string.
///
/// # Safety
/// `text` must be null or a C string.
unsafe fn text(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, so a C string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
