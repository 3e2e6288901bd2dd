//! The companion generator: realistic synthetic traffic at a prescribed rate.
//!
//! ```text
//!  Settings ─▶ schedule: when event i happens ─┐
//!           └▶ model: what event i is ─────────┴▶ traffic: faults and what is on its way ─▶ run ──event, form──▶ SendEvent
//!                                                                                            ▲                     │
//!                                                        truth ◀── what arrived where ───────┴──── Deliveries ◀────┘
//! ```
//!
//! The load is open-loop: the schedule follows from the settings alone, so a slow broker makes the generator late, never slower.
//! How late is the schedule lag, which every [`report::Progress`] and the [`report::Summary`] state.
//!
//! Events are a function of the seed, the settings and the time the run starts: the same three give the same events.
//!
//! Architecture invariant: nothing here knows Kafka. Where events go is behind [`send::SendEvent`], what time it is behind [`clock::Clock`].

pub mod settings;

pub mod scenario;

pub mod schedule;

pub mod model;

mod catalogue;

mod spells;

mod bots;

mod faults;

pub mod form;

pub mod injected;

pub mod traffic;

pub mod murmur2;

pub mod send;

pub mod clock;

pub mod latency;

pub mod report;

pub mod run;

pub mod versions;

pub mod truth;

pub mod lines;

pub use model::Model;
pub use report::{Progress, Summary};
pub use run::run;
pub use scenario::Scenario;
pub use schedule::Schedule;
pub use send::SendEvent;
pub use settings::Settings;
pub use traffic::Traffic;
