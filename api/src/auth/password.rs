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

/// Whether a password has the hash of a user; a hash that is none fits no password. Without a hash
/// there is no such user, which takes as long to find out as that a password is wrong.
pub(super) async fn fits(
    services: &Services,
    user: &str,
    password: String,
    hash: Option<Bytes>,
) -> Result<bool, Error> {
    let exists = hash.is_some();
    let hash = hash.unwrap_or_else(|| nobodys(services.shared.auth.bcrypt_cost).into());
    let compare = move || {
        let hash = std::str::from_utf8(&hash).ok()?;
        bcrypt::verify(password, hash).ok()
    };
    let compare = services.shared.pool.run_password(compare);
    let user = if exists { user } else { "" };
    let fits = services.waiting.attempts.take_turn(user, compare).await?;
    Ok(exists && fits == Some(true))
}

/// What looks like a hash.
fn nobodys(cost: u32) -> String {
    format!("$2a${cost:02}${}", ".".repeat(53))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_a_hash_to_see_that_a_user_does_not_exist() {
        let parts: bcrypt::HashParts = nobodys(4).parse().expect("it has the form of a hash");
        assert_eq!(parts.get_cost(), 4);
        assert_eq!(bcrypt::verify("", &nobodys(4)).ok(), Some(false));
    }
}
