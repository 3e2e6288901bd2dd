//! Who and what there is: users with their browsers and addresses, pages, products. Made once; events are written from it.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::murmur2;
use super::settings::Settings;

/// A user, the same in all sessions.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub user_id: String,
    pub user_agent: &'static str,
    pub ip_address: String,
}

/// A page of the site.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub page_url: String,
    /// The product that the page is about, by number; none for the home page and categories.
    pub product: Option<u32>,
}

/// Where visitors come from, most often from nowhere that is known.
pub(super) const REFERRERS: [Option<&str>; 8] = [
    None,
    None,
    None,
    Some("https://www.google.com/"),
    Some("https://www.google.com/"),
    Some("https://www.bing.com/"),
    Some("https://duckduckgo.com/"),
    Some("https://news.example.org/deals"),
];

const USER_AGENTS: [&str; 8] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (iPad; CPU OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1",
];

/// The users of a pool. User `i` belongs to stratum `i % strata`; in a balanced pool that is the partition of its id.
pub(super) fn users(settings: &Settings, rng: &mut ChaCha8Rng) -> Vec<User> {
    user_ids(settings)
        .into_iter()
        .map(|user_id| User {
            user_id,
            user_agent: USER_AGENTS[rng.random_range(0..USER_AGENTS.len())],
            ip_address: ip_address(rng),
        })
        .collect()
}

/// The ids of the users of a pool.
pub(super) fn user_ids(settings: &Settings) -> Vec<String> {
    match settings.balanced_partitions {
        Some(partitions) => balanced_user_ids(settings.users, partitions),
        None => (0..settings.users).map(user_id).collect(),
    }
}

/// The pages of the site, most popular first.
pub(super) fn pages(settings: &Settings) -> Vec<Page> {
    let page = |number: u32| match number {
        0 => Page { page_url: "https://shop.example.com/".to_owned(), product: None },
        _ if number.is_multiple_of(5) => {
            Page { page_url: format!("https://shop.example.com/categories/{number}"), product: None }
        }
        _ => Page {
            page_url: format!("https://shop.example.com/products/{number}"),
            product: Some(number % settings.products),
        },
    };
    (0..settings.pages).map(page).collect()
}

/// The ids of the products, by number.
pub(super) fn product_ids(settings: &Settings) -> Vec<String> {
    (0..settings.products).map(|number| format!("product-{number:05}")).collect()
}

fn user_id(number: u32) -> String {
    format!("user-{number:06}")
}

/// Ids of which number `i` hashes to partition `i % partitions`.
///
/// Candidates are taken in turn and kept while their partition still lacks users: about `users` tries, since the hash spreads well.
fn balanced_user_ids(users: u32, partitions: u32) -> Vec<String> {
    let mut user_ids = vec![String::new(); users as usize];
    let mut next_of_partition: Vec<u32> = (0..partitions).collect();
    let mut missing = users;
    for candidate in (0..).map(user_id) {
        if missing == 0 {
            break;
        }
        let next = &mut next_of_partition[murmur2::partition(candidate.as_bytes(), partitions) as usize];
        if *next < users {
            user_ids[*next as usize] = candidate;
            *next += partitions;
            missing -= 1;
        }
    }
    user_ids
}

/// An address that belongs to nobody: private (RFC 1918), or set aside for documentation (RFC 5737, RFC 3849).
fn ip_address(rng: &mut ChaCha8Rng) -> String {
    let host: u8 = rng.random_range(1..=254);
    match rng.random_range(0..10) {
        0..5 => format!("10.{}.{}.{host}", rng.random::<u8>(), rng.random::<u8>()),
        5 => format!("192.0.2.{host}"),
        6 => format!("198.51.100.{host}"),
        7 => format!("203.0.113.{host}"),
        _ => format!("2001:db8:{:x}:{:x}::{host:x}", rng.random::<u16>(), rng.random::<u16>()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn balanced_ids_are_distinct_and_spread_evenly() {
        let check = |users: u32, partitions: u32| {
            let user_ids = balanced_user_ids(users, partitions);
            assert_eq!(user_ids.iter().collect::<HashSet<_>>().len(), users as usize);
            for (i, user_id) in user_ids.iter().enumerate() {
                assert_eq!(murmur2::partition(user_id.as_bytes(), partitions), i as u32 % partitions, "{user_id}");
            }
        };
        check(1_000, 6);
        check(1_000, 1);
        check(1_000, 12);
        check(120, 12);
        check(10_000, 3);
    }
}
