//! The companion generator: realistic synthetic traffic at a prescribed rate.
//!
//! ```text
//!  Settings ─▶ schedule: when event i is due ──┐
//!           └▶ model: what event i is ─────────┴▶ run ──ClickEvent──▶ SendEvent (Kafka, memory)
//!                                                  ▲                       │
//!                                                  └───── Deliveries ──────┘
//! ```
//!
//! The load is open-loop: the schedule follows from the settings alone, so a slow broker makes the generator late, never slower.
//! How late is the schedule lag, which every [`report::Progress`] and the [`report::Summary`] state.
//!
//! Events are a function of the seed, the settings and the time the run starts: the same three give the same events.
//!
//! Architecture invariant: nothing here knows Kafka. Where events go is behind [`send::SendEvent`], what time it is behind [`clock::Clock`].

pub mod settings;

pub mod schedule;

pub mod model;

mod catalogue;

pub mod murmur2;

pub mod send;

pub mod clock;

pub mod latency;

pub mod report;

pub mod run;

pub mod versions;

pub use model::Model;
pub use report::{Progress, Summary};
pub use run::run;
pub use schedule::Schedule;
pub use send::SendEvent;
pub use settings::Settings;
