package differ

import (
	"bytes"
	"errors"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"holdfast.dev/clients/cluster"
)

// Each plant makes etcd look like a server with one defect; the player must see
// it, and the shrinker must bring it down to a few operations.
func TestPlantedDifferencesAreFound(t *testing.T) {
	plants := map[string]func(Kind, proto.Message){
		"a value is stored wrongly": func(_ Kind, request proto.Message) {
			if r, ok := request.(*pb.PutRequest); ok && bytes.Equal(r.Key, []byte("a/1")) && len(r.Value) > 0 {
				r.Value = append(r.Value, '!')
			}
		},
		"a limit is ignored": func(_ Kind, request proto.Message) {
			if r, ok := request.(*pb.RangeRequest); ok {
				r.Limit = 0
			}
		},
		"a watch loses deletions": func(_ Kind, request proto.Message) {
			if r, ok := request.(*pb.WatchCreateRequest); ok && len(r.Filters) == 0 {
				r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
			}
		},
		"a watch forgets prev_kv": func(_ Kind, request proto.Message) {
			if r, ok := request.(*pb.WatchCreateRequest); ok {
				r.PrevKv = false
			}
		},
		"a lease is not attached": func(_ Kind, request proto.Message) {
			if r, ok := request.(*pb.PutRequest); ok {
				r.Lease = 0
			}
		},
	}
	for name, plant := range plants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd := cluster.Reference(t)
			planted := Servers{Reference: etcd, Target: etcd, Members: 1, tamper: plant}
			operations := Generate(4, 600, ProfileOf(4, 1, false))
			var difference *Difference
			if err := Play(planted, operations); !errors.As(err, &difference) {
				t.Fatalf("not found: %v", err)
			}
			shrunk, _ := Shrink(planted, operations, difference, min(*shrinkFlag, 20*time.Second))
			t.Logf("found at step %d, shrunk to %d operations", difference.Step, len(shrunk))
			if len(shrunk) > 1+difference.Step*3/4 {
				t.Errorf("%d of %d operations are left after shrinking", len(shrunk), 1+difference.Step)
			}
		})
	}
}
