//! The Cluster service: who the members are.

use holdfast_proto::etcdserverpb::{Member, MemberListRequest, MemberListResponse};

use crate::services::Services;
use crate::status::Error;

/// Lists the members, by id. The header says nothing about the store.
pub async fn member_list(
    services: &Services,
    request: MemberListRequest,
) -> Result<MemberListResponse, Error> {
    if request.linearizable {
        services.port.read_barrier().await?;
    }
    let members = services.node().members().into_iter().map(member).collect();
    Ok(MemberListResponse { header: Some(services.headers.without_revision()), members })
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
