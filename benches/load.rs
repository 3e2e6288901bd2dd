//! The loads that the benchmarks of the dataflow run on: events that are decoded, hashed and judged already.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::hash::BuildHasher;

use clap::{Args, ValueEnum};
use clicktide_dataflows::event::{Activity, EventType, PageId};
use clicktide_dataflows::time::{Judgement, PartitionClock, Tick, Windows, WindowsError};
use foldhash::fast::FixedState;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};

/// The events of one partition in log order, judged and hashed.
#[derive(Default)]
pub struct Log {
    /// The events that are not late.
    pub activities: Vec<Activity>,
    /// Where the watermark passes window ends: the number of activities before, and the first open tick from there on.
    pub opens: Vec<(usize, Tick)>,
}

/// What the events are like.
#[derive(Args, Clone)]
pub struct Load {
    /// Events to generate.
    #[arg(long, default_value_t = 2_000_000)]
    pub events: usize,
    /// Events per second of event time.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// Pages.
    #[arg(long, default_value_t = 100)]
    pub pages: u64,
    /// Users, in sessions of 15 to 45 minutes.
    #[arg(long, default_value_t = 1_000)]
    pub users: u64,
    /// How popular pages are.
    #[arg(long, value_enum, default_value_t = Popularity::Zipf)]
    pub popularity: Popularity,
    /// Share of events that are up to 40 s older than the log's latest.
    #[arg(long, default_value_t = 0.05)]
    pub disorder: f64,
    /// Bound on disorder, ms.
    #[arg(long, default_value_t = 30_000)]
    pub bound: i64,
    /// Window size, ms.
    #[arg(long, default_value_t = 300_000)]
    pub size: i64,
    /// Window slide, ms.
    #[arg(long, default_value_t = 10_000)]
    pub slide: i64,
    /// Seed of the generator.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// How popular pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Popularity {
    /// By rank, exponent 1.
    Zipf,
    /// All alike.
    Uniform,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load { events, rate, pages, users, popularity, disorder, bound, size, slide, seed } = self;
        write!(
            f,
            "{events} events, {rate} a second; {pages} pages ({popularity:?}), {users} users; {disorder} out of order, bound \
             {bound} ms; windows of {size} ms every {slide} ms; seed {seed}"
        )
    }
}

impl Load {
    /// The windows that the events are judged for.
    pub fn windows(&self) -> Result<Windows, WindowsError> {
        Windows::new(self.size, self.slide, 0)
    }

    /// Events of one partition: users in sessions of 15 to 45 minutes, pages by popularity, one event after the other at a
    /// steady rate, some of them late or out of order. Every other session reports its duration, on half of its events.
    pub fn generate(&self, windows: &Windows) -> Result<(Log, HashMap<PageId, String>), Box<dyn Error>> {
        const START_MS: i64 = 1_700_000_000_000;
        let hash = FixedState::default();
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let zipf = Zipf::new(self.pages as f64, 1.0)?;
        let mut names = HashMap::new();
        for page in 0..self.pages {
            names.insert(hash.hash_one(("page", page)), format!("https://shop.example/products/{page:05}"));
        }
        // Of every user: the session's number, start and end.
        let mut sessions: Vec<(u64, i64, i64)> = vec![(0, 0, 0); self.users as usize];
        let mut log = Log::default();
        let mut clock = PartitionClock::default();
        for event in 0..self.events {
            let now_ms = START_MS + (event as u64 * 1_000 / self.rate) as i64;
            let user = random.random_range(0..self.users);
            let page = match self.popularity {
                Popularity::Zipf => zipf.sample(&mut random) as u64 - 1,
                Popularity::Uniform => random.random_range(0..self.pages),
            };
            let (number, start_ms, end_ms) = &mut sessions[user as usize];
            if now_ms >= *end_ms {
                let length_ms = random.random_range(15 * 60_000..45 * 60_000);
                // Sessions are under way when the log begins.
                let begun_ms = if *number == 0 { random.random_range(0..length_ms) } else { 0 };
                (*number, *start_ms, *end_ms) = (*number + 1, now_ms - begun_ms, now_ms - begun_ms + length_ms);
            }
            let time_ms =
                if random.random_bool(self.disorder) { now_ms - random.random_range(0..40_000) } else { now_ms };
            let reports = *number % 2 == 0 && random.random_bool(0.5);
            let event_type = match random.random_range(0..100) {
                0..70 => EventType::View,
                70..90 => EventType::Click,
                90..97 => EventType::AddToCart,
                _ => EventType::Purchase,
            };
            if let Judgement::Counts { enter, leave } = clock.judge(windows, self.bound, time_ms, None) {
                log.activities.push(Activity {
                    enter,
                    leave,
                    page: hash.hash_one(("page", page)),
                    user: hash.hash_one(("user", user)),
                    session: hash.hash_one(("session", user, *number)),
                    event_type,
                    session_duration_s: reports.then_some(((time_ms - *start_ms).max(0) / 1_000) as i32),
                    time_ms,
                });
            }
            let open = clock.open_tick(windows, self.bound);
            if log.opens.last().is_none_or(|(_, last)| *last < open) {
                log.opens.push((log.activities.len(), open));
            }
        }
        Ok((log, names))
    }
}
