package differ

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"holdfast.dev/clients/cluster"
	"holdfast.dev/clients/wire"
)

// Difference is where the target stopped being like etcd.
type Difference struct {
	Step      int
	Operation Operation
	Reference string
	Target    string
}

func (d *Difference) Error() string {
	reference, target := contrast(d.Reference, d.Target)
	return fmt.Sprintf("step %d: %s\netcd:\n%s\ntarget:\n%s", d.Step, d.Operation, reference, target)
}

// contrast leaves out most of what two texts have in common at their start.
func contrast(a, b string) (string, string) {
	const before, after = 12, 25
	first, second := strings.Split(a, "\n"), strings.Split(b, "\n")
	same := 0
	for same < min(len(first), len(second)) && first[same] == second[same] {
		same++
	}
	cut := func(lines []string) string {
		return strings.Join(lines[max(same-before, 0):min(same+after, len(lines))], "\n")
	}
	return cut(first), cut(second)
}

// Servers are the programs that a stream is played against.
type Servers struct {
	Reference cluster.Server
	Target    cluster.Server
	Members   int // of the target; the reference has one

	// tamper changes what the target is asked, to plant a difference.
	tamper func(kind Kind, request proto.Message)
	// hurried gives up early on an event that does not come, as in shrinking.
	hurried bool
}

// player has the two sides and what is known of both.
type player struct {
	reference *side
	target    *side
	live      []*liveWatch
	history   []*mvccpb.Event // of the reference, normalized
	step      int
	operation Operation
}

// Play starts fresh servers and performs the operations. A *Difference is the
// servers' disagreement; any other error is trouble with the servers.
func Play(servers Servers, operations []Operation) error {
	reference, target, err := launchBoth(servers)
	if err != nil {
		return err
	}
	defer reference.close()
	defer target.close()
	target.tamper = servers.tamper
	p := &player{reference: reference, target: target}
	if err := p.openHistory(); err != nil {
		return err
	}
	for p.step, p.operation = range operations {
		if err := p.perform(p.operation); err != nil {
			return p.withLogs(err)
		}
	}
	return nil
}

func launchBoth(servers Servers) (reference, target *side, err error) {
	var targetErr error
	launched := make(chan struct{})
	go func() {
		defer close(launched)
		target, targetErr = launchSide("target", servers.Target, servers.Members)
	}()
	reference, err = launchSide("etcd", servers.Reference, 1)
	<-launched
	switch {
	case err != nil && targetErr == nil:
		target.close()
	case err == nil && targetErr != nil:
		reference.close()
	case err == nil && servers.hurried:
		reference.patience, target.patience = hurriedTimeout, hurriedTimeout
	}
	return reference, target, errors.Join(err, targetErr)
}

// withLogs adds the end of the log of a server that is gone, or is about to be.
func (p *player) withLogs(err error) error {
	var logs string
	if strings.Contains(err.Error(), "Unavailable") {
		time.Sleep(time.Second)
	}
	for _, s := range []*side{p.reference, p.target} {
		for _, member := range s.Cluster.Members {
			if !member.Running() {
				logs += fmt.Sprintf("\n%s ended\n%s", s.Name, member.LogTail())
			}
		}
	}
	if difference, ok := errors.AsType[*Difference](err); ok {
		difference.Target += logs
		return difference
	}
	return fmt.Errorf("%w%s", err, logs)
}

func (p *player) differ(reference, target string) error {
	return &Difference{Step: p.step, Operation: p.operation, Reference: reference, Target: target}
}

// both runs a function on both sides at once.
func (p *player) both(f func(*side) error) error {
	done := make(chan error, 1)
	go func() { done <- f(p.target) }()
	referenceErr := f(p.reference)
	targetErr := <-done
	switch {
	case referenceErr != nil:
		return fmt.Errorf("step %d: %s: etcd: %w", p.step, p.operation, referenceErr)
	case targetErr != nil:
		return p.differ("did it", targetErr.Error())
	}
	return nil
}

