//! The Cluster service: who the members are, and changing that.
//!
//! Headers say nothing about the store. Peer URLs are checked as etcd checks them; everything else is
//! for the leader to decide.

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

use crate::config::Urls;
use crate::services::Services;
use crate::status::Error;

/// Lists the members, by id.
pub async fn member_list(
    services: &Services,
    request: MemberListRequest,
) -> Result<MemberListResponse, Error> {
    if request.linearizable {
        services.port.read_barrier().await?;
    }
    let members = wire(services.node().members());
    Ok(MemberListResponse { header: Some(services.headers.without_revision()), members })
}

/// Adds a member, which has to be started then.
pub async fn member_add(
    services: &Services,
    request: MemberAddRequest,
) -> Result<MemberAddResponse, Error> {
    let urls = Urls::from_list(&request.peer_ur_ls).map_err(|_| Error::MemberBadUrls)?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since_1970.map_or(0, |duration| duration.as_secs());
    let node = services.node();
    let (added, members) = node.add_member(urls.into_vec(), request.is_learner, seconds).await?;
    Ok(MemberAddResponse {
        header: Some(services.headers.without_revision()),
        member: Some(member(added)),
        members: wire(members),
    })
}

/// Removes a member, for ever.
pub async fn member_remove(
    services: &Services,
    request: MemberRemoveRequest,
) -> Result<MemberRemoveResponse, Error> {
    let members = wire(services.node().remove_member(request.id).await?);
    Ok(MemberRemoveResponse { header: Some(services.headers.without_revision()), members })
}

/// Has a member reached at other peer URLs.
pub async fn member_update(
    services: &Services,
    request: MemberUpdateRequest,
) -> Result<MemberUpdateResponse, Error> {
    // etcd takes anything here, and a member without a URL could not be reached any more.
    let urls = Urls::from_list(&request.peer_ur_ls).map_err(|_| Error::MemberBadUrls)?;
    let members = wire(services.node().update_member(request.id, urls.into_vec()).await?);
    Ok(MemberUpdateResponse { header: Some(services.headers.without_revision()), members })
}

/// Makes a voter of a learner.
pub async fn member_promote(
    services: &Services,
    request: MemberPromoteRequest,
) -> Result<MemberPromoteResponse, Error> {
    let members = wire(services.node().promote_member(request.id).await?);
    Ok(MemberPromoteResponse { header: Some(services.headers.without_revision()), members })
}

fn wire(members: Vec<holdfast_raft::Member>) -> Vec<Member> {
    members.into_iter().map(member).collect()
}

fn member(member: holdfast_raft::Member) -> Member {
    Member {
        id: member.id,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    }
}
