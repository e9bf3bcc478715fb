//! JSON web tokens: signed by a key that the members share, so that none of them has to be known.
//!
//! A token carries its user and the auth revision at which the password was checked. Any later
//! change of the rules makes it old; nothing but its expiry makes it invalid. Only tokens of the one
//! configured method are looked at, and each must say when it expires.

use std::fmt;
use std::time::{Duration, SystemTime};

use holdfast_store::command::Credentials;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::services::Services;
use crate::status::Error;

/// The keys, and how they are used.
pub struct Jwt {
    algorithm: Algorithm,
    /// None where tokens are made elsewhere and only looked at here.
    signing: Option<EncodingKey>,
    verifying: DecodingKey,
    lifetime: Duration,
}

/// What a token says. The revision is a number of any kind, as JSON has them.
#[derive(Debug, Serialize, Deserialize)]
struct Claims<R> {
    username: String,
    revision: R,
    exp: u64,
}

/// Why keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("auth: missing key data")]
    Missing,
    /// The public key does not verify what the private one signs.
    #[error("auth: public and private keys don't match")]
    Mismatch,
    /// They are not what the method needs.
    #[error("{0}")]
    Unusable(String),
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are not to be printed.
        f.debug_struct("Jwt").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl From<jsonwebtoken::errors::Error> for KeyError {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Self::Unusable(format!("the key cannot be used: {error}"))
    }
}

/// The contents of the key files, where they are given.
#[derive(Default)]
pub(super) struct KeyFiles {
    pub(super) public: Option<Vec<u8>>,
    pub(super) private: Option<Vec<u8>>,
}

impl Jwt {
    /// Takes keys in PEM, or for the HMAC methods the secret as it is.
    pub(super) fn new(
        algorithm: Algorithm,
        files: &KeyFiles,
        lifetime: Duration,
    ) -> Result<Self, KeyError> {
        let private = files.private.as_deref().filter(|key| !key.is_empty());
        let signing = private.map(|key| signing_key(algorithm, key)).transpose()?;
        let public = files.public.as_deref().filter(|key| !key.is_empty());
        let verifying = match (public, &signing, private) {
            (_, Some(_), Some(secret)) if is_hmac(algorithm) => DecodingKey::from_secret(secret),
            (_, None, _) if is_hmac(algorithm) => return Err(KeyError::Missing),
            (Some(public), _, _) => verifying_key(algorithm, public)?,
            (None, Some(signing), _) => {
                DecodingKey::from_jwk(&Jwk::from_encoding_key(signing, algorithm)?)?
            }
            (None, None, _) => return Err(KeyError::Missing),
        };
        let jwt = Self { algorithm, signing, verifying, lifetime };
        jwt.check_keys()?;
        Ok(jwt)
    }

    /// Signs something and looks at it.
    fn check_keys(&self) -> Result<(), KeyError> {
        if self.signing.is_none() {
            return Ok(());
        }
        let token = self.signed("", 0, SystemTime::now() + Duration::from_secs(60))?;
        self.read(&token).map(|_| ()).ok_or(KeyError::Mismatch)
    }

    fn signed(
        &self,
        user: &str,
        revision: u64,
        expiry: SystemTime,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let signing = self.signing.as_ref().expect("asked for only where there is one");
        let expiry = expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let claims = Claims { username: user.to_owned(), revision, exp: expiry.as_secs() };
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, signing)
    }

    /// A token for a user.
    pub(super) fn make(&self, user: &str, revision: u64) -> Result<String, Error> {
        if self.signing.is_none() {
            return Err(Error::verify_only_key());
        }
        let made = self.signed(user, revision, SystemTime::now() + self.lifetime);
        made.map_err(|error| Error::internal(format!("a token cannot be signed: {error}")))
    }

    /// What a token says, if it is one.
    fn read(&self, token: &str) -> Option<Credentials> {
        let mut validation = Validation::new(self.algorithm);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        let read = jsonwebtoken::decode::<Claims<f64>>(token, &self.verifying, &validation);
        let claims = read.ok()?.claims;
        let auth_revision = claims.revision as u64;
        Some(Credentials { user: claims.username, auth_revision })
    }

    /// Whose token it is.
    pub(super) fn credentials(&self, token: &str) -> Result<Credentials, Error> {
        self.read(token).ok_or(Error::InvalidAuthToken)
    }
}

