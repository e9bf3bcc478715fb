//! The rules, case by case: who is refused what, in which order.

use super::*;

/// Voters 1 to `voters` and learners from 11 on, all of them started, connected and in sync.
fn view(voters: u64, learners: u64) -> View {
    let voters: BTreeSet<u64> = (1..=voters).collect();
    let all: BTreeSet<u64> = voters.iter().copied().chain(11..11 + learners).collect();
    let nodes = all.iter().map(|member| (*member, PeerNode::new(&[url(*member)]))).collect();
    let nodes: BTreeMap<u64, PeerNode> = nodes;
    View {
        leader: 1,
        membership: Membership::new(vec![voters], nodes).expect("every voter has a node"),
        removed: BTreeSet::new(),
        started: all.clone(),
        connected: all.iter().copied().filter(|member| *member != 1).collect(),
        matching: all.iter().map(|member| (*member, 100)).collect(),
        last_index: 100,
    }
}

fn url(member: u64) -> String {
    format!("http://m{member}:2380")
}

fn add(member: u64, is_learner: bool) -> MemberChange {
    MemberChange::Add { seconds: 0, peer_urls: vec![url(member)], is_learner, learners_max: 1 }
}

/// The id of a member that `add` adds.
fn drawn(member: u64) -> u64 {
    added_member_id(&[url(member)], "", 0)
}

fn down(mut view: View, members: &[u64]) -> View {
    view.connected.retain(|member| !members.contains(member));
    view
}

fn unstarted(mut view: View, members: &[u64]) -> View {
    view.started.retain(|member| !members.contains(member));
    down(view, members)
}

fn voters(membership: &Membership) -> Vec<u64> {
    membership.voter_ids().collect()
}

#[test]
fn members_come_go_and_are_promoted_one_at_a_time() {
    let grown = view(3, 0).decide(&add(4, false), true).expect("a voter");
    assert_eq!(voters(&grown), [1, 2, 3], "not before it is in sync");
    assert!(grown.get_node(&drawn(4)).expect("there").joins_as_voter);
    let learning = view(3, 0).decide(&add(4, true), true).expect("a learner");
    assert_eq!(
        (voters(&learning), learning.learner_ids().collect()),
        (vec![1, 2, 3], vec![drawn(4)])
    );
    let promoted = view(3, 1).decide(&MemberChange::Promote(11), true).expect("in sync");
    assert_eq!(voters(&promoted), [1, 2, 3, 11]);
    for gone in [1, 2] {
        let left = view(3, 0).decide(&MemberChange::Remove(gone), true).expect("two are left");
        assert!(voters(&left).len() == 2 && left.get_node(&gone).is_none());
    }
    let moved = MemberChange::Update { member: 2, peer_urls: vec!["http://new:1".to_owned()] };
    let moved = view(3, 1).decide(&moved, true).expect("a free URL");
    assert_eq!(moved.get_node(&2).expect("there").peer_urls, ["http://new:1"]);
    assert_eq!((voters(&moved).len(), moved.learner_ids().count()), (3, 1));
}

#[test]
fn a_member_added_as_a_voter_votes_once_it_is_in_sync() {
    let joining = |started: bool, connected: bool, last_index: u64| {
        let mut view = view(1, 0);
        view.membership = view.decide(&add(2, false), true).expect("a second member");
        view.started.extend(started.then_some(drawn(2)));
        view.connected.extend(connected.then_some(drawn(2)));
        view.matching.insert(drawn(2), 100);
        view.last_index = last_index;
        view
    };
    for (started, connected, last_index) in
        [(false, true, 100), (true, false, 100), (true, true, 1101)]
    {
        assert!(joining(started, connected, last_index).admissible().is_none());
    }
    let (member, admitted) = joining(true, true, 1100).admissible().expect("in sync");
    assert_eq!((member, voters(&admitted)), (drawn(2), vec![1, drawn(2)]));
    // For the rules it is a voter already.
    let early = joining(false, false, 100);
    let third = early.decide(&add(3, false), true);
    assert_eq!(third, Err(MemberRefusal::NotEnoughStarted));
    let promoted = joining(true, false, 100).decide(&MemberChange::Promote(drawn(2)), true);
    assert_eq!(promoted, Err(MemberRefusal::NotLearner));
    early.decide(&MemberChange::Remove(drawn(2)), true).expect("it is part of no quorum");
    early.decide(&add(3, true), true).expect_err("nor connected");
}

#[test]
fn ids_and_urls_are_not_used_twice() {
    use MemberRefusal::{NotFound, NotLearner, PeerUrlExists, TooManyLearners};
    let taken = |member| MemberChange::Update { member, peer_urls: vec![url(3)] };
    let second = MemberChange::Add {
        seconds: 4,
        peer_urls: vec!["http://free:1".to_owned(), url(11)],
        is_learner: false,
        learners_max: 1,
    };
    let rows = [
        (add(3, false), PeerUrlExists),
        (second, PeerUrlExists),
        (add(12, true), TooManyLearners),
        (taken(2), PeerUrlExists),
        (taken(9), NotFound),
        (MemberChange::Remove(9), NotFound),
        (MemberChange::Promote(9), NotFound),
        (MemberChange::Promote(2), NotLearner),
    ];
    for (change, refusal) in rows {
        assert_eq!(view(3, 1).decide(&change, true), Err(refusal), "{change:?}");
    }
    view(3, 1).decide(&taken(3), true).expect("its own URL");
}

