package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const discoveryPrefix = "/_etcd/registry/"

// discovery is what the tests of discovery need: a registry, and a token.
type discovery struct {
	*testing.T
	ctx      context.Context
	registry *Cluster
	client   *clientv3.Client
	token    string
}

// eachRegistry runs a test with etcd and with the target as the registry.
func eachRegistry(t *testing.T, test func(*discovery)) {
	for _, server := range []Server{Reference(t), Target(t)} {
		t.Run("registry of "+server.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			registry := Start(t, server, Options{})
			test(&discovery{T: t, ctx: ctx, registry: registry, client: connect(t, registry.Members[0]), token: "t0ken"})
		})
	}
}

func connect(t *testing.T, member *Member) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{member.Endpoint()}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (d *discovery) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func (d *discovery) size(value string) {
	d.Helper()
	_, err := d.client.Put(d.ctx, discoveryPrefix+d.token+"/_config/size", value)
	d.must(err)
}

func (d *discovery) options(members int) Options {
	return Options{Members: members, Discovery: []string{
		"--discovery-token=" + d.token,
		"--discovery-endpoints=" + strings.Join(d.registry.Endpoints(), ","),
	}}
}

// registered are the entries, once there are so many.
func (d *discovery) registered(count int) map[string]string {
	d.Helper()
	folder := discoveryPrefix + d.token + "/members/"
	for {
		got, err := d.client.Get(d.ctx, folder, clientv3.WithPrefix())
		if err != nil {
			d.Fatalf("waiting for %d members in the registry: %v", count, err)
		}
		if len(got.Kvs) == count {
			entries := map[string]string{}
			for _, kv := range got.Kvs {
				entries[strings.TrimPrefix(string(kv.Key), folder)] = string(kv.Value)
			}
			return entries
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// members is what a member says about its cluster.
func (d *discovery) members(member *Member) []string {
	d.Helper()
	list, err := connect(d.T, member).MemberList(d.ctx)
	d.must(err)
	said := []string{fmt.Sprintf("cluster %x", list.Header.ClusterId)}
	for _, m := range list.Members {
		said = append(said, fmt.Sprintf("%x %v", m.ID, m.PeerURLs))
	}
	slices.Sort(said)
	return said
}

// isOne checks that the members are one cluster, by what they say and by a key
// that goes from one to the next.
func (d *discovery) isOne(c *Cluster, value string) {
	d.Helper()
	want := d.members(c.Members[0])
	if len(want) != 1+len(c.Members) {
		d.Fatalf("%d members: %v", len(c.Members), want)
	}
	for i, member := range c.Members {
		if got := d.members(member); !slices.Equal(got, want) {
			d.Fatalf("%s says %v, and %s %v", member.Name, got, c.Members[0].Name, want)
		}
		if _, err := connect(d.T, member).Put(d.ctx, member.Name, value); err != nil {
			d.Fatal(err)
		}
		next := c.Members[(i+1)%len(c.Members)]
		got, err := connect(d.T, next).Get(d.ctx, member.Name)
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value {
			d.Fatalf("put through %s, read from %s: %v, %v", member.Name, next.Name, got, err)
		}
	}
}

// refused starts one more member, which must not start and must say why.
func (d *discovery) refused(c *Cluster, name, why string) {
	d.Helper()
	member, err := c.Grow(name, Options{})
	d.must(err)
	defer c.Forget(member)
	d.must(c.Refused(member, d.options(1)))
	if !strings.Contains(member.Log(), why) {
		d.Fatalf("%s does not say %q\n%s", name, why, member.LogTail())
	}
}

// Three members found a cluster by a token, a fourth is told that it is full,
// and the flags mean nothing any more once there is data.
func TestDiscovery(t *testing.T) {
	eachRegistry(t, func(d *discovery) {
		d.size("3")
		c := Start(t, Target(t), d.options(3))
		d.isOne(c, "founded")
		for id, value := range d.registered(3) {
			entry := func(m *Member) bool { return value == m.Name+"="+m.PeerURL() }
			i := slices.IndexFunc(c.Members, entry)
			if i < 0 {
				d.Fatalf("nobody registered %s", value)
			}
			own := fmt.Sprintf("%s [%s]", id, c.Members[i].PeerURL())
			if said := d.members(c.Members[i]); !slices.Contains(said, own) {
				d.Fatalf("%s has no %s", said, own)
			}
		}
		d.refused(c, "m4", "discovery: cluster is full")
		d.registered(3)
		d.must(d.registry.Stop())
		d.must(c.Stop())
		d.must(c.startAll())
		d.isOne(c, "restarted")
		if want := "discovery token is ignored"; !strings.Contains(c.Members[0].Log(), want) {
			d.Fatalf("no %q\n%s", want, c.Members[0].LogTail())
		}
	})
}

// Members that wait go on waiting while the registry is away, and when they are
// killed they come back to their place.
func TestDiscoveryGoesOn(t *testing.T) {
	eachRegistry(t, func(d *discovery) {
		d.size("3")
		c, err := prepare(Target(t), d.options(3))
		d.must(err)
		d.Cleanup(c.Close)
		for _, member := range c.Members[:2] {
			d.must(member.Spawn())
		}
		d.registered(2)
		d.must(c.Members[1].Kill())
		d.must(d.registry.Members[0].Kill())
		d.must(d.registry.startAll())
		for _, member := range c.Members[1:] {
			d.must(member.Spawn())
		}
		for _, member := range c.Members {
			d.must(member.WaitReady())
		}
		d.isOne(c, "founded")
		d.registered(3)
	})
}

// What will not get better ends the start.
func TestDiscoveryRefuses(t *testing.T) {
	eachRegistry(t, func(d *discovery) {
		c := Start(t, Target(t), Options{})
		d.refused(c, "early", "discovery: size key not found")
		d.size("three")
		d.refused(c, "bad", "discovery: size key is bad")
		d.size("0")
		d.refused(c, "none", "discovery: size key is bad")
		d.registered(0)
	})
}

// A member that was emptied is not let in as if it were new, where etcd lets it
// found its cluster once more; and names are given once, where etcd makes one
// member of two.
func TestDiscoveryKnowsWhoHasCome(t *testing.T) {
	target := Target(t)
	if target.IsEtcd() {
		t.Log("etcd does neither")
		return
	}
	eachRegistry(t, func(d *discovery) {
		d.size("3")
		c := Start(t, target, d.options(3))
		emptied := c.Members[2]
		d.must(emptied.Stop())
		d.must(emptied.Wipe())
		d.must(c.Refused(emptied, d.options(1)))
		if want := "has already been bootstrapped"; !strings.Contains(emptied.Log(), want) {
			d.Fatalf("no %q\n%s", want, emptied.LogTail())
		}
		d.token = "another"
		d.size("2")
		first, err := c.Grow("twin", Options{})
		d.must(err)
		first.DataDir += "-1"
		first.args = c.arguments(first, d.options(1))
		d.must(first.Spawn())
		d.registered(1)
		d.refused(c, "twin", "discovery: found duplicate name")
		d.registered(1)
		d.must(first.Kill())
		c.Forget(first)
	})
}
