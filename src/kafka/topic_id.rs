//! A topic's id, by which a topic that was deleted and made anew is told from the first (KIP-516). The safe client does not
//! offer it.

use std::ffi::{CStr, CString, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka_sys as sys;

/// The id of `topic`, base64 as Kafka's own tools print it; none where the brokers know no such ids.
///
/// # Errors
/// When the brokers do not answer within `timeout`, or not as hoped.
pub fn topic_id<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, String> {
    let name = CString::new(topic).map_err(|_| "the topic's name holds a NUL".to_owned())?;
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
        sys::rd_kafka_DescribeTopics(client, asked.topics, asked.options, asked.queue);
        let event = sys::rd_kafka_queue_poll(asked.queue, timeout_ms);
        if event.is_null() {
            return Err(format!("no answer about topic {topic:?} within {timeout_ms} ms"));
        }
        let id = id_of(event);
        sys::rd_kafka_event_destroy(event);
        id
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

/// The id in an answer.
///
/// # Safety
/// `event` must be a live event, the answer to a question for one topic.
unsafe fn id_of(event: *mut sys::rd_kafka_event_t) -> Result<Option<String>, String> {
    // SAFETY: the event is alive, and all that is read here belongs to it; texts are copied.
    unsafe {
        if sys::rd_kafka_event_error(event) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_event_error_string(event)));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("the answer is to another question".to_owned());
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count != 1 {
            return Err(format!("the answer is about {count} topics"));
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && sys::rd_kafka_error_code(error) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_error_string(error)));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let zero = id.is_null()
            || (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id)) == (0, 0);
        Ok(if zero { None } else { Some(text(sys::rd_kafka_Uuid_base64str(id))) })
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
