package tls

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"holdfast.dev/clients/cluster"
)

const (
	denied    = "PermissionDenied: etcdserver: permission denied"
	userEmpty = "InvalidArgument: etcdserver: user name is empty"
)

// said is a call's code and text.
func said(err error) string {
	if err == nil {
		return "ok"
	}
	s, _ := status.FromError(err)
	return s.Code().String() + ": " + s.Message()
}

// TestUsersByCertificate has users who show a certificate and no password.
func TestUsersByCertificate(t *testing.T) {
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d members", members), func(t *testing.T) {
			a := newAuthority(t)
			server := a.issue("server", subject{name: "server"})
			c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: members, ClientTLS: true, PeerTLS: true, NoFsync: true,
				Args: append(append(clientFlags(a, server), peerFlags(a, server)...), "--bcrypt-cost=4")})
			u := &users{T: t, a: a, c: c, pairs: map[string]pair{}}
			u.enable()
			u.mayDoWhatTheirRolesAllow()
			u.aTokenComesFirst()
			u.throughTheGateway()
			u.changed()
		})
	}
}

type users struct {
	*testing.T
	a     *authority
	c     *cluster.Cluster
	pairs map[string]pair
}

// pair is the certificate of a user.
func (u *users) pair(name string) *pair {
	if _, ok := u.pairs[name]; !ok {
		u.pairs[name] = u.a.issue("user-"+name, subject{name: name})
	}
	p := u.pairs[name]
	return &p
}

// rpc is a connection to one member that shows the certificate of a user.
func (u *users) rpc(name string, member int) *clientv3.Client {
	u.Helper()
	return connect(u.T, u.a.config(u.pair(name)), u.c.Members[member%len(u.c.Members)].ClientURL())
}

func (u *users) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	u.Cleanup(cancel)
	return ctx
}

func (u *users) says(what string, err error, want string) {
	u.Helper()
	if got := said(err); got != want {
		u.Errorf("%s: %s, want %s", what, got, want)
	}
}

func (u *users) get(ctx context.Context, name string, member int, key string) error {
	_, err := pb.NewKVClient(u.rpc(name, member).ActiveConnection()).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	return err
}

func (u *users) put(name string, member int, key string) error {
	_, err := pb.NewKVClient(u.rpc(name, member).ActiveConnection()).Put(u.context(), &pb.PutRequest{Key: []byte(key)})
	return err
}

func (u *users) enable() {
	u.Helper()
	root, ctx := u.rpc("root", 0), u.context()
	for _, name := range []string{"root", "ann"} {
		_, err := root.UserAddWithOptions(ctx, name, "", &clientv3.UserAddOptions{NoPassword: true})
		must(u.T, err)
	}
	_, err := root.UserAdd(ctx, "bob", "bob-pw")
	must(u.T, err)
	for role, prefix := range map[string]string{"app": "app/", "bobs": "bob/"} {
		_, err = root.RoleAdd(ctx, role)
		must(u.T, err)
		_, err = root.RoleGrantPermission(ctx, role, prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(authpb.READWRITE))
		must(u.T, err)
	}
	for name, role := range map[string]string{"root": "root", "ann": "app", "bob": "bobs"} {
		_, err = root.UserGrantRole(ctx, name, role)
		must(u.T, err)
	}
	_, err = root.AuthEnable(ctx)
	must(u.T, err)
}

func (u *users) mayDoWhatTheirRolesAllow() {
	u.Helper()
	nobody := userEmpty
	if u.c.Server.IsEtcd() { // which takes it for somebody without a name
		nobody = denied
	}
	for member := range u.c.Members {
		for _, test := range []struct{ name, key, want string }{
			{"root", "secret", "ok"}, {"ann", "app/a", "ok"}, {"ann", "secret", denied}, {"stranger", "app/a", denied}, {"", "app/a", nobody},
		} {
			u.says(fmt.Sprintf("%q puts %s", test.name, test.key), u.put(test.name, member, test.key), test.want)
			u.says(fmt.Sprintf("%q gets %s", test.name, test.key), u.get(u.context(), test.name, member, test.key), test.want)
		}
		_, err := pb.NewAuthClient(u.rpc("root", member).ActiveConnection()).UserList(u.context(), &pb.AuthUserListRequest{})
		u.says("root lists users", err, "ok")
		_, err = pb.NewAuthClient(u.rpc("ann", member).ActiveConnection()).UserList(u.context(), &pb.AuthUserListRequest{})
		u.says("ann lists users", err, denied)
	}
}

