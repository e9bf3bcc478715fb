package tls

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"holdfast.dev/clients/cluster"
)

// kubeadm is what it does with etcd: a static pod a node, whose member joins
// as a learner and is promoted.
type kubeadm struct {
	*testing.T
	*cluster.Cluster
	authority *authority
	client    pair
	metrics   map[string]int
}

// options are the flags of the static pod that kubeadm writes for one node,
// with this machine's ports and no token, as there.
func (k *kubeadm) options(node string) cluster.Options {
	server := k.authority.issue(node, subject{name: node})
	peer := k.authority.issue(node+"-peer", subject{name: node})
	k.metrics[node] = freePort(k.T)
	flags := []string{"--feature-gates=InitialCorruptCheck=true", "--snapshot-count=10000", "--initial-cluster-token=etcd-cluster",
		fmt.Sprintf("--listen-metrics-urls=http://127.0.0.1:%d", k.metrics[node]), "--watch-progress-notify-interval=5s"}
	flags = append(flags, append(clientFlags(k.authority, server), peerFlags(k.authority, peer)...)...)
	return cluster.Options{ClientTLS: true, PeerTLS: true, Args: flags}
}

// probed asks what the static pod's probes ask.
func (k *kubeadm) probed(node string) {
	k.Helper()
	for _, path := range []string{"/livez", "/readyz"} {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", k.metrics[node], path))
		must(k.T, err)
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			k.Errorf("%s of %s: %s", path, node, response.Status)
		}
	}
}

// retried is a change of members, made again while it is refused for what passes
// by itself: members count as healthy only after some seconds. A change that was
// made when the leader changed is made already the next time, and refused in the
// words of made: true then.
func (k *kubeadm) retried(ctx context.Context, made error, change func() error) bool {
	k.Helper()
	inSync := rpctypes.ErrMemberLearnerNotReady.Error()
	passing := []string{rpctypes.ErrUnhealthy.Error(), inSync, rpctypes.ErrLeaderChanged.Error()}
	isRepeated := false
	for err := change(); err != nil; err = change() {
		if isRepeated && err.Error() == made.Error() {
			return true
		}
		if !slices.Contains(passing, err.Error()) || ctx.Err() != nil {
			k.Fatal(err)
		}
		isRepeated = isRepeated || err.Error() == rpctypes.ErrLeaderChanged.Error()
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

// join adds a learner, starts it with all members by name, and promotes it as
// soon as the cluster lets it.
func (k *kubeadm) join(node string) {
	k.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := connect(k.T, k.authority.config(&k.client), urls(k.Cluster)...)
	options := k.options(node)
	member, err := k.Grow(node, options)
	must(k.T, err)
	var members []*pb.Member
	if k.retried(ctx, rpctypes.ErrPeerURLExist, func() error {
		added, err := client.MemberAddAsLearner(ctx, []string{member.PeerURL()})
		if err == nil {
			members = added.Members
		}
		return err
	}) {
		list, err := client.MemberList(ctx)
		must(k.T, err)
		members = list.Members
	}
	if count := len(members); count != len(k.Members) {
		k.Fatalf("the answer tells of %d members instead of %d", count, len(k.Members))
	}
	must(k.T, k.Join(member, options))
	k.retried(ctx, rpctypes.ErrMemberNotLearner, func() error {
		_, err := client.MemberPromote(ctx, k.reachedAt(members, member.PeerURL()))
		return err
	})
	k.available(ctx)
	k.probed(node)
}

// reachedAt is the id of the member with a peer URL.
func (k *kubeadm) reachedAt(members []*pb.Member, url string) uint64 {
	k.Helper()
	at := slices.IndexFunc(members, func(m *pb.Member) bool { return slices.Contains(m.PeerURLs, url) })
	if at < 0 {
		k.Fatalf("no member has %s: %v", url, members)
	}
	return members[at].ID
}

// available asks every endpoint for its status, and for voters only.
func (k *kubeadm) available(ctx context.Context) {
	k.Helper()
	client := connect(k.T, k.authority.config(&k.client), urls(k.Cluster)...)
	for _, url := range urls(k.Cluster) {
		status, err := client.Status(ctx, url)
		must(k.T, err)
		if status.IsLearner || len(status.Errors) > 0 {
			k.Errorf("%s: learner %v, errors %q", url, status.IsLearner, status.Errors)
		}
	}
	list, err := client.MemberList(ctx)
	must(k.T, err)
	if len(list.Members) != len(k.Members) || slices.ContainsFunc(list.Members, func(m *pb.Member) bool { return m.IsLearner || m.Name == "" }) {
		k.Errorf("the members are %v", list.Members)
	}
}

// leave removes a member by its peer URL, as a node that is reset does.
func (k *kubeadm) leave(member *cluster.Member) {
	k.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	rest := slices.DeleteFunc(slices.Clone(k.Members), func(other *cluster.Member) bool { return other == member })
	client := connect(k.T, k.authority.config(&k.client), urls(&cluster.Cluster{Members: rest})...)
	list, err := client.MemberList(ctx)
	must(k.T, err)
	id := k.reachedAt(list.Members, member.PeerURL())
	k.retried(ctx, rpctypes.ErrMemberNotFound, func() error {
		_, err := client.MemberRemove(ctx, id)
		return err
	})
	must(k.T, member.WaitEnded())
	k.Forget(member)
	k.available(ctx)
}

// TestKubeadm makes a control plane of three nodes by what kubeadm init, join
// and reset do, over mutual TLS.
func TestKubeadm(t *testing.T) {
	k := &kubeadm{T: t, authority: newAuthority(t), metrics: map[string]int{}}
	k.client = k.authority.issue("client", subject{name: "kube-apiserver-etcd-client", noAddress: true})
	k.Cluster = cluster.Start(t, cluster.Target(t), k.options("m1"))
	k.probed("m1")
	ctl(t, k.authority, k.client, k.Members[0].ClientURL(), "member", "list")
	user := connect(t, k.authority.config(&k.client), urls(k.Cluster)...)
	_, err := user.Put(context.Background(), "/registry/key", "of the first node")
	must(t, err)
	k.join("m2")
	k.join("m3")
	for _, url := range urls(k.Cluster) {
		works(t, connect(t, k.authority.config(&k.client), url))
	}
	k.leave(k.Members[0])
	got, err := connect(t, k.authority.config(&k.client), urls(k.Cluster)...).Get(context.Background(), "/registry/key", clientv3.WithSerializable())
	must(t, err)
	if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "of the first node" {
		t.Errorf("found %v", got.Kvs)
	}
}
