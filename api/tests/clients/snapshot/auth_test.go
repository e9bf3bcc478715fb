package snapshot

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast.dev/clients/cluster"
)

// dial makes a client of a user, or of nobody.
func (s *side) dial(user string) *clientv3.Client {
	s.t.Helper()
	config := clientv3.Config{Endpoints: s.cluster.Endpoints(), DialTimeout: 10 * time.Second, Logger: zap.NewNop(), Context: s.ctx}
	if user != "" {
		config.Username, config.Password = user, user+"-pw"
	}
	client, err := clientv3.New(config)
	s.must(err)
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// login goes on as a user.
func (s *side) login(user string) *side {
	s.t.Helper()
	s.client, s.user = s.dial(user), user
	return s
}

// rules makes users and roles, turns authentication on, and goes on as root.
func (s *side) rules() {
	s.t.Helper()
	for _, role := range []string{"root", "dev", "empty"} {
		_, err := s.client.RoleAdd(s.ctx, role)
		s.must(err)
	}
	for _, grant := range []struct {
		key, end string
		kind     clientv3.PermissionType
	}{{"large", "", clientv3.PermissionType(clientv3.PermReadWrite)}, {key(0), key(10), clientv3.PermissionType(clientv3.PermRead)}, {"zz", "\x00", clientv3.PermissionType(clientv3.PermWrite)}} {
		_, err := s.client.RoleGrantPermission(s.ctx, "dev", grant.key, grant.end, grant.kind)
		s.must(err)
	}
	_, err := s.client.UserAddWithOptions(s.ctx, "certificate", "", &clientv3.UserAddOptions{NoPassword: true})
	s.must(err)
	for _, user := range []string{"root", "ann"} {
		_, err := s.client.UserAdd(s.ctx, user, user+"-pw")
		s.must(err)
	}
	for _, grant := range [][2]string{{"root", "root"}, {"ann", "empty"}, {"ann", "dev"}, {"certificate", "dev"}} {
		_, err := s.client.UserGrantRole(s.ctx, grant[0], grant[1])
		s.must(err)
	}
	_, err = s.client.AuthEnable(s.ctx)
	s.must(err)
	s.login("root")
}

// described is everything about users and roles but the hashes of passwords.
func (s *side) described() string {
	s.t.Helper()
	state, err := s.client.AuthStatus(s.ctx)
	s.must(err)
	var text strings.Builder
	fmt.Fprintln(&text, state.Enabled, state.AuthRevision)
	users, err := s.client.UserList(s.ctx)
	s.must(err)
	for _, name := range users.Users {
		user, err := s.client.UserGet(s.ctx, name)
		s.must(err)
		fmt.Fprintln(&text, name, user.Roles)
	}
	roles, err := s.client.RoleList(s.ctx)
	s.must(err)
	for _, name := range roles.Roles {
		role, err := s.client.RoleGet(s.ctx, name)
		s.must(err)
		fmt.Fprintln(&text, name, role.Perm)
	}
	return text.String()
}

// judges checks that passwords and permissions hold, and that a snapshot, which
// holds everybody's secrets, is for root.
func (s *side) judges(what string) {
	s.t.Helper()
	ann, nobody := s.dial("ann"), s.dial("")
	_, err := ann.Get(s.ctx, key(5))
	s.must(err)
	_, err = ann.Put(s.ctx, "zzz", "by ann")
	s.must(err)
	_, err = s.client.Delete(s.ctx, "zzz")
	s.must(err)
	_, foreign := ann.Get(s.ctx, key(50))
	_, nameless := nobody.Get(s.ctx, key(5))
	for _, refusal := range []struct {
		what, want string
		err        error
	}{
		{"ann reads a key of others", "permission denied", foreign},
		{"nobody reads", "user name is empty", nameless},
		{"ann takes a snapshot", "permission denied", download(s.ctx, ann)},
		{"nobody takes a snapshot", "user name is empty", download(s.ctx, nobody)},
	} {
		if refusal.err == nil || !strings.Contains(refusal.err.Error(), refusal.want) {
			s.t.Fatalf("%s: %s: %v", what, refusal.what, refusal.err)
		}
	}
	s.must(download(s.ctx, s.client))
	if _, err := clientv3.New(clientv3.Config{Endpoints: s.cluster.Endpoints(), DialTimeout: 10 * time.Second,
		Username: "ann", Password: "wrong", Logger: zap.NewNop(), Context: s.ctx}); err == nil {
		s.t.Fatalf("%s: a wrong password is taken", what)
	}
}

func download(ctx context.Context, client *clientv3.Client) error {
	reader, err := client.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer reader.Close()
	_, err = io.Copy(io.Discard, reader)
	return err
}

// Clients that stop taking their snapshots do not keep others waiting for ever.
func TestStalledDownloads(t *testing.T) {
	first := start(t, holdfast(t), cluster.Options{Members: 1})
	change := func() {
		_, err := first.client.Put(first.ctx, "k", "v")
		first.must(err)
	}
	for i := range 20 {
		_, err := first.client.Put(first.ctx, key(i), strings.Repeat("x", 1<<20))
		first.must(err)
	}
	for range 2 {
		// Another change, so that the file of the one before is not shared.
		change()
		stream, err := pb.NewMaintenanceClient(first.dial("").ActiveConnection()).Snapshot(first.ctx, &pb.SnapshotRequest{})
		first.must(err)
		_, err = stream.Recv()
		first.must(err)
	}
	change()
	stream, err := pb.NewMaintenanceClient(first.client.ActiveConnection()).Snapshot(first.ctx, &pb.SnapshotRequest{})
	first.must(err)
	if _, err = stream.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("a third snapshot beside two that nobody takes: %v", err)
	}
}
