// Package goclient drives a target with etcd's official Go client: the recipes
// of its concurrency package, watches, leases, transactions, range streams and
// the requests that a kube-apiserver makes. What is expected is written out
// here; TARGET=etcd shows that etcd does it.
package goclient

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"holdfast.dev/clients/cluster"
)

const caseTimeout = 60 * time.Second

// progressInterval is how often the clusters here tell idle watches where they
// are.
const progressInterval = 300 * time.Millisecond

// env is what a case has: a cluster, a client of all its members, and a prefix
// for its keys.
type env struct {
	*testing.T
	cluster *cluster.Cluster
	client  *clientv3.Client
	ctx     context.Context
	prefix  string
}

type testCase struct {
	name string
	run  func(e *env)
}

// cases share a cluster; those that stop members come last.
var cases = [][]testCase{kvCases, watchCases, leaseCases, recipeCases, serviceCases, kubernetesCases, maintenanceCases, alarmCases, failureCases}

func TestClient(t *testing.T) {
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d members", members), func(t *testing.T) {
			t.Parallel()
			c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: members,
				Args: []string{"--watch-progress-notify-interval=" + progressInterval.String()}})
			for _, group := range cases {
				for _, test := range group {
					t.Run(test.name, func(t *testing.T) { test.run(newEnv(t, c)) })
				}
			}
		})
	}
}

func newEnv(t *testing.T, c *cluster.Cluster) *env {
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
	t.Cleanup(cancel)
	e := &env{T: t, cluster: c, ctx: ctx, prefix: strings.ReplaceAll(t.Name(), " ", "_") + "/"}
	e.client = e.connect(c.Endpoints()...)
	return e
}

// connect makes a client of its own.
func (e *env) connect(endpoints ...string) *clientv3.Client {
	e.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 10 * time.Second, Logger: zap.NewNop(), Context: e.ctx})
	e.must(err)
	e.Cleanup(func() { _ = client.Close() })
	return client
}

// each runs a function with a client of each member alone.
func (e *env) each(f func(endpoint string, client *clientv3.Client)) {
	e.Helper()
	for _, endpoint := range e.cluster.Endpoints() {
		f(endpoint, e.connect(endpoint))
	}
}

func (e *env) key(name string) string { return e.prefix + name }

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) put(name, value string, options ...clientv3.OpOption) *clientv3.PutResponse {
	e.Helper()
	response, err := e.client.Put(e.ctx, e.key(name), value, options...)
	e.must(err)
	return response
}

func (e *env) get(name string, options ...clientv3.OpOption) *clientv3.GetResponse {
	e.Helper()
	response, err := e.client.Get(e.ctx, e.key(name), options...)
	e.must(err)
	return response
}

// value is one key's value, "" if it is not there.
func (e *env) value(name string) string {
	e.Helper()
	if response := e.get(name); len(response.Kvs) == 1 {
		return string(response.Kvs[0].Value)
	}
	return ""
}

func equal[T comparable](e *env, what string, got, want T) {
	e.Helper()
	if got != want {
		e.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// failsWith checks an error's text as clients see it.
func (e *env) failsWith(err error, want error) {
	e.Helper()
	if err == nil || err.Error() != want.Error() {
		e.Fatalf("got error %v, want %v", err, want)
	}
}

// next is a channel's next value, which must come in time.
func next[T any](e *env, what string, from <-chan T) T {
	e.Helper()
	select {
	case value, open := <-from:
		if !open {
			e.Fatalf("%s: the channel is closed", what)
		}
		return value
	case <-e.ctx.Done():
		e.Fatalf("%s: nothing came", what)
	}
	panic("unreachable")
}

// eventually polls until a condition holds.
func (e *env) eventually(what string, holds func() bool) {
	e.Helper()
	for !holds() {
		if e.ctx.Err() != nil {
			e.Fatalf("%s did not come about", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
