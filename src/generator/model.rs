//! What each event is: users in sessions, as a state machine.
//!
//! ```text
//!   land ─▶ view/search ──────▶ click ──────▶ add to cart ──────▶ purchase
//!             ▲  │ ▲              │                │                  │
//!             └──┘ └──────────────┴────────────────┴──────────────────┘
//! ```
//!
//! The chain is the one whose stationary distribution is the prescribed mix: each step down the funnel has the probability
//! *share of the next step / share of this step*, and everything else leads back to browsing. A session ends where its chain next views
//! a page once its time is up: that view is the next visitor's landing. So sessions of any length leave the mix as it is.
//!
//! The rate is prescribed from outside, so a session does not decide when it acts: each event goes to one of the sessions that are
//! open, all with the same chance. How many are open is [`Settings::sessions`]; when one ends, a user who is in none takes its place.
//! In a balanced pool the partitions take turns, and sessions are followed by sessions of the same partition.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;

use super::catalogue::{self, Page, REFERRERS, User};
use super::murmur2;
use super::settings::{EventKey, Settings, SettingsError};
use crate::event::ClickEvent;
use clicktide_dataflows::event::EventType;

/// The source of events: seeded, so that the same settings and event times give the same events.
///
/// Keeps the users, pages, products and open sessions; writes an event in constant time.
#[derive(Debug)]
pub struct Model {
    rng: ChaCha8Rng,
    chain: Chain,
    catalogue: Catalogue,
    slots: Vec<Slot>,
    /// Users who are in no session, by stratum.
    resting: Vec<Vec<u32>>,
    /// The stratum of the latest event.
    stratum: usize,
    session_length_ms: (i64, i64),
    session_duration_share: f64,
    /// The hot page, by number, and the share of the views that go there.
    hot_page: Option<(u32, f64)>,
}

/// Whose event was written, and why it is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The number of the user, from 0.
    pub user: u32,
    /// Whether the session went to its page because it is hot.
    pub hot: bool,
}

/// Who and what events can be about.
#[derive(Debug)]
struct Catalogue {
    users: Vec<User>,
    pages: Vec<Page>,
    page_popularity: WeightedAliasIndex<f64>,
    product_ids: Vec<String>,
}

/// The probabilities of the state machine.
#[derive(Clone, Copy, Debug)]
struct Chain {
    click_after_view: f64,
    add_after_click: f64,
    purchase_after_add: f64,
    search_share: f64,
}

/// A place for one session after another.
#[derive(Debug)]
struct Slot {
    user: u32,
    session: Option<Session>,
}

/// A session that is going on.
#[derive(Debug)]
struct Session {
    session_id: String,
    started_ms: i64,
    /// From when on the session wants to end, event time in ms.
    until_ms: i64,
    /// Whether it has had an event since then, and so may end.
    complete: bool,
    step: EventType,
    page: u32,
    /// Whether it is there because the page is hot.
    hot: bool,
    product: Option<u32>,
    referrer: Referrer,
}

