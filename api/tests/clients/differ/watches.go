package differ

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

const (
	eventTimeout   = 20 * time.Second
	hurriedTimeout = 3 * time.Second
	progressTries  = 100
	progressWait   = 50 * time.Millisecond
)

var errNotYet = errors.New("not yet")

// watchStream is one gRPC stream with everything it has delivered.
type watchStream struct {
	stream pb.Watch_WatchClient
	end    context.CancelFunc

	patience time.Duration

	mutex    sync.Mutex
	changed  chan struct{} // closed and replaced at every delivery
	created  []*pb.WatchResponse
	canceled map[int64]*pb.WatchResponse
	progress *pb.WatchResponse
	events   map[int64][]*mvccpb.Event
	pieces   map[int64]bool // watches that asked for fragments
	broken   error          // the stream's end, or a rule that it broke
}

func openWatchStream(s *side, member int) (*watchStream, error) {
	lifetime, end := context.WithCancel(s.lifetime)
	stream, err := s.Members[member].Watch.Watch(lifetime)
	if err != nil {
		end()
		return nil, err
	}
	w := &watchStream{stream: stream, end: end, patience: s.patience, changed: make(chan struct{}), canceled: map[int64]*pb.WatchResponse{},
		events: map[int64][]*mvccpb.Event{}, pieces: map[int64]bool{}}
	go w.receive()
	return w, nil
}

func (w *watchStream) receive() {
	for {
		response, err := w.stream.Recv()
		w.mutex.Lock()
		if err == nil {
			err = w.take(response)
		}
		w.broken = errors.Join(w.broken, err)
		close(w.changed)
		w.changed = make(chan struct{})
		w.mutex.Unlock()
		if err != nil {
			return
		}
	}
}

// take files a response and checks what must hold whatever the timing.
func (w *watchStream) take(r *pb.WatchResponse) error {
	switch {
	case r.Created:
		w.created = append(w.created, r)
		return nil
	case r.Canceled:
		w.canceled[r.WatchId] = r
		return nil
	case len(r.Events) == 0:
		if r.WatchId == -1 {
			w.progress = r
		}
		return nil
	}
	seen := w.events[r.WatchId]
	first, last := r.Events[0].Kv.ModRevision, r.Events[len(r.Events)-1].Kv.ModRevision
	if len(seen) > 0 && seen[len(seen)-1].Kv.ModRevision >= first && !w.pieces[r.WatchId] {
		return fmt.Errorf("watch %d: revision %d after %d: a revision is split or repeated",
			r.WatchId, first, seen[len(seen)-1].Kv.ModRevision)
	}
	if r.Header.Revision < last {
		return fmt.Errorf("watch %d: header says %d, below its last event's %d", r.WatchId, r.Header.Revision, last)
	}
	w.events[r.WatchId] = append(seen, r.Events...)
	return nil
}

// await waits until ready returns something other than errNotYet. ready runs
// under the mutex.
func (w *watchStream) await(timeout time.Duration, ready func() error) error {
	deadline := time.After(timeout)
	for {
		w.mutex.Lock()
		err := ready()
		if errors.Is(err, errNotYet) && w.broken != nil {
			err = w.broken
		}
		changed := w.changed
		w.mutex.Unlock()
		if !errors.Is(err, errNotYet) {
			return err
		}
		select {
		case <-changed:
		case <-deadline:
			return fmt.Errorf("after %s: %w", timeout, err)
		}
	}
}

// create asks for a watch and waits for the response that says created.
func (w *watchStream) create(r *pb.WatchCreateRequest) (*pb.WatchResponse, error) {
	w.mutex.Lock()
	before := len(w.created)
	w.mutex.Unlock()
	if err := w.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}); err != nil {
		return nil, err
	}
	var response *pb.WatchResponse
	err := w.await(w.patience, func() error {
		if len(w.created) == before {
			return fmt.Errorf("no created response: %w", errNotYet)
		}
		response = w.created[before]
		if r.Fragment {
			w.pieces[response.WatchId] = true
		}
		return nil
	})
	return response, err
}

