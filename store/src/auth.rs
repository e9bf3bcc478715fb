//! Who may do what: users, roles and permissions as replicated facts.
//!
//! ```text
//! user ann ── roles: dev ──┐
//! user bob ── roles: dev, ops ─┬─ role dev: READ ["/dev/", "/dev0"), WRITE "/lock"
//!                              └─ role ops: READWRITE ["/ops/", "/ops0")
//! ```
//!
//! [`authorize`](authorize::authorize) is the one place that says yes or no. The revision of these
//! facts rises with every change; what a client was authenticated at is compared with it. Passwords
//! are known by their bcrypt hashes, and nothing here computes or compares any: that takes long,
//! and is done before a command is made. Tokens (`tokens.rs`) are not replicated facts.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::command::Permission;

pub(crate) mod authorize;
mod change;
mod intervals;
mod stored;
pub(crate) mod tokens;

#[cfg(test)]
mod tests;

pub use authorize::Access;
pub(crate) use change::Effect;
use intervals::Intervals;
pub(crate) use stored::StoredAuth;

/// The user without whom authorization cannot be on, and the role that may do everything.
const ROOT: &str = "root";

/// The auth revision of a store in which nothing was ever changed.
const FIRST_REVISION: u64 = 1;

/// Why the rules, or those who keep them, refuse. Every member reaches the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthRefusal {
    /// Nobody is named where somebody must be.
    #[error("user name is empty")]
    UserEmpty,
    /// The rules have changed since the client was authenticated.
    #[error("revision of auth store is old")]
    OldRevision,
    /// The user may not do this.
    #[error("permission denied")]
    PermissionDenied,
    /// A user is to be added that exists.
    #[error("user name already exists")]
    UserExists,
    /// No such user.
    #[error("user name not found")]
    UserNotFound,
    /// A role is to be added that exists.
    #[error("role name already exists")]
    RoleExists,
    /// No such role.
    #[error("role name not found")]
    RoleNotFound,
    /// A role needs a name.
    #[error("role name is empty")]
    RoleEmpty,
    /// A role is to be taken from a user that does not have it.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// A grant without a permission.
    #[error("permission not given")]
    PermissionNotGiven,
    /// The role has no permission of exactly this range.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// It would leave authorization on without its root, or the range holds no key.
    #[error("invalid auth management")]
    InvalidManagement,
    /// It makes sense only while authorization is on.
    #[error("authentication is not enabled")]
    NotEnabled,
    /// There must be a user root first.
    #[error("root user does not exist")]
    RootUserMissing,
    /// The user root must have the role root first.
    #[error("root user does not have root role")]
    RootRoleMissing,
    /// No such user, or not with this password.
    #[error("authentication failed, invalid user ID or password")]
    AuthenticationFailed,
}

/// The facts at one auth revision.
#[derive(Clone, Debug)]
pub struct AuthTable {
    enabled: bool,
    /// 1 <= revision.
    revision: u64,
    users: BTreeMap<String, Arc<User>>,
    /// Each with its permissions, ordered by key and range end.
    roles: BTreeMap<String, Arc<Vec<Permission>>>,
}

/// One user.
#[derive(Clone, Debug, Default)]
pub struct User {
    password_hash: Bytes,
    no_password: bool,
    /// In order, each once.
    roles: Vec<String>,
    /// What the roles allow together; worked out when it is first asked for, and forgotten when one
    /// of them changes.
    allowed: OnceLock<Allowed>,
}

/// Where a user may read and write.
#[derive(Clone, Debug, Default)]
struct Allowed {
    read: Intervals,
    write: Intervals,
}

impl Default for AuthTable {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: FIRST_REVISION,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }
}

impl AuthTable {
    /// Whether anything is checked at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Rises with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|user| &**user)
    }

    /// The names of all users, in order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// The names of all roles, in order.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// The permissions of a role. That of root allows everything, whatever it was given.
    pub fn permissions(&self, role: &str) -> Option<Vec<Permission>> {
        let permissions = self.roles.get(role)?;
        if role != ROOT {
            return Some(permissions.to_vec());
        }
        let range_end = Bytes::from_static(b"\0");
        let kind = crate::command::PermissionKind::ReadWrite as i32;
        Some(vec![Permission { kind, key: Bytes::new(), range_end }])
    }

    fn allowed<'a>(&'a self, user: &'a User) -> &'a Allowed {
        user.allowed.get_or_init(|| {
            let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
            Allowed::of(roles.flat_map(|permissions| permissions.iter()))
        })
    }
}

impl User {
    /// The bcrypt hash of the password; empty when no password fits.
    pub fn password_hash(&self) -> &Bytes {
        &self.password_hash
    }

    /// Whether the user cannot authenticate by password.
    pub fn has_no_password(&self) -> bool {
        self.no_password
    }

    /// The names of its roles, in order.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    fn has_role(&self, role: &str) -> bool {
        self.roles.binary_search_by(|held| held.as_str().cmp(role)).is_ok()
    }

    fn is_root(&self) -> bool {
        self.has_role(ROOT)
    }
}

impl Allowed {
    fn of<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Self {
        use crate::command::PermissionKind::{Read, ReadWrite, Write};
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let Ok(kind) = permission.kind.try_into() else { continue };
            let range = (&permission.key, &permission.range_end);
            if matches!(kind, Read | ReadWrite) {
                read.push(range);
            }
            if matches!(kind, Write | ReadWrite) {
                write.push(range);
            }
        }
        Self { read: Intervals::of(read), write: Intervals::of(write) }
    }
}
