package tls

import (
	"context"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"holdfast.dev/clients/cluster"
)

const (
	registryPrefix = "/_etcd/registry/t/"
	password       = "pass-w0rd"
)

// A registry that speaks mutual TLS, and lets a user with a password register.
func TestDiscovery(t *testing.T) {
	for _, server := range []cluster.Server{cluster.Reference(t), cluster.Target(t)} {
		t.Run("registry of "+server.Name, func(t *testing.T) {
			a := newAuthority(t)
			// Without a name that would be a user.
			serving, member := a.issue("server", subject{}), a.issue("member", subject{})
			registry := cluster.Start(t, server, cluster.Options{ClientTLS: true, Args: append(clientFlags(a, serving), "--bcrypt-cost=4")})
			guard(t, connect(t, a.config(&member), urls(registry)...))
			root, err := clientv3.New(clientv3.Config{Endpoints: urls(registry), TLS: a.config(&member), Username: "root", Password: password, DialTimeout: patience})
			must(t, err)
			defer root.Close()
			flags := []string{"--discovery-token=t", "--discovery-endpoints=" + registry.Members[0].Endpoint(),
				"--discovery-cacert=" + a.file(), "--discovery-cert=" + member.cert, "--discovery-key=" + member.key,
				"--discovery-user=joiner", "--discovery-password=" + password}
			c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3, Discovery: flags})
			for _, url := range urls(c) {
				works(t, connect(t, nil, url))
			}
			entries(t, root, 3)
			if cluster.Target(t).IsEtcd() {
				return
			}
			refusedByTheRegistry(t, c, a, flags)
			entries(t, root, 3)
			// etcd logs its command line.
			for _, m := range c.Members {
				if strings.Contains(m.Log(), password) {
					t.Fatalf("%s logs the password", m.Name)
				}
			}
		})
	}
}

// guard makes users, who must log in from now on, and says that a cluster is to
// have three members.
func guard(t *testing.T, client *clientv3.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := client.Put(ctx, registryPrefix+"_config/size", "3")
	must(t, err)
	for _, user := range []string{"root", "joiner", "stranger"} {
		_, err = client.UserAdd(ctx, user, password)
		must(t, err)
		_, err = client.RoleAdd(ctx, user)
		must(t, err)
		_, err = client.UserGrantRole(ctx, user, user)
		must(t, err)
	}
	_, err = client.RoleGrantPermission(ctx, "joiner", registryPrefix, clientv3.GetPrefixRangeEnd(registryPrefix), clientv3.PermissionType(clientv3.PermReadWrite))
	must(t, err)
	_, err = client.AuthEnable(ctx)
	must(t, err)
}

// entries checks how many members have registered.
func entries(t *testing.T, root *clientv3.Client, count int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := root.Get(ctx, registryPrefix+"members/", clientv3.WithPrefix())
	must(t, err)
	if got.Count != count {
		t.Fatalf("%d entries, want %d", got.Count, count)
	}
}

// refusedByTheRegistry starts members that the registry will never let
// register, where etcd asks it again for ever or says nothing.
func refusedByTheRegistry(t *testing.T, c *cluster.Cluster, a *authority, flags []string) {
	t.Helper()
	for why, change := range map[string]string{
		"authentication failed, invalid user ID or password": "--discovery-password=wrong-one",
		"permission denied":                         "--discovery-user=stranger",
		"KeyFile and CertFile must both be present": "--discovery-key=",
	} {
		changed := append(slices.Clone(flags), change)
		member, err := c.Grow("m4", cluster.Options{})
		must(t, err)
		must(t, c.Refused(member, cluster.Options{Discovery: changed}))
		logged(t, member, why)
		c.Forget(member)
	}
}