// responses is both for functions that return a watch response.
func (p *player) responses(f func(*side) (*pb.WatchResponse, error)) (reference, target *pb.WatchResponse, err error) {
	err = p.both(func(s *side) error {
		response, err := f(s)
		if s == p.reference {
			reference = response
		} else {
			target = response
		}
		return err
	})
	return reference, target, err
}

// openHistory watches everything from now on, on both sides.
func (p *player) openHistory() error {
	return p.both(func(s *side) (err error) {
		if s.history, err = openWatchStream(s, 0); err != nil {
			return err
		}
		_, err = s.history.create(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true, StartRevision: s.current + 1})
		return err
	})
}

func (p *player) perform(o Operation) error {
	switch o.Kind {
	case Watch:
		return p.watch(o)
	case Cancel:
		return p.cancel(o)
	case Progress:
		return p.progress(o)
	case Drain:
		return p.drain()
	case Restart:
		return p.restart(o)
	case Expire:
		return p.expire()
	case HashKV:
		if !hashDefined(p.reference.scene, o.Request.(*pb.HashKVRequest)) {
			return nil
		}
	case Compact:
		if err := errors.Join(p.drain(), p.dropUnsynced()); err != nil {
			return err
		}
		if !spareCompaction(p.history, p.reference.revision(o.Request.(*pb.CompactionRequest).Revision)) {
			return nil
		}
	}
	_, err := p.unary(o)
	return err
}

// unary performs an operation on both sides and compares the outcomes.
func (p *player) unary(o Operation) (wire.Outcome, error) {
	answered := make(chan wire.Outcome, 1)
	go func() { answered <- p.target.ask(o) }()
	want := p.reference.ask(o)
	got := <-answered
	if want.Err != nil && status.Code(want.Err) == codes.Unavailable || errors.Is(want.Err, context.Canceled) {
		return want, fmt.Errorf("step %d: %s: etcd: %w", p.step, o, want.Err)
	}
	if !wire.Same(want, got) {
		return want, p.differ(want.String(), got.String())
	}
	p.advance(o, want)
	return want, nil
}

// advance keeps the revisions that later operations are written relative to.
func (p *player) advance(o Operation, outcome wire.Outcome) {
	if outcome.Err != nil {
		return
	}
	compacted := p.reference.compacted
	if o.Kind == Compact {
		compacted = p.reference.revision(o.Request.(*pb.CompactionRequest).Revision)
	}
	current := p.reference.current
	if r, ok := outcome.Response.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		current = max(current, r.GetHeader().GetRevision())
	}
	for _, s := range []*side{p.reference, p.target} {
		s.current, s.compacted = current, compacted
	}
}

// stream makes sure that a slot has its watch stream on both sides.
func (p *player) stream(slot int) error {
	return p.both(func(s *side) (err error) {
		if s.watches[slot] == nil {
			s.watches[slot], err = openWatchStream(s, slot%len(s.Members))
		}
		return err
	})
}

func (p *player) watch(o Operation) error {
	if err := p.stream(o.Stream); err != nil {
		return err
	}
	request := p.reference.concrete(o.Request).(*pb.WatchCreateRequest)
	want, got, err := p.responses(func(s *side) (*pb.WatchResponse, error) {
		if err := s.catchUp(o.Stream); err != nil {
			return nil, err
		}
		return s.watches[o.Stream].create(s.tampered(Watch, request).(*pb.WatchCreateRequest))
	})
	if err != nil {
		return err
	}
	if err := p.compareWatchResponses(want, got); err != nil {
		return err
	}
	if want.Canceled {
		return nil
	}
	watch := &liveWatch{slot: o.Stream, id: want.WatchId, next: request.StartRevision, created: p.reference.current, request: request}
	if watch.next == 0 {
		watch.next = want.Header.Revision + 1
	}
	watch.synced = watch.next > watch.created
	if watch.next < p.reference.compacted {
		return errors.Join(p.awaitEnd(watch), p.dropStream(o.Stream))
	}
	p.live = append(p.live, watch)
	return nil
}