/// A token for a user whose password was checked at an auth revision.
pub(super) async fn make_token(
    services: &Services,
    user: &str,
    auth_revision: u64,
) -> Result<String, Error> {
    let (settings, user) = (services.shared.auth.clone(), user.to_owned());
    // A signature can take milliseconds.
    let made = services.shared.pool.run_password(move || match &settings.tokens {
        super::Tokens::Jwt(jwt) => jwt.make(&user, auth_revision),
        _ => Err(Error::AuthenticationFailed),
    });
    let token = made.await??;
    if services.reader.auth_revision() != auth_revision {
        return Err(Error::AuthOldRevision);
    }
    Ok(token)
}

fn is_hmac(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

fn signing_key(algorithm: Algorithm, key: &[u8]) -> Result<EncodingKey, KeyError> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512};
    Ok(match algorithm {
        HS256 | HS384 | HS512 => EncodingKey::from_secret(key),
        ES256 | ES384 => EncodingKey::from_ec_pem(key)?,
        EdDSA => EncodingKey::from_ed_pem(key)?,
        _ => EncodingKey::from_rsa_pem(key)?,
    })
}

fn verifying_key(algorithm: Algorithm, key: &[u8]) -> Result<DecodingKey, KeyError> {
    use Algorithm::{ES256, ES384, EdDSA};
    Ok(match algorithm {
        ES256 | ES384 => DecodingKey::from_ec_pem(key)?,
        EdDSA => DecodingKey::from_ed_pem(key)?,
        _ => DecodingKey::from_rsa_pem(key)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hmac(secret: &[u8]) -> Jwt {
        let files = KeyFiles { private: Some(secret.to_vec()), ..KeyFiles::default() };
        Jwt::new(Algorithm::HS256, &files, Duration::from_secs(60)).expect("a secret")
    }

    #[test]
    fn a_token_says_who_and_since_when() {
        let jwt = hmac(b"secret");
        let token = jwt.make("ann", 7).expect("it can sign");
        assert_eq!(
            jwt.credentials(&token),
            Ok(Credentials { user: "ann".into(), auth_revision: 7 })
        );
        assert_eq!(hmac(b"other").credentials(&token), Err(Error::InvalidAuthToken));
    }

    #[test]
    fn what_is_malformed_unsigned_expired_or_of_another_method_is_no_token() {
        let jwt = hmac(b"secret");
        let good = jwt.make("ann", 7).expect("it can sign");
        let expired = jwt.signed("ann", 7, SystemTime::now() - Duration::from_secs(2));
        let files = KeyFiles { private: Some(b"secret".to_vec()), ..KeyFiles::default() };
        let longer = Jwt::new(Algorithm::HS512, &files, Duration::from_secs(60)).expect("a secret");
        let (signed, _) = good.rsplit_once('.').expect("three parts");
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        let claims = good.split('.').nth(1).expect("three parts");
        for token in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{signed}."),
            format!("{good}x"),
            format!("{none}.{claims}."),
            expired.expect("it can sign"),
            longer.make("ann", 7).expect("it can sign"),
        ] {
            assert_eq!(jwt.credentials(&token), Err(Error::InvalidAuthToken), "{token}");
        }
    }

    #[test]
    fn without_a_secret_there_are_no_keys() {
        let none = Jwt::new(Algorithm::HS256, &KeyFiles::default(), Duration::from_secs(60));
        assert_eq!(none.err(), Some(KeyError::Missing));
    }

    #[test]
    fn keys_are_not_printed() {
        assert!(!format!("{:?}", hmac(b"secret")).contains("secret"));
    }
}
