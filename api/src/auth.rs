//! The Auth service: users, roles, permissions, tokens.
//!
//! Changes go through the log and are judged there; passwords are hashed and compared here, on
//! threads of their own, and go no further. Who a caller is stands in `auth/caller.rs`, what it may
//! do is decided by the store's one function, which `auth/gate.rs` asks on behalf of all services.

mod caller;
mod gate;
mod jwt;
pub mod matrix;
mod password;
mod settings;
mod simple;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdfast_proto::{authpb, etcdserverpb as pb};
use holdfast_store::auth::{Access, AuthTable};
use holdfast_store::command::{
    AssignToken, AuthChange, AuthChangeKind, Change, Command, Permission, RoleGrantPermission,
    RoleRevokePermission, UserAdd, UserChangePassword, UserRole,
};

use crate::kv::propose;
use crate::services::Services;
use crate::status::Error;

pub use caller::{Caller, CertificateUser};
pub use gate::Pass;
pub use settings::{Settings, SettingsError, Tokens};

/// How often a password is checked again because the rules changed meanwhile.
const ATTEMPTS: usize = 16;

/// Carries out a change; gives the header of the answer.
async fn change(
    services: &Services,
    caller: &Caller,
    kind: AuthChangeKind,
) -> Result<Option<pb::ResponseHeader>, Error> {
    let command = Command::from(Change::Auth(AuthChange { kind: Some(kind) }));
    let (revision, _) = propose(services, caller, command).await?;
    Ok(Some(services.headers.at(revision)))
}

/// The rules, not older than the call, if the caller may have `access` by them.
async fn facts(
    services: &Services,
    caller: &Caller,
    access: Access<'_>,
) -> Result<std::sync::Arc<AuthTable>, Error> {
    services.port.read_barrier().await?;
    services.require(caller, &access).await?;
    Ok(services.reader.auth())
}

fn header(services: &Services) -> Option<pb::ResponseHeader> {
    Some(services.headers.at(services.reader.revision()))
}

/// Turns authorization on.
pub async fn enable(
    services: &Services,
    caller: &Caller,
    _request: pb::AuthEnableRequest,
) -> Result<pb::AuthEnableResponse, Error> {
    let header = change(services, caller, AuthChangeKind::Enable(true)).await?;
    Ok(pb::AuthEnableResponse { header })
}

/// Turns authorization off.
pub async fn disable(
    services: &Services,
    caller: &Caller,
    _request: pb::AuthDisableRequest,
) -> Result<pb::AuthDisableResponse, Error> {
    let header = change(services, caller, AuthChangeKind::Enable(false)).await?;
    Ok(pb::AuthDisableResponse { header })
}

/// Whether authorization is on; anybody may know, but nobody with a token that is none.
pub async fn status(
    services: &Services,
    caller: &Caller,
    _request: pb::AuthStatusRequest,
) -> Result<pb::AuthStatusResponse, Error> {
    services.port.read_barrier().await?;
    services.credentials(caller).await?;
    let table = services.reader.auth();
    let (enabled, auth_revision) = (table.is_enabled(), table.revision());
    Ok(pb::AuthStatusResponse { header: header(services), enabled, auth_revision })
}

/// A token for a name and a password.
pub async fn authenticate(
    services: &Services,
    request: pb::AuthenticateRequest,
) -> Result<pb::AuthenticateResponse, Error> {
    services.port.read_barrier().await?;
    let pb::AuthenticateRequest { name, password } = request;
    for _ in 0..ATTEMPTS {
        let table = services.reader.auth();
        if !table.is_enabled() {
            return Err(Error::AuthNotEnabled);
        }
        let user = table.user(&name).ok_or(Error::AuthenticationFailed)?;
        if user.has_no_password() {
            return Err(Error::no_password_user());
        }
        let hash = user.password_hash().clone();
        if !password::fits(services, password.clone(), hash).await? {
            tracing::info!(user = name, "a password was wrong");
            return Err(Error::AuthenticationFailed);
        }
        match make_token(services, &name, table.revision()).await {
            Err(Error::AuthOldRevision) => {}
            made => {
                let token = made?;
                return Ok(pb::AuthenticateResponse { header: header(services), token });
            }
        }
    }
    Err(Error::AuthOldRevision)
}

