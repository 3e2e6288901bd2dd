//! Bots: few users, very many events, one session each, views and nothing else.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::catalogue::Page;
use super::model::{overwrite, overwrite_option};
use super::settings;
use crate::event::ClickEvent;
use clicktide_dataflows::event::EventType;

/// The bots of a run. Each walks through the pages in turn, as a crawler does.
#[derive(Debug)]
pub(super) struct Bots {
    bots: Vec<Bot>,
}

#[derive(Debug)]
struct Bot {
    user_id: String,
    session_id: String,
    ip_address: String,
    next_page: usize,
}

const USER_AGENT: &str = "Mozilla/5.0 (compatible; ExampleBot/2.1; +https://bot.example.org/about)";

impl Bots {
    /// The bots of a run that starts at `start_ms`, ms since the epoch.
    pub fn new(settings: &settings::Bots, start_ms: i64) -> Self {
        let bot = |number: u32| Bot {
            user_id: format!("bot-{number:04}"),
            session_id: format!("session-bot-{number:x}-{start_ms:x}"),
            // Set aside for documentation (RFC 5737).
            ip_address: format!("203.0.113.{}", number % 254 + 1),
            next_page: number as usize,
        };
        Bots { bots: (0..settings.count).map(bot).collect() }
    }

    /// Writes an event of one of them, at `timestamp` (ms), over `event`.
    pub fn write_next(&mut self, rng: &mut ChaCha8Rng, pages: &[Page], timestamp: i64, event: &mut ClickEvent) {
        let number = rng.random_range(0..self.bots.len() as u32) as usize;
        let bot = &mut self.bots[number];
        let page = &pages[bot.next_page % pages.len()];
        bot.next_page = (bot.next_page + 1) % pages.len();
        event.event_type = EventType::View;
        event.timestamp = timestamp;
        event.session_duration = None;
        overwrite(&mut event.user_id, &bot.user_id);
        overwrite(&mut event.session_id, &bot.session_id);
        overwrite(&mut event.page_url, &page.page_url);
        overwrite(&mut event.user_agent, USER_AGENT);
        overwrite(&mut event.ip_address, &bot.ip_address);
        overwrite_option(&mut event.referrer, None);
        overwrite_option(&mut event.product_id, None);
    }
}
