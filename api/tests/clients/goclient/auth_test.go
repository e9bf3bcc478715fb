package goclient

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"holdfast.dev/clients/cluster"
	"holdfast.dev/clients/wire"
)

// authCases run in this order on one cluster: authorization is off at first,
// then on, and off again.
var authCases = []testCase{
	{"what is refused before there is a root", caseAuthBeforeRoot},
	{"users and roles", caseUsersAndRoles},
	{"enable", caseAuthEnable},
	{"who may do what", caseAuthMatrix},
	{"root stays", caseRootStays},
	{"tokens are good on every member", caseTokensEverywhere},
	{"tokens that are none", caseBadTokens},
	{"transactions", caseAuthTxn},
	{"leases", caseAuthLeases},
	{"watches", caseAuthWatch},
	{"locks and elections", caseAuthLocks},
	{"rights change", caseRightsChange},
	{"passwords", casePasswords},
	{"the client authenticates again", caseAuthAgain},
	{"disable", caseAuthDisable},
}

func TestAuth(t *testing.T) {
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d members", members), func(t *testing.T) {
			c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: members, NoFsync: true,
				Args: []string{"--bcrypt-cost=4"}})
			for _, test := range authCases {
				if !t.Run(test.name, func(t *testing.T) { test.run(newAuthEnv(t, c)) }) {
					t.Fatal("the cases that follow build on this one")
				}
			}
		})
	}
}

func newAuthEnv(t *testing.T, c *cluster.Cluster) *env {
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
	t.Cleanup(cancel)
	return &env{T: t, cluster: c, ctx: ctx}
}

// dial is a connection to one member, without a client that would retry.
func (e *env) dial(member int) *grpc.ClientConn {
	e.Helper()
	connection, err := wire.Dial(e.cluster.Members[member%len(e.cluster.Members)].Endpoint())
	e.must(err)
	e.Cleanup(func() { _ = connection.Conn.Close() })
	return connection.Conn
}

func (e *env) auth(member int) pb.AuthClient { return pb.NewAuthClient(e.dial(member)) }

// with is a context that shows a token.
func (e *env) with(token string) context.Context {
	return metadata.AppendToOutgoingContext(e.ctx, "token", token)
}

// token authenticates at a member.
func (e *env) token(member int, user string) string {
	e.Helper()
	response, err := e.auth(member).Authenticate(e.ctx, &pb.AuthenticateRequest{Name: user, Password: user + "-pw"})
	e.must(err)
	return response.Token
}

// said is an error as it is on the wire.
func said(err error) string {
	if err == nil {
		return "ok"
	}
	s, _ := status.FromError(err)
	return fmt.Sprintf("%s: %s", s.Code(), strings.TrimPrefix(s.Message(), "etcdserver: "))
}

func (e *env) says(what string, err error, want string) {
	e.Helper()
	if got := said(err); got != want {
		e.Errorf("%s: got %q, want %q", what, got, want)
	}
}

const (
	denied     = "PermissionDenied: permission denied"
	userEmpty  = "InvalidArgument: user name is empty"
	badToken   = "Unauthenticated: invalid auth token"
	oldAuth    = "InvalidArgument: revision of auth store is old"
	authFailed = "InvalidArgument: authentication failed, invalid user ID or password"
	badManage  = "InvalidArgument: invalid auth management"
	notEnabled = "FailedPrecondition: authentication is not enabled"
	noUser     = "FailedPrecondition: user name not found"
	noRole     = "FailedPrecondition: role name not found"
	noPassword = "Unknown: auth: authentication failed, password was given for no password user"
)

func caseAuthBeforeRoot(e *env) {
	a := e.auth(0)
	before, err := a.AuthStatus(e.ctx, &pb.AuthStatusRequest{})
	e.must(err)
	equal(e, "enabled", before.Enabled, false)
	equal(e, "first auth revision", before.AuthRevision, 1)
	_, err = a.AuthEnable(e.ctx, &pb.AuthEnableRequest{})
	e.says("enable without root", err, "FailedPrecondition: root user does not exist")
	_, err = a.AuthDisable(e.ctx, &pb.AuthDisableRequest{})
	e.says("disable what is off", err, "ok")
	_, err = a.Authenticate(e.ctx, &pb.AuthenticateRequest{Name: "root", Password: "x"})
	e.says("authenticate", err, notEnabled)
	_, err = a.UserAdd(e.ctx, &pb.AuthUserAddRequest{Password: "x"})
	e.says("add a user without a name", err, userEmpty)
	_, err = a.RoleAdd(e.ctx, &pb.AuthRoleAddRequest{})
	e.says("add a role without a name", err, "InvalidArgument: role name is empty")
	_, err = a.UserGet(e.ctx, &pb.AuthUserGetRequest{Name: "x"})
	e.says("get", err, noUser)
	_, err = a.UserDelete(e.ctx, &pb.AuthUserDeleteRequest{Name: "x"})
	e.says("delete", err, noUser)
	_, err = a.UserChangePassword(e.ctx, &pb.AuthUserChangePasswordRequest{Name: "x", Password: "y"})
	e.says("change password", err, noUser)
	_, err = a.UserGrantRole(e.ctx, &pb.AuthUserGrantRoleRequest{User: "x", Role: "root"})
	e.says("grant role", err, noUser)
	_, err = a.UserRevokeRole(e.ctx, &pb.AuthUserRevokeRoleRequest{Name: "x", Role: "root"})
	e.says("revoke role", err, noUser)
	_, err = a.RoleGet(e.ctx, &pb.AuthRoleGetRequest{Role: "root"})
	e.says("get role", err, noRole)
	_, err = a.RoleDelete(e.ctx, &pb.AuthRoleDeleteRequest{Role: "root"})
	e.says("delete role", err, noRole)
	_, err = a.RoleRevokePermission(e.ctx, &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("k")})
	e.says("revoke permission", err, noRole)
	_, err = a.RoleGrantPermission(e.ctx, &pb.AuthRoleGrantPermissionRequest{Name: "r"})
	e.says("grant nothing", err, "InvalidArgument: permission not given")
	_, err = a.UserAdd(e.ctx, &pb.AuthUserAddRequest{Name: "long", Password: strings.Repeat("x", 73)})
	e.says("long password", err, "Unknown: bcrypt: password length exceeds 72 bytes")
	after, err := a.AuthStatus(e.ctx, &pb.AuthStatusRequest{})
	e.must(err)
	equal(e, "auth revision after refusals", after.AuthRevision, 1)
}

