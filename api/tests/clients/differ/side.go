package differ

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"holdfast.dev/clients/cluster"
	"holdfast.dev/clients/wire"
)

const callTimeout = 30 * time.Second

// side is one of the two clusters with the state of its long-lived streams.
type side struct {
	*wire.Side
	scene

	patience   time.Duration // for an event
	tamper     func(Kind, proto.Message)
	names      map[int64]int64 // id that the server picked -> slot
	keepAlives map[int]pb.Lease_LeaseKeepAliveClient
	watches    []*watchStream // by slot; nil until used
	history    *watchStream   // one watch of everything from the beginning
	lifetime   context.Context
	end        context.CancelFunc
}

func launchSide(name string, server cluster.Server, members int) (*side, error) {
	c, err := cluster.Launch(server, cluster.Options{Members: members, NoFsync: true})
	if err != nil {
		return nil, err
	}
	connections, err := wire.NewSide(name, c)
	if err != nil {
		c.Close()
		return nil, err
	}
	s := &side{Side: connections, names: map[int64]int64{}, patience: eventTimeout}
	s.current, s.leases = 1, map[int64]int64{}
	s.openStreams()
	return s, nil
}

// openStreams begins anew with no watch and no keep-alive stream.
func (s *side) openStreams() {
	s.lifetime, s.end = context.WithCancel(context.Background())
	s.keepAlives = map[int]pb.Lease_LeaseKeepAliveClient{}
	s.watches, s.history = make([]*watchStream, 8), nil
}

func (s *side) close() {
	s.end()
	s.Close()
	s.Cluster.Close()
}

// lease name of an id, for wire.Normalize.
func (s *side) leaseName(id int64) int64 {
	if slot, own := s.names[id]; own {
		return slot
	}
	return id
}

func (s *side) member(o Operation) int { return o.Member % len(s.Members) }

// ask performs a unary operation and returns what is compared.
func (s *side) ask(o Operation) wire.Outcome {
	ctx, cancel := context.WithTimeout(s.lifetime, callTimeout)
	defer cancel()
	member := s.member(o)
	if len(s.Members) > 1 && readsOwnState[o.Kind] {
		if err := s.barrier(ctx, member); err != nil {
			return wire.Outcome{Err: err}
		}
	}
	request := s.concrete(o.Request)
	outcome := s.call(ctx, member, s.tampered(o.Kind, request), o.Kind)
	if outcome.Err != nil {
		return outcome
	}
	if granted, ok := outcome.Response.(*pb.LeaseGrantResponse); ok && o.Slot != 0 {
		s.leases[o.Slot], s.names[granted.ID] = granted.ID, o.Slot
	}
	wire.Normalize(outcome.Response, s.leaseName)
	comparable(o.Kind, request, outcome.Response)
	return outcome
}

// tampered is the request as the server gets it, which differs only where a
// test plants a difference.
func (s *side) tampered(kind Kind, request proto.Message) proto.Message {
	if s.tamper == nil {
		return request
	}
	changed := proto.Clone(request)
	s.tamper(kind, changed)
	return changed
}

// readsOwnState are the kinds that answer from the state of the member asked.
var readsOwnState = map[Kind]bool{
	TimeToLive: true, Leases: true, HashKV: true, Watch: true, KeepAlive: true, Grant: true, Revoke: true, Drain: true,
}

// barrier is a linearizable read, after which the member has applied all that
// was acknowledged before.
func (s *side) barrier(ctx context.Context, member int) error {
	_, err := s.Members[member].KV.Range(ctx, &pb.RangeRequest{Key: []byte("barrier"), CountOnly: true})
	return err
}

// catchUp is a barrier at the member that serves a slot's watch stream; a single
// member is never behind.
func (s *side) catchUp(slot int) error {
	if len(s.Members) == 1 {
		return nil
	}
	return s.barrier(s.lifetime, slot%len(s.Members))
}

func (s *side) call(ctx context.Context, member int, request proto.Message, kind Kind) wire.Outcome {
	to := s.Members[member]
	switch r := request.(type) {
	case *pb.RangeRequest:
		if kind == RangeStream {
			return rangeStream(ctx, to, r)
		}
		return wire.Reply(to.KV.Range(ctx, r))
	case *pb.PutRequest:
		return wire.Reply(to.KV.Put(ctx, r))
	case *pb.DeleteRangeRequest:
		return wire.Reply(to.KV.DeleteRange(ctx, r))
	case *pb.TxnRequest:
		return wire.Reply(to.KV.Txn(ctx, r))
	case *pb.CompactionRequest:
		return wire.Reply(to.KV.Compact(ctx, r))
	case *pb.LeaseGrantRequest:
		return wire.Reply(to.Lease.LeaseGrant(ctx, r))
	case *pb.LeaseRevokeRequest:
		return wire.Reply(to.Lease.LeaseRevoke(ctx, r))
	case *pb.LeaseKeepAliveRequest:
		return s.keepAlive(member, r)
	case *pb.LeaseTimeToLiveRequest:
		return wire.Reply(to.Lease.LeaseTimeToLive(ctx, r))
	case *pb.LeaseLeasesRequest:
		return wire.Reply(to.Lease.LeaseLeases(ctx, r))
	case *pb.HashKVRequest:
		response, err := to.Maintenance.HashKV(ctx, r)
		if err == nil && len(s.names) > 0 {
			response.Hash = 0
		}
		return wire.Reply(response, err)
	}
	return wire.Outcome{Err: fmt.Errorf("no call for %T", request)}
}

func rangeStream(ctx context.Context, to wire.Connection, r *pb.RangeRequest) wire.Outcome {
	stream, err := to.KV.RangeStream(ctx, r)
	if err != nil {
		return wire.Outcome{Err: err}
	}
	merged := &pb.RangeResponse{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return wire.Outcome{Response: merged}
		}
		if err != nil {
			return wire.Outcome{Err: err}
		}
		wire.MergeChunk(merged, chunk.RangeResponse)
	}
}

// keepAlive asks on the member's one long stream.
func (s *side) keepAlive(member int, r *pb.LeaseKeepAliveRequest) wire.Outcome {
	stream, open := s.keepAlives[member]
	if !open {
		var err error
		if stream, err = s.Members[member].Lease.LeaseKeepAlive(s.lifetime); err != nil {
			return wire.Outcome{Err: err}
		}
		s.keepAlives[member] = stream
	}
	if err := stream.Send(r); err != nil {
		delete(s.keepAlives, member)
		return wire.Outcome{Err: err}
	}
	type reply struct {
		response *pb.LeaseKeepAliveResponse
		err      error
	}
	replies := make(chan reply, 1)
	go func() { response, err := stream.Recv(); replies <- reply{response, err} }()
	select {
	case r := <-replies:
		if r.err != nil {
			delete(s.keepAlives, member)
		}
		return wire.Reply(r.response, r.err)
	case <-time.After(callTimeout):
		return wire.Outcome{Err: fmt.Errorf("no answer to a keep-alive within %s", callTimeout)}
	}
}
