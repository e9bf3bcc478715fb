// Package differ sends the same random operations to etcd and to a target, in
// step, and compares every response, error and watch event. What is not
// compared stands, with its reason, in exclusions.go.
//
// A stream of operations depends on its seed alone: revisions are written
// relative to the store's and lease ids as slots, so that a shrunk stream still
// means the same.
package differ

import (
	"encoding/json"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Kind names what an operation does.
type Kind string

// The kinds. Drain waits until every watch has delivered every event; restart
// ends the target's process and starts it again on the same data.
const (
	Range       Kind = "range"
	RangeStream Kind = "range-stream"
	Put         Kind = "put"
	Delete      Kind = "delete"
	Txn         Kind = "txn"
	Compact     Kind = "compact"
	Grant       Kind = "grant"
	Revoke      Kind = "revoke"
	KeepAlive   Kind = "keep-alive"
	TimeToLive  Kind = "time-to-live"
	Leases      Kind = "leases"
	HashKV      Kind = "hash-kv"
	Watch       Kind = "watch"
	Cancel      Kind = "cancel"
	Progress    Kind = "progress"
	Drain       Kind = "drain"
	Restart     Kind = "restart"
	Expire      Kind = "expire"
)

// requests makes an empty request of each kind that has one.
var requests = map[Kind]func() proto.Message{
	Range:       func() proto.Message { return &pb.RangeRequest{} },
	RangeStream: func() proto.Message { return &pb.RangeRequest{} },
	Put:         func() proto.Message { return &pb.PutRequest{} },
	Delete:      func() proto.Message { return &pb.DeleteRangeRequest{} },
	Txn:         func() proto.Message { return &pb.TxnRequest{} },
	Compact:     func() proto.Message { return &pb.CompactionRequest{} },
	Grant:       func() proto.Message { return &pb.LeaseGrantRequest{} },
	Revoke:      func() proto.Message { return &pb.LeaseRevokeRequest{} },
	KeepAlive:   func() proto.Message { return &pb.LeaseKeepAliveRequest{} },
	TimeToLive:  func() proto.Message { return &pb.LeaseTimeToLiveRequest{} },
	Leases:      func() proto.Message { return &pb.LeaseLeasesRequest{} },
	HashKV:      func() proto.Message { return &pb.HashKVRequest{} },
	Watch:       func() proto.Message { return &pb.WatchCreateRequest{} },
	Cancel:      func() proto.Message { return &pb.WatchCancelRequest{} },
}

// Operation is one step of a stream.
type Operation struct {
	Kind    Kind
	Member  int           // of the target, modulo its size
	Stream  int           // of watch operations
	Slot    int64         // of a grant whose id the server picks; 0 if the client does
	Hard    bool          // of a restart: kill -9 instead of SIGTERM
	Request proto.Message // nil for kinds without one
}

type operationJSON struct {
	Kind    Kind            `json:"kind"`
	Member  int             `json:"member,omitempty"`
	Stream  int             `json:"stream,omitempty"`
	Slot    int64           `json:"slot,omitempty"`
	Hard    bool            `json:"hard,omitempty"`
	Request json.RawMessage `json:"request,omitempty"`
}

// MarshalJSON writes the operation on one line.
func (o Operation) MarshalJSON() ([]byte, error) {
	plain := operationJSON{Kind: o.Kind, Member: o.Member, Stream: o.Stream, Slot: o.Slot, Hard: o.Hard}
	if o.Request != nil {
		request, err := protojson.Marshal(o.Request)
		if err != nil {
			return nil, err
		}
		plain.Request = request
	}
	return json.Marshal(plain)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (o *Operation) UnmarshalJSON(data []byte) error {
	var plain operationJSON
	if err := json.Unmarshal(data, &plain); err != nil {
		return err
	}
	*o = Operation{Kind: plain.Kind, Member: plain.Member, Stream: plain.Stream, Slot: plain.Slot, Hard: plain.Hard}
	make, known := requests[plain.Kind]
	if !known {
		return nil
	}
	o.Request = make()
	return protojson.Unmarshal(plain.Request, o.Request)
}

func (o Operation) String() string {
	line, err := o.MarshalJSON()
	if err != nil {
		return fmt.Sprintf("%s: %v", o.Kind, err)
	}
	return string(line)
}

// Revisions near these stand for an offset from the store's current or
// compacted revision.
const (
	atCurrent   int64 = 1 << 40
	atCompacted int64 = 1 << 41
	offsetMost  int64 = 1 << 30
)

// Lease ids from here on are slots: the side's own id for what it granted.
const leaseSlots int64 = 1 << 50

// scene is what one side needs to make concrete requests of an operation.
type scene struct {
	current   int64
	compacted int64
	leases    map[int64]int64 // slot -> id
}

func (s scene) revision(v int64) int64 {
	if v > atCurrent-offsetMost && v < atCurrent+offsetMost {
		return s.current + v - atCurrent
	}
	if v > atCompacted-offsetMost && v < atCompacted+offsetMost {
		return s.compacted + v - atCompacted
	}
	return v
}

// lease is the side's id of a slot; a slot that was never granted is an id that
// no lease has.
func (s scene) lease(v int64) int64 {
	if v < leaseSlots {
		return v
	}
	if id, granted := s.leases[v]; granted {
		return id
	}
	return 987654321
}

// concrete is the request with this side's revisions and ids.
func (s scene) concrete(request proto.Message) proto.Message {
	resolved := proto.Clone(request)
	s.resolve(resolved)
	return resolved
}

func (s scene) resolve(message proto.Message) {
	s.resolveOne(message)
	message.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				s.resolve(value.List().Get(i).Message().Interface())
			}
		default:
			s.resolve(value.Message().Interface())
		}
		return true
	})
}

func (s scene) resolveOne(message proto.Message) {
	switch m := message.(type) {
	case *pb.RangeRequest:
		for _, v := range []*int64{&m.Revision, &m.MinModRevision, &m.MaxModRevision, &m.MinCreateRevision, &m.MaxCreateRevision} {
			*v = s.revision(*v)
		}
	case *pb.Compare:
		switch union := m.TargetUnion.(type) {
		case *pb.Compare_ModRevision:
			union.ModRevision = s.revision(union.ModRevision)
		case *pb.Compare_CreateRevision:
			union.CreateRevision = s.revision(union.CreateRevision)
		case *pb.Compare_Lease:
			union.Lease = s.lease(union.Lease)
		}
	case *pb.PutRequest:
		m.Lease = s.lease(m.Lease)
	case *pb.CompactionRequest:
		m.Revision = s.revision(m.Revision)
	case *pb.HashKVRequest:
		m.Revision = s.revision(m.Revision)
	case *pb.WatchCreateRequest:
		m.StartRevision = s.revision(m.StartRevision)
	case *pb.LeaseRevokeRequest:
		m.ID = s.lease(m.ID)
	case *pb.LeaseKeepAliveRequest:
		m.ID = s.lease(m.ID)
	case *pb.LeaseTimeToLiveRequest:
		m.ID = s.lease(m.ID)
	}
}
