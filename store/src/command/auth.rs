//! Changes of users, roles and permissions, and in whose name a command is carried out.
//!
//! Passwords and tokens never get here: a password comes as its bcrypt hash, a token as the SHA-256
//! digest of its secret part. Both are made by the member that took the request.

use bytes::Bytes;

/// In whose name a client's command is carried out; checked when it is applied.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Credentials {
    /// The user that the origin member has authenticated.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The auth revision that the authentication holds for; never 0.
    #[prost(uint64, tag = "2")]
    pub auth_revision: u64,
}

/// What a permission allows; the numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PermissionKind {
    /// Reading.
    Read = 0,
    /// Writing and deleting.
    Write = 1,
    /// Both.
    ReadWrite = 2,
}

/// What a role may do with the keys of one range.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Permission {
    /// A [`PermissionKind`]; any other number allows nothing, as in etcd.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// The first key; never empty.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// Empty for one key, `\0` for every key from `key` on, else the key after the last.
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}

/// A change of who may do what.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AuthChange {
    /// What to do.
    #[prost(oneof = "AuthChangeKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub kind: Option<AuthChangeKind>,
}

impl AuthChange {
    /// Whether somebody only logs in.
    pub fn is_login(&self) -> bool {
        matches!(self.kind, Some(AuthChangeKind::AssignToken(_)))
    }
}

/// What an [`AuthChange`] does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum AuthChangeKind {
    /// Turn authorization on (true) or off.
    #[prost(bool, tag = "1")]
    Enable(bool),
    /// Add a user.
    #[prost(message, tag = "2")]
    UserAdd(UserAdd),
    /// Delete the user of this name.
    #[prost(string, tag = "3")]
    UserDelete(String),
    /// Give a user another password.
    #[prost(message, tag = "4")]
    UserChangePassword(UserChangePassword),
    /// Give a user a role.
    #[prost(message, tag = "5")]
    UserGrantRole(UserRole),
    /// Take a role from a user.
    #[prost(message, tag = "6")]
    UserRevokeRole(UserRole),
    /// Add a role of this name.
    #[prost(string, tag = "7")]
    RoleAdd(String),
    /// Delete the role of this name, and take it from everyone who has it.
    #[prost(string, tag = "8")]
    RoleDelete(String),
    /// Give a role a permission.
    #[prost(message, tag = "9")]
    RoleGrantPermission(RoleGrantPermission),
    /// Take a permission from a role.
    #[prost(message, tag = "10")]
    RoleRevokePermission(RoleRevokePermission),
    /// Make a token known to every member.
    #[prost(message, tag = "11")]
    AssignToken(AssignToken),
}

/// Adds a user without roles.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UserAdd {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The bcrypt hash; empty with `no_password`.
    #[prost(bytes = "bytes", tag = "2")]
    pub password_hash: Bytes,
    /// The user authenticates by certificate alone.
    #[prost(bool, tag = "3")]
    pub no_password: bool,
}

/// Replaces a user's password, and ends its tokens.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UserChangePassword {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The bcrypt hash.
    #[prost(bytes = "bytes", tag = "2")]
    pub password_hash: Bytes,
}

/// A user and a role.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UserRole {
    /// The user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The role.
    #[prost(string, tag = "2")]
    pub role: String,
}

/// Adds a permission, or changes what one of the same range allows.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RoleGrantPermission {
    /// The role.
    #[prost(string, tag = "1")]
    pub role: String,
    /// The permission; a request without one is refused.
    #[prost(message, optional, tag = "2")]
    pub permission: Option<Permission>,
}

/// Removes the permission of exactly this range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RoleRevokePermission {
    /// The role.
    #[prost(string, tag = "1")]
    pub role: String,
    /// As in [`Permission`].
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// As in [`Permission`].
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}

/// Lets whoever shows the secret behind `digest` act as `user`. The token that clients get ends with
/// the index of the entry, so that a member knows how far it must have applied to judge it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AssignToken {
    /// Whose password was checked.
    #[prost(string, tag = "1")]
    pub user: String,
    /// SHA-256 of the secret part of the token.
    #[prost(bytes = "bytes", tag = "2")]
    pub digest: Bytes,
    /// The auth revision that the password was checked at; refused if there is a later one.
    #[prost(uint64, tag = "3")]
    pub auth_revision: u64,
}