/// From where a session came to its page.
#[derive(Clone, Copy, Debug)]
enum Referrer {
    External(Option<&'static str>),
    Page(u32),
}

impl Model {
    /// Makes all users, pages and products.
    ///
    /// # Errors
    ///
    /// Where the settings are not valid.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        settings.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let catalogue = Catalogue {
            users: catalogue::users(settings, &mut rng),
            pages: catalogue::pages(settings),
            page_popularity: zipf(settings.pages, settings.zipf_exponent)?,
            product_ids: catalogue::product_ids(settings),
        };
        // Slot i and user i belong to stratum i % strata, so that every stratum has as many slots.
        let sessions = settings.sessions();
        let slots = (0..sessions).map(|user| Slot { user, session: None }).collect();
        let mut resting = vec![Vec::new(); settings.strata() as usize];
        for user in sessions..settings.users {
            resting[(user % settings.strata()) as usize].push(user);
        }
        Ok(Model {
            rng,
            chain: Chain::new(settings),
            catalogue,
            slots,
            resting,
            stratum: 0,
            session_length_ms: (settings.session_length_min.0, settings.session_length_max.0),
            session_duration_share: settings.session_duration_share,
            hot_page: None,
        })
    }

    /// From now on, this share of the views goes to the page of this number (from 0); none: every page has what its rank gives it.
    pub fn set_hot_page(&mut self, hot_page: Option<(u32, f64)>) {
        self.hot_page = hot_page;
    }

    /// What share of the events the hash of the keys gives to each partition in the long run: users are alike, pages as popular as
    /// they are.
    pub fn shares_by_hash(settings: &Settings, partitions: u32) -> Vec<f64> {
        let mut shares = vec![0.0; partitions as usize];
        let mut add =
            |key: &str, weight: f64| shares[murmur2::partition(key.as_bytes(), partitions) as usize] += weight;
        match settings.key {
            EventKey::UserId => {
                let users = catalogue::user_ids(settings);
                users.iter().for_each(|user_id| add(user_id, 1.0 / users.len() as f64));
            }
            EventKey::PageUrl => {
                let weights: Vec<f64> = zipf_weights(settings.pages, settings.zipf_exponent).collect();
                let sum: f64 = weights.iter().sum();
                for (page, weight) in catalogue::pages(settings).iter().zip(weights) {
                    add(&page.page_url, weight / sum);
                }
            }
        }
        shares
    }

    /// The pages of the site.
    pub(super) fn pages(&self) -> &[Page] {
        &self.catalogue.pages
    }

    /// An event with nothing in it, for [`Model::write_next`] to write into.
    pub fn blank_event() -> ClickEvent {
        ClickEvent {
            user_id: String::new(),
            session_id: String::new(),
            event_type: EventType::View,
            page_url: String::new(),
            product_id: None,
            timestamp: 0,
            user_agent: String::new(),
            ip_address: String::new(),
            referrer: None,
            session_duration: None,
        }
    }

    /// Writes the next event, at `timestamp` (event time, ms), over `event`, whose memory is used again.
    ///
    /// Timestamps must not go back from call to call.
    pub fn write_next(&mut self, timestamp: i64, event: &mut ClickEvent) -> Visit {
        let slot = self.pick_slot();
        self.advance(slot, timestamp);
        let Model { catalogue, slots, rng, .. } = self;
        let number = slots[slot].user;
        let user = &catalogue.users[number as usize];
        let Some(session) = &mut slots[slot].session else { return Visit { user: number, hot: false } };
        session.complete |= timestamp >= session.until_ms;

        event.event_type = session.step;
        event.timestamp = timestamp;
        overwrite(&mut event.user_id, &user.user_id);
        overwrite(&mut event.user_agent, user.user_agent);
        overwrite(&mut event.ip_address, &user.ip_address);
        overwrite(&mut event.session_id, &session.session_id);
        overwrite(&mut event.page_url, &catalogue.pages[session.page as usize].page_url);
        let referrer = match session.referrer {
            Referrer::External(referrer) => referrer,
            Referrer::Page(page) => Some(catalogue.pages[page as usize].page_url.as_str()),
        };
        overwrite_option(&mut event.referrer, referrer);
        let product = if session.step == EventType::Search { None } else { session.product };
        overwrite_option(
            &mut event.product_id,
            product.map(|product| catalogue.product_ids[product as usize].as_str()),
        );
        let elapsed_s = ((timestamp - session.started_ms) / 1_000) as i32;
        event.session_duration = rng.random_bool(self.session_duration_share).then_some(elapsed_s);
        Visit { user: number, hot: session.hot }
    }

    /// Picks any slot, of the strata in turn: chance alone would unbalance a short run by more than it may be.
    fn pick_slot(&mut self) -> usize {
        let strata = self.resting.len();
        self.stratum = (self.stratum + 1) % strata;
        self.rng.random_range(0..(self.slots.len() / strata) as u32) as usize * strata + self.stratum
    }

    /// Takes a slot's session one step further, or starts the next one.
    fn advance(&mut self, slot: usize, timestamp: i64) {
        let Model { rng, chain, catalogue, slots, hot_page, .. } = self;
        let Some(session) = &mut slots[slot].session else { return self.land(slot, timestamp) };
        let step = chain.step(session.step, rng);
        let overdue = timestamp - session.started_ms > self.session_length_ms.1;
        if overdue || (session.complete && step == EventType::View) {
            return self.land(slot, timestamp);
        }
        session.step = step;
        match step {
            EventType::View => {
                session.referrer = Referrer::Page(session.page);
                (session.page, session.hot) = catalogue.choose_page(*hot_page, rng);
                session.product = catalogue.pages[session.page as usize].product;
            }
            // On a page that is about no product in particular, the click chooses one.
            EventType::Click => {
                let product = catalogue.pages[session.page as usize].product;
                session.product = product.or_else(|| Some(rng.random_range(0..catalogue.product_ids.len() as u32)));
            }
            EventType::AddToCart | EventType::Purchase | EventType::Search => {}
        }
    }

    /// Starts a new session in a slot, by a user who is in none.
    fn land(&mut self, slot: usize, timestamp: i64) {
        let Model { rng, catalogue, slots, resting, session_length_ms, hot_page, .. } = self;
        let stratum = slot % resting.len();
        let Slot { user, session } = &mut slots[slot];
        let resting = &mut resting[stratum];
        // Before its first session a slot has its first user already, who must have a turn too.
        if session.is_some() && !resting.is_empty() {
            let next = rng.random_range(0..resting.len() as u32) as usize;
            std::mem::swap(user, &mut resting[next]);
        }
        let (page, hot) = catalogue.choose_page(*hot_page, rng);
        let (min_ms, max_ms) = *session_length_ms;
        *session = Some(Session {
            // With the time in it, a run with the same seed at another time has other sessions.
            session_id: format!("session-{user:x}-{timestamp:x}"),
            started_ms: timestamp,
            until_ms: timestamp + rng.random_range(min_ms..=max_ms),
            complete: false,
            step: EventType::View,
            page,
            hot,
            product: catalogue.pages[page as usize].product,
            referrer: Referrer::External(REFERRERS[rng.random_range(0..REFERRERS.len() as u32) as usize]),
        });
    }
}

