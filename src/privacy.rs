//! What remains of personal data after ingestion: keyed hashes of ids, and as much of a URL as is the page; and what others may
//! see of a whole event.

mod address;
mod sanitise;
mod user_agent;

use std::borrow::Cow;
use std::fmt;

pub use address::network;
pub use sanitise::{IdHash, SanitisedEvent, Sanitiser};
pub use user_agent::{Browser, Device, UserAgent};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use siphasher::sip128;

use crate::words;

/// The kinds of things that are hashed. Equal texts of two kinds have unrelated hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// User ids.
    User,
    /// Session ids.
    Session,
    /// Pages.
    Page,
}

/// The secret that turns ids into hashes: with another one, none of them can be linked.
///
/// SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF") under one 128-bit key per [`Domain`], each
/// derived from the secret key. Neither `Debug` nor anything else shows the key.
#[derive(Clone)]
pub struct HashKey {
    user: SipHasher13,
    session: SipHasher13,
    page: SipHasher13,
    payload: sip128::SipHasher13,
    fingerprint: u64,
}

/// The text of a hash key is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hash key is empty; give 32 hexadecimal digits, or any secret text")]
pub struct EmptyHashKey;

impl HashKey {
    /// The key that `secret` stands for: 32 hexadecimal digits are the 128 bits themselves, any other text is hashed to as
    /// many. White space around it, such as the end of a file's line, is no part of it.
    ///
    /// # Errors
    /// When nothing is left of `secret`.
    ///
    /// ```
    /// use clicktide::privacy::{Domain, HashKey};
    ///
    /// let key = HashKey::new("a long and secret sentence\n").unwrap();
    /// assert_eq!(key.hash(Domain::User, "u1"), key.hash(Domain::User, "u1"));
    /// assert_ne!(key.hash(Domain::User, "u1"), key.hash(Domain::Session, "u1"));
    /// assert!(HashKey::new(" \n").is_err());
    /// ```
    pub fn new(secret: &str) -> Result<Self, EmptyHashKey> {
        let secret = secret.trim();
        if secret.is_empty() {
            return Err(EmptyHashKey);
        }
        let is_key = secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = is_key.then(|| u128::from_str_radix(secret, 16).ok()).flatten();
        Ok(Self::from_bits(key.unwrap_or_else(|| {
            // Any fixed key will do here: the secret is in the text.
            sip128::SipHasher24::new_with_key(b"clicktide secret").hash(secret.as_bytes()).as_u128()
        })))
    }

    fn from_bits(key: u128) -> Self {
        // Everything that follows comes from the key through SipHash-2-4, so that none of it tells the key or each other.
        let derive =
            |purpose: &str| sip128::SipHasher24::new_with_key(&key.to_be_bytes()).hash(purpose.as_bytes()).as_u64();
        let hasher = |purpose| {
            let (low, high) = derive(purpose);
            SipHasher13::new_with_keys(low, high)
        };
        Self {
            user: hasher("user"),
            session: hasher("session"),
            page: hasher("page"),
            payload: {
                let (low, high) = derive("payload");
                sip128::SipHasher13::new_with_keys(low, high)
            },
            fingerprint: derive("fingerprint").0,
        }
    }

    /// The hash of `text` in `domain`. The same key gives the same hashes on every machine and in every version.
    #[inline]
    pub fn hash(&self, domain: Domain, text: &str) -> u64 {
        let hasher = match domain {
            Domain::User => &self.user,
            Domain::Session => &self.session,
            Domain::Page => &self.page,
        };
        hasher.hash(text.as_bytes())
    }

    /// What a payload is known by among others: SipHash-1-3 with 128 bits. Whoever does not know the key finds no two payloads
    /// of the same digest; it is kept in memory alone.
    #[inline]
    pub fn digest(&self, payload: &[u8]) -> u128 {
        self.payload.hash(payload).as_u128()
    }

    /// Sixteen hexadecimal digits that tell whether two keys are the same, and nothing else about them: what progress
    /// records store.
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", self.fingerprint)
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashKey(fingerprint {})", self.fingerprint())
    }
}

/// How much of a URL is the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageKey {
    /// All of it.
    #[default]
    Full,
    /// Without its query and fragment, which carry addresses, tokens and campaign ids, and without user information (`user:password@`).
    NoQuery,
    /// Only its path: without scheme and host as well.
    Path,
}

impl PageKey {
    /// The page of a valid `page_url`, borrowed from it but where user information stands in the middle of it.
    ///
    /// ```
    /// use clicktide::privacy::PageKey;
    ///
    /// assert_eq!(PageKey::NoQuery.apply("https://shop.example/cart?id=7#top"), "https://shop.example/cart");
    /// assert_eq!(PageKey::Path.apply("https://shop.example/cart?id=7#top"), "/cart");
    /// assert_eq!(PageKey::Path.apply("https://shop.example"), "/");
    /// ```
    #[inline]
    pub fn apply<'a>(&self, page_url: &'a str) -> Cow<'a, str> {
        match self {
            Self::Full => Cow::Borrowed(page_url),
            Self::NoQuery => without_query(page_url),
            Self::Path => path(page_url),
        }
    }
}

