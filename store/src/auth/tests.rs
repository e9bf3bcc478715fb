//! The judge against a naive one, the advisories that etcd had to publish, and what tables refuse.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::auth::authorize::{LeasedKeys, access_of, authorize};
use crate::auth::{Access, AuthRefusal, AuthTable, StoredAuth};
use crate::command::*;

/// Leases and their keys.
#[derive(Debug, Default)]
struct Leases(BTreeMap<i64, Vec<Bytes>>);

impl LeasedKeys for Leases {
    fn all_keys(&self, lease: i64, passes: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.get(&lease).is_none_or(|keys| keys.iter().all(passes))
    }

    fn all_leases(&self, passes: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.values().flatten().all(passes)
    }
}

fn permission(kind: PermissionKind, key: &str, range_end: &str) -> Permission {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Permission { kind: kind as i32, key: bytes(key), range_end: bytes(range_end) }
}

fn grant(role: &str, permission: Permission) -> AuthChangeKind {
    let role = role.to_owned();
    AuthChangeKind::RoleGrantPermission(RoleGrantPermission { role, permission: Some(permission) })
}

fn user_role(user: &str, role: &str) -> UserRole {
    UserRole { user: user.into(), role: role.into() }
}

fn change(table: &mut AuthTable, change: AuthChangeKind) {
    table.change(&change).unwrap_or_else(|refusal| panic!("{change:?}: {refusal}"));
}

/// Authorization is on; ann has the roles of `roles`, numbered, and root is root.
fn table(roles: &[Vec<Permission>]) -> AuthTable {
    let mut table = AuthTable::default();
    for name in ["root", "ann"] {
        change(
            &mut table,
            AuthChangeKind::UserAdd(UserAdd { name: name.into(), ..UserAdd::default() }),
        );
    }
    change(&mut table, AuthChangeKind::UserGrantRole(user_role("root", "root")));
    for (number, permissions) in roles.iter().enumerate() {
        let role = format!("role{number}");
        change(&mut table, AuthChangeKind::RoleAdd(role.clone()));
        change(&mut table, AuthChangeKind::UserGrantRole(user_role("ann", &role)));
        for permission in permissions {
            // What holds no key is refused, and gives nothing to the naive judge either.
            let _ = table.change(&grant(&role, permission.clone()));
        }
    }
    change(&mut table, AuthChangeKind::Enable(true));
    table
}

fn someone(table: &AuthTable, user: &str) -> Option<Credentials> {
    Some(Credentials { user: user.into(), auth_revision: table.revision() })
}

fn judged(table: &AuthTable, user: &str, access: &Access<'_>) -> Result<(), AuthRefusal> {
    authorize(table, &Leases::default(), someone(table, user).as_ref(), access)
}

/// The naive judge. Keys between two neighbouring bounds are all in a permission or all out of it,
/// so a range is covered if its first key is, and every bound within it.
mod naive {
    use super::*;

    fn contains(permission: &Permission, key: &[u8]) -> bool {
        match permission.range_end.as_ref() {
            [] => permission.key == key,
            [0] => permission.key <= key,
            end => permission.key <= key && key < end,
        }
    }

    fn allows(permission: &Permission, write: bool) -> bool {
        match permission.kind {
            0 => !write,
            1 => write,
            2 => true,
            _ => false,
        }
    }

    pub(super) fn may(held: &[Permission], write: bool, key: &[u8], range_end: &[u8]) -> bool {
        let held: Vec<_> = held.iter().filter(|held| allows(held, write)).collect();
        let within = |bound: &[u8]| match range_end {
            [] => false,
            [0] => bound > key,
            end => bound > key && bound < end,
        };
        let mut bounds = vec![key.to_vec()];
        for permission in &held {
            bounds.push(permission.key.to_vec());
            bounds.push([permission.key.as_ref(), &[0]].concat());
            bounds.push(permission.range_end.to_vec());
        }
        bounds.retain(|bound| bound == key || within(bound));
        bounds.iter().all(|bound| held.iter().any(|held| contains(held, bound)))
    }

    pub(super) fn may_put(held: &[Permission], leases: &Leases, put: &Put) -> bool {
        may(held, true, &put.key, b"")
            && (!put.prev_kv || may(held, false, &put.key, b""))
            && may_lease(held, leases, true, put.lease)
    }