func (e *env) addUser(name string, roles ...string) {
	e.Helper()
	_, err := e.auth(0).UserAdd(e.ctx, &pb.AuthUserAddRequest{Name: name, Password: name + "-pw"})
	e.must(err)
	for _, role := range roles {
		_, err = e.auth(0).UserGrantRole(e.ctx, &pb.AuthUserGrantRoleRequest{User: name, Role: role})
		e.must(err)
	}
}

func permission(kind authpb.Permission_Type, key, end string) *authpb.Permission {
	return &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}
}

func (e *env) grantPermission(ctx context.Context, role string, p *authpb.Permission) error {
	_, err := e.auth(0).RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: p})
	return err
}

func caseUsersAndRoles(e *env) {
	a := e.auth(1)
	_, err := a.RoleAdd(e.ctx, &pb.AuthRoleAddRequest{Name: "app"})
	e.must(err)
	_, err = a.RoleAdd(e.ctx, &pb.AuthRoleAddRequest{Name: "app"})
	e.says("add a role twice", err, "FailedPrecondition: role name already exists")
	e.must(e.grantPermission(e.ctx, "app", permission(authpb.Permission_READWRITE, "app/", "app0")))
	e.must(e.grantPermission(e.ctx, "app", permission(authpb.Permission_READ, "one", "")))
	e.must(e.grantPermission(e.ctx, "app", permission(authpb.Permission_WRITE, "drop/", "drop0")))
	e.must(e.grantPermission(e.ctx, "app", permission(authpb.Permission_READ, "z", "\x00")))
	e.must(e.grantPermission(e.ctx, "app", permission(authpb.Permission_WRITE, "one", "")))
	e.must(e.grantPermission(e.ctx, "app", permission(authpb.Permission_READ, "one", "")))
	for _, p := range []*authpb.Permission{
		permission(authpb.Permission_READ, "", ""), permission(authpb.Permission_READ, "b", "a"),
		permission(authpb.Permission_READ, "b", "b"), permission(authpb.Permission_READ, "", "\x00"),
	} {
		e.says(fmt.Sprintf("a range without keys: %v", p), e.grantPermission(e.ctx, "app", p), badManage)
	}
	role, err := a.RoleGet(e.ctx, &pb.AuthRoleGetRequest{Role: "app"})
	e.must(err)
	var permissions []string
	for _, p := range role.Perm {
		permissions = append(permissions, fmt.Sprintf("%s %q %q", p.PermType, p.Key, p.RangeEnd))
	}
	equal(e, "permissions", strings.Join(permissions, "; "),
		`READWRITE "app/" "app0"; WRITE "drop/" "drop0"; READ "one" ""; READ "z" "\x00"`)
	_, err = a.RoleRevokePermission(e.ctx, &pb.AuthRoleRevokePermissionRequest{Role: "app", Key: []byte("app/")})
	e.says("revoke another range", err, "FailedPrecondition: permission is not granted to the role")
	e.addUser("ann", "app")
	_, err = a.UserAdd(e.ctx, &pb.AuthUserAddRequest{Name: "ann", Password: "x"})
	e.says("add a user twice", err, "FailedPrecondition: user name already exists")
	status, err := a.AuthStatus(e.ctx, &pb.AuthStatusRequest{})
	e.must(err)
	_, err = a.UserGrantRole(e.ctx, &pb.AuthUserGrantRoleRequest{User: "ann", Role: "app"})
	e.says("grant a role twice", err, "ok")
	again, err := a.AuthStatus(e.ctx, &pb.AuthStatusRequest{})
	e.must(err)
	equal(e, "auth revision after a grant of what is held", again.AuthRevision, status.AuthRevision)
	_, err = a.UserGrantRole(e.ctx, &pb.AuthUserGrantRoleRequest{User: "ann", Role: "nothing"})
	e.says("grant no role", err, noRole)
	_, err = a.UserRevokeRole(e.ctx, &pb.AuthUserRevokeRoleRequest{Name: "ann", Role: "root"})
	e.says("revoke what is not held", err, "FailedPrecondition: role is not granted to the user")
	_, err = a.UserAdd(e.ctx, &pb.AuthUserAddRequest{Name: "cert", Options: &authpb.UserAddOptions{NoPassword: true}})
	e.must(err)
	e.addUser("bob")
	_, err = a.RoleAdd(e.ctx, &pb.AuthRoleAddRequest{Name: "gone"})
	e.must(err)
	e.addUser("former", "app", "gone")
	_, err = a.RoleDelete(e.ctx, &pb.AuthRoleDeleteRequest{Role: "gone"})
	e.must(err)
	user, err := a.UserGet(e.ctx, &pb.AuthUserGetRequest{Name: "former"})
	e.must(err)
	equal(e, "roles left", strings.Join(user.Roles, " "), "app")
	users, err := a.UserList(e.ctx, &pb.AuthUserListRequest{})
	e.must(err)
	equal(e, "users", strings.Join(users.Users, " "), "ann bob cert former")
	roles, err := a.RoleList(e.ctx, &pb.AuthRoleListRequest{})
	e.must(err)
	equal(e, "roles", strings.Join(roles.Roles, " "), "app")
}

