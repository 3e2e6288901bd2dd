//! Clicktide: real-time clickstream analytics on timely and differential dataflow.

pub mod audit;
pub mod avro;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod committer;
pub mod config;
pub mod event;
pub mod exit;
pub mod file;
pub mod generator;
pub mod http;
pub mod idleness;
pub mod ingest;
pub mod json;
pub mod kafka;
pub mod logging;
pub mod metrics;
pub mod millis;
pub mod observe;
pub mod pipeline;
pub mod privacy;
pub mod progress;
pub mod source;
pub mod validation;
