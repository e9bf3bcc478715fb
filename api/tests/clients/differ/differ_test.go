package differ

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"holdfast.dev/clients/cluster"
)

var (
	operationsFlag = flag.Int("operations", 10_000, "operations in the whole run")
	lengthFlag     = flag.Int("length", 5_000, "operations in one stream")
	parallelFlag   = flag.Int("streams", 3, "streams at a time")
	membersFlag    = flag.Int("members", 1, "members of the target")
	seedFlag       = flag.Uint64("seed", 0, "first seed; 0 takes the clock's")
	shrinkFlag     = flag.Duration("shrink", 2*time.Minute, "time to shrink a failing stream")
	withoutFlag    = flag.String("without", "", "kinds of operations to leave out, by commas, or open-ended for txns with such a delete; to look past a known difference")
	replayFlag     = flag.String("replay", "", "file of operations to play instead")
)

func servers(t *testing.T) Servers {
	return Servers{Reference: cluster.Reference(t), Target: cluster.Target(t), Members: *membersFlag}
}

// TestStreams plays random streams and stops at the first difference.
func TestStreams(t *testing.T) {
	if *replayFlag != "" {
		t.Skip("-replay is set")
	}
	first := *seedFlag
	if first == 0 {
		first = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	count := (*operationsFlag + *lengthFlag - 1) / *lengthFlag
	t.Logf("%d streams of %d operations, seeds %d to %d, against %d member(s)", count, *lengthFlag, first, first+uint64(count)-1, *membersFlag)
	run := servers(t)
	var (
		next   atomic.Uint64
		failed atomic.Bool
		wait   sync.WaitGroup
	)
	began := time.Now()
	for range min(*parallelFlag, count) {
		wait.Go(func() {
			for !failed.Load() {
				offset := next.Add(1) - 1
				if offset >= uint64(count) {
					return
				}
				if !playSeed(t, run, first+offset) {
					failed.Store(true)
				}
			}
		})
	}
	wait.Wait()
	if !failed.Load() {
		t.Logf("%d operations without a difference in %s", count**lengthFlag, time.Since(began).Round(time.Second))
	}
}

// playSeed plays one stream and reports, shrunk, where the servers differ.
func playSeed(t *testing.T, run Servers, seed uint64) bool {
	operations := Generate(seed, *lengthFlag, ProfileOf(seed, run.Members, run.Reference.Name == "etcd-debian"))
	operations = slices.DeleteFunc(operations, func(o Operation) bool {
		without := strings.Split(*withoutFlag, ",")
		return slices.Contains(without, string(o.Kind)) || slices.Contains(without, "open-ended") && deletesOpenEnded(o)
	})
	err := Play(run, operations)
	if err == nil {
		return true
	}
	var difference *Difference
	if !errors.As(err, &difference) {
		t.Errorf("seed %d: %v", seed, err)
		return false
	}
	t.Errorf("seed %d of length %d: %v", seed, *lengthFlag, difference)
	shortest, difference := Shrink(run, operations, difference, *shrinkFlag)
	path, err := save(seed, shortest)
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	t.Errorf("seed %d shrunk to %d operations:\n%s\n%v\nreplay: go test ./differ -run TestReplay -args -members=%d -replay=%s",
		seed, len(shortest), listing(shortest), difference, run.Members, path)
	return false
}

func deletesOpenEnded(o Operation) (found bool) {
	if txn, ok := o.Request.(*pb.TxnRequest); ok {
		eachOp(txn, func(op *pb.RequestOp) {
			found = found || bytes.Equal(op.GetRequestDeleteRange().GetRangeEnd(), []byte{0})
		})
	}
	return found
}

func listing(operations []Operation) (text string) {
	const most = 60
	for i, o := range operations {
		if i == most {
			return text + "...\n"
		}
		text += fmt.Sprintf("%4d %s\n", i, o)
	}
	return text
}

func save(seed uint64, operations []Operation) (string, error) {
	path, err := filepath.Abs(filepath.Join("..", "failures", fmt.Sprintf("seed-%d.jsonl", seed)))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	encoder := json.NewEncoder(file)
	for _, o := range operations {
		if err := encoder.Encode(o); err != nil {
			return "", err
		}
	}
	return path, nil
}

func load(path string) ([]Operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var operations []Operation
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var o Operation
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		operations = append(operations, o)
	}
	return operations, lines.Err()
}

// TestReplay plays a saved list again.
func TestReplay(t *testing.T) {
	if *replayFlag == "" {
		return
	}
	operations, err := load(*replayFlag)
	if err != nil {
		t.Fatal(err)
	}
	if err := Play(servers(t), operations); err != nil {
		t.Error(err)
	}
}

// TestOperationsSurviveJSON makes sure that a saved stream is the stream.
func TestOperationsSurviveJSON(t *testing.T) {
	for _, o := range Generate(7, 500, ProfileOf(7, 1, false)) {
		encoded, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var decoded Operation
		if err := json.Unmarshal(encoded, &decoded); err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
		if decoded.String() != o.String() {
			t.Fatalf("%s became %s", o, decoded)
		}
	}
}