func caseAuthEnable(e *env) {
	a := e.auth(0)
	e.addUser("root")
	_, err := a.AuthEnable(e.ctx, &pb.AuthEnableRequest{})
	e.says("enable without the role root", err, "FailedPrecondition: root user does not have root role")
	_, err = a.UserGrantRole(e.ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	e.says("the role root need not exist", err, "ok")
	_, err = a.RoleAdd(e.ctx, &pb.AuthRoleAddRequest{Name: "root"})
	e.must(err)
	role, err := a.RoleGet(e.ctx, &pb.AuthRoleGetRequest{Role: "root"})
	e.must(err)
	equal(e, "permissions of root", fmt.Sprintf("%s %q %q", role.Perm[0].PermType, role.Perm[0].Key, role.Perm[0].RangeEnd), `READWRITE "" "\x00"`)
	before, err := a.AuthStatus(e.ctx, &pb.AuthStatusRequest{})
	e.must(err)
	_, err = a.AuthEnable(e.ctx, &pb.AuthEnableRequest{})
	e.must(err)
	after, err := e.auth(2).AuthStatus(e.ctx, &pb.AuthStatusRequest{})
	e.says("anybody may see whether it is on", err, "ok")
	equal(e, "enabled", after.Enabled, true)
	equal(e, "auth revision", after.AuthRevision, before.AuthRevision)
	_, err = a.AuthEnable(e.with(e.token(0, "root")), &pb.AuthEnableRequest{})
	e.says("enable what is on", err, "ok")
}

// call is one request; the answers are for somebody without a token, ann and
// root.
type call struct {
	name              string
	ask               func(ctx context.Context, c *grpc.ClientConn) error
	nobody, ann, root string
}

func rangeOf(key, end string) func(context.Context, *grpc.ClientConn) error {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)})
		return err
	}
}

func putOf(q *pb.PutRequest) func(context.Context, *grpc.ClientConn) error {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewKVClient(c).Put(ctx, q)
		return err
	}
}

func deleteOf(q *pb.DeleteRangeRequest) func(context.Context, *grpc.ClientConn) error {
	return func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewKVClient(c).DeleteRange(ctx, q)
		return err
	}
}

