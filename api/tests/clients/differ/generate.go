package differ

import (
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Profile is how a stream differs from others; it follows from the seed and
// from the target's size.
type Profile struct {
	Members    int  // of the target
	Wide       bool // hundreds of keys instead of a handful
	OwnLeases  bool // leases whose ids the server picks
	Restarts   bool // of the target
	Debian     bool // beside etcd 3.4, which lacks some of this
	WatchSlots int
}

// ProfileOf derives a stream's profile from its seed.
func ProfileOf(seed uint64, members int, debian bool) Profile {
	return Profile{
		Debian:     debian,
		Members:    members,
		Wide:       seed%4 == 3,
		OwnLeases:  seed%2 == 1,
		Restarts:   members == 1 && seed%3 != 1,
		WatchSlots: 2,
	}
}

// generator draws operations.
type generator struct {
	*rand.Rand
	profile Profile
	keys    [][]byte
	slot    int64
}

// Generate makes the operations of a seed.
func Generate(seed uint64, length int, profile Profile) []Operation {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), profile: profile}
	g.keys = g.keySpace()
	var operations []Operation
	for len(operations) < length {
		if o := g.operation(); !profile.Debian || debianHas(o) {
			operations = append(operations, o)
		}
	}
	return append(operations, Operation{Kind: Drain})
}

func (g *generator) keySpace() [][]byte {
	keys := [][]byte{[]byte("a"), []byte("aa"), []byte("ab"), []byte("a/1"), []byte("a/2"), []byte("a/3"), []byte("b"),
		[]byte("b/1"), []byte("b/2"), []byte("c"), {0}, {0, 0}, {'a', 0}, {0xff}, {0xff, 0xff}, {'a', 0xff}}
	if !g.profile.Wide {
		return keys
	}
	for i := range 300 {
		keys = append(keys, fmt.Appendf(nil, "w/%03d", i))
	}
	return keys
}

// weights of the kinds, in draws of weightSum.
var weights = []struct {
	kind   Kind
	weight int
}{
	{Put, 300}, {Range, 200}, {Txn, 200}, {Delete, 60}, {RangeStream, 50}, {Grant, 30}, {Revoke, 20}, {KeepAlive, 15},
	{TimeToLive, 25}, {Leases, 8}, {HashKV, 12}, {Watch, 40}, {Cancel, 20}, {Progress, 8}, {Drain, 10}, {Compact, 10},
	{Restart, 1}, {Expire, 1},
}

var weightSum = func() (sum int) {
	for _, w := range weights {
		sum += w.weight
	}
	return sum
}()

func (g *generator) operation() Operation {
	draw := g.IntN(weightSum)
	for _, w := range weights {
		if draw -= w.weight; draw < 0 {
			return g.ofKind(w.kind)
		}
	}
	panic("weights sum to weightSum")
}

func (g *generator) ofKind(kind Kind) Operation {
	o := Operation{Kind: kind, Member: g.IntN(3)}
	switch kind {
	case Range:
		o.Request = g.rangeRequest()
	case RangeStream:
		o.Request = g.streamRequest()
	case Put:
		o.Request = g.putRequest()
	case Delete:
		key, end := g.span()
		o.Request = &pb.DeleteRangeRequest{Key: key, RangeEnd: end, PrevKv: g.chance(50)}
	case Txn:
		o.Request = spareEtcd(g.txnRequest(0))
	case Compact:
		o.Request = &pb.CompactionRequest{Revision: g.pastRevision(), Physical: g.chance(30)}
	case Grant:
		return g.grant(o)
	case Revoke:
		o.Request = &pb.LeaseRevokeRequest{ID: g.lease()}
	case KeepAlive:
		o.Request = &pb.LeaseKeepAliveRequest{ID: g.lease()}
	case TimeToLive:
		o.Request = &pb.LeaseTimeToLiveRequest{ID: g.lease(), Keys: g.chance(70)}
	case Leases:
		o.Request = &pb.LeaseLeasesRequest{}
	case HashKV:
		o.Request = &pb.HashKVRequest{Revision: g.pastRevision()}
	case Watch:
		o.Stream, o.Request = g.IntN(g.profile.WatchSlots), g.watchRequest()
	case Cancel:
		o.Stream, o.Request = g.IntN(g.profile.WatchSlots), &pb.WatchCancelRequest{WatchId: int64(g.IntN(12))}
	case Progress:
		o.Stream = g.IntN(g.profile.WatchSlots)
	case Restart:
		if !g.profile.Restarts {
			return Operation{Kind: Drain}
		}
		o.Hard = g.chance(50)
	case Expire:
		if !g.chance(20) { // each takes seconds
			return Operation{Kind: Drain}
		}
	}
	return o
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) key() []byte {
	if g.chance(1) {
		return nil
	}
	return g.keys[g.IntN(len(g.keys))]
}

// span is one key, a prefix, everything from a key on, or a range that may be
// empty.
func (g *generator) span() (key, end []byte) {
	key = g.key()
	switch draw := g.IntN(100); {
	case draw < 45:
		return key, nil
	case draw < 65:
		return key, []byte(clientv3.GetPrefixRangeEnd(string(key)))
	case draw < 75:
		return []byte{0}, []byte{0}
	case draw < 80:
		return key, []byte{0}
	default:
		return key, g.key()
	}
}

func (g *generator) value() []byte {
	switch draw := g.IntN(100); {
	case draw < 80:
		return fmt.Appendf(nil, "v%d", g.IntN(6))
	case draw < 85:
		return nil
	case draw < 99:
		return fmt.Appendf(nil, "%x", g.Uint64())
	default:
		return make([]byte, 1+g.IntN(20000))
	}
}

// pastRevision is mostly one that can be read, sometimes the current one by
// name, seldom a compacted, future or absurd one.
func (g *generator) pastRevision() int64 {
	switch draw := g.IntN(100); {
	case draw < 70:
		return atCurrent - int64(g.IntN(40))
	case draw < 85:
		return atCompacted + int64(g.IntN(10))
	case draw < 90:
		return atCompacted - int64(1+g.IntN(3))
	case draw < 95:
		return atCurrent + int64(1+g.IntN(3))
	case draw < 98:
		return 0
	default:
		return int64(g.IntN(3)) - 2
	}
}

// someRevision is for filters and comparisons.
func (g *generator) someRevision() int64 { return atCurrent - int64(g.IntN(30)) }

// fixedLeases is how many ids the client picks from.
const fixedLeases = 5

func (g *generator) lease() int64 {
	if g.slot > 0 && g.chance(40) {
		return leaseSlots + 1 + g.Int64N(g.slot)
	}
	return 1001 + g.Int64N(fixedLeases+1)
}

func (g *generator) grant(o Operation) Operation {
	ttl := int64(2000 + g.IntN(100000))
	if g.chance(3) {
		ttl = 9000000001
	}
	if g.profile.OwnLeases && g.chance(40) {
		g.slot++
		o.Slot = leaseSlots + g.slot
		o.Request = &pb.LeaseGrantRequest{TTL: ttl}
		return o
	}
	o.Request = &pb.LeaseGrantRequest{ID: 1001 + g.Int64N(fixedLeases), TTL: ttl}
	return o
}
