//! The dataflows of Clicktide, and nothing else: no Kafka, files, sockets, threads or clocks.
//!
//! [`page_analytics`] is the whole; the other modules are its parts, in the order in which an event meets them.

pub mod counters;
pub mod event;
pub mod logging;
pub mod page_analytics;
pub mod pane;
pub mod sessions;
pub mod sliding;
pub mod testing;
pub mod time;
pub mod visitors;