func (u *users) aTokenComesFirst() {
	u.Helper()
	authenticated, err := pb.NewAuthClient(u.rpc("ann", 0).ActiveConnection()).Authenticate(u.context(), &pb.AuthenticateRequest{Name: "bob", Password: "bob-pw"})
	must(u.T, err)
	bob := metadata.AppendToOutgoingContext(u.context(), "token", authenticated.Token)
	u.says("bob's token on ann's connection: bob's key", u.get(bob, "ann", 0, "bob/b"), "ok")
	u.says("bob's token on ann's connection: ann's key", u.get(bob, "ann", 0, "app/a"), denied)
	none := metadata.AppendToOutgoingContext(u.context(), "token", "x")
	u.says("no token of anybody's", u.get(none, "ann", 0, "app/a"), "Unauthenticated: etcdserver: invalid auth token")
	passed := metadata.AppendToOutgoingContext(u.context(), "grpcgateway-accept", "*/*")
	u.says("what a gateway passes on", u.get(passed, "ann", 0, "app/a"), userEmpty)
}

// post asks the JSON gateway for a key.
func (u *users) post(name, token string) string {
	u.Helper()
	transport := &http.Transport{TLSClientConfig: u.a.config(u.pair(name))}
	defer transport.CloseIdleConnections()
	body := fmt.Sprintf(`{"key":%q}`, base64.StdEncoding.EncodeToString([]byte("bob/b")))
	request, err := http.NewRequest(http.MethodPost, u.c.Members[0].ClientURL()+"/v3/kv/range", strings.NewReader(body))
	must(u.T, err)
	// Without it etcd takes its own certificate for the client's.
	request.Header.Set("Accept", "*/*")
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(request)
	must(u.T, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(u.T, err)
	return fmt.Sprintf("%d %s %s", response.StatusCode, response.Header.Get("Content-Type"), text)
}

func (u *users) throughTheGateway() {
	u.Helper()
	authenticated, err := pb.NewAuthClient(u.rpc("", 0).ActiveConnection()).Authenticate(u.context(), &pb.AuthenticateRequest{Name: "bob", Password: "bob-pw"})
	must(u.T, err)
	for _, test := range []struct{ name, token, want string }{
		{"ann", "", "400 text/plain; charset=utf-8 CommonName of client sending a request against gateway will be ignored and not used as expected\n"},
		{"ann", authenticated.Token, "400 text/plain; charset=utf-8 CommonName of client sending a request against gateway will be ignored and not used as expected\n"},
		{"", "", `400 application/json {"code":3, "message":"etcdserver: user name is empty"`},
		{"", authenticated.Token, `200 application/json {"header":{`},
	} {
		got := u.post(test.name, test.token)
		// etcd's writer of JSON puts spaces in by chance.
		plain := func(text string) string { return strings.ReplaceAll(strings.ReplaceAll(text, ", ", ","), ": ", ":") }
		if !strings.HasPrefix(plain(got), plain(test.want)) {
			u.Errorf("gateway, certificate of %q, token %v: %s, want %s", test.name, test.token != "", got, test.want)
		}
	}
}

// changed says that a certificate outlives changes of the rules, and not its user.
func (u *users) changed() {
	u.Helper()
	root := pb.NewAuthClient(u.rpc("root", 0).ActiveConnection())
	_, err := root.RoleAdd(u.context(), &pb.AuthRoleAddRequest{Name: "another"})
	must(u.T, err)
	u.says("ann after a change", u.get(u.context(), "ann", 0, "app/a"), "ok")
	_, err = root.UserDelete(u.context(), &pb.AuthUserDeleteRequest{Name: "ann"})
	must(u.T, err)
	u.says("ann after her end", u.get(u.context(), "ann", 0, "app/a"), denied)
	u.says("ann's put after her end", u.put("ann", 0, "app/a"), denied)
}
