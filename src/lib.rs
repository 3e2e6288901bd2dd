//! Clicktide: real-time clickstream analytics on timely and differential dataflow.

pub mod avro;
pub mod event;
pub mod http;
pub mod idleness;
pub mod ingest;
pub mod json;
pub mod logging;
pub mod metrics;
pub mod privacy;
pub mod progress;
pub mod source;
pub mod validation;
