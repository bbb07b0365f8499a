//! Seals and opens session tickets (RFC 8446 section 4.6.1, RFC 5077), with any worker of the pool.
//!
//! ```text
//! ticket = version (1 byte) | number of the secret (8) | time of issue (8) | salt (16) | AES-256-GCM of the session
//! ```

use std::fmt;

use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_256_GCM, MAX_TAG_LEN, NONCE_LEN};
use ring::hkdf::{Salt, HKDF_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

use super::secrets::{derive, Secrets};

const VERSION: u8 = 1;
const SALT_LEN: usize = 16;
const HEAD_LEN: usize = 1 + 8 + 8 + SALT_LEN;

/// The maximum length of a session; one with a client's certificate takes a few kilobytes.
const SESSION_MAX: usize = 64 * 1024;

/// How much the clocks of several hosts may differ, in seconds.
const SKEW: u64 = 60;

/// Seals and opens tickets.
pub(super) struct Tickets {
    secrets: Secrets,
    binding: [u8; 32],
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    pub(super) fn new(secrets: Secrets, binding: [u8; 32]) -> Tickets {
        Tickets { secrets, binding }
    }

    /// The key of one ticket.
    fn key(&self, number: u64, salt: &[u8]) -> Option<LessSafeKey> {
        let secret = self.secrets.get(number)?;
        let key = derive(&Salt::new(HKDF_SHA256, salt), &secret[..], &[b"forkpool session ticket", &self.binding])?;
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key[..]).ok()?))
    }

    fn seal(&self, session: &[u8], now: u64) -> Option<Vec<u8>> {
        if session.len() > SESSION_MAX {
            return None;
        }
        let number = self.secrets.current();
        let mut ticket = Vec::with_capacity(HEAD_LEN + session.len() + MAX_TAG_LEN);
        ticket.push(VERSION);
        ticket.extend_from_slice(&number.to_be_bytes());
        ticket.extend_from_slice(&now.to_be_bytes());
        let mut salt = [0; SALT_LEN];
        SystemRandom::new().fill(&mut salt).ok()?;
        ticket.extend_from_slice(&salt);
        let key = self.key(number, &salt)?;
        let head = <[u8; HEAD_LEN]>::try_from(&ticket[..]).ok()?;
        ticket.extend_from_slice(session);
        let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(head), &mut ticket[HEAD_LEN..]).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (head, sealed) = ticket.split_first_chunk::<HEAD_LEN>()?;
        let (version, rest) = head.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (issued, salt) = rest.split_first_chunk()?;
        if *version != VERSION || sealed.len() > SESSION_MAX + MAX_TAG_LEN {
            return None;
        }
        let issued = u64::from_be_bytes(*issued);
        if now.saturating_sub(issued) > self.secrets.lifetime().as_secs().max(1) || issued > now.saturating_add(SKEW) {
            return None;
        }
        let key = self.key(u64::from_be_bytes(*number), salt)?;
        let mut session = sealed.to_vec();
        let len = key.open_in_place(nonce(), Aad::from(head), &mut session).ok()?.len();
        session.truncate(len);
        Some(session)
    }
}

/// Always the same, since each key seals one ticket.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // A client must not keep a ticket for more than a week.
        u32::try_from(self.secrets.lifetime().as_secs()).unwrap_or(u32::MAX).clamp(1, 7 * 24 * 3600)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, Secrets::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, Secrets::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::shared::tls::{SecretBoard, TicketConfig};

    fn board() -> SecretBoard {
        let config = TicketConfig { period: Duration::from_secs(1000), secret: None };
        SecretBoard::new(&config, None).expect("memory").expect("tickets are wanted")
    }

    #[test]
    fn a_ticket_opens_with_every_worker_of_the_pool_and_no_other() {
        let (pool, other) = (board(), board());
        let (one, two) = (Tickets::new(pool.secrets(), [1; 32]), Tickets::new(pool.secrets(), [1; 32]));
        for session in [&b""[..], b"session", &[7; 5000]] {
            let ticket = one.seal(session, 5000).expect("sealed");
            assert_eq!(two.open(&ticket, 5000).as_deref(), Some(session));
            assert_ne!(one.seal(session, 5000).expect("sealed"), ticket, "each has a key of its own");
            assert_eq!(Tickets::new(other.secrets(), [1; 32]).open(&ticket, 5000), None, "another pool");
            assert_eq!(
                Tickets::new(pool.secrets(), [2; 32]).open(&ticket, 5000),
                None,
                "other names, or other clients"
            );
        }
        assert_eq!(one.seal(&vec![0; SESSION_MAX + 1], 5000), None);
    }

    #[test]
    fn a_ticket_has_its_time() {
        let pool = board();
        let tickets = Tickets::new(pool.secrets(), [0; 32]);
        let ticket = tickets.seal(b"session", 5000).expect("sealed");
        for (now, opens) in [(4939, false), (4940, true), (5000, true), (6000, true), (6001, false)] {
            assert_eq!(tickets.open(&ticket, now).is_some(), opens, "{now}");
        }
    }

    #[test]
    fn a_damaged_ticket_opens_nothing() {
        let pool = board();
        let tickets = Tickets::new(pool.secrets(), [0; 32]);
        let ticket = tickets.seal(b"session", 5000).expect("sealed");
        for len in 0..ticket.len() {
            assert_eq!(tickets.open(&ticket[..len], 5000), None, "{len}");
        }
        for bit in 0..8 * ticket.len() {
            let mut damaged = ticket.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tickets.open(&damaged, 5000), None, "bit {bit}");
        }
    }
}