    pub(super) fn may_lease(held: &[Permission], leases: &Leases, write: bool, id: i64) -> bool {
        leases.0.get(&id).into_iter().flatten().all(|key| may(held, write, key, b""))
    }

    pub(super) fn may_txn(held: &[Permission], leases: &Leases, txn: &Txn) -> bool {
        let mut may_all = txn.compare.iter().all(|c| may(held, false, &c.key, &c.range_end));
        for operation in txn.success.iter().chain(&txn.failure) {
            may_all &= match operation.kind.as_ref().expect("every operation is one") {
                OperationKind::Range(range) => may(held, false, &range.key, &range.range_end),
                OperationKind::Put(put) => may_put(held, leases, put),
                OperationKind::DeleteRange(delete) => may_delete(held, delete),
                OperationKind::Txn(txn) => may_txn(held, leases, txn),
            };
        }
        may_all
    }

    pub(super) fn may_delete(held: &[Permission], delete: &DeleteRange) -> bool {
        may(held, true, &delete.key, &delete.range_end)
            && (!delete.prev_kv || may(held, false, &delete.key, &delete.range_end))
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    let letter = prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(b'c'), Just(255)];
    vec(letter, 1..4).prop_map(Bytes::from)
}

/// Ranges that hold a key: one, all from one on, or up to another.
fn range() -> impl Strategy<Value = (Bytes, Bytes)> {
    (key(), key(), 0..4).prop_map(|(a, b, kind)| match kind {
        0 => (a, Bytes::new()),
        1 => (a, Bytes::from_static(b"\0")),
        _ if a == b => (a, Bytes::new()),
        _ => (a.clone().min(b.clone()), a.max(b)),
    })
}

fn permissions() -> impl Strategy<Value = Vec<Permission>> {
    let one = (0..4i32, range());
    vec(one.prop_map(|(kind, (key, range_end))| Permission { kind, key, range_end }), 0..6)
}

