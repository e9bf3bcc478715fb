//! Signed tokens whose signature was found to be good, so that it is looked at once and not at each
//! call. What a token may do is judged each time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use holdfast_store::command::Credentials;
use sha2::{Digest, Sha256};

/// Tokens kept in mind.
const TOKENS_MAX: usize = 4096;

/// SHA-256 of a token: the token itself is not kept.
type Fingerprint = [u8; 32];

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) credentials: Credentials,
    /// Its last second, since 1970.
    pub(super) expiry: u64,
}

/// Good tokens.
#[derive(Default)]
pub(super) struct Verified(Mutex<BTreeMap<Fingerprint, Said>>);

pub(super) fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token.as_bytes()).into()
}

impl Verified {
    /// Whose token it is, if it is known and has not expired.
    pub(super) fn find(&self, token: &Fingerprint, now: u64) -> Option<Credentials> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = known.get(token)?;
        (now <= said.expiry).then(|| said.credentials.clone())
    }

    /// Keeps a token in mind. Where there is no room, those go that have expired; if that makes none,
    /// all do, and are looked at again.
    pub(super) fn keep(&self, token: Fingerprint, said: Said, now: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TOKENS_MAX {
            known.retain(|_, said| now <= said.expiry);
        }
        if known.len() >= TOKENS_MAX {
            known.clear();
        }
        known.insert(token, said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(user: usize, expiry: u64) -> Said {
        let credentials = Credentials { user: user.to_string(), auth_revision: 1 };
        Said { credentials, expiry }
    }

    #[test]
    fn a_token_is_known_until_its_last_second() {
        let verified = Verified::default();
        verified.keep(fingerprint("a"), said(1, 10), 0);
        assert_eq!(verified.find(&fingerprint("a"), 10), Some(said(1, 10).credentials));
        assert_eq!(verified.find(&fingerprint("a"), 11), None);
        assert_eq!(verified.find(&fingerprint("b"), 0), None);
    }

    #[test]
    fn only_so_many_are_kept_and_those_that_expired_go_first() {
        let verified = Verified::default();
        let token = |number: usize| fingerprint(&number.to_string());
        for number in 0..TOKENS_MAX {
            verified.keep(token(number), said(number, if number % 2 == 0 { 5 } else { 100 }), 0);
        }
        verified.keep(token(TOKENS_MAX), said(TOKENS_MAX, 100), 6);
        assert_eq!(verified.find(&token(1), 6), Some(said(1, 100).credentials));
        for number in 0..2 * TOKENS_MAX {
            verified.keep(token(number), said(number, 100), 6);
            assert!(verified.0.lock().expect("no panic").len() <= TOKENS_MAX);
        }
    }
}
