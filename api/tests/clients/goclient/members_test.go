package goclient

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"holdfast.dev/clients/cluster"
)

// memberCases change a cluster of three members, one after the other; each
// leaves three voters.
var memberCases = []testCase{
	{"members that do not exist", caseNoSuchMember},
	{"a voter comes and goes unstarted", caseUnstartedVoter},
	{"a learner is promoted and a voter removed", caseReplace},
	{"peer urls are updated", caseUpdate},
	{"the leader removes itself", caseRemoveLeader},
	{"a member comes back without its data", caseLostData},
}

// TestMembers does what an operator does to the members of a cluster.
func TestMembers(t *testing.T) {
	c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3})
	for _, test := range memberCases {
		t.Run(test.name, func(t *testing.T) { test.run(newEnv(t, c)) })
	}
}

// settled repeats a change for as long as members count as disconnected: etcd
// wants a connection to be five seconds old.
func settled[T any](e *env, change func() (T, error)) (T, error) {
	for {
		result, err := change()
		if err == nil || e.ctx.Err() != nil || err.Error() != rpctypes.ErrUnhealthy.Error() {
			return result, err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (e *env) add(urls []string, learner bool) (*clientv3.MemberAddResponse, error) {
	return settled(e, func() (*clientv3.MemberAddResponse, error) {
		if learner {
			return e.client.MemberAddAsLearner(e.ctx, urls)
		}
		return e.client.MemberAdd(e.ctx, urls)
	})
}

func (e *env) remove(id uint64) (*clientv3.MemberRemoveResponse, error) {
	return settled(e, func() (*clientv3.MemberRemoveResponse, error) { return e.client.MemberRemove(e.ctx, id) })
}

func (e *env) memberID(name string) uint64 {
	e.Helper()
	list, err := e.client.MemberList(e.ctx)
	e.must(err)
	for _, member := range list.Members {
		if member.Name == name {
			return member.ID
		}
	}
	e.Fatalf("no member is called %s", name)
	return 0
}

func (e *env) leader() *cluster.Member {
	e.Helper()
	for _, member := range e.cluster.Members {
		status, err := e.client.Status(e.ctx, member.Endpoint())
		e.must(err)
		if status.Leader == status.Header.MemberId {
			return member
		}
	}
	e.Fatal("nobody leads")
	return nil
}

func caseNoSuchMember(e *env) {
	_, err := e.remove(1)
	e.failsWith(err, rpctypes.ErrMemberNotFound)
	_, err = e.client.MemberPromote(e.ctx, 1)
	e.failsWith(err, rpctypes.ErrMemberNotFound)
	_, err = e.client.MemberUpdate(e.ctx, 1, []string{"http://127.0.0.1:1"})
	e.failsWith(err, rpctypes.ErrMemberNotFound)
	// Who lags is told so first, voter or not.
	for range 100 {
		_, err = e.client.MemberPromote(e.ctx, e.memberID("m1"))
		if err == nil || err.Error() != rpctypes.ErrMemberLearnerNotReady.Error() {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	e.failsWith(err, rpctypes.ErrMemberNotLearner)
	// The client checks URLs by itself; by hand they reach the server.
	raw := pb.NewClusterClient(e.client.ActiveConnection())
	for _, urls := range [][]string{nil, {"127.0.0.1:1"}, {"http://127.0.0.1"}, {"ftp://127.0.0.1:1"}, {"http://127.0.0.1:1/path"}} {
		_, err = raw.MemberAdd(e.ctx, &pb.MemberAddRequest{PeerURLs: urls})
		if want := rpctypes.ErrGRPCMemberBadURLs; err == nil || err.Error() != want.Error() {
			e.Fatalf("%q: got %v, want %v", urls, err, want)
		}
	}
	_, err = e.add([]string{e.cluster.Members[0].PeerURL()}, false)
	e.failsWith(err, rpctypes.ErrPeerURLExist)
	_, err = e.client.MemberUpdate(e.ctx, e.memberID("m1"), []string{e.cluster.Members[1].PeerURL()})
	e.failsWith(err, rpctypes.ErrPeerURLExist)
}

func caseUnstartedVoter(e *env) {
	added, err := e.add([]string{"http://127.0.0.1:1", "http://127.0.0.1:2"}, false)
	e.must(err)
	equal(e, "peer urls", strings.Join(added.Member.PeerURLs, ","), "http://127.0.0.1:1,http://127.0.0.1:2")
	equal(e, "name", added.Member.Name, "")
	equal(e, "learner", added.Member.IsLearner, false)
	equal(e, "members", len(added.Members), 4)
	equal(e, "revision of the header", added.Header.Revision, int64(0))
	_, err = e.client.MemberPromote(e.ctx, added.Member.ID)
	if err == nil {
		e.Fatal("a voter that has not started was promoted")
	}
	removed, err := e.remove(added.Member.ID)
	e.must(err)
	equal(e, "members", len(removed.Members), 3)
	_, err = e.remove(added.Member.ID)
	e.failsWith(err, rpctypes.ErrMemberNotFound)
}

// grow adds a learner, starts it, and promotes it once it is in sync.
func (e *env) grow(name string) {
	e.Helper()
	member, err := e.cluster.Grow(name, cluster.Options{})
	e.must(err)
	added, err := e.add([]string{member.PeerURL()}, true)
	e.must(err)
	equal(e, "learner", added.Member.IsLearner, true)
	_, err = e.client.MemberPromote(e.ctx, added.Member.ID)
	e.failsWith(err, rpctypes.ErrMemberLearnerNotReady)
	_, err = e.client.MemberAddAsLearner(e.ctx, []string{"http://127.0.0.1:3"})
	if err == nil || err.Error() != rpctypes.ErrTooManyLearners.Error() && err.Error() != rpctypes.ErrUnhealthy.Error() {
		e.Fatalf("a second learner: %v", err)
	}
	e.must(e.cluster.Join(member, cluster.Options{}))
	learner := e.connect(member.Endpoint())
	_, err = learner.Get(e.ctx, "k")
	e.failsWith(err, rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner))
	_, err = learner.Get(e.ctx, "k", clientv3.WithSerializable())
	e.must(err)
	status, err := learner.Status(e.ctx, member.Endpoint())
	e.must(err)
	equal(e, "learner by its status", status.IsLearner, true)
	for {
		promoted, err := e.client.MemberPromote(e.ctx, added.Member.ID)
		if err == nil {
			equal(e, "members", len(promoted.Members), len(e.cluster.Members))
			return
		}
		if err.Error() != rpctypes.ErrMemberLearnerNotReady.Error() {
			e.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// shrink removes a member, whose process ends, and which is refused when it
// comes back.
func (e *env) shrink(member *cluster.Member) {
	e.Helper()
	id := e.memberID(member.Name)
	_, err := e.remove(id)
	e.must(err)
	e.must(member.WaitEnded())
	e.cluster.Forget(member)
	e.client = e.connect(e.cluster.Endpoints()...)
	for {
		// A put whose leader has just gone may time out.
		_, err := e.client.Put(e.ctx, e.key("k"), "without "+member.Name)
		if err == nil {
			break
		}
		if e.ctx.Err() != nil {
			e.Fatal(err)
		}
	}
	_, err = e.remove(id)
	e.failsWith(err, rpctypes.ErrMemberNotFound)
}

func caseReplace(e *env) {
	e.put("k", "v")
	e.grow("m4")
	e.client = e.connect(e.cluster.Endpoints()...)
	e.shrink(e.cluster.Members[0])
	equal(e, "value", e.value("k"), "without m1")
}

func caseUpdate(e *env) {
	member := e.cluster.Members[0]
	id := e.memberID(member.Name)
	elsewhere := []string{member.PeerURL(), strings.Replace(member.PeerURL(), "127.0.0.1", "localhost", 1)}
	updated, err := e.client.MemberUpdate(e.ctx, id, elsewhere)
	e.must(err)
	for _, listed := range updated.Members {
		if listed.ID == id {
			equal(e, "peer urls", len(listed.PeerURLs), 2)
			equal(e, "name", listed.Name, member.Name)
		}
	}
	_, err = e.client.MemberUpdate(e.ctx, id, elsewhere[:1])
	e.must(err)
	e.put("k", "v")
}

func caseRemoveLeader(e *env) {
	e.grow("m5")
	e.client = e.connect(e.cluster.Endpoints()...)
	e.shrink(e.leader())
}

func caseLostData(e *env) {
	member := e.cluster.Members[0]
	id := e.memberID(member.Name)
	e.put("k", "kept")
	e.must(member.Kill())
	e.client = e.connect(e.cluster.Endpoints()[1:]...)
	// It may have led, and what it was asked last may have been done or not: reads are asked again.
	equal(e, "value", e.value("k"), "kept")
	_, err := e.remove(id)
	e.must(err)
	_, err = e.add([]string{member.PeerURL()}, false)
	e.must(err)
	e.must(member.Wipe())
	e.must(e.cluster.Join(member, cluster.Options{}))
	e.client = e.connect(member.Endpoint())
	equal(e, "value", e.value("k"), "kept")
	list, err := e.client.MemberList(e.ctx)
	e.must(err)
	equal(e, "members", len(list.Members), 3)
}

// TestForceNewCluster makes a cluster of one of the members of a lost one.
func TestForceNewCluster(t *testing.T) {
	c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3})
	e := newEnv(t, c)
	for i := range 100 {
		e.put("k", strconv.Itoa(i))
	}
	// etcd forgets the newest write, which its log does not call committed yet.
	e.put("another", "v")
	left := c.Members[0]
	id := e.memberID(left.Name)
	// Every member has everything once it has answered a read.
	_, err := e.connect(left.Endpoint()).Get(e.ctx, "k")
	e.must(err)
	for _, member := range c.Members {
		e.must(member.Kill())
	}
	without := left.With("--force-new-cluster")
	e.must(left.Start())
	without()
	e.client = e.connect(left.Endpoint())
	equal(e, "value", e.value("k"), "99")
	list, err := e.client.MemberList(e.ctx)
	e.must(err)
	equal(e, "members", len(list.Members), 1)
	equal(e, "member", list.Members[0].ID, id)
	e.put("k", "alone")
	e.must(left.Stop())
	e.must(left.Start())
	equal(e, "value", e.value("k"), "alone")
	for _, member := range slices.Clone(c.Members[1:]) {
		c.Forget(member)
	}
	e.grow("m4")
	e.put("k", "two")
}
