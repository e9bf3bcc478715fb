//! Members, maintenance, logins, users and roles.

use etcd_client::{AlarmAction, AlarmType, Error, GetOptions, Permission};

use crate::access::{Access, Login};
use crate::check::{Outcome, equal, fails, holds, key};

const DENIED: &str = "etcdserver: permission denied";

pub async fn cluster(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let members = client.member_list().await?;
    let mut names: Vec<_> =
        members.members().iter().map(|member| member.name().to_owned()).collect();
    names.sort();
    let expected: Vec<_> = (1..=access.members()).map(|i| format!("m{i}")).collect();
    equal(names, expected)?;
    let scheme = if access.tls() { "https://" } else { "http://" };
    let addressed = |member: &etcd_client::Member| member.client_urls()[0].starts_with(scheme);
    holds("they have addresses", members.members().iter().all(addressed))?;
    let status = client.status().await?;
    holds("a version of etcd's", status.version().starts_with("3."))?;
    let leads = |member: &etcd_client::Member| member.id() == status.leader();
    holds("a leader among them", members.members().iter().any(leads))?;
    equal((status.is_learner(), status.errors().len()), (false, 0))
}

pub async fn maintenance(access: &Access) -> Outcome {
    let mut root = access.root().await?;
    root.defragment().await?;
    equal(root.alarm(AlarmAction::Get, AlarmType::None, None).await?.alarms().len(), 0)?;
    holds("a hash", root.hash_kv(0).await?.hash() != 0)?;
    let mut snapshot = root.snapshot().await?;
    let (mut size, mut remaining) = (0, u64::MAX);
    while let Some(piece) = snapshot.message().await? {
        size += piece.blob().len();
        remaining = piece.remaining_bytes();
    }
    // A bbolt file's pages, and a SHA-256 of them.
    equal((size % 512, remaining), (32, 0))
}

pub async fn wrong_password(access: &Access) -> Outcome {
    let stranger = access.connect(Login::Other(access.user(), "wrong")).await;
    fails(stranger, "etcdserver: authentication failed, invalid user ID or password")
}

pub async fn forbidden(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    fails(client.put("root-only", "", None).await, DENIED)?;
    fails(client.get("", Some(GetOptions::new().with_all_keys())).await, DENIED)?;
    fails(client.user_list().await, DENIED)?;
    let mut watch = client.watch("root-only", None).await?;
    let answer = watch.message().await?.ok_or("the watch has ended")?;
    equal((answer.created(), answer.canceled(), answer.watch_id()), (true, true, -1))?;
    holds(answer.cancel_reason(), answer.cancel_reason().contains(DENIED))?;
    access.root().await?.put("root-only", "", None).await?;
    Ok(())
}

pub async fn no_login(access: &Access) -> Outcome {
    let mut nobody = access.connect(Login::Nobody).await?;
    let refused = nobody.put(key("a"), "", None).await;
    // A certificate without a name is nobody's, or in etcd's words of a user that there is not.
    if access.tls()
        && matches!(&refused, Err(Error::GRpcStatus(status)) if status.message() == DENIED)
    {
        return Ok(());
    }
    fails(refused, "etcdserver: user name is empty")
}

pub async fn users_and_roles(access: &Access) -> Outcome {
    let mut root = access.root().await?;
    root.role_add("visitor").await?;
    fails(root.role_add("visitor").await, "etcdserver: role name already exists")?;
    let permission = Permission::read(key("")).with_prefix();
    root.role_grant_permission("visitor", permission.clone()).await?;
    equal(root.role_get("visitor").await?.permissions(), vec![permission])?;
    root.user_add("eve", "eve-pw", None).await?;
    root.user_grant_role("eve", "visitor").await?;
    equal(root.user_get("eve").await?.roles(), &["visitor".to_owned()])?;
    root.put(key("shown"), "to eve", None).await?;
    let mut eve = access.connect(Login::Other("eve", "eve-pw")).await?;
    equal(eve.get(key("shown"), None).await?.kvs()[0].value(), b"to eve")?;
    fails(eve.put(key("shown"), "", None).await, DENIED)?;
    root.user_revoke_role("eve", "visitor").await?;
    fails(eve.get(key("shown"), None).await, DENIED)?;
    root.user_change_password("eve", "other").await?;
    let old = access.connect(Login::Other("eve", "eve-pw")).await;
    fails(old, "etcdserver: authentication failed, invalid user ID or password")?;
    root.user_delete("eve").await?;
    root.role_delete("visitor").await?;
    fails(root.user_get("eve").await, "etcdserver: user name not found")?;
    fails(root.role_get("visitor").await, "etcdserver: role name not found")
}

pub async fn certificate_is_a_login(access: &Access) -> Outcome {
    let mut named = access.connect(Login::Certificate).await?;
    named.put(key("by-certificate"), "1", None).await?;
    let mut client = access.client().await?;
    equal(client.get(key("by-certificate"), None).await?.kvs()[0].value(), b"1")?;
    fails(named.put("root-only", "", None).await, DENIED)
}
