//! Changing the facts. A change that is refused has changed nothing.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::command::{
    AssignToken, AuthChangeKind, Permission, RoleGrantPermission, RoleRevokePermission, UserAdd,
    UserChangePassword, UserRole,
};

use super::{AuthRefusal, AuthTable, ROOT, User};

/// What a change means for tokens.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect<'a> {
    /// Nothing.
    None,
    /// All of them end.
    EndAll,
    /// Those of one user end.
    End(&'a str),
    /// There is a new one.
    Assign(&'a AssignToken),
}

type Changed<'a> = Result<Effect<'a>, AuthRefusal>;

impl AuthTable {
    /// Carries out a change; who asks for it has been judged.
    pub(crate) fn change<'a>(&mut self, change: &'a AuthChangeKind) -> Changed<'a> {
        match change {
            AuthChangeKind::Enable(true) => self.enable(),
            AuthChangeKind::Enable(false) => Ok(self.disable()),
            AuthChangeKind::UserAdd(add) => self.user_add(add),
            AuthChangeKind::UserDelete(name) => self.user_delete(name),
            AuthChangeKind::UserChangePassword(change) => self.user_change_password(change),
            AuthChangeKind::UserGrantRole(grant) => self.user_grant_role(grant),
            AuthChangeKind::UserRevokeRole(revoke) => self.user_revoke_role(revoke),
            AuthChangeKind::RoleAdd(name) => self.role_add(name),
            AuthChangeKind::RoleDelete(name) => self.role_delete(name),
            AuthChangeKind::RoleGrantPermission(grant) => self.role_grant(grant),
            AuthChangeKind::RoleRevokePermission(revoke) => self.role_revoke(revoke),
            AuthChangeKind::AssignToken(assign) => self.assign_token(assign),
        }
    }

    /// No new revision, as in etcd: what clients were authenticated at does not go stale by it.
    fn enable(&mut self) -> Changed<'static> {
        if self.enabled {
            return Ok(Effect::None);
        }
        let root = self.users.get(ROOT).ok_or(AuthRefusal::RootUserMissing)?;
        if !root.is_root() {
            return Err(AuthRefusal::RootRoleMissing);
        }
        self.enabled = true;
        Ok(Effect::EndAll)
    }

    fn disable(&mut self) -> Effect<'static> {
        if !self.enabled {
            return Effect::None;
        }
        self.enabled = false;
        self.revision += 1;
        Effect::EndAll
    }

    fn user_add(&mut self, add: &UserAdd) -> Changed<'static> {
        if add.name.is_empty() {
            return Err(AuthRefusal::UserEmpty);
        }
        if self.users.contains_key(&add.name) {
            return Err(AuthRefusal::UserExists);
        }
        let user = User {
            password_hash: copied(&add.password_hash),
            no_password: add.no_password,
            ..User::default()
        };
        self.users.insert(add.name.clone(), Arc::new(user));
        self.revision += 1;
        Ok(Effect::None)
    }

    fn user_delete<'a>(&mut self, name: &'a str) -> Changed<'a> {
        if self.enabled && name == ROOT {
            return Err(AuthRefusal::InvalidManagement);
        }
        self.users.remove(name).ok_or(AuthRefusal::UserNotFound)?;
        self.revision += 1;
        Ok(Effect::End(name))
    }

    fn user_change_password<'a>(&mut self, change: &'a UserChangePassword) -> Changed<'a> {
        let user = self.user_mut(&change.name)?;
        // Without a password the user stays without.
        user.password_hash =
            if user.no_password { Bytes::new() } else { copied(&change.password_hash) };
        self.revision += 1;
        Ok(Effect::End(&change.name))
    }

    fn user_grant_role(&mut self, grant: &UserRole) -> Changed<'static> {
        if !self.users.contains_key(&grant.user) {
            return Err(AuthRefusal::UserNotFound);
        }
        if grant.role != ROOT && !self.roles.contains_key(&grant.role) {
            return Err(AuthRefusal::RoleNotFound);
        }
        let user = self.user_mut(&grant.user)?;
        let Err(place) = user.roles.binary_search(&grant.role) else { return Ok(Effect::None) };
        user.roles.insert(place, grant.role.clone());
        user.allowed = OnceLock::new();
        self.revision += 1;
        Ok(Effect::None)
    }

    fn user_revoke_role(&mut self, revoke: &UserRole) -> Changed<'static> {
        if self.enabled && revoke.user == ROOT && revoke.role == ROOT {
            return Err(AuthRefusal::InvalidManagement);
        }
        let user = self.user_mut(&revoke.user)?;
        let place =
            user.roles.binary_search(&revoke.role).map_err(|_| AuthRefusal::RoleNotGranted)?;
        user.roles.remove(place);
        user.allowed = OnceLock::new();
        self.revision += 1;
        Ok(Effect::None)
    }

    fn role_add(&mut self, name: &str) -> Changed<'static> {
        if name.is_empty() {
            return Err(AuthRefusal::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthRefusal::RoleExists);
        }
        self.roles.insert(name.to_owned(), Arc::default());
        // A user can have had a role root without one.
        self.forget_allowed(name);
        self.revision += 1;
        Ok(Effect::None)
    }

    fn role_delete(&mut self, name: &str) -> Changed<'static> {
        if self.enabled && name == ROOT {
            return Err(AuthRefusal::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthRefusal::RoleNotFound)?;
        self.forget_allowed(name);
        for user in self.users.values_mut().filter(|user| user.has_role(name)) {
            Arc::make_mut(user).roles.retain(|role| role != name);
        }
        self.revision += 1;
        Ok(Effect::None)
    }

    fn role_grant(&mut self, grant: &RoleGrantPermission) -> Changed<'static> {
        let permission = grant.permission.as_ref().ok_or(AuthRefusal::PermissionNotGiven)?;
        if !has_keys(permission) {
            return Err(AuthRefusal::InvalidManagement);
        }
        let permissions = self.role_mut(&grant.role)?;
        match permissions
            .iter_mut()
            .find(|held| is_range(held, &permission.key, &permission.range_end))
        {
            Some(held) => held.kind = permission.kind,
            None => {
                // After those that begin with the same key.
                let place = permissions.partition_point(|held| held.key <= permission.key);
                let (key, range_end) = (copied(&permission.key), copied(&permission.range_end));
                permissions.insert(place, Permission { kind: permission.kind, key, range_end });
            }
        }
        self.forget_allowed(&grant.role);
        self.revision += 1;
        Ok(Effect::None)
    }

    fn role_revoke(&mut self, revoke: &RoleRevokePermission) -> Changed<'static> {
        let permissions = self.role_mut(&revoke.role)?;
        let place = permissions
            .iter()
            .position(|held| is_range(held, &revoke.key, &revoke.range_end))
            .ok_or(AuthRefusal::PermissionNotGranted)?;
        permissions.remove(place);
        self.forget_allowed(&revoke.role);
        self.revision += 1;
        Ok(Effect::None)
    }

    /// The rules may have changed since the password was checked: then it is checked again.
    fn assign_token<'a>(&mut self, assign: &'a AssignToken) -> Changed<'a> {
        if !self.enabled {
            return Err(AuthRefusal::NotEnabled);
        }
        let user = self.users.get(&assign.user).ok_or(AuthRefusal::AuthenticationFailed)?;
        if user.no_password {
            return Err(AuthRefusal::AuthenticationFailed);
        }
        if assign.auth_revision != self.revision {
            return Err(AuthRefusal::OldRevision);
        }
        Ok(Effect::Assign(assign))
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, AuthRefusal> {
        self.users.get_mut(name).map(Arc::make_mut).ok_or(AuthRefusal::UserNotFound)
    }

    fn role_mut(&mut self, name: &str) -> Result<&mut Vec<Permission>, AuthRefusal> {
        self.roles.get_mut(name).map(Arc::make_mut).ok_or(AuthRefusal::RoleNotFound)
    }

    /// The rights of everyone who has the role are to be worked out anew.
    fn forget_allowed(&mut self, role: &str) {
        for user in self.users.values_mut().filter(|user| user.has_role(role)) {
            Arc::make_mut(user).allowed = OnceLock::new();
        }
    }
}

/// Without the buffer of the log entry that it came in.
fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn is_range(permission: &Permission, key: &Bytes, range_end: &Bytes) -> bool {
    permission.key == *key && permission.range_end == *range_end
}

/// Whether the range of a permission holds any key.
fn has_keys(permission: &Permission) -> bool {
    let (key, range_end) = (&permission.key, &permission.range_end);
    !key.is_empty() && (range_end.is_empty() || range_end.as_ref() == [0] || key < range_end)
}
