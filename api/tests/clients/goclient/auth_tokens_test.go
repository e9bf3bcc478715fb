package goclient

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"holdfast.dev/clients/cluster"
)

// keyFiles writes a pair of keys in PEM and gives the names of the private and
// the public one.
func keyFiles(t *testing.T, private, public any) (string, string) {
	t.Helper()
	write := func(name, kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	secret := write("key", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(public)
	return secret, write("key.pub", "PUBLIC KEY", der, err)
}

// TestTokens checks the kinds of tokens on three members each.
func TestTokens(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaPrivate, rsaPublic := keyFiles(t, rsaKey, rsaKey.Public())
	ecPrivate, _ := keyFiles(t, ecKey, ecKey.Public())
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret of some length"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, flag string
		signed     bool
	}{
		{"simple", "--auth-token-ttl=2", false},
		{"RS256", "--auth-token=jwt,sign-method=RS256,ttl=8s,priv-key=" + rsaPrivate + ",pub-key=" + rsaPublic, true},
		{"PS384 without a public key", "--auth-token=jwt,sign-method=PS384,ttl=8s,priv-key=" + rsaPrivate, true},
		{"ES256 without a public key", "--auth-token=jwt,sign-method=ES256,ttl=8s,priv-key=" + ecPrivate, true},
		{"HS512", "--auth-token=jwt,sign-method=HS512,ttl=8s,priv-key=" + secret, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // they wait for tokens to end
			c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3, NoFsync: true,
				Args: []string{"--bcrypt-cost=4", test.flag}})
			checkTokens(newAuthEnv(t, c), test.signed)
		})
	}
}

func checkTokens(e *env, signed bool) {
	e.addUser("root")
	_, err := e.auth(0).UserGrantRole(e.ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	e.must(err)
	_, err = e.auth(0).AuthEnable(e.ctx, &pb.AuthEnableRequest{})
	e.must(err)
	client := e.user("root", e.cluster.Endpoints()...)
	token := e.token(0, "root")
	equal(e, "parts of a token", strings.Count(token, "."), map[bool]int{true: 2, false: 1}[signed])
	get := func() error { return rangeOf("k", "")(e.with(token), e.dial(1)) }
	e.eventually("a token that is known", func() bool { return said(get()) == "ok" })
	other := "x"
	if token[len(token)-3] == 'x' {
		other = "y"
	}
	changed := e.with(token[:len(token)-3] + other + token[len(token)-2:])
	e.says("with a letter of it changed", rangeOf("k", "")(changed, e.dial(0)), badToken)
	alarm := func(action pb.AlarmRequest_AlarmAction) {
		_, err := pb.NewMaintenanceClient(e.dial(0)).Alarm(e.with(token), &pb.AlarmRequest{Action: action, Alarm: pb.AlarmType_NOSPACE})
		e.must(err)
	}
	// Who asks is settled before whether there is room.
	alarm(pb.AlarmRequest_ACTIVATE)
	e.says("with a letter of it changed, without space", putOf(&pb.PutRequest{Key: []byte("k")})(changed, e.dial(0)), badToken)
	alarm(pb.AlarmRequest_DEACTIVATE)
	// Changes of the rules make signed tokens old, except for changing them further.
	for _, name := range []string{"one", "two"} {
		_, err = e.auth(0).RoleAdd(e.with(token), &pb.AuthRoleAddRequest{Name: name})
		e.says("add a role", err, "ok")
	}
	if signed {
		e.eventually("an old revision", func() bool { return said(get()) == oldAuth })
		e.says("a write", putOf(&pb.PutRequest{Key: []byte("k")})(e.with(token), e.dial(0)), oldAuth)
	} else {
		e.says("a read", get(), "ok")
	}
	_, err = client.Put(e.ctx, "k", "v")
	e.must(err)
	// Nobody uses the token, and it ends; the client gets another one.
	token = e.token(2, "root")
	if signed {
		e.eventually("an end of the token", func() bool { return said(rangeOf("k", "")(e.with(token), e.dial(2))) == badToken })
	} else {
		// Looking at it would prolong it.
		time.Sleep(5 * time.Second)
		e.says("a token that was not used", rangeOf("k", "")(e.with(token), e.dial(2)), badToken)
	}
	_, err = client.Put(e.ctx, "k", "v")
	e.must(err)
	response, err := client.Get(e.ctx, "k")
	e.must(err)
	equal(e, "value", string(response.Kvs[0].Value), "v")
}