// cancel asks to end a watch.
func (w *watchStream) cancel(id int64) error {
	return w.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
		CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

// awaitEnd waits for a watch's canceled response and forgets the watch.
func (w *watchStream) awaitEnd(id int64) (*pb.WatchResponse, error) {
	var response *pb.WatchResponse
	err := w.await(w.patience, func() error {
		if response = w.canceled[id]; response == nil {
			return fmt.Errorf("watch %d: no canceled response: %w", id, errNotYet)
		}
		return nil
	})
	w.mutex.Lock()
	defer w.mutex.Unlock()
	delete(w.canceled, id)
	delete(w.events, id)
	delete(w.pieces, id)
	return response, err
}

// askProgress asks until the stream says that it is at a revision.
func (w *watchStream) askProgress(revision int64) (*pb.WatchResponse, error) {
	w.mutex.Lock()
	w.progress = nil
	w.mutex.Unlock()
	for range progressTries {
		request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
		if err := w.stream.Send(request); err != nil {
			return nil, err
		}
		var response *pb.WatchResponse
		err := w.await(progressWait, func() error {
			if w.progress == nil || w.progress.Header.Revision < revision {
				return errNotYet
			}
			response = w.progress
			return nil
		})
		if !errors.Is(err, errNotYet) {
			return response, err
		}
	}
	return nil, fmt.Errorf("%d progress requests, no answer at revision %d", progressTries, revision)
}

// collect waits for a watch to deliver n events, and takes them.
func (w *watchStream) collect(id int64, n int) ([]*mvccpb.Event, error) {
	var got []*mvccpb.Event
	err := w.await(w.patience, func() error {
		if len(w.events[id]) < n {
			return fmt.Errorf("watch %d: %d of %d events: %w", id, len(w.events[id]), n, errNotYet)
		}
		got = w.events[id]
		return nil
	})
	if err != nil {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		return w.events[id], err
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.events[id] = nil
	return got, nil
}

// collectUntil waits until a watch of everything has delivered a revision.
func (w *watchStream) collectUntil(id, revision int64) error {
	return w.await(w.patience, func() error {
		events := w.events[id]
		if len(events) == 0 || events[len(events)-1].Kv.ModRevision < revision {
			return fmt.Errorf("the history is not at revision %d: %w", revision, errNotYet)
		}
		return nil
	})
}

// liveWatch is a watch that both sides accepted.
type liveWatch struct {
	slot    int
	id      int64
	next    int64 // the first revision not yet compared
	created int64 // the store's revision at creation
	request *pb.WatchCreateRequest
	// synced says that both servers have shown that the watch is past catching
	// up; until then a compaction may or may not cancel it.
	synced bool
}

// expects are the history's events that the watch must deliver
// next, up to a revision.
func (l *liveWatch) expects(history []*mvccpb.Event, until int64) []*mvccpb.Event {
	var wanted []*mvccpb.Event
	for _, event := range history[firstOf(history, l.next):] {
		if event.Kv.ModRevision <= until && l.matches(event) {
			wanted = append(wanted, event)
		}
	}
	return wanted
}

// firstOf is the number of a history's first event at a revision or later.
func firstOf(history []*mvccpb.Event, revision int64) int {
	return sort.Search(len(history), func(i int) bool { return history[i].Kv.ModRevision >= revision })
}

// eventsOf are the events of one revision.
func eventsOf(history []*mvccpb.Event, revision int64) []*mvccpb.Event {
	return history[firstOf(history, revision):firstOf(history, revision+1)]
}

func (l *liveWatch) matches(event *mvccpb.Event) bool {
	for _, filter := range l.request.Filters {
		if filter == pb.WatchCreateRequest_NOPUT && event.Type == mvccpb.Event_PUT ||
			filter == pb.WatchCreateRequest_NODELETE && event.Type == mvccpb.Event_DELETE {
			return false
		}
	}
	key, end := l.request.Key, l.request.RangeEnd
	if len(key) == 0 {
		key = []byte{0}
	}
	switch {
	case len(end) == 0:
		return bytes.Equal(event.Kv.Key, key)
	case bytes.Equal(end, []byte{0}):
		return bytes.Compare(event.Kv.Key, key) >= 0
	default:
		return bytes.Compare(event.Kv.Key, key) >= 0 && bytes.Compare(event.Kv.Key, end) < 0
	}
}

// sameEvents compares two deliveries of one watch.
func sameEvents(a, b []*mvccpb.Event) bool {
	return len(a) == len(b) && firstUnequal(a, b) == len(a)
}

// firstUnequal is how many events two deliveries have in common at their start.
func firstUnequal(a, b []*mvccpb.Event) int {
	common := min(len(a), len(b))
	for i := range common {
		if !proto.Equal(a[i], b[i]) {
			return i
		}
	}
	return common
}