/// A token for a user whose password was checked at an auth revision; fails if there is a later.
async fn make_token(services: &Services, user: &str, auth_revision: u64) -> Result<String, Error> {
    match &services.shared.auth.tokens {
        Tokens::Simple => {
            let secret = simple::Secret::draw();
            let digest = Bytes::copy_from_slice(&secret.digest());
            let assign = AssignToken { user: user.to_owned(), digest, auth_revision };
            let kind = Some(AuthChangeKind::AssignToken(assign));
            let command = Command::from(Change::Auth(AuthChange { kind }));
            let applied = services.port.propose(command).await?;
            applied.outcome.result?;
            Ok(secret.token(applied.index))
        }
        Tokens::Jwt(_) => jwt::make_token(services, user, auth_revision).await,
        Tokens::Disabled => Err(Error::AuthenticationFailed),
    }
}

/// Adds a user. Only the hash of its password leaves this function.
pub async fn user_add(
    services: &Services,
    caller: &Caller,
    request: pb::AuthUserAddRequest,
) -> Result<pb::AuthUserAddResponse, Error> {
    check_before_hashing(services, caller).await?;
    let no_password = request.options.is_some_and(|options| options.no_password);
    let password_hash = match no_password {
        true => Bytes::new(),
        false => password::hash(services, request.password).await?,
    };
    let add = UserAdd { name: request.name, password_hash, no_password };
    let header = change(services, caller, AuthChangeKind::UserAdd(add)).await?;
    Ok(pb::AuthUserAddResponse { header })
}

/// Changes a password. A client may bring the hash instead, and with neither no password fits.
pub async fn user_change_password(
    services: &Services,
    caller: &Caller,
    request: pb::AuthUserChangePasswordRequest,
) -> Result<pb::AuthUserChangePasswordResponse, Error> {
    check_before_hashing(services, caller).await?;
    let password_hash = if request.password.is_empty() {
        STANDARD.decode(&request.hashed_password).map_err(|_| Error::no_password_user())?.into()
    } else {
        password::hash(services, request.password).await?
    };
    let new = UserChangePassword { name: request.name, password_hash };
    let header = change(services, caller, AuthChangeKind::UserChangePassword(new)).await?;
    Ok(pb::AuthUserChangePasswordResponse { header })
}

/// Hashing is dear, so who may not change anything is refused before it. Judged again by the log.
async fn check_before_hashing(services: &Services, caller: &Caller) -> Result<(), Error> {
    if services.reader.auth_enabled() {
        facts(services, caller, Access::Administer).await?;
    }
    Ok(())
}

/// The roles of a user.
pub async fn user_get(
    services: &Services,
    caller: &Caller,
    request: pb::AuthUserGetRequest,
) -> Result<pb::AuthUserGetResponse, Error> {
    let table = facts(services, caller, Access::User(&request.name)).await?;
    let user = table.user(&request.name).ok_or(Error::UserNotFound)?;
    Ok(pb::AuthUserGetResponse { header: header(services), roles: user.roles().to_vec() })
}

/// The names of all users.
pub async fn user_list(
    services: &Services,
    caller: &Caller,
    _request: pb::AuthUserListRequest,
) -> Result<pb::AuthUserListResponse, Error> {
    let table = facts(services, caller, Access::Administer).await?;
    let users = table.users().map(ToOwned::to_owned).collect();
    Ok(pb::AuthUserListResponse { header: header(services), users })
}

/// Deletes a user.
pub async fn user_delete(
    services: &Services,
    caller: &Caller,
    request: pb::AuthUserDeleteRequest,
) -> Result<pb::AuthUserDeleteResponse, Error> {
    let header = change(services, caller, AuthChangeKind::UserDelete(request.name)).await?;
    Ok(pb::AuthUserDeleteResponse { header })
}

