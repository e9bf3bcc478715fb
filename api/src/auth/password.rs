//! Passwords and their bcrypt hashes, as etcd keeps them (`$2a$`, at most 72 bytes).
//!
//! A hash takes tens of milliseconds by design, so it is worked out on threads of its own, and who
//! finds their queue full is turned away. Neither passwords nor hashes are logged.

use bcrypt::Version;
use bytes::Bytes;

use crate::services::Services;
use crate::status::Error;

/// bcrypt looks at no more.
const PASSWORD_BYTES_MAX: usize = 72;

/// The hash of a new password.
pub(super) async fn hash(services: &Services, password: String) -> Result<Bytes, Error> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Error::password_too_long());
    }
    let cost = services.shared.auth.bcrypt_cost;
    let hash = move || {
        let parts = bcrypt::hash_with_result(password, cost)?;
        Ok::<_, bcrypt::BcryptError>(parts.format_for_version(Version::TwoA))
    };
    match services.shared.pool.run_password(hash).await? {
        Ok(hash) => Ok(hash.into()),
        Err(error) => Err(Error::internal(format!("a password cannot be hashed: {error}"))),
    }
}

/// Whether a password has this hash; a hash that is none fits no password.
pub(super) async fn fits(
    services: &Services,
    password: String,
    hash: Bytes,
) -> Result<bool, Error> {
    let compare = move || {
        let hash = std::str::from_utf8(&hash).ok()?;
        bcrypt::verify(password, hash).ok()
    };
    Ok(services.shared.pool.run_password(compare).await? == Some(true))
}
