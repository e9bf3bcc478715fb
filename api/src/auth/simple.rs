//! Simple tokens: sixteen random letters, a dot, and the index of the log entry that made it.
//!
//! The entry holds only the digest of the letters. A member that is shown a token waits until it has
//! applied the entry, so a token that one member gave out is good on all others at once.

use holdfast_store::command::Credentials;
use rand::RngExt;
use sha2::{Digest, Sha256};

use crate::services::Services;
use crate::status::Error;

const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// 91 bits.
const LENGTH: usize = 16;

/// The part of a token that must not be guessed.
pub(super) struct Secret(String);

impl Secret {
    /// A new one, from the generator that the operating system seeds.
    pub(super) fn draw() -> Self {
        let mut rng = rand::rng();
        let letter = || char::from(LETTERS[rng.random_range(0..LETTERS.len())]);
        Self(std::iter::repeat_with(letter).take(LENGTH).collect())
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        digest(&self.0)
    }

    /// The token, once the index of its entry is known.
    pub(super) fn token(&self, index: u64) -> String {
        format!("{}.{index}", self.0)
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Secret and index of a token.
fn parts(token: &str) -> Option<(&str, u64)> {
    let (secret, index) = token.split_once('.')?;
    let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    if digits { Some((secret, index.parse().ok()?)) } else { None }
}

/// Whose token it is, with the rules of this moment.
pub(super) async fn credentials(services: &Services, token: &str) -> Result<Credentials, Error> {
    let (secret, index) = parts(token).ok_or(Error::InvalidAuthToken)?;
    services.port.wait_applied(index).await.map_err(|_| Error::InvalidAuthToken)?;
    // Before the look at the token: if its user is deleted in between, the revision is old.
    let auth_revision = services.reader.auth_revision();
    let user = services.reader.token_user(&digest(secret), index);
    let user = user.ok_or(Error::InvalidAuthToken)?.to_string();
    Ok(Credentials { user, auth_revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_letters_and_an_index() {
        let secret = Secret::draw();
        let token = secret.token(17);
        assert_eq!(token.len(), 19);
        let (letters, index) = parts(&token).expect("a token");
        assert_eq!((digest(letters), index), (secret.digest(), 17));
        assert!(letters.bytes().all(|byte| LETTERS.contains(&byte)));
        assert_ne!(Secret::draw().0, secret.0);
    }

    #[test]
    fn what_is_no_token_is_not_looked_up() {
        for token in ["", "a", "a.", "a.b", "a.1.2", "a.-1", "a.+1", "a.99999999999999999999"] {
            assert_eq!(parts(token), None, "{token}");
        }
    }
}