func matrix() []call {
	key := func(text string) []byte { return []byte(text) }
	auth := func(f func(context.Context, pb.AuthClient) error) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, c *grpc.ClientConn) error { return f(ctx, pb.NewAuthClient(c)) }
	}
	maintenance := func(f func(context.Context, pb.MaintenanceClient) error) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, c *grpc.ClientConn) error { return f(ctx, pb.NewMaintenanceClient(c)) }
	}
	leases := func(f func(context.Context, pb.LeaseClient) error) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, c *grpc.ClientConn) error { return f(ctx, pb.NewLeaseClient(c)) }
	}
	return []call{
		{"get a key of a prefix", rangeOf("app/a", ""), userEmpty, "ok", "ok"},
		{"get the prefix", rangeOf("app/", "app0"), userEmpty, "ok", "ok"},
		{"get beyond the prefix", rangeOf("app/", "app1"), userEmpty, denied, "ok"},
		{"get one key", rangeOf("one", ""), userEmpty, "ok", "ok"},
		{"get from one key on", rangeOf("one", "\x00"), userEmpty, denied, "ok"},
		{"get from z on", rangeOf("zz", "\x00"), userEmpty, "ok", "ok"},
		{"get a part of z", rangeOf("z", "zzz"), userEmpty, "ok", "ok"},
		{"get from before z on", rangeOf("y", "\x00"), userEmpty, denied, "ok"},
		{"get what may only be written", rangeOf("drop/a", ""), userEmpty, denied, "ok"},
		{"get everything", rangeOf("\x00", "\x00"), userEmpty, denied, "ok"},
		{"get an empty range", rangeOf("b", "a"), userEmpty, denied, "ok"},
		{"get without a key", rangeOf("", ""), "InvalidArgument: key is not provided", "InvalidArgument: key is not provided", "InvalidArgument: key is not provided"},
		{"get at a future revision", func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: key("secret"), Revision: 1 << 40})
			return err
		}, userEmpty, denied, "OutOfRange: mvcc: required revision is a future revision"},
		{"get serializable", func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: key("secret"), Serializable: true})
			return err
		}, userEmpty, denied, "ok"},
		{"put", putOf(&pb.PutRequest{Key: key("app/a"), Value: key("v")}), userEmpty, "ok", "ok"},
		{"put what may only be read", putOf(&pb.PutRequest{Key: key("one")}), userEmpty, denied, "ok"},
		{"put into a dropbox", putOf(&pb.PutRequest{Key: key("drop/a")}), userEmpty, "ok", "ok"},
		{"put with the value before", putOf(&pb.PutRequest{Key: key("drop/a"), PrevKv: true}), userEmpty, denied, "ok"},
		{"put with an unknown lease", putOf(&pb.PutRequest{Key: key("app/a"), Lease: 12345}), userEmpty, "NotFound: requested lease not found", "NotFound: requested lease not found"},
		{"delete", deleteOf(&pb.DeleteRangeRequest{Key: key("app/"), RangeEnd: key("app0")}), userEmpty, "ok", "ok"},
		{"delete with values", deleteOf(&pb.DeleteRangeRequest{Key: key("drop/"), RangeEnd: key("drop0"), PrevKv: true}), userEmpty, denied, "ok"},
		{"delete beyond", deleteOf(&pb.DeleteRangeRequest{Key: key("app/"), RangeEnd: key("\x00")}), userEmpty, denied, "ok"},
		{"compact", func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewKVClient(c).Compact(ctx, &pb.CompactionRequest{Revision: 1 << 40})
			return err
		}, userEmpty, denied, "OutOfRange: mvcc: required revision is a future revision"},
		{"status", maintenance(func(ctx context.Context, m pb.MaintenanceClient) error {
			_, err := m.Status(ctx, &pb.StatusRequest{})
			return err
		}), userEmpty, "ok", "ok"},
		{"hash", maintenance(func(ctx context.Context, m pb.MaintenanceClient) error {
			_, err := m.Hash(ctx, &pb.HashRequest{})
			return err
		}), userEmpty, denied, "ok"},
		{"hashkv", maintenance(func(ctx context.Context, m pb.MaintenanceClient) error {
			_, err := m.HashKV(ctx, &pb.HashKVRequest{})
			return err
		}), userEmpty, denied, "ok"},
		{"defragment", maintenance(func(ctx context.Context, m pb.MaintenanceClient) error {
			_, err := m.Defragment(ctx, &pb.DefragmentRequest{})
			return err
		}), userEmpty, denied, "ok"},
		{"list alarms", maintenance(func(ctx context.Context, m pb.MaintenanceClient) error {
			_, err := m.Alarm(ctx, &pb.AlarmRequest{})
			return err
		}), userEmpty, "ok", "ok"},
		{"snapshot", maintenance(func(ctx context.Context, m pb.MaintenanceClient) error {
			stream, err := m.Snapshot(ctx, &pb.SnapshotRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}), userEmpty, denied, ""},
		{"activate an alarm", maintenance(func(ctx context.Context, m pb.MaintenanceClient) error {
			_, err := m.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE})
			return err
		}), userEmpty, denied, ""},
		{"move the leader", maintenance(func(ctx context.Context, m pb.MaintenanceClient) error {
			_, err := m.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 1})
			return err
		}), userEmpty, denied, ""},
		{"downgrade", maintenance(func(ctx context.Context, m pb.MaintenanceClient) error {
			_, err := m.Downgrade(ctx, &pb.DowngradeRequest{Version: "3.0.0"})
			return err
		}), userEmpty, denied, ""},
		{"list members", func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewClusterClient(c).MemberList(ctx, &pb.MemberListRequest{})
			return err
		}, userEmpty, "ok", "ok"},
		{"add a member", func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewClusterClient(c).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
			return err
		}, userEmpty, denied, ""},
		{"remove a member", func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewClusterClient(c).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 1})
			return err
		}, userEmpty, denied, ""},
		{"grant a lease", leases(func(ctx context.Context, l pb.LeaseClient) error {
			_, err := l.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 100})
			return err
		}), userEmpty, "ok", "ok"},
		{"ask for a lease", leases(func(ctx context.Context, l pb.LeaseClient) error {
			_, err := l.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 99})
			return err
		}), userEmpty, "ok", "ok"},
		{"revoke an unknown lease", leases(func(ctx context.Context, l pb.LeaseClient) error {
			_, err := l.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 99})
			return err
		}), userEmpty, "NotFound: requested lease not found", "NotFound: requested lease not found"},
		{"list leases", leases(func(ctx context.Context, l pb.LeaseClient) error {
			_, err := l.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
			return err
		}), userEmpty, "ok", "ok"},
		{"see oneself", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.UserGet(ctx, &pb.AuthUserGetRequest{Name: "ann"})
			return err
		}), userEmpty, "ok", "ok"},
		{"see root", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.UserGet(ctx, &pb.AuthUserGetRequest{Name: "root"})
			return err
		}), userEmpty, denied, "ok"},
		{"see nobody", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.UserGet(ctx, &pb.AuthUserGetRequest{Name: "x"})
			return err
		}), userEmpty, denied, noUser},
		{"see one's role", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "app"})
			return err
		}), userEmpty, "ok", "ok"},
		{"see another role", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "root"})
			return err
		}), userEmpty, denied, "ok"},
		{"list users", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.UserList(ctx, &pb.AuthUserListRequest{})
			return err
		}), userEmpty, denied, "ok"},
		{"list roles", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.RoleList(ctx, &pb.AuthRoleListRequest{})
			return err
		}), userEmpty, denied, "ok"},
		{"add a user that exists", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "ann", Password: "x"})
			return err
		}), userEmpty, denied, "FailedPrecondition: user name already exists"},
		{"change one's own password", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.UserChangePassword(ctx, &pb.AuthUserChangePasswordRequest{Name: "x", Password: "x"})
			return err
		}), userEmpty, denied, noUser},
		{"grant a role", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "ann", Role: "x"})
			return err
		}), userEmpty, denied, noRole},
		{"revoke a role", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.UserRevokeRole(ctx, &pb.AuthUserRevokeRoleRequest{Name: "ann", Role: "x"})
			return err
		}), userEmpty, denied, "FailedPrecondition: role is not granted to the user"},
		{"grant a permission", auth(func(ctx context.Context, a pb.AuthClient) error {
			_, err := a.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "app"})
			return err
		}), userEmpty, denied, "InvalidArgument: permission not given"},
		{"disable", auth(func(ctx context.Context, a pb.AuthClient) error {
			if token, _ := metadata.FromOutgoingContext(ctx); len(token["root"]) > 0 {
				return nil
			}
			_, err := a.AuthDisable(ctx, &pb.AuthDisableRequest{})
			return err
		}), userEmpty, denied, "ok"},
	}
}