/// Gives a user a role.
pub async fn user_grant_role(
    services: &Services,
    caller: &Caller,
    request: pb::AuthUserGrantRoleRequest,
) -> Result<pb::AuthUserGrantRoleResponse, Error> {
    let grant = UserRole { user: request.user, role: request.role };
    let header = change(services, caller, AuthChangeKind::UserGrantRole(grant)).await?;
    Ok(pb::AuthUserGrantRoleResponse { header })
}

/// Takes a role from a user.
pub async fn user_revoke_role(
    services: &Services,
    caller: &Caller,
    request: pb::AuthUserRevokeRoleRequest,
) -> Result<pb::AuthUserRevokeRoleResponse, Error> {
    let revoke = UserRole { user: request.name, role: request.role };
    let header = change(services, caller, AuthChangeKind::UserRevokeRole(revoke)).await?;
    Ok(pb::AuthUserRevokeRoleResponse { header })
}

/// Adds a role.
pub async fn role_add(
    services: &Services,
    caller: &Caller,
    request: pb::AuthRoleAddRequest,
) -> Result<pb::AuthRoleAddResponse, Error> {
    let header = change(services, caller, AuthChangeKind::RoleAdd(request.name)).await?;
    Ok(pb::AuthRoleAddResponse { header })
}

/// The permissions of a role.
pub async fn role_get(
    services: &Services,
    caller: &Caller,
    request: pb::AuthRoleGetRequest,
) -> Result<pb::AuthRoleGetResponse, Error> {
    let table = facts(services, caller, Access::Role(&request.role)).await?;
    let permissions = table.permissions(&request.role).ok_or(Error::RoleNotFound)?;
    let perm = permissions.into_iter().map(|held| authpb::Permission {
        perm_type: held.kind,
        key: held.key,
        range_end: held.range_end,
    });
    Ok(pb::AuthRoleGetResponse { header: header(services), perm: perm.collect() })
}

/// The names of all roles.
pub async fn role_list(
    services: &Services,
    caller: &Caller,
    _request: pb::AuthRoleListRequest,
) -> Result<pb::AuthRoleListResponse, Error> {
    let table = facts(services, caller, Access::Administer).await?;
    let roles = table.roles().map(ToOwned::to_owned).collect();
    Ok(pb::AuthRoleListResponse { header: header(services), roles })
}

/// Deletes a role.
pub async fn role_delete(
    services: &Services,
    caller: &Caller,
    request: pb::AuthRoleDeleteRequest,
) -> Result<pb::AuthRoleDeleteResponse, Error> {
    let header = change(services, caller, AuthChangeKind::RoleDelete(request.role)).await?;
    Ok(pb::AuthRoleDeleteResponse { header })
}

/// Gives a role a permission.
pub async fn role_grant_permission(
    services: &Services,
    caller: &Caller,
    request: pb::AuthRoleGrantPermissionRequest,
) -> Result<pb::AuthRoleGrantPermissionResponse, Error> {
    let permission = request.perm.map(|given| Permission {
        kind: given.perm_type,
        key: given.key,
        range_end: given.range_end,
    });
    let grant = RoleGrantPermission { role: request.name, permission };
    let header = change(services, caller, AuthChangeKind::RoleGrantPermission(grant)).await?;
    Ok(pb::AuthRoleGrantPermissionResponse { header })
}

/// Takes a permission from a role.
pub async fn role_revoke_permission(
    services: &Services,
    caller: &Caller,
    request: pb::AuthRoleRevokePermissionRequest,
) -> Result<pb::AuthRoleRevokePermissionResponse, Error> {
    let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request;
    let revoke = RoleRevokePermission { role, key, range_end };
    let header = change(services, caller, AuthChangeKind::RoleRevokePermission(revoke)).await?;
    Ok(pb::AuthRoleRevokePermissionResponse { header })
}
