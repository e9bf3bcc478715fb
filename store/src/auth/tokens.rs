//! Tokens that this member knows.
//!
//! They come into being by log entries, so every member knows a token that any of them gave out, but
//! they are not part of the replicated state: a token ends when it was not used here for a while,
//! which is nobody's business but this member's, and a checkpoint holds none. A client whose token
//! is not known authenticates again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::command::AssignToken;

/// Tokens kept; beyond it the one that was not used for longest goes.
const TOKENS_MAX: usize = 100_000;
/// Until somebody says otherwise, in milliseconds.
const LIFETIME_DEFAULT: u64 = 300_000;
/// Between two looks for tokens whose time is up, in milliseconds.
const SWEEP: u64 = 500;

struct Token {
    user: Arc<str>,
    index: u64,
    used: u64,
}

/// The tokens, by the digest of their secret part.
pub(crate) struct TokenTable {
    tokens: BTreeMap<Bytes, Token>,
    lifetime: u64,
    now: u64,
    swept: u64,
}

impl Default for TokenTable {
    fn default() -> Self {
        Self { tokens: BTreeMap::new(), lifetime: LIFETIME_DEFAULT, now: 0, swept: 0 }
    }
}

impl TokenTable {
    pub(crate) fn set_lifetime(&mut self, milliseconds: u64) {
        self.lifetime = milliseconds;
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
        if self.now - self.swept >= SWEEP {
            self.swept = self.now;
            let (now, lifetime) = (self.now, self.lifetime);
            self.tokens.retain(|_, token| now - token.used <= lifetime);
        }
    }

    /// A token of the entry at `index`.
    pub(crate) fn assign(&mut self, assign: &AssignToken, index: u64) {
        if self.tokens.len() >= TOKENS_MAX {
            let oldest = self.tokens.iter().min_by_key(|(_, token)| token.used);
            let oldest = oldest.map(|(digest, _)| digest.clone());
            oldest.map(|digest| self.tokens.remove(&digest));
        }
        let token = Token { user: assign.user.as_str().into(), index, used: self.now };
        self.tokens.insert(Bytes::copy_from_slice(&assign.digest), token);
    }

    /// Whose token it is; using it gives it its whole lifetime again.
    pub(crate) fn user(&mut self, digest: &[u8], index: u64) -> Option<Arc<str>> {
        let (now, lifetime) = (self.now, self.lifetime);
        let token = self.tokens.get_mut(digest)?;
        if token.index != index || now - token.used > lifetime {
            return None;
        }
        token.used = now;
        Some(token.user.clone())
    }

    pub(crate) fn end_of(&mut self, user: &str) {
        self.tokens.retain(|_, token| &*token.user != user);
    }

    pub(crate) fn end_all(&mut self) {
        self.tokens.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(user: &str, digest: u32) -> AssignToken {
        let digest = Bytes::copy_from_slice(&digest.to_be_bytes());
        AssignToken { user: user.into(), digest, auth_revision: 2 }
    }

    fn user(table: &mut TokenTable, digest: u32, index: u64) -> Option<String> {
        table.user(&digest.to_be_bytes(), index).map(|user| user.to_string())
    }

    #[test]
    fn a_token_lives_for_as_long_as_it_is_used() {
        let mut table = TokenTable::default();
        table.set_lifetime(1000);
        table.assign(&assign("ann", 1), 7);
        for now in (0..10_000).step_by(900) {
            table.tick(now);
            assert_eq!(user(&mut table, 1, 7).as_deref(), Some("ann"), "at {now}");
        }
        table.tick(11_000);
        assert_eq!(user(&mut table, 1, 7), None);
        assert!(table.tokens.is_empty(), "it is swept");
    }

    #[test]
    fn secret_and_index_must_both_fit() {
        let mut table = TokenTable::default();
        table.assign(&assign("ann", 1), 7);
        assert_eq!(user(&mut table, 1, 8), None);
        assert_eq!(user(&mut table, 2, 7), None);
    }

    #[test]
    fn the_tokens_of_one_user_end_alone() {
        let mut table = TokenTable::default();
        table.assign(&assign("ann", 1), 7);
        table.assign(&assign("bob", 2), 7);
        table.end_of("ann");
        assert_eq!(user(&mut table, 1, 7), None);
        assert_eq!(user(&mut table, 2, 7).as_deref(), Some("bob"));
    }

    #[test]
    fn a_full_table_forgets_what_was_not_used_for_longest() {
        let mut table = TokenTable::default();
        for digest in 0..TOKENS_MAX as u32 {
            table.assign(&assign("ann", digest), 1);
        }
        table.tick(10);
        for digest in (0..TOKENS_MAX as u32).filter(|digest| *digest != 5) {
            assert!(user(&mut table, digest, 1).is_some());
        }
        table.assign(&assign("bob", u32::MAX), 2);
        assert_eq!(table.tokens.len(), TOKENS_MAX);
        assert_eq!(user(&mut table, 5, 1), None);
        assert_eq!(user(&mut table, 6, 1).as_deref(), Some("ann"));
    }
}
