package cluster

import (
	"context"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestTools builds the programs of etcd, which keeps a machine busy: it is run
// alone before the suites that use them.
func TestTools(t *testing.T) {
	for name := range toolPackages {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(Tool(t, name)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A key written before a stop and before a kill is there afterwards, on one
// member and on three.
func TestStopKillAndRestart(t *testing.T) {
	for _, members := range []int{1, 3} {
		c := Start(t, Target(t), Options{Members: members})
		client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), DialTimeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := client.Put(ctx, "k", "before"); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := c.startAll(); err != nil {
			t.Fatal(err)
		}
		for _, member := range c.Members {
			if err := member.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.startAll(); err != nil {
			t.Fatal(err)
		}
		got, err := client.Get(ctx, "k")
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "before" {
			t.Fatalf("%d members: after restart: %v, %v", members, got, err)
		}
	}
}
