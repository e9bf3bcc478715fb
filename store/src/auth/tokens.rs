//! Tokens that this member knows.
//!
//! They come into being by log entries, so every member knows a token that any of them gave out, but
//! they are not part of the replicated state: a token ends when it was not used here for a while,
//! which is nobody's business but this member's, and a checkpoint holds none. A client whose token
//! is not known authenticates again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::command::AssignToken;

/// Tokens kept; beyond it the one that was not used for longest goes.
const TOKENS_MAX: usize = 100_000;
/// Tokens kept of one user, likewise: one that draws tokens without end ends nobody else's.
const TOKENS_OF_USER_MAX: usize = 10_000;
/// Until somebody says otherwise, in milliseconds.
const LIFETIME_DEFAULT: u64 = 300_000;
/// Between two looks for tokens whose time is up, in milliseconds.
const SWEEP: u64 = 500;

struct Token {
    user: Arc<str>,
    index: u64,
    used: u64,
}

/// When a token was last used, and its digest.
type Use = (u64, Bytes);

/// The tokens, by the digest of their secret part.
pub(crate) struct TokenTable {
    tokens: BTreeMap<Bytes, Token>,
    /// All of them, the one that was not used for longest first.
    uses: BTreeSet<Use>,
    /// Those of each user, likewise; nobody is there without a token.
    of_users: BTreeMap<Arc<str>, BTreeSet<Use>>,
    lifetime: u64,
    now: u64,
    swept: u64,
}

impl Default for TokenTable {
    fn default() -> Self {
        Self {
            tokens: BTreeMap::new(),
            uses: BTreeSet::new(),
            of_users: BTreeMap::new(),
            lifetime: LIFETIME_DEFAULT,
            now: 0,
            swept: 0,
        }
    }
}

impl TokenTable {
    pub(crate) fn set_lifetime(&mut self, milliseconds: u64) {
        self.lifetime = milliseconds;
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
        if self.now - self.swept < SWEEP {
            return;
        }
        self.swept = self.now;
        while let Some((used, digest)) = self.uses.first()
            && self.now - used > self.lifetime
        {
            let digest = digest.clone();
            self.end(&digest);
        }
    }

    /// A token of the entry at `index`.
    pub(crate) fn assign(&mut self, assign: &AssignToken, index: u64) {
        let digest = Bytes::copy_from_slice(&assign.digest);
        self.end(&digest);
        let of_user = self.of_users.get(assign.user.as_str());
        let full = of_user.filter(|uses| uses.len() >= TOKENS_OF_USER_MAX);
        if let Some((_, oldest)) = full.and_then(BTreeSet::first).cloned() {
            self.end(&oldest);
        } else if self.tokens.len() >= TOKENS_MAX
            && let Some((_, oldest)) = self.uses.first().cloned()
        {
            self.end(&oldest);
        }
        let user: Arc<str> = assign.user.as_str().into();
        self.note(&user, self.now, &digest);
        self.tokens.insert(digest, Token { user, index, used: self.now });
    }

    /// Whose token it is; using it gives it its whole lifetime again.
    pub(crate) fn user(&mut self, digest: &[u8], index: u64) -> Option<Arc<str>> {
        let (now, lifetime) = (self.now, self.lifetime);
        let (digest, token) = self.tokens.get_key_value(digest)?;
        if token.index != index || now - token.used > lifetime {
            return None;
        }
        let user = token.user.clone();
        if token.used != now {
            let (digest, used) = (digest.clone(), token.used);
            self.forget(&user, used, &digest);
            self.note(&user, now, &digest);
            self.tokens.get_mut(&digest)?.used = now;
        }
        Some(user)
    }

    pub(crate) fn end_of(&mut self, user: &str) {
        for one in self.of_users.remove(user).into_iter().flatten() {
            self.uses.remove(&one);
            self.tokens.remove(&one.1);
        }
    }

    pub(crate) fn end_all(&mut self) {
        self.tokens.clear();
        self.uses.clear();
        self.of_users.clear();
    }

    fn end(&mut self, digest: &Bytes) {
        if let Some(token) = self.tokens.remove(digest) {
            self.forget(&token.user, token.used, digest);
        }
    }

    fn note(&mut self, user: &Arc<str>, used: u64, digest: &Bytes) {
        self.uses.insert((used, digest.clone()));
        self.of_users.entry(user.clone()).or_default().insert((used, digest.clone()));
    }

    fn forget(&mut self, user: &str, used: u64, digest: &Bytes) {
        let one = (used, digest.clone());
        assert!(self.uses.remove(&one), "every token was used once");
        let of_user = self.of_users.get_mut(user).expect("a token's user is there");
        of_user.remove(&one);
        if of_user.is_empty() {
            self.of_users.remove(user);
        }
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
        let name = |digest: u32| format!("user{}", digest as usize % 20);
        for digest in 0..TOKENS_MAX as u32 {
            table.assign(&assign(&name(digest), digest), 1);
        }
        table.tick(10);
        for digest in (0..TOKENS_MAX as u32).filter(|digest| *digest != 5) {
            assert!(user(&mut table, digest, 1).is_some());
        }
        table.assign(&assign("bob", u32::MAX), 2);
        assert_eq!(table.tokens.len(), TOKENS_MAX);
        assert_eq!(user(&mut table, 5, 1), None);
        assert_eq!(user(&mut table, 6, 1), Some(name(6)));
    }

    #[test]
    fn a_user_who_draws_tokens_without_end_ends_only_its_own() {
        let mut table = TokenTable::default();
        table.assign(&assign("bob", u32::MAX), 1);
        table.tick(10);
        for digest in 0..=TOKENS_OF_USER_MAX as u32 {
            table.assign(&assign("ann", digest), 1);
            table.tick(11 + u64::from(digest));
        }
        assert_eq!(user(&mut table, 0, 1), None, "the first one made room");
        for (digest, name) in [(1, "ann"), (u32::MAX, "bob")] {
            assert_eq!(user(&mut table, digest, 1).as_deref(), Some(name));
        }
        table.end_of("ann");
        assert_eq!((table.tokens.len(), table.uses.len(), table.of_users.len()), (1, 1, 1));
    }
}