fn put() -> impl Strategy<Value = Put> {
    let put = |(key, lease, prev_kv)| Put { key, lease, prev_kv, ..Put::default() };
    (key(), 0..3i64, any::<bool>()).prop_map(put)
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    (range(), any::<bool>()).prop_map(|((key, range_end), prev_kv)| DeleteRange {
        key,
        range_end,
        prev_kv,
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        put().prop_map(OperationKind::Put),
        delete().prop_map(OperationKind::DeleteRange),
        range().prop_map(|(key, range_end)| {
            OperationKind::Range(Range { key, range_end, ..Range::default() })
        }),
    ];
    let compares = || {
        let compare = |(key, range_end)| Compare { key, range_end, ..Compare::default() };
        vec(range().prop_map(compare), 0..2)
    };
    let operation = leaf.prop_recursive(3, 8, 2, move |inner| {
        let operations =
            || vec(inner.clone().prop_map(|kind| Operation { kind: Some(kind) }), 0..2);
        (compares(), operations(), operations()).prop_map(|(compare, success, failure)| {
            OperationKind::Txn(Txn { compare, success, failure })
        })
    });
    operation
        .prop_map(|kind| Txn { success: vec![Operation { kind: Some(kind) }], ..Txn::default() })
}

fn leases() -> impl Strategy<Value = Leases> {
    vec(vec(key(), 0..3), 2).prop_map(|keys| Leases((1..).zip(keys).collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_judge_agrees_with_a_naive_one(
        roles in vec(permissions(), 0..3),
        leases in leases(),
        (key, range_end) in range(),
        put in put(),
        delete in delete(),
        txn in txn(),
    ) {
        let table = table(&roles);
        // The last grant of a range in a role is the one that counts.
        let mut held = Vec::new();
        for role in 0..roles.len() {
            held.extend(table.permissions(&format!("role{role}")).expect("a role"));
        }
        let range = Range { key: key.clone(), range_end: range_end.clone(), ..Range::default() };
        let watch = Access::Watch { key: &key, range_end: &range_end };
        let asked = [
            (Access::Range(&range), naive::may(&held, false, &key, &range_end)),
            (watch, naive::may(&held, false, &key, &range_end)),
            (Access::Put(&put), naive::may_put(&held, &leases, &put)),
            (Access::DeleteRange(&delete), naive::may_delete(&held, &delete)),
            (Access::Txn(&txn), naive::may_txn(&held, &leases, &txn)),
            (Access::LeaseRevoke(1), naive::may_lease(&held, &leases, true, 1)),
            (Access::LeaseKeepAlive(2), naive::may_lease(&held, &leases, true, 2)),
            (Access::LeaseKeys(1), naive::may_lease(&held, &leases, false, 1)),
            (Access::LeaseList, [1, 2].iter().all(|id| naive::may_lease(&held, &leases, false, *id))),
            (Access::Authenticated, true),
            (Access::Administer, false),
        ];
        for (access, allowed) in asked {
            let judged = authorize(&table, &leases, someone(&table, "ann").as_ref(), &access);
            let expected = if allowed { Ok(()) } else { Err(AuthRefusal::PermissionDenied) };
            prop_assert_eq!(judged, expected, "{:?} with {:?}", access, held);
            let root = authorize(&table, &leases, someone(&table, "root").as_ref(), &access);
            prop_assert_eq!(root, Ok(()), "root: {:?}", access);
            prop_assert!(authorize(&table, &leases, None, &access).is_err(), "nobody: {:?}", access);
        }
    }

    #[test]
    fn a_stored_table_is_the_same_table(roles in vec(permissions(), 0..3)) {
        let table = table(&roles);
        let stored = StoredAuth::of(&table).expect("it was changed");
        let restored = stored.restored().expect("it was stored");
        prop_assert_eq!(StoredAuth::of(&restored), Some(stored));
    }
}

fn range_of(key: &'static str, range_end: &'static str) -> Range {
    Range { key: Bytes::from(key), range_end: Bytes::from(range_end), ..Range::default() }
}

fn txn_of(kind: OperationKind) -> Txn {
    Txn { success: vec![Operation { kind: Some(kind) }], ..Txn::default() }
}

const DENIED: Result<(), AuthRefusal> = Err(AuthRefusal::PermissionDenied);

/// GHSA-xg4h-6gfc-h4m8: who could read one key could watch every key from it on.
#[test]
fn the_right_to_one_key_is_none_to_the_range_that_begins_with_it() {
    let table = table(&[vec![permission(PermissionKind::Read, "k", "")]]);
    for (range_end, expected) in [("", Ok(())), ("\0", DENIED), ("l", DENIED), ("k\0\0", DENIED)] {
        let watch = Access::Watch { key: b"k", range_end: range_end.as_bytes() };
        assert_eq!(judged(&table, "ann", &watch), expected, "{range_end:?}");
        let read = judged(&table, "ann", &Access::Range(&range_of("k", range_end)));
        assert_eq!(read, expected, "{range_end:?}");
    }
}

/// CVE-2026-33343: operations of a transaction within a transaction were not judged.
#[test]
fn transactions_are_judged_to_their_innermost_operation() {
    let table = table(&[vec![permission(PermissionKind::ReadWrite, "a", "b")]]);
    let secret = || OperationKind::Range(range_of("secret", ""));
    for depth in 1..5 {
        let (mut hidden, mut open) =
            (txn_of(secret()), txn_of(OperationKind::Range(range_of("a", ""))));
        for _ in 1..depth {
            hidden = txn_of(OperationKind::Txn(hidden));
            open = txn_of(OperationKind::Txn(open));
        }
        assert_eq!(judged(&table, "ann", &Access::Txn(&hidden)), DENIED, "depth {depth}");
        assert_eq!(judged(&table, "ann", &Access::Txn(&open)), Ok(()), "depth {depth}");
        let failure = Txn { failure: hidden.success, ..Txn::default() };
        assert_eq!(judged(&table, "ann", &Access::Txn(&failure)), DENIED, "the branch not taken");
    }
}

/// CVE-2026-44283: within a transaction, a put showed the previous value of a key that its user may
/// not read, and attached to a lease whose keys it may not write.
#[test]
fn a_put_within_a_transaction_is_judged_like_one_by_itself() {
    let table = table(&[vec![permission(PermissionKind::Write, "w", "")]]);
    let leases = Leases([(7, vec![Bytes::from("secret")]), (8, vec![])].into());
    let who = someone(&table, "ann");
    for (prev_kv, lease, expected) in [
        (false, 0, Ok(())),
        (true, 0, DENIED),
        (false, 7, DENIED),
        (false, 8, Ok(())),
        (false, 9, Ok(())),
    ] {
        let put = Put { key: Bytes::from("w"), prev_kv, lease, ..Put::default() };
        let within = txn_of(OperationKind::Put(put.clone()));
        for access in [Access::Put(&put), Access::Txn(&within)] {
            assert_eq!(authorize(&table, &leases, who.as_ref(), &access), expected, "{access:?}");
        }
    }
}

/// CVE-2026-33413: calls that change or show the cluster were answered without asking who calls.
#[test]
fn what_administers_is_for_root_and_nothing_is_for_nobody() {
    let table = table(&[vec![permission(PermissionKind::ReadWrite, "\0", "\0")]]);
    assert_eq!(judged(&table, "ann", &Access::Administer), DENIED, "with every key");
    for access in [Access::Administer, Access::Authenticated, Access::LeaseList] {
        let nobody = authorize(&table, &Leases::default(), None, &access);
        assert_eq!(nobody, Err(AuthRefusal::UserEmpty), "{access:?}");
        let unnamed = Some(Credentials { user: String::new(), auth_revision: 99 });
        let unnamed = authorize(&table, &Leases::default(), unnamed.as_ref(), &access);
        assert_eq!(unnamed, Err(AuthRefusal::UserEmpty), "{access:?}");
    }
    let compact = Command::from(Change::Compact(Compact { revision: 1 }));
    assert!(access_of(&compact).is_none(), "a member's own");
    let asked = Command { credentials: someone(&table, "ann"), ..compact };
    assert!(matches!(access_of(&asked), Some(Access::Administer)), "a client's");
}

#[test]
fn an_older_authentication_reads_and_writes_nothing_but_root_may_go_on_administering() {
    let table = table(&[vec![permission(PermissionKind::ReadWrite, "a", "")]]);
    let old = |user: &str| Credentials { user: user.into(), auth_revision: table.revision() - 1 };
    let judged =
        |user, access: &Access<'_>| authorize(&table, &Leases::default(), Some(&old(user)), access);
    for user in ["ann", "root"] {
        let read = judged(user, &Access::Range(&range_of("a", "")));
        assert_eq!(read, Err(AuthRefusal::OldRevision), "{user}");
    }
    assert_eq!(judged("root", &Access::Administer), Ok(()));
    assert_eq!(judged("ann", &Access::Administer), DENIED);
}

#[test]
fn users_and_roles_that_are_gone_have_no_rights() {
    let mut table = table(&[vec![permission(PermissionKind::ReadWrite, "a", "")]]);
    let read = range_of("a", "");
    assert_eq!(judged(&table, "ann", &Access::Range(&read)), Ok(()));
    change(&mut table, AuthChangeKind::RoleDelete("role0".into()));
    assert_eq!(judged(&table, "ann", &Access::Range(&read)), DENIED);
    change(&mut table, AuthChangeKind::RoleAdd("role0".into()));
    change(&mut table, grant("role0", permission(PermissionKind::Read, "a", "")));
    assert_eq!(judged(&table, "ann", &Access::Range(&read)), DENIED, "the role is not held again");
    change(&mut table, AuthChangeKind::UserDelete("ann".into()));
    assert_eq!(judged(&table, "ann", &Access::Range(&read)), DENIED);
    assert_eq!(judged(&table, "ann", &Access::Administer), Err(AuthRefusal::UserNotFound));
}

#[test]
fn users_see_themselves_and_their_roles_and_root_sees_all() {
    let table = table(&[vec![]]);
    for (user, access, expected) in [
        ("ann", Access::User("ann"), Ok(())),
        ("ann", Access::User("root"), DENIED),
        ("ann", Access::Role("role0"), Ok(())),
        ("ann", Access::Role("root"), DENIED),
        ("root", Access::User("ann"), Ok(())),
        ("root", Access::Role("role0"), Ok(())),
    ] {
        assert_eq!(judged(&table, user, &access), expected, "{user} {access:?}");
    }
}

#[test]
fn authorization_that_is_off_asks_nobody() {
    let mut table = table(&[]);
    change(&mut table, AuthChangeKind::Enable(false));
    assert_eq!(authorize(&table, &Leases::default(), None, &Access::Administer), Ok(()));
}