func caseAuthMatrix(e *env) {
	ann := e.with(e.token(0, "ann"))
	root := metadata.AppendToOutgoingContext(e.with(e.token(0, "root")), "root", "yes")
	for number, call := range matrix() {
		c := e.dial(number)
		e.says("nobody: "+call.name, call.ask(e.ctx, c), call.nobody)
		e.says("ann: "+call.name, call.ask(ann, c), call.ann)
		if call.root != "" {
			e.says("root: "+call.name, call.ask(root, c), call.root)
		}
		e.says("a wrong token: "+call.name, call.ask(e.with("abcdefghijklmnop.1"), c), wrongToken(call))
	}
}

// wrongToken is the answer to somebody with a token that is none: the same as
// to nobody where the request is wrong in itself.
func wrongToken(c call) string {
	if c.nobody == userEmpty {
		return badToken
	}
	return c.nobody
}

func caseRootStays(e *env) {
	root, a := e.with(e.token(0, "root")), e.auth(0)
	_, err := a.UserDelete(root, &pb.AuthUserDeleteRequest{Name: "root"})
	e.says("delete the user root", err, badManage)
	_, err = a.RoleDelete(root, &pb.AuthRoleDeleteRequest{Role: "root"})
	e.says("delete the role root", err, badManage)
	_, err = a.UserRevokeRole(root, &pb.AuthUserRevokeRoleRequest{Name: "root", Role: "root"})
	e.says("revoke the role root from root", err, badManage)
}

func caseTokensEverywhere(e *env) {
	for from := range e.cluster.Members {
		token := e.token(from, "ann")
		for to := range e.cluster.Members {
			ctx := e.with(token)
			if e.cluster.Server.IsEtcd() {
				// etcd itself may need a moment.
				e.eventually("a token that is known", func() bool { return said(rangeOf("app/t", "")(ctx, e.dial(to))) == "ok" })
			}
			e.says(fmt.Sprintf("put at %d with a token of %d", to, from), putOf(&pb.PutRequest{Key: []byte("app/t")})(ctx, e.dial(to)), "ok")
			e.says(fmt.Sprintf("get at %d with a token of %d", to, from), rangeOf("app/t", "")(ctx, e.dial(to)), "ok")
		}
		bearer := metadata.AppendToOutgoingContext(e.ctx, "authorization", "Bearer "+token)
		e.says("as a bearer", rangeOf("app/t", "")(bearer, e.dial(from)), "ok")
	}
}

func caseBadTokens(e *env) {
	good := e.token(0, "ann")
	letters, index, _ := strings.Cut(good, ".")
	for _, token := range []string{"", "x", ".", "x.", "x.y", "a.b.c", letters, letters + ".1", good + "0.1", "." + index, good + " ",
		"eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6MX0."} {
		ctx := e.with(token)
		e.says(fmt.Sprintf("get with token %q", token), rangeOf("app/t", "")(ctx, e.dial(0)), badToken)
		e.says(fmt.Sprintf("put with token %q", token), putOf(&pb.PutRequest{Key: []byte("app/t")})(ctx, e.dial(0)), badToken)
	}
	a := e.auth(0)
	for _, q := range []*pb.AuthenticateRequest{
		{Name: "ann", Password: "wrong"}, {Name: "ann"}, {Name: "nobody", Password: "x"}, {}, {Name: "ANN", Password: "ann-pw"},
	} {
		_, err := a.Authenticate(e.ctx, q)
		e.says(fmt.Sprintf("authenticate %q", q.Name), err, authFailed)
	}
	_, err := a.Authenticate(e.ctx, &pb.AuthenticateRequest{Name: "cert", Password: "x"})
	e.says("authenticate somebody without a password", err, noPassword)
	_, err = a.Authenticate(e.with("x.y"), &pb.AuthenticateRequest{Name: "ann", Password: "ann-pw"})
	e.says("authenticate with a wrong token", err, "ok")
	_, err = a.AuthStatus(e.with("x.y"), &pb.AuthStatusRequest{})
	e.says("auth status with a wrong token", err, badToken)
}

