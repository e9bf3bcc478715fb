// Package testserver takes the place of the package of the same path in
// k8s.io/apiserver, whose tests get their store from it: there an etcd inside
// the test's own process, here a cluster of real processes, TARGET's, with as
// many members as MEMBERS says.
//
// Every call starts an empty cluster, because the tests compare absolute
// revisions. Of the configuration it obeys what those tests set: the interval
// of progress notifications and the clients' TLS.
package testserver

import (
	"os"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"

	"holdfast.dev/clients/cluster"
)

// NewTestConfig is what a test changes before it calls RunEtcd.
func NewTestConfig(testing.TB) *embed.Config { return embed.NewConfig() }

// RunEtcd starts a cluster for a test and returns a client of all its members,
// which counts requests as the tests expect it to.
func RunEtcd(t testing.TB, config *embed.Config) *kubernetes.Client {
	t.Helper()
	if config == nil {
		config = NewTestConfig(t)
	}
	servers := cluster.Start(t, cluster.Target(t), options(t, config))
	var endpoints []string
	for _, member := range servers.Members {
		endpoints = append(endpoints, member.ClientURL())
	}
	tls, err := config.ClientTLSInfo.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.New(clientv3.Config{
		TLS:         tls,
		Endpoints:   endpoints,
		DialTimeout: 10 * time.Second,
		Logger:      zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	recorder := storagetesting.NewKubernetesRecorder(client.Kubernetes)
	client.KV, client.Kubernetes = storagetesting.NewKVRecorder(client.KV, recorder), recorder
	return client
}

func options(t testing.TB, config *embed.Config) cluster.Options {
	members, err := strconv.Atoi(os.Getenv("MEMBERS"))
	if err != nil {
		t.Fatalf("MEMBERS: %v", err)
	}
	options := cluster.Options{Members: members, NoFsync: true}
	if interval := config.WatchProgressNotifyInterval; interval > 0 {
		options.Args = append(options.Args, "--watch-progress-notify-interval="+interval.String())
	}
	if tls := config.ClientTLSInfo; !tls.Empty() {
		options.ClientTLS = true
		options.Args = append(options.Args, "--cert-file="+tls.CertFile, "--key-file="+tls.KeyFile, "--trusted-ca-file="+tls.TrustedCAFile)
	}
	return options
}