#[inline]
fn without_query(page_url: &str) -> Cow<'_, str> {
    // One pass without branches settles the usual case, in which there is nothing to cut off.
    let of = |word, byte| words::zeros(word ^ words::repeat(byte));
    if !words::any(page_url.as_bytes(), |word| of(word, b'?') | of(word, b'#') | of(word, b'@')) {
        return Cow::Borrowed(page_url);
    }
    let end = page_url.find(['?', '#']);
    without_user_information(&page_url[..end.unwrap_or(page_url.len())])
}

/// Without what stands before the last `@` of the host (RFC 3986, section 3.2.1).
fn without_user_information(page_url: &str) -> Cow<'_, str> {
    let begins = page_url.find("//").map(|slashes| slashes + 2);
    // A path may hold slashes one after the other, too.
    let begins = begins.filter(|begins| matches!(&page_url[..*begins], "https://" | "http://" | "//"));
    let Some(begins) = begins else { return Cow::Borrowed(page_url) };
    let (scheme, rest) = page_url.split_at(begins);
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => Cow::Owned([scheme, &rest[at + 1..]].concat()),
        None => Cow::Borrowed(page_url),
    }
}

fn path(page_url: &str) -> Cow<'_, str> {
    let path = |page: &str| {
        let after_scheme = page.strip_prefix("https://").or_else(|| page.strip_prefix("http://"));
        after_scheme.map_or(0, |rest| page.len() - rest.len() + rest.find('/').unwrap_or(rest.len()))
    };
    let page = match without_query(page_url) {
        Cow::Borrowed(page) => Cow::Borrowed(&page[path(page)..]),
        Cow::Owned(page) => Cow::Owned(page[path(&page)..].to_owned()),
    };
    if page.is_empty() { Cow::Borrowed("/") } else { page }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn hashes_are_those_of_every_version() {
        // A change of these numbers would part every running job from its own past. They were also computed by another
        // implementation of SipHash.
        let key = HashKey::new(KEY).unwrap();
        let hashes = [Domain::User, Domain::Session, Domain::Page].map(|domain| key.hash(domain, "/page/00001"));
        assert_eq!(hashes, [9787349201580639999, 7580512052975594609, 3980526534576229516]);
        assert_eq!(key.fingerprint(), "495e5d19e13ad22c");
        assert_eq!(HashKey::new("secret").unwrap().fingerprint(), "6c319e0455a5999d");
    }

    #[test]
    fn keys() {
        let fingerprint = |secret: &str| HashKey::new(secret).map(|key| key.fingerprint());
        assert_eq!(fingerprint(""), Err(EmptyHashKey));
        assert_eq!(fingerprint("\t \n"), Err(EmptyHashKey));
        assert_eq!(fingerprint(KEY), fingerprint(&format!(" {}\n", KEY.to_uppercase())));
        assert_ne!(fingerprint(KEY), fingerprint(&KEY[1..]));
        // A sign is no digit, though the standard parser takes one.
        assert_ne!(fingerprint(&format!("+{}", &KEY[1..])), fingerprint(&format!("0{}", &KEY[1..])));
        assert_ne!(fingerprint("a"), fingerprint("b"));
    }

    #[test]
    fn the_key_is_not_shown() {
        let shown = format!("{:?} {:#?}", HashKey::new(KEY).unwrap(), HashKey::new("hunter2hunter2").unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains("0a0b0c") && shown.contains("fingerprint"), "{shown}");
    }

    #[test]
    fn page_keys() {
        fn check(page_url: &str, no_query: &str, path: &str) {
            assert_eq!(PageKey::Full.apply(page_url), page_url);
            assert_eq!(PageKey::NoQuery.apply(page_url), no_query);
            assert_eq!(PageKey::Path.apply(page_url), path);
        }
        check("/a/b?c#d", "/a/b", "/a/b");
        check("/a#d?c", "/a", "/a");
        check("/?next=http://h/a", "/", "/");
        check("/http://h/a", "/http://h/a", "/http://h/a");
        check("//h/a", "//h/a", "//h/a");
        check("http://h/a?b", "http://h/a", "/a");
        check("https://h?b/c", "https://h", "/");
        check("https://h#b/c", "https://h", "/");
        check("https://h:8080/é/ü?x", "https://h:8080/é/ü", "/é/ü");
        // User information is cut out, wherever else an `@` may stand.
        check("https://u:p@h:1/a?b", "https://h:1/a", "/a");
        check("http://u@p@h/a@b/c", "http://h/a@b/c", "/a@b/c");
        check("https://u@h", "https://h", "/");
        check("//u:p@h/a", "//h/a", "//h/a");
        check("/@u/a//b@c", "/@u/a//b@c", "/@u/a//b@c");
        check("/http://u@h/a", "/http://u@h/a", "/http://u@h/a");
        check("https://h/@u?v@w", "https://h/@u", "/@u");
        // Not valid, but nothing that panics.
        check("", "", "/");
        check("?a", "", "/");
    }

    #[test]
    fn page_keys_have_the_names_of_the_configuration() {
        for (key, name) in [(PageKey::Full, "full"), (PageKey::NoQuery, "no_query"), (PageKey::Path, "path")] {
            assert_eq!(serde_json::to_value(key).unwrap(), name);
        }
    }
}
