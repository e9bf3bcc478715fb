//! The facts as a manifest keeps them, and as they are carried from one store to another.

use std::sync::Arc;

use bytes::Bytes;

use crate::Fatal;
use crate::command::Permission;

use super::{AuthTable, FIRST_REVISION, User};

/// All of an [`AuthTable`] in which something was changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StoredAuth {
    /// Whether anything is checked at all.
    #[prost(bool, tag = "1")]
    pub enabled: bool,
    /// Rises with every change; above the first.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// Each name once.
    #[prost(message, repeated, tag = "3")]
    pub users: Vec<StoredUser>,
    /// Each name once.
    #[prost(message, repeated, tag = "4")]
    pub roles: Vec<StoredRole>,
}

/// One user.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StoredUser {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The bcrypt hash of the password; empty when no password fits.
    #[prost(bytes = "bytes", tag = "2")]
    pub password_hash: Bytes,
    /// Whether the user cannot authenticate by password.
    #[prost(bool, tag = "3")]
    pub no_password: bool,
    /// The names of its roles, in order, each once.
    #[prost(string, repeated, tag = "4")]
    pub roles: Vec<String>,
    /// The revision at which the user was added or was given the present password: what was
    /// authenticated before that counts no more.
    #[prost(uint64, tag = "5")]
    pub since: u64,
}

/// One role.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StoredRole {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// As they were granted, in order of their keys.
    #[prost(message, repeated, tag = "2")]
    pub permissions: Vec<Permission>,
}

impl StoredAuth {
    /// None for a table in which nothing was ever changed.
    pub(crate) fn of(table: &AuthTable) -> Option<Self> {
        if table.revision == FIRST_REVISION {
            return None;
        }
        let user = |(name, user): (&String, &Arc<User>)| StoredUser {
            name: name.clone(),
            password_hash: user.password_hash.clone(),
            no_password: user.no_password,
            roles: user.roles.clone(),
            since: user.since,
        };
        let role = |(name, permissions): (&String, &Arc<Vec<Permission>>)| StoredRole {
            name: name.clone(),
            permissions: permissions.to_vec(),
        };
        Some(Self {
            enabled: table.enabled,
            revision: table.revision,
            users: table.users.iter().map(user).collect(),
            roles: table.roles.iter().map(role).collect(),
        })
    }

    /// The table; an error says that there can be none like it.
    pub(crate) fn restored(&self) -> Result<AuthTable, Fatal> {
        let user = |stored: &StoredUser| {
            let user = User {
                password_hash: Bytes::copy_from_slice(&stored.password_hash),
                no_password: stored.no_password,
                roles: stored.roles.clone(),
                since: stored.since,
                ..User::default()
            };
            (stored.name.clone(), Arc::new(user))
        };
        let role = |stored: &StoredRole| {
            let copied = stored.permissions.iter().map(|permission| Permission {
                kind: permission.kind,
                key: Bytes::copy_from_slice(&permission.key),
                range_end: Bytes::copy_from_slice(&permission.range_end),
            });
            (stored.name.clone(), Arc::new(copied.collect()))
        };
        let table = AuthTable {
            enabled: self.enabled,
            revision: self.revision,
            users: self.users.iter().map(user).collect(),
            roles: self.roles.iter().map(role).collect(),
        };
        let ordered = self.users.iter().all(|user| user.roles.is_sorted_by(|a, b| a < b));
        let once = table.users.len() == self.users.len() && table.roles.len() == self.roles.len();
        let known = self.users.iter().all(|user| user.since <= self.revision);
        if table.revision <= FIRST_REVISION || !ordered || !once || !known {
            return Err(Fatal::new("a manifest's users and roles contradict themselves"));
        }
        Ok(table)
    }
}
