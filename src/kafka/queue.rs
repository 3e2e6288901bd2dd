//! One partition's messages, straight from librdkafka's queue. Together with `described.rs`, the only unsafe code.
//!
//! `rd_kafka_consume_batch_queue` hands over many messages per call, borrowed, which the safe interface does not offer. A
//! queue per partition needs no group, no rebalance and no pausing: a partition that is not read is not fetched beyond its
//! prefetch limit.

use std::ffi::{CStr, CString, c_void};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka_sys as sys;

use crate::pipeline::Waker;

/// A message, or an event of the partition, borrowed from the client.
pub struct QueueMessage<'a> {
    /// The error code; no error means a record.
    pub error: sys::rd_kafka_resp_err_t,
    /// The record's offset; for the end of the partition, where that is.
    pub offset: i64,
    /// The record's timestamp, ms, if it has one.
    pub timestamp_ms: Option<i64>,
    /// The record's value, empty if it has none; the text of an error.
    pub payload: &'a [u8],
}

/// The queue of one partition that is being fetched.
pub struct PartitionQueue<C: ConsumerContext + 'static> {
    queue: *mut sys::rd_kafka_queue_t,
    topic: *mut sys::rd_kafka_topic_t,
    partition: i32,
    messages: Vec<*mut sys::rd_kafka_message_t>,
    /// Those of `messages` that were taken from the queue and not handed over yet.
    left: Range<usize>,
    /// Kept where librdkafka's callback finds it.
    waker: *mut Waker,
    /// Kept alive for the pointers above.
    _consumer: Arc<BaseConsumer<C>>,
}

/// Messages taken from the queue per call.
const BATCH: usize = 512;

impl<C: ConsumerContext + 'static> PartitionQueue<C> {
    /// Starts to fetch `partition` of `topic` from `offset` on; `waker` is called when messages come after there were none.
    ///
    /// # Errors
    /// librdkafka's text for why it can't.
    pub fn start(
        consumer: &Arc<BaseConsumer<C>>,
        topic: &str,
        partition: i32,
        offset: i64,
        waker: Waker,
    ) -> Result<Self, String> {
        let name = CString::new(topic).map_err(|_| "the topic's name holds a NUL".to_owned())?;
        let client = consumer.client().native_ptr();
        // SAFETY: the client is alive, the name is a C string, and no configuration means the client's default.
        let topic = unsafe { sys::rd_kafka_topic_new(client, name.as_ptr(), std::ptr::null_mut()) };
        if topic.is_null() {
            return Err(last_error());
        }
        // SAFETY: the client is alive.
        let queue = unsafe { sys::rd_kafka_queue_new(client) };
        let waker = Box::into_raw(Box::new(waker));
        // SAFETY: topic and queue were made above, for this client.
        let failed = unsafe { sys::rd_kafka_consume_start_queue(topic, partition, offset, queue) } != 0;
        // Built first, so that it is taken apart in any case.
        let this = PartitionQueue {
            queue,
            topic,
            partition,
            messages: vec![std::ptr::null_mut(); BATCH],
            left: 0..0,
            waker,
            _consumer: Arc::clone(consumer),
        };
        if failed {
            return Err(last_error());
        }
        // SAFETY: the queue lives until it is dropped, and the waker longer.
        unsafe { sys::rd_kafka_queue_cb_event_enable(this.queue, Some(wake), this.waker.cast::<c_void>()) };
        Ok(this)
    }

    /// Hands over at most `limit` messages that have arrived, without waiting. A message at which `each` breaks off counts as not
    /// handed over: the next call begins with it.
    pub fn consume(&mut self, limit: usize, mut each: impl FnMut(&QueueMessage<'_>) -> ControlFlow<()>) {
        let mut handed_over = 0;
        while handed_over < limit {
            let asked = BATCH.min(limit - handed_over);
            let waiting = !self.left.is_empty();
            if !waiting {
                let buffer = self.messages.as_mut_ptr();
                // SAFETY: the queue is alive and the buffer has room for as many pointers as asked for.
                let came = unsafe { sys::rd_kafka_consume_batch_queue(self.queue, 0, buffer, asked) };
                self.left = 0..usize::try_from(came).unwrap_or(0);
            }
            let came = self.left.len().min(asked);
            for _ in 0..came {
                let message = self.messages[self.left.start];
                // SAFETY: librdkafka filled in the messages that are left, which are ours until they are destroyed.
                if unsafe { each(&borrow(&*message)) }.is_break() {
                    return;
                }
                self.left.start += 1;
                // SAFETY: as above; it is not among those that are left any more.
                unsafe { sys::rd_kafka_message_destroy(message) };
            }
            handed_over += came;
            if came < asked && !waiting {
                break;
            }
        }
    }
}

/// # Safety
/// `message` must not have been destroyed.
unsafe fn borrow(message: &sys::rd_kafka_message_t) -> QueueMessage<'_> {
    let payload = if message.payload.is_null() {
        &[][..]
    } else {
        // SAFETY: librdkafka keeps `len` bytes there until the message is destroyed.
        unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) }
    };
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is alive.
    let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(message, &mut kind) };
    let known = !matches!(kind, sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE) && timestamp_ms >= 0;
    QueueMessage { error: message.err, offset: message.offset, timestamp_ms: known.then_some(timestamp_ms), payload }
}

unsafe extern "C" fn wake(_client: *mut sys::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: the pointer was made from a Waker that outlives the callback's registration.
    unsafe { &*waker.cast::<Waker>() }.wake();
}

fn last_error() -> String {
    // SAFETY: librdkafka's texts are static C strings.
    unsafe { CStr::from_ptr(sys::rd_kafka_err2str(sys::rd_kafka_last_error())) }.to_string_lossy().into_owned()
}

impl<C: ConsumerContext + 'static> Drop for PartitionQueue<C> {
    fn drop(&mut self) {
        for &message in &self.messages[self.left.clone()] {
            // SAFETY: it was taken from the queue and not destroyed yet.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
        // SAFETY: all were made by `start`; the callback is removed before what it points to.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, std::ptr::null_mut());
            sys::rd_kafka_consume_stop(self.topic, self.partition);
            sys::rd_kafka_queue_destroy(self.queue);
            sys::rd_kafka_topic_destroy(self.topic);
            drop(Box::from_raw(self.waker));
        }
    }
}
