//! Changes of the membership, and what became of them, on the wire.

use holdfast_proto::peer;
use holdfast_proto::peer::reconfigure_request::{Add, Change, Update};
use holdfast_proto::peer::reconfigure_response::{self, Kind, Refusal};

use super::Decision;
use crate::error::MemberRefusal;
use crate::members::MemberChange;
use crate::node::Member;

pub(super) fn request(change: &MemberChange, strict: bool) -> peer::ReconfigureRequest {
    let change = match change.clone() {
        MemberChange::Add { seconds, peer_urls, is_learner: learner, learners_max } => {
            Change::Add(Add { seconds, peer_urls, learner, learners_max })
        }
        MemberChange::Remove(member) => Change::Remove(member),
        MemberChange::Promote(member) => Change::Promote(member),
        MemberChange::Update { member, peer_urls } => Change::Update(Update { member, peer_urls }),
    };
    peer::ReconfigureRequest { change: Some(change), strict }
}

/// None of a change that this version does not know.
pub(super) fn change(request: peer::ReconfigureRequest) -> Option<MemberChange> {
    Some(match request.change? {
        Change::Add(Add { seconds, peer_urls, learner: is_learner, learners_max }) => {
            MemberChange::Add { seconds, peer_urls, is_learner, learners_max }
        }
        Change::Remove(member) => MemberChange::Remove(member),
        Change::Promote(member) => MemberChange::Promote(member),
        Change::Update(Update { member, peer_urls }) => MemberChange::Update { member, peer_urls },
    })
}

pub(super) fn response(decision: Decision) -> peer::ReconfigureResponse {
    let mut response = peer::ReconfigureResponse::default();
    match decision {
        Decision::Done(index, members) => {
            response.set_kind(Kind::Done);
            response.log_id = Some(peer::LogId { term: 0, index });
            response.members = members.into_iter().map(member_to_wire).collect();
        }
        Decision::NotLeader => response.set_kind(Kind::NotLeader),
        Decision::Refused(refusal) => {
            response.set_kind(Kind::Refused);
            response.set_refusal(refusal_to_wire(refusal));
        }
        Decision::Unknown => response.set_kind(Kind::Unknown),
    }
    response
}

/// What is not understood is unknown.
pub(super) fn decision(response: peer::ReconfigureResponse) -> Decision {
    match response.kind() {
        Kind::Done => {
            let index = response.log_id.as_ref().map_or(0, |log_id| log_id.index);
            Decision::Done(index, response.members.into_iter().map(member_from_wire).collect())
        }
        Kind::NotLeader => Decision::NotLeader,
        Kind::Refused => {
            refusal_from_wire(response.refusal()).map_or(Decision::Unknown, Decision::Refused)
        }
        Kind::Unknown => Decision::Unknown,
    }
}

fn member_to_wire(member: Member) -> reconfigure_response::Member {
    let Member { id, name, peer_urls, client_urls, is_learner: learner } = member;
    reconfigure_response::Member { member: id, name, peer_urls, client_urls, learner }
}

fn member_from_wire(wire: reconfigure_response::Member) -> Member {
    let reconfigure_response::Member { member: id, name, peer_urls, client_urls, learner } = wire;
    Member { id, name, peer_urls, client_urls, is_learner: learner }
}

fn refusal_to_wire(refusal: MemberRefusal) -> Refusal {
    match refusal {
        MemberRefusal::NotFound => Refusal::NotFound,
        MemberRefusal::IdExists => Refusal::IdExists,
        MemberRefusal::PeerUrlExists => Refusal::PeerUrlExists,
        MemberRefusal::NotEnoughStarted => Refusal::NotEnoughStarted,
        MemberRefusal::Unhealthy => Refusal::Unhealthy,
        MemberRefusal::NotLearner => Refusal::NotLearner,
        MemberRefusal::LearnerNotReady => Refusal::LearnerNotReady,
        MemberRefusal::TooManyLearners => Refusal::TooManyLearners,
        MemberRefusal::TooManyRequests => Refusal::TooManyRequests,
    }
}

fn refusal_from_wire(wire: Refusal) -> Option<MemberRefusal> {
    Some(match wire {
        Refusal::None => return None,
        Refusal::NotFound => MemberRefusal::NotFound,
        Refusal::IdExists => MemberRefusal::IdExists,
        Refusal::PeerUrlExists => MemberRefusal::PeerUrlExists,
        Refusal::NotEnoughStarted => MemberRefusal::NotEnoughStarted,
        Refusal::Unhealthy => MemberRefusal::Unhealthy,
        Refusal::NotLearner => MemberRefusal::NotLearner,
        Refusal::LearnerNotReady => MemberRefusal::LearnerNotReady,
        Refusal::TooManyLearners => MemberRefusal::TooManyLearners,
        Refusal::TooManyRequests => MemberRefusal::TooManyRequests,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_the_wire() {
        let peer_urls = vec!["http://a:1".to_owned()];
        let add = |is_learner| MemberChange::Add {
            seconds: 1,
            peer_urls: peer_urls.clone(),
            is_learner,
            learners_max: 2,
        };
        let update = MemberChange::Update { member: 1, peer_urls: peer_urls.clone() };
        for sent in
            [add(false), add(true), MemberChange::Remove(1), MemberChange::Promote(2), update]
        {
            assert_eq!(change(request(&sent, true)), Some(sent));
        }
        assert_eq!(change(peer::ReconfigureRequest::default()), None);
    }

    #[test]
    fn decisions_survive_the_wire_and_nothing_else_is_a_refusal() {
        let member = Member {
            id: 7,
            name: "a".to_owned(),
            peer_urls: vec!["http://a:1".to_owned()],
            client_urls: vec!["http://a:2".to_owned()],
            is_learner: true,
        };
        let done = Decision::Done(9, vec![member]);
        for made in [done, Decision::NotLeader, Decision::Unknown] {
            assert_eq!(decision(response(made.clone())), made);
        }
        for number in 1..=9 {
            let mut wire = peer::ReconfigureResponse { refusal: number, ..Default::default() };
            wire.set_kind(Kind::Refused);
            let Decision::Refused(refusal) = decision(wire.clone()) else { panic!("{number}") };
            assert_eq!(response(Decision::Refused(refusal)), wire);
        }
        let newer = peer::ReconfigureResponse { kind: 99, ..Default::default() };
        assert_eq!(decision(newer), Decision::Unknown);
        let mut newer = peer::ReconfigureResponse { refusal: 99, ..Default::default() };
        newer.set_kind(Kind::Refused);
        assert_eq!(decision(newer), Decision::Unknown);
    }
}
