// Package wire speaks etcd's gRPC API to a cluster without a client library in
// between, and brings answers into a form in which those of two servers can be
// compared: ids and terms by shape, errors by code and exact text.
package wire

import (
	"fmt"
	"math"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"holdfast.dev/clients/cluster"
)

// Side is one cluster with one connection to each member.
type Side struct {
	Name    string
	Cluster *cluster.Cluster
	Members []Connection
}

// Connection is one member's services.
type Connection struct {
	Conn        *grpc.ClientConn
	KV          pb.KVClient
	Watch       pb.WatchClient
	Lease       pb.LeaseClient
	Maintenance pb.MaintenanceClient
	Members     pb.ClusterClient
}

// NewSide connects to every member of a cluster.
func NewSide(name string, c *cluster.Cluster) (*Side, error) {
	side := &Side{Name: name, Cluster: c}
	for _, member := range c.Members {
		connection, err := Dial(member.Endpoint())
		if err != nil {
			side.Close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		side.Members = append(side.Members, connection)
	}
	return side, nil
}

// Dial connects to one member; messages of any size are let through, so that
// the server's limits are the ones that show.
func Dial(endpoint string) (Connection, error) {
	conn, err := grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return Connection{}, err
	}
	return Connection{
		Conn:        conn,
		KV:          pb.NewKVClient(conn),
		Watch:       pb.NewWatchClient(conn),
		Lease:       pb.NewLeaseClient(conn),
		Maintenance: pb.NewMaintenanceClient(conn),
		Members:     pb.NewClusterClient(conn),
	}, nil
}

// Close closes the connections; the cluster stays.
func (s *Side) Close() {
	for _, member := range s.Members {
		_ = member.Conn.Close()
	}
}

// StartPair starts etcd and the target with the same flags, for a test.
func StartPair(t testing.TB, options cluster.Options) (reference, target *Side) {
	t.Helper()
	reference = startSide(t, "etcd", cluster.Start(t, cluster.Reference(t), options))
	target = startSide(t, "target", cluster.Start(t, cluster.Target(t), options))
	return reference, target
}

func startSide(t testing.TB, name string, c *cluster.Cluster) *Side {
	t.Helper()
	side, err := NewSide(name, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(side.Close)
	return side
}