#[test]
fn a_learner_is_promoted_when_it_has_nine_tenths_of_the_log() {
    let mut behind = view(3, 1);
    for (matching, is_ready) in [(89, false), (90, true)] {
        behind.matching.insert(11, matching);
        let decided = behind.decide(&MemberChange::Promote(11), true);
        assert_eq!(decided.is_ok(), is_ready, "{matching} of 100");
        assert!(is_ready || decided == Err(MemberRefusal::LearnerNotReady));
    }
    behind.matching.remove(&11);
    let decided = behind.decide(&MemberChange::Promote(11), false);
    assert_eq!(decided, Err(MemberRefusal::LearnerNotReady), "never heard of");
}

#[test]
fn a_strict_leader_keeps_a_quorum_of_members_that_have_started() {
    use MemberRefusal::NotEnoughStarted;
    let rows = [
        // One member grows to two; then the second has to start first.
        (view(1, 0), add(2, false), Ok(())),
        (unstarted(view(2, 0), &[2]), add(3, false), Err(NotEnoughStarted)),
        (unstarted(view(2, 0), &[2]), MemberChange::Remove(2), Ok(())),
        (unstarted(view(2, 0), &[2]), MemberChange::Remove(1), Err(NotEnoughStarted)),
        (unstarted(view(3, 0), &[3]), MemberChange::Remove(2), Err(NotEnoughStarted)),
        (unstarted(view(3, 0), &[3]), MemberChange::Remove(3), Ok(())),
        (unstarted(view(3, 1), &[2, 3]), MemberChange::Promote(11), Err(NotEnoughStarted)),
        (view(1, 0), MemberChange::Remove(1), Err(NotEnoughStarted)),
    ];
    for (view, change, expected) in rows {
        assert_eq!(view.decide(&change, true).map(|_| ()), expected, "{change:?}");
    }
    let lone = view(1, 1).decide(&MemberChange::Remove(1), false);
    assert_eq!(lone, Err(NotEnoughStarted), "a cluster needs a voter, strict or not");
    unstarted(view(2, 0), &[2]).decide(&add(3, false), false).expect("nobody insists");
}

#[test]
fn a_strict_leader_keeps_a_quorum_of_members_that_are_connected() {
    use MemberRefusal::Unhealthy;
    let rows = [
        // Three grow to four, with the new one down: all three are needed.
        (down(view(3, 0), &[3]), add(4, false), Err(Unhealthy)),
        (down(view(3, 0), &[3]), add(4, true), Err(Unhealthy)),
        (down(view(4, 0), &[4]), add(5, false), Ok(())),
        (down(view(3, 0), &[3]), MemberChange::Remove(3), Ok(())),
        (down(view(3, 0), &[3]), MemberChange::Remove(2), Err(Unhealthy)),
        (down(view(3, 0), &[3]), MemberChange::Remove(1), Err(Unhealthy)),
        (down(view(5, 0), &[5]), MemberChange::Remove(4), Ok(())),
        (down(view(3, 1), &[11]), MemberChange::Remove(11), Ok(())),
    ];
    for (view, change, expected) in rows {
        assert_eq!(view.decide(&change, true).map(|_| ()), expected, "{change:?}");
    }
}

#[test]
fn an_id_that_was_ever_taken_is_drawn_again() {
    let mut view = view(3, 0);
    view.removed.insert(drawn(4));
    let grown = view.decide(&add(4, false), true).expect("another id");
    let again = added_member_id(&[url(4)], "", 1);
    assert!(grown.get_node(&drawn(4)).is_none() && grown.get_node(&again).is_some());
    view.removed.extend((0..DRAWS).map(|more| added_member_id(&[url(4)], "", more)));
    assert_eq!(view.decide(&add(4, false), true), Err(MemberRefusal::IdExists));
}

#[test]
fn who_joins_is_no_part_of_the_quorum_that_commits() {
    let mut view = down(view(3, 1), &[3]);
    let nodes = view.membership.nodes().map(|(member, node)| {
        let joins_as_voter = *member == 11;
        (*member, PeerNode { joins_as_voter, ..node.clone() })
    });
    let nodes: BTreeMap<u64, PeerNode> = nodes.collect();
    view.membership = Membership::new(vec![[1, 2, 3].into()], nodes).expect("nodes");
    for gone in [1, 2] {
        let refused = view.decide(&MemberChange::Remove(gone), true);
        assert_eq!(refused, Err(MemberRefusal::Unhealthy), "1 of 2 would be left");
    }
    view.decide(&MemberChange::Remove(3), true).expect("2 of 2 are left");
    view.decide(&MemberChange::Remove(11), true).expect("it commits nothing");
}

#[test]
fn a_learner_is_promoted_once_its_directory_is_known_and_while_it_answers() {
    let promote = MemberChange::Promote(11);
    let refused = unstarted(view(3, 1), &[11]).decide(&promote, false);
    assert_eq!(refused, Err(MemberRefusal::LearnerNotReady));
    let refused = down(view(3, 1), &[3, 11]).decide(&promote, true);
    assert_eq!(refused, Err(MemberRefusal::Unhealthy), "2 of 4 answer");
}