func (p *player) compareWatchResponses(want, got *pb.WatchResponse) error {
	wire.Normalize(want, p.reference.leaseName)
	wire.Normalize(got, p.target.leaseName)
	if !proto.Equal(want, got) {
		return p.differ(prototext.Format(want), prototext.Format(got))
	}
	return nil
}

// awaitEnd waits until both sides say that a watch is canceled.
func (p *player) awaitEnd(watch *liveWatch) error {
	want, got, err := p.responses(func(s *side) (*pb.WatchResponse, error) {
		return s.watches[watch.slot].awaitEnd(watch.id)
	})
	if err != nil {
		return err
	}
	return p.compareWatchResponses(want, got)
}

func (p *player) cancel(o Operation) error {
	if p.reference.watches[o.Stream] == nil {
		return nil
	}
	if err := p.drain(); err != nil {
		return err
	}
	id := o.Request.(*pb.WatchCancelRequest).WatchId
	if err := p.sendCancel(o.Stream, id); err != nil {
		return err
	}
	for i, watch := range p.live {
		if watch.slot == o.Stream && watch.id == id {
			p.live = append(p.live[:i:i], p.live[i+1:]...)
			return p.awaitEnd(watch)
		}
	}
	return nil
}

// sendCancel asks both sides to end a watch, once their members know of everything that
// was acknowledged: the answer's header says how far they are.
func (p *player) sendCancel(slot int, id int64) error {
	return p.both(func(s *side) error {
		return errors.Join(s.catchUp(slot), s.watches[slot].cancel(id))
	})
}

// dropStream ends a slot's stream on both sides, after all it had to deliver.
func (p *player) dropStream(slot int) error {
	if err := p.drain(); err != nil {
		return err
	}
	for _, s := range []*side{p.reference, p.target} {
		s.watches[slot].end()
		s.watches[slot] = nil
	}
	p.live = slices.DeleteFunc(p.live, func(watch *liveWatch) bool { return watch.slot == slot })
	return nil
}

// dropUnsynced cancels the watches that may still be catching up.
func (p *player) dropUnsynced() error {
	var kept []*liveWatch
	for _, watch := range p.live {
		if watch.synced {
			kept = append(kept, watch)
			continue
		}
		if err := p.sendCancel(watch.slot, watch.id); err != nil {
			return err
		}
		if err := p.awaitEnd(watch); err != nil {
			return err
		}
	}
	p.live = kept
	return nil
}

func (p *player) progress(o Operation) error {
	if err := p.drain(); err != nil {
		return err
	}
	watches := 0
	for _, watch := range p.live {
		if watch.slot != o.Stream {
			continue
		}
		watches++
		if watch.request.StartRevision > p.reference.current {
			return nil
		}
	}
	if watches == 0 {
		return nil
	}
	want, got, err := p.responses(func(s *side) (*pb.WatchResponse, error) {
		return s.watches[o.Stream].askProgress(s.current)
	})
	if err != nil {
		return err
	}
	for _, watch := range p.live {
		watch.synced = watch.synced || watch.slot == o.Stream
	}
	return p.compareWatchResponses(want, got)
}

// drain waits until both sides have delivered every event up to the current
// revision to every watch, and compares them.
func (p *player) drain() error {
	if err := p.extendHistory(); err != nil {
		return err
	}
	for _, watch := range p.live {
		expected := watch.expects(p.history, p.reference.current)
		want, wantErr := p.reference.watches[watch.slot].collect(watch.id, len(expected))
		got, gotErr := p.target.watches[watch.slot].collect(watch.id, len(expected))
		if wantErr != nil {
			return fmt.Errorf("step %d: %s: etcd: %w", p.step, p.operation, wantErr)
		}
		p.normalizeEvents(want, got)
		if gotErr != nil || !sameEvents(want, got) {
			same := firstUnequal(want, got)
			return p.differ(watchText(watch, want, same, nil), watchText(watch, got, same, gotErr))
		}
		watch.next = max(watch.next, p.reference.current+1)
		if len(want) > 0 && want[len(want)-1].Kv.ModRevision > watch.created {
			watch.synced = true
		}
	}
	return nil
}

