// Package badinput sends what a server must refuse, and what it must accept
// although it looks odd, to etcd and to the target in step: codes, exact texts,
// responses and the revision afterwards must be the same.
package badinput

import (
	"context"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"holdfast.dev/clients/cluster"
	"holdfast.dev/clients/wire"
)

const callTimeout = 20 * time.Second

// pack normalizes a watch response and encodes it as one element of a list.
func pack(response *pb.WatchResponse) []byte {
	wire.Normalize(response, wire.SameLeases)
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(response)
	if err != nil {
		panic(err)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), encoded)
}

func ask(t *testing.T, side *wire.Side, send request) wire.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	outcome := send(ctx, side.Members[0])
	wire.Normalize(outcome.Response, wire.SameLeases)
	return outcome
}

func TestRefusals(t *testing.T) {
	reference, target := wire.StartPair(t, cluster.Options{NoFsync: true})
	for i, send := range preparation {
		if want, got := ask(t, reference, send), ask(t, target, send); !wire.Same(want, got) {
			t.Fatalf("preparation %d: etcd %s, target %s", i, want, got)
		}
	}
	groups := [][]badCase{rangeCases, writeCases, leaseCases, txnCases, watchCases, rangeStreamCases, metadataCases}
	current := rangeOf(&pb.RangeRequest{Key: keyA, CountOnly: true})
	for _, group := range groups {
		for _, bad := range group {
			t.Run(bad.name, func(t *testing.T) {
				want, got := ask(t, reference, bad.send), ask(t, target, bad.send)
				if !wire.Same(want, got) {
					t.Errorf("etcd answers\n%s\ntarget answers\n%s", want, got)
				}
				if want, got := ask(t, reference, current), ask(t, target, current); !wire.Same(want, got) {
					t.Fatalf("afterwards etcd is at\n%s\ntarget at\n%s", want, got)
				}
			})
		}
	}
}

func TestRawCalls(t *testing.T) {
	reference, target := wire.StartPair(t, cluster.Options{NoFsync: true})
	for _, call := range rawCalls {
		t.Run(call.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			defer cancel()
			want, wantErr := call.do(ctx, reference.Cluster.Members[0].Endpoint())
			got, gotErr := call.do(ctx, target.Cluster.Members[0].Endpoint())
			if want != got || (wantErr == nil) != (gotErr == nil) {
				t.Errorf("etcd answers\n%s (%v)\ntarget answers\n%s (%v)", want, wantErr, got, gotErr)
			}
			t.Logf("etcd: %s (%v)", want, wantErr)
		})
	}
}
