//! Proofs that both ends of a connection know the cluster's secret.
//!
//! Each end chooses a fresh nonce, and proves itself by an HMAC-SHA256 ([RFC 2104](https://www.rfc-editor.org/rfc/rfc2104))
//! keyed with the secret, over all that makes this connection this one: both nonces, both processes, its purpose, the version,
//! and which end is speaking. So a proof is worth nothing on another connection, nor from the other end of the same.

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::greeting::PROTOCOL;
use crate::config::Secret;

/// Chosen by chance, for one connection.
pub(super) type Nonce = [u8; 32];
/// The HMAC by which an end proves itself.
pub(super) type Proof = [u8; 32];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Purpose {
    /// What timely's workers exchange.
    Workers,
    /// Signs of life.
    Heartbeat,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process that connects.
    Connecting,
    /// The process that it connects to.
    Accepting,
}

/// All that makes a connection this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encounter {
    pub purpose: Purpose,
    /// The process that connects.
    pub connecting: usize,
    /// The process that it connects to.
    pub accepting: usize,
    pub connecting_nonce: Nonce,
    pub accepting_nonce: Nonce,
}

impl Encounter {
    /// How this end proves that it knows the secret; without one the key is empty.
    pub fn prove(&self, secret: Option<&Secret>, end: End) -> Proof {
        self.mac(secret, end).finalize().into_bytes().into()
    }

    /// Whether this proof is that of this end. Takes as long for a wrong one as for a right one.
    pub fn verify(&self, secret: Option<&Secret>, end: End, proof: &Proof) -> bool {
        self.mac(secret, end).verify_slice(proof).is_ok()
    }

    fn mac(&self, secret: Option<&Secret>, end: End) -> Hmac<Sha256> {
        let key = secret.map_or("", Secret::expose);
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
        let end = match end {
            End::Connecting => "connecting",
            End::Accepting => "accepting",
        };
        let purpose = match self.purpose {
            Purpose::Workers => "workers",
            Purpose::Heartbeat => "heartbeat",
        };
        // Texts have an end that no text contains; all else has a fixed length.
        for text in [PROTOCOL, end, purpose] {
            mac.update(text.as_bytes());
            mac.update(b"\0");
        }
        for process in [self.connecting, self.accepting] {
            mac.update(&(process as u64).to_be_bytes());
        }
        mac.update(&self.connecting_nonce);
        mac.update(&self.accepting_nonce);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encounter() -> Encounter {
        Encounter {
            purpose: Purpose::Workers,
            connecting: 2,
            accepting: 1,
            connecting_nonce: [3; 32],
            accepting_nonce: [4; 32],
        }
    }

    #[test]
    fn a_proof_is_good_for_one_end_of_one_connection_under_one_secret() {
        let secrets = [None, Some(Secret::new("right")), Some(Secret::new("wrong"))];
        for secret in &secrets {
            let proof = encounter().prove(secret.as_ref(), End::Connecting);
            for other in &secrets {
                assert_eq!(encounter().verify(other.as_ref(), End::Connecting, &proof), secret == other);
            }
            let good = |encounter: Encounter, end| encounter.verify(secret.as_ref(), end, &proof);
            assert!(!good(encounter(), End::Accepting));
            assert!(!good(Encounter { purpose: Purpose::Heartbeat, ..encounter() }, End::Connecting));
            assert!(!good(Encounter { connecting: 3, ..encounter() }, End::Connecting));
            assert!(!good(Encounter { accepting: 0, ..encounter() }, End::Connecting));
            assert!(!good(Encounter { connecting_nonce: [5; 32], ..encounter() }, End::Connecting));
            assert!(!good(Encounter { accepting_nonce: [5; 32], ..encounter() }, End::Connecting));
            let swapped = Encounter { connecting_nonce: [4; 32], accepting_nonce: [3; 32], ..encounter() };
            assert!(!good(swapped, End::Connecting));
        }
    }
}
