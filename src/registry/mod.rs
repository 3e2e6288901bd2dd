//! The schema registry: by which schema a record was written, and under which id results are published.
//!
//! ```text
//!  source of a partition ──awaits?──▶ known schemas (no lock) ── decoder ──▶ the fast path
//!          ▲                                ▲
//!          │ woken                          │ resolved into ours, once for each id
//!          └──────── the asking thread ─────┴──▶ registry (HTTP): retried until it answers
//! ```
//!
//! Records say in five bytes which schema they were written with ([`wire`](crate::avro::wire)). A schema never changes under its
//! id, so each is fetched once. As long as it can't be had, for whatever reason but that there is none, nothing can be said of the
//! record: its partition waits before it. That there is none is an answer, and is remembered for a while.
//!
//! Architecture invariant: the registry is asked on a thread of its own and when a process starts, never by an operator.

mod client;
mod known;
mod schemas;
mod subjects;
#[cfg(test)]
mod tests;

pub use client::{RegisteredSchema, Registry, RegistryError, RegistrySettings, RegistryUrls};
pub use schemas::Schemas;
pub use subjects::{Publication, Subject, SubjectNaming};