func (p *player) normalizeEvents(reference, target []*mvccpb.Event) {
	for _, event := range reference {
		wire.Normalize(event, p.reference.leaseName)
	}
	for _, event := range target {
		wire.Normalize(event, p.target.leaseName)
	}
}

func (p *player) extendHistory() error {
	known := int64(1)
	if len(p.history) > 0 {
		known = p.history[len(p.history)-1].Kv.ModRevision
	}
	current := p.reference.current
	if known >= current {
		return nil
	}
	if err := p.both(func(s *side) error { return s.history.collectUntil(0, current) }); err != nil {
		return err
	}
	want, _ := p.reference.history.collect(0, 0)
	got, _ := p.target.history.collect(0, 0)
	p.normalizeEvents(want, got)
	if !sameEvents(want, got) {
		same := firstUnequal(want, got)
		return p.differ(eventsText(want, same), eventsText(got, same))
	}
	p.history = append(p.history, want...)
	return nil
}

// restart ends the target's process and starts it again; watches and
// keep-alives begin anew on both sides.
func (p *player) restart(o Operation) error {
	if err := p.drain(); err != nil {
		return err
	}
	for _, s := range []*side{p.reference, p.target} {
		s.end()
		s.openStreams()
	}
	p.live = nil
	member := p.target.Cluster.Members[0]
	end := member.Stop
	if o.Hard {
		end = member.Kill
	}
	if err := errors.Join(end(), member.Start()); err != nil {
		return p.differ("comes back", err.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	for p.target.barrier(ctx, 0) != nil && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond) // the connection is being made again
	}
	return p.openHistory()
}

// expire lets a lease run out on both sides and goes on when its key is gone.
func (p *player) expire() error {
	key, lease := []byte("expiring"), int64(1999)
	steps := []Operation{
		{Kind: Grant, Request: &pb.LeaseGrantRequest{ID: lease, TTL: 2}},
		{Kind: Put, Request: &pb.PutRequest{Key: key, Lease: lease}},
	}
	for _, o := range steps {
		if _, err := p.unary(o); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(callTimeout)
	err := p.both(func(s *side) error {
		for time.Now().Before(deadline) {
			response, err := s.Members[0].KV.Range(s.lifetime, &pb.RangeRequest{Key: key})
			if err != nil || response.Count == 0 {
				return err
			}
			time.Sleep(50 * time.Millisecond) // polling for an expiry, not ordering
		}
		return fmt.Errorf("a lease of 2 s has not expired after %s", callTimeout)
	})
	if err != nil {
		return err
	}
	_, err = p.unary(Operation{Kind: Range, Request: &pb.RangeRequest{Key: key}})
	return err
}

func watchText(watch *liveWatch, events []*mvccpb.Event, from int, err error) string {
	text := fmt.Sprintf("watch %d of stream %d (%s) delivers %s", watch.id, watch.slot, prototext.MarshalOptions{}.Format(watch.request), eventsText(events, from))
	if err != nil {
		text += "\n" + err.Error()
	}
	return text
}

// eventsText shows a few events from the first unequal one on.
func eventsText(events []*mvccpb.Event, from int) string {
	const most = 5
	lines := []string{fmt.Sprintf("%d events, from number %d:", len(events), from)}
	for _, event := range events[min(from, len(events)):min(from+most, len(events))] {
		lines = append(lines, prototext.MarshalOptions{}.Format(event))
	}
	return strings.Join(lines, "\n")
}
