//! Clicktide: real-time clickstream analytics on timely and differential dataflow.

pub mod audit;
pub mod avro;
pub mod event;
pub mod ingest;
pub mod json;
pub mod privacy;
pub mod validation;