func op(request any) *pb.RequestOp {
	switch q := request.(type) {
	case *pb.RangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: q}}
	case *pb.PutRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: q}}
	case *pb.DeleteRangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: q}}
	case *pb.TxnRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: q}}
	}
	panic("no operation")
}

func caseAuthTxn(e *env) {
	kv, ann, root := pb.NewKVClient(e.dial(1)), e.with(e.token(1, "ann")), e.with(e.token(1, "root"))
	mine, secret := &pb.RangeRequest{Key: []byte("app/a")}, &pb.RangeRequest{Key: []byte("secret")}
	for _, test := range []struct {
		name string
		txn  *pb.TxnRequest
		want string
	}{
		{"of reads", &pb.TxnRequest{Success: []*pb.RequestOp{op(mine)}, Failure: []*pb.RequestOp{op(mine)}}, "ok"},
		{"of reads, one denied", &pb.TxnRequest{Success: []*pb.RequestOp{op(mine), op(secret)}}, denied},
		{"of reads, the branch not taken denied", &pb.TxnRequest{Success: []*pb.RequestOp{op(mine)}, Failure: []*pb.RequestOp{op(secret)}}, denied},
		{"with a guard denied", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("secret")}}}, denied},
		{"with a guard on a range denied", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("one"), RangeEnd: []byte("\x00")}}}, denied},
		{"with a guard allowed", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("one")}}, Success: []*pb.RequestOp{op(&pb.PutRequest{Key: []byte("app/x")})}}, "ok"},
		{"of writes, one denied", &pb.TxnRequest{Success: []*pb.RequestOp{op(&pb.PutRequest{Key: []byte("app/x")}), op(&pb.PutRequest{Key: []byte("one")})}}, denied},
		{"with a read in one within", &pb.TxnRequest{Success: []*pb.RequestOp{op(&pb.TxnRequest{Success: []*pb.RequestOp{op(secret)}})}}, denied},
		{"with a write in one within", &pb.TxnRequest{Success: []*pb.RequestOp{op(&pb.TxnRequest{Failure: []*pb.RequestOp{op(&pb.PutRequest{Key: []byte("secret")})}})}}, denied},
		{"with a value before, denied", &pb.TxnRequest{Success: []*pb.RequestOp{op(&pb.PutRequest{Key: []byte("drop/a"), PrevKv: true})}}, denied},
		{"with deleted values, denied", &pb.TxnRequest{Success: []*pb.RequestOp{op(&pb.DeleteRangeRequest{Key: []byte("drop/a"), PrevKv: true})}}, denied},
		{"with a delete allowed", &pb.TxnRequest{Success: []*pb.RequestOp{op(&pb.DeleteRangeRequest{Key: []byte("drop/a")})}}, "ok"},
	} {
		_, err := kv.Txn(ann, test.txn)
		e.says("a transaction "+test.name, err, test.want)
		_, err = kv.Txn(root, test.txn)
		e.says("root: a transaction "+test.name, err, "ok")
	}
}

func caseAuthLeases(e *env) {
	l, kv := pb.NewLeaseClient(e.dial(0)), pb.NewKVClient(e.dial(0))
	root, ann := e.with(e.token(0, "root")), e.with(e.token(0, "ann"))
	granted, err := l.LeaseGrant(ann, &pb.LeaseGrantRequest{TTL: 600})
	e.must(err)
	_, err = kv.Put(ann, &pb.PutRequest{Key: []byte("app/leased"), Lease: granted.ID})
	e.must(err)
	renew := func(ctx context.Context) error {
		stream, err := l.LeaseKeepAlive(ctx)
		e.must(err)
		e.must(stream.Send(&pb.LeaseKeepAliveRequest{ID: granted.ID}))
		_, err = stream.Recv()
		return err
	}
	keys := func(ctx context.Context) error {
		_, err := l.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: granted.ID, Keys: true})
		return err
	}
	list := func(ctx context.Context) error {
		_, err := l.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		return err
	}
	e.says("renew", renew(ann), "ok")
	e.says("renew, nobody", renew(e.ctx), userEmpty)
	e.says("keys", keys(ann), "ok")
	e.says("list", list(ann), "ok")
	_, err = kv.Put(root, &pb.PutRequest{Key: []byte("secret"), Lease: granted.ID})
	e.must(err)
	e.says("renew with a key of another", renew(ann), denied)
	e.says("keys with a key of another", keys(ann), denied)
	e.says("list with a key of another", list(ann), denied)
	_, err = l.LeaseTimeToLive(ann, &pb.LeaseTimeToLiveRequest{ID: granted.ID})
	e.says("time to live without keys", err, "ok")
	_, err = kv.Put(ann, &pb.PutRequest{Key: []byte("app/b"), Lease: granted.ID})
	e.says("attach beside a key of another", err, denied)
	_, err = kv.Txn(ann, &pb.TxnRequest{Success: []*pb.RequestOp{op(&pb.PutRequest{Key: []byte("app/b"), Lease: granted.ID})}})
	e.says("attach beside a key of another in a transaction", err, denied)
	_, err = l.LeaseRevoke(ann, &pb.LeaseRevokeRequest{ID: granted.ID})
	e.says("revoke with a key of another", err, denied)
	e.says("root renews", renew(root), "ok")
	e.says("root sees the keys", keys(root), "ok")
	_, err = l.LeaseRevoke(root, &pb.LeaseRevokeRequest{ID: granted.ID})
	e.says("root revokes", err, "ok")
	short, err := l.LeaseGrant(ann, &pb.LeaseGrantRequest{TTL: 2})
	e.must(err)
	_, err = kv.Put(root, &pb.PutRequest{Key: []byte("secret/short"), Lease: short.ID})
	e.must(err)
	e.eventually("a lease runs out whoever its keys are for", func() bool {
		got, err := kv.Range(root, &pb.RangeRequest{Key: []byte("secret/short")})
		e.must(err)
		return len(got.Kvs) == 0
	})
}