impl Catalogue {
    /// A page, and whether it was chosen because it is hot.
    fn choose_page(&self, hot_page: Option<(u32, f64)>, rng: &mut ChaCha8Rng) -> (u32, bool) {
        match hot_page {
            Some((page, share)) if rng.random_bool(share) => (page, true),
            _ => (self.page_popularity.sample(rng) as u32, false),
        }
    }
}

impl Chain {
    fn new(settings: &Settings) -> Self {
        let mix = &settings.mix;
        // Rounding must not take a probability above 1.
        let ratio = |next: f64, this: f64| if this > 0.0 { (next / this).min(1.0) } else { 0.0 };
        Chain {
            click_after_view: ratio(mix.clicks, mix.views),
            add_after_click: ratio(mix.add_to_cart, mix.clicks),
            purchase_after_add: ratio(mix.purchases, mix.add_to_cart),
            search_share: settings.search_share,
        }
    }

    fn step(&self, from: EventType, rng: &mut ChaCha8Rng) -> EventType {
        let (down, chance) = match from {
            EventType::View | EventType::Search => (EventType::Click, self.click_after_view),
            EventType::Click => (EventType::AddToCart, self.add_after_click),
            EventType::AddToCart => (EventType::Purchase, self.purchase_after_add),
            EventType::Purchase => (EventType::View, 0.0),
        };
        if rng.random_bool(chance) {
            down
        } else if rng.random_bool(self.search_share) {
            EventType::Search
        } else {
            EventType::View
        }
    }
}

/// Ranks from 0, each in proportion to `(rank + 1)^-exponent`.
fn zipf(ranks: u32, exponent: f64) -> Result<WeightedAliasIndex<f64>, SettingsError> {
    WeightedAliasIndex::new(zipf_weights(ranks, exponent).collect()).map_err(|error| SettingsError {
        key: "zipf_exponent",
        value: exponent.to_string(),
        expected: format!("such that pages can be weighted by it ({error})"),
    })
}

fn zipf_weights(ranks: u32, exponent: f64) -> impl Iterator<Item = f64> {
    (1..=ranks).map(move |rank| f64::from(rank).powf(-exponent))
}

pub(super) fn overwrite(text: &mut String, with: &str) {
    text.clear();
    text.push_str(with);
}

pub(super) fn overwrite_option(text: &mut Option<String>, with: Option<&str>) {
    match with {
        Some(with) => overwrite(text.get_or_insert_default(), with),
        None => *text = None,
    }
}

#[cfg(test)]
mod tests;
