//! People whose data can be told from all else, and their events.

use clicktide::event::ClickEvent;
use clicktide::privacy::{Domain, HashKey};
use clicktide_dataflows::event::{EventType, PageAnalytics};
use serde_json::{Value, json};

use crate::support::expected::results_of;
use crate::support::job::{BOUND_MS, Job, body, now_ms};
use crate::support::topics::Plain;

pub const PARTITIONS: i32 = 3;
pub const PEOPLE: i64 = 5;
pub const KEY: &str = "the key of this test";

/// Somebody whose data can be told from all else.
pub struct Person {
    pub user: String,
    pub session: String,
    pub email: String,
    pub token: String,
    pub password: String,
    pub fragment: String,
    pub symptoms: String,
    pub agent: String,
    pub address_v4: String,
    pub address_v6: String,
}

impl Person {
    pub fn of(n: i64) -> Person {
        Person {
            user: format!("mallory.{n}.user@mail.test"),
            session: format!("s3ss10n-of-mallory-{n}"),
            email: format!("mallory.{n}.box@mail.test"),
            token: format!("t0ken-5eb1a7e-{n}"),
            password: format!("hunter-pw-{n}"),
            fragment: format!("fragment-0dd-{n}"),
            symptoms: format!("symptoms-of-mallory-{n}"),
            agent: format!("Quirk{n}/77.1.{n}"),
            address_v4: format!("203.0.113.{}", 200 + n),
            address_v6: format!("2001:db8:85a3:{n}d3:1319:8a2e:370:734{n}"),
        }
    }

    /// All that must not be found anywhere.
    pub fn data(self) -> Vec<String> {
        let Person { user, session, email, token, password, fragment, symptoms, agent, address_v4, address_v6 } = self;
        vec![user, session, email, token, password, fragment, symptoms, agent, address_v4, address_v6]
    }
}

/// The pages of the events with this number: the URL, and its key without a query.
pub fn page(number: i64, person: &Person) -> (String, &'static str) {
    let Person { email, token, password, fragment, symptoms, .. } = person;
    match number.rem_euclid(4) {
        0 => (
            format!("https://mallory:{password}@shop.test/cart?email={email}&token={token}#{fragment}"),
            "https://shop.test/cart",
        ),
        1 => (format!("/search?q={symptoms}"), "/search"),
        2 => (format!("https://shop.test/@deals#{fragment}?{token}"), "https://shop.test/@deals"),
        _ => (format!("//{password}@shop.test/checkout?{email}"), "//shop.test/checkout"),
    }
}

/// An event, and what others may see of it.
pub fn event(number: i64, time_ms: i64) -> (ClickEvent, Value) {
    let person = Person::of(number.rem_euclid(PEOPLE));
    let (page_url, page_key) = page(number, &person);
    let v6 = number % 2 == 1;
    let event_types = [(EventType::View, "VIEW"), (EventType::Click, "CLICK"), (EventType::Purchase, "PURCHASE")];
    let (event_type, symbol) = event_types[number.rem_euclid(3) as usize];
    let key = HashKey::new(KEY).expect("a key");
    let sanitised = json!({
        "user_id": format!("{:016x}", key.hash(Domain::User, &person.user)),
        "session_id": format!("{:016x}", key.hash(Domain::Session, &person.session)),
        "event_type": symbol,
        "page_url": page_key,
        "product_id": format!("p-{}", number % 3),
        "timestamp": time_ms,
        "ip_address": if v6 { "2001:db8:85a3::" } else { "203.0.113.0" },
        "browser": "FIREFOX",
        "device": "DESKTOP",
        "referrer": "https://search.test/find",
        "session_duration": number % 7,
    });
    let Person { user, session, agent, symptoms, email, address_v4, address_v6, .. } = person;
    let event = ClickEvent {
        user_id: user,
        session_id: session,
        event_type,
        page_url,
        product_id: Some(format!("p-{}", number % 3)),
        timestamp: time_ms,
        user_agent: format!("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 {agent} Firefox/145.0"),
        ip_address: if v6 { address_v6 } else { address_v4 },
        referrer: Some(format!("https://{email}@search.test/find?q={symptoms}")),
        session_duration: Some((number % 7) as i32),
    };
    (event, sanitised)
}

/// Events of all partitions in turn from an hour ago on, one every 250 ms in each. Kept, to compute from.
pub struct Script {
    pub plain: Plain,
    pub start_ms: i64,
    /// The events that count, by their partitions.
    pub counted: Vec<Vec<ClickEvent>>,
    /// What others may see of the valid ones.
    pub sanitised: Vec<Value>,
    pub rejected: usize,
}

impl Script {
    pub fn new(brokers: &str) -> Script {
        let start_ms = Job::windows().tick_at_or_before(now_ms() - 3_600_000).0;
        let counted = vec![Vec::new(); PARTITIONS as usize];
        Script { plain: Plain::new(brokers), start_ms, counted, sanitised: Vec::new(), rejected: 0 }
    }

    /// The time of a second of it.
    pub fn at(&self, second: i64) -> i64 {
        self.start_ms + second * 1_000
    }

    /// Events that count, now and then one of them twice.
    pub fn produce(&mut self, job: &Job, seconds: std::ops::Range<i64>) {
        for time_ms in (self.at(seconds.start)..self.at(seconds.end)).step_by(250) {
            for partition in 0..PARTITIONS {
                let number = time_ms / 250 + i64::from(partition) * 7;
                let (event, sanitised) = event(number, time_ms - number % 3 * 40);
                for _ in 0..if number % 11 == 0 { 2 } else { 1 } {
                    self.plain.send(&job.events.name, partition, Some(&body(&event)));
                    self.counted[partition as usize].push(event.clone());
                    self.sanitised.push(sanitised.clone());
                }
            }
        }
        self.plain.flush();
    }

    /// Records of every kind that does not count, after seconds up to this one have been produced.
    pub fn produce_uncounted(&mut self, job: &Job, second: i64) {
        let user = Person::of(0).user;
        let valid = || event(second, self.start_ms + second * 1_000).0;
        let rejected = [
            ClickEvent { user_id: String::new(), ..valid() },
            ClickEvent { user_id: user.repeat(20), ..valid() },
            ClickEvent { session_id: Person::of(1).session.repeat(20), ..valid() },
            ClickEvent { page_url: format!("nowhere {user}"), ..valid() },
            ClickEvent { page_url: format!("/{}", user.repeat(100)), ..valid() },
            ClickEvent { timestamp: -5, ..valid() },
            ClickEvent { timestamp: now_ms() + 3_600_000, ..valid() },
            ClickEvent { session_duration: Some(-1), ..valid() },
        ];
        let undecodable = [format!("no event of {user}").into_bytes(), body(&valid())[..40].to_vec()];
        let bytes: Vec<Vec<u8>> = rejected.iter().map(body).chain(undecodable).collect();
        self.rejected += bytes.len();
        bytes.iter().for_each(|bytes| self.plain.send(&job.events.name, 0, Some(bytes)));
        // Valid, but all its windows are closed.
        let (late, sanitised) = event(second, self.at(0));
        self.plain.send(&job.events.name, 0, Some(&body(&late)));
        self.sanitised.push(sanitised);
        self.plain.flush();
    }

    /// The results of all windows that end at or before this one, computed from the events themselves.
    pub fn results(&self, through: i64) -> Vec<PageAnalytics> {
        results_of(&self.counted, Job::windows(), BOUND_MS, through).0
    }
}