// watchOnce creates a watcher on a stream of its own and gives the answer.
func (e *env) watchOnce(ctx context.Context, key, end string) *pb.WatchResponse {
	e.Helper()
	stream, err := pb.NewWatchClient(e.dial(0)).Watch(ctx)
	e.must(err)
	create := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}
	e.must(stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}))
	response, err := stream.Recv()
	e.must(err)
	return response
}

func caseAuthWatch(e *env) {
	ann := e.with(e.token(0, "ann"))
	for _, test := range []struct {
		ctx      context.Context
		key, end string
		want     string
	}{
		{ann, "app/", "app0", ""}, {ann, "one", "", ""}, {ann, "z", "\x00", ""},
		{ann, "one", "\x00", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
		{ann, "one", "onf", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
		{ann, "", "\x00", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
		{ann, "drop/a", "", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
		{e.ctx, "one", "", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"},
		{e.with("x.1"), "one", "", "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"},
		{e.with(e.token(0, "root")), "", "\x00", ""},
	} {
		response := e.watchOnce(test.ctx, test.key, test.end)
		equal(e, fmt.Sprintf("watch %q to %q", test.key, test.end), response.CancelReason, test.want)
		equal(e, "created", response.Created, true)
		equal(e, "canceled", response.Canceled, test.want != "")
		if test.want != "" {
			equal(e, "id", response.WatchId, -1)
		}
	}
	// Several on one stream: each has its own answer, in order.
	stream, err := pb.NewWatchClient(e.dial(1)).Watch(e.with(e.token(1, "ann")))
	e.must(err)
	for _, key := range []string{"one", "secret", "app/"} {
		create := &pb.WatchCreateRequest{Key: []byte(key)}
		e.must(stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}))
		response, err := stream.Recv()
		e.must(err)
		equal(e, key+" refused", response.Canceled, key == "secret")
	}
}

func caseAuthLocks(e *env) {
	locks, elections, l := v3lockpb.NewLockClient(e.dial(0)), v3electionpb.NewElectionClient(e.dial(0)), pb.NewLeaseClient(e.dial(0))
	ann, root := e.with(e.token(0, "ann")), e.with(e.token(0, "root"))
	granted, err := l.LeaseGrant(ann, &pb.LeaseGrantRequest{TTL: 600})
	e.must(err)
	lock, err := locks.Lock(ann, &v3lockpb.LockRequest{Name: []byte("app/lock"), Lease: granted.ID})
	e.must(err)
	_, err = locks.Lock(ann, &v3lockpb.LockRequest{Name: []byte("secret"), Lease: granted.ID})
	e.says("lock what is not one's own", err, "Unknown: permission denied")
	_, err = locks.Lock(e.ctx, &v3lockpb.LockRequest{Name: []byte("app/lock"), Lease: granted.ID})
	e.says("lock, nobody", err, "Unknown: user name is empty")
	_, err = locks.Unlock(e.ctx, &v3lockpb.UnlockRequest{Key: lock.Key})
	e.says("unlock, nobody", err, "Unknown: user name is empty")
	_, err = locks.Unlock(ann, &v3lockpb.UnlockRequest{Key: []byte("secret")})
	e.says("unlock what is not one's own", err, "Unknown: permission denied")
	_, err = locks.Unlock(ann, &v3lockpb.UnlockRequest{Key: lock.Key})
	e.says("unlock", err, "ok")
	_, err = elections.Campaign(root, &v3electionpb.CampaignRequest{Name: []byte("secret"), Value: []byte("v")})
	e.must(err)
	_, err = elections.Leader(ann, &v3electionpb.LeaderRequest{Name: []byte("secret")})
	e.says("the leader of what is not one's own", err, "Unknown: permission denied")
	_, err = elections.Leader(e.ctx, &v3electionpb.LeaderRequest{Name: []byte("secret")})
	e.says("the leader, nobody", err, "Unknown: user name is empty")
	observed, err := elections.Observe(ann, &v3electionpb.LeaderRequest{Name: []byte("secret")})
	e.must(err)
	if response, err := observed.Recv(); err == nil {
		e.Errorf("ann observes %v", response)
	}
}

func caseRightsChange(e *env) {
	root, a := e.with(e.token(0, "root")), e.auth(0)
	bob := e.with(e.token(1, "bob"))
	get := func() error { return rangeOf("bob", "")(bob, e.dial(1)) }
	e.says("before", get(), denied)
	_, err := a.RoleAdd(root, &pb.AuthRoleAddRequest{Name: "bobs"})
	e.must(err)
	e.must(e.grantPermission(root, "bobs", permission(authpb.Permission_READ, "bob", "")))
	_, err = a.UserGrantRole(root, &pb.AuthUserGrantRoleRequest{User: "bob", Role: "bobs"})
	e.must(err)
	e.says("granted, with the token from before", get(), "ok")
	stream, err := pb.NewWatchClient(e.dial(1)).Watch(bob)
	e.must(err)
	create := &pb.WatchCreateRequest{Key: []byte("bob")}
	e.must(stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}))
	response, err := stream.Recv()
	e.must(err)
	equal(e, "created", response.CancelReason, "")
	_, err = a.RoleRevokePermission(root, &pb.AuthRoleRevokePermissionRequest{Role: "bobs", Key: []byte("bob")})
	e.must(err)
	e.says("revoked", get(), denied)
	_, err = a.UserDelete(root, &pb.AuthUserDeleteRequest{Name: "bob"})
	e.must(err)
	e.says("deleted", get(), badToken)
	_, err = pb.NewKVClient(e.dial(0)).Put(root, &pb.PutRequest{Key: []byte("bob"), Value: []byte("news")})
	e.must(err)
	response, err = stream.Recv()
	e.must(err)
	equal(e, "a watcher outlives its user", len(response.Events), 1)
}

func casePasswords(e *env) {
	root, a := e.with(e.token(0, "root")), e.auth(0)
	former := e.with(e.token(0, "former"))
	get := func() error { return rangeOf("app/a", "")(former, e.dial(0)) }
	e.says("before", get(), "ok")
	_, err := a.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "former", Password: "new"})
	e.must(err)
	e.says("the old token", get(), badToken)
	_, err = a.Authenticate(e.ctx, &pb.AuthenticateRequest{Name: "former", Password: "former-pw"})
	e.says("the old password", err, authFailed)
	_, err = e.auth(1).Authenticate(e.ctx, &pb.AuthenticateRequest{Name: "former", Password: "new"})
	e.says("the new password", err, "ok")
	_, err = a.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "former"})
	e.says("no password", err, "ok")
	_, err = a.Authenticate(e.ctx, &pb.AuthenticateRequest{Name: "former"})
	e.says("no password fits", err, authFailed)
	_, err = a.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "former", HashedPassword: "?"})
	e.says("a hash that is none", err, noPassword)
	_, err = a.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "cert", Password: "x"})
	e.says("a password for somebody without", err, "ok")
	_, err = a.Authenticate(e.ctx, &pb.AuthenticateRequest{Name: "cert", Password: "x"})
	e.says("still without", err, noPassword)
}

