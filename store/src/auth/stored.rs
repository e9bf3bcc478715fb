//! The facts as a manifest keeps them.

use std::sync::Arc;

use bytes::Bytes;

use crate::Fatal;
use crate::command::Permission;

use super::{AuthTable, FIRST_REVISION, User};

/// All of an [`AuthTable`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoredAuth {
    #[prost(bool, tag = "1")]
    enabled: bool,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(message, repeated, tag = "3")]
    users: Vec<StoredUser>,
    #[prost(message, repeated, tag = "4")]
    roles: Vec<StoredRole>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredUser {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    password_hash: Bytes,
    #[prost(bool, tag = "3")]
    no_password: bool,
    #[prost(string, repeated, tag = "4")]
    roles: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredRole {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    permissions: Vec<Permission>,
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
        if table.revision <= FIRST_REVISION || !ordered || !once {
            return Err(Fatal::new("a manifest's users and roles contradict themselves"));
        }
        Ok(table)
    }
}
