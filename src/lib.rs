//! Clicktide: real-time clickstream analytics on timely and differential dataflow.

pub mod event;
pub mod generator;
pub mod kafka;