func (e *env) user(name string, endpoints ...string) *clientv3.Client {
	e.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 10 * time.Second, Logger: zap.NewNop(), Context: e.ctx,
		Username: name, Password: name + "-pw"})
	e.must(err)
	e.Cleanup(func() { _ = client.Close() })
	return client
}

func caseAuthAgain(e *env) {
	endpoints := e.cluster.Endpoints()
	if e.cluster.Server.IsEtcd() {
		endpoints = endpoints[:1] // its other members may need a moment to know a token
	}
	client := e.user("ann", endpoints...)
	_, err := client.Put(e.ctx, "app/again", "1")
	e.must(err)
	_, err = client.Put(e.ctx, "secret", "1")
	e.failsWith(err, rpctypes.ErrPermissionDenied)
	// The token ends; the client gets another one without a word.
	_, err = e.auth(0).UserChangePassword(e.with(e.token(0, "root")), &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "ann-pw"})
	e.must(err)
	_, err = client.Put(e.ctx, "app/again", "2")
	e.must(err)
	response, err := client.Get(e.ctx, "app/again")
	e.must(err)
	equal(e, "value", string(response.Kvs[0].Value), "2")
	watch := client.Watch(e.ctx, "app/again", clientv3.WithRev(response.Kvs[0].ModRevision))
	equal(e, "event", string(next(e, "an event", watch).Events[0].Kv.Value), "2")
	_, err = clientv3.New(clientv3.Config{Endpoints: e.cluster.Endpoints(), DialTimeout: 5 * time.Second, Logger: zap.NewNop(), Username: "ann", Password: "wrong"})
	e.failsWith(err, rpctypes.ErrAuthFailed)
}

func caseAuthDisable(e *env) {
	root, a := e.with(e.token(0, "root")), e.auth(0)
	before, err := a.AuthStatus(e.ctx, &pb.AuthStatusRequest{})
	e.must(err)
	_, err = a.AuthDisable(root, &pb.AuthDisableRequest{})
	e.must(err)
	after, err := a.AuthStatus(e.ctx, &pb.AuthStatusRequest{})
	e.must(err)
	equal(e, "enabled", after.Enabled, false)
	equal(e, "auth revision", after.AuthRevision, before.AuthRevision+1)
	for member := range e.cluster.Members {
		e.says("anybody reads", rangeOf("secret", "")(e.ctx, e.dial(member)), "ok")
		e.says("with a token that is none", rangeOf("secret", "")(e.with("x"), e.dial(member)), "ok")
	}
	_, err = a.UserDelete(e.ctx, &pb.AuthUserDeleteRequest{Name: "root"})
	e.says("root may go", err, "ok")
	_, err = a.RoleDelete(e.ctx, &pb.AuthRoleDeleteRequest{Role: "root"})
	e.says("its role too", err, "ok")
}
