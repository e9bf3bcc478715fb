// Package gateway sends the same HTTP requests to the JSON gateway of a real
// etcd and of the target, one after the other, and compares status, headers and
// JSON. Nothing is recorded by hand: what etcd answers is what is expected.
package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"holdfast.dev/clients/cluster"
)

const (
	answerTimeout = 20 * time.Second
	// silence is how long a stream must say nothing to count as silent.
	silence = 500 * time.Millisecond
)

// exchange is one request, and how its answer is compared.
type exchange struct {
	method string // POST unless it is set
	path   string
	body   string
	header map[string]string
	// lines is how many lines are read of a stream that does not end.
	lines int
	// silent is set where nothing at all is answered.
	silent bool
	// ownText is set where the message is the JSON library's, or this server's
	// own: then codes are compared, and that there is a message.
	ownText bool
	// ownHash is set where the hash is of a server's own files.
	ownHash bool
	// onlyStatus is set where the body cannot be the same, or is not JSON.
	onlyStatus bool
}

func (x exchange) String() string {
	method := x.method
	if method == "" {
		method = http.MethodPost
	}
	body := x.body
	if len(body) > 200 {
		body = fmt.Sprintf("%s... (%d bytes)", body[:200], len(body))
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %v", method, x.path, body, x.header))
}

// answer is what is compared.
type answer struct {
	Status  int
	Headers map[string]string
	Bodies  []any
}

// comparedHeaders are those that mean something to a client of a gateway.
var comparedHeaders = []string{
	"Content-Type", "Grpc-Metadata-Content-Type", "Www-Authenticate", "Allow",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers",
}

func (x exchange) send(t *testing.T, endpoint string) answer {
	t.Helper()
	timeout := answerTimeout
	if x.silent {
		timeout = silence
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	method := x.method
	if method == "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+endpoint+x.path, strings.NewReader(x.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range x.header {
		request.Header.Set(name, value)
	}
	request.Host = x.header["Host"]
	response, err := http.DefaultTransport.RoundTrip(request)
	if x.silent {
		if err == nil {
			t.Fatalf("%v: answered with %s", x, response.Status)
		}
		return answer{}
	}
	if err != nil {
		t.Fatalf("%v: %v", x, err)
	}
	defer response.Body.Close()
	return x.read(t, response)
}

func (x exchange) read(t *testing.T, response *http.Response) answer {
	t.Helper()
	result := answer{Status: response.StatusCode, Headers: map[string]string{}}
	for _, name := range comparedHeaders {
		if values := response.Header.Values(name); len(values) > 0 {
			result.Headers[name] = strings.Join(values, "; ")
		}
	}
	if x.onlyStatus {
		return result
	}
	decoder := json.NewDecoder(response.Body)
	decoder.UseNumber()
	for x.lines == 0 || len(result.Bodies) < x.lines {
		var body any
		err := decoder.Decode(&body)
		if err == io.EOF && x.lines == 0 {
			break
		}
		if err != nil {
			t.Fatalf("%v: %d values, then %v", x, len(result.Bodies), err)
		}
		result.Bodies = append(result.Bodies, x.masked("", body))
	}
	return result
}

// different are fields whose values two clusters have for themselves.
var different = map[string]bool{
	"cluster_id": true, "member_id": true, "raft_term": true,
	"leader": true, "raftIndex": true, "raftTerm": true, "raftAppliedIndex": true,
	"dbSize": true, "storageVersion": true,
	"peerURLs": true, "clientURLs": true,
}

// sometimesZero are those of them that one of two clusters may leave out.
var sometimesZero = map[string]bool{"dbSizeInUse": true}

// masked keeps the shape of what two clusters have for themselves, and all the
// rest as it is.
func (x exchange) masked(name string, value any) any {
	switch value := value.(type) {
	case map[string]any:
		masked := map[string]any{}
		for name, inner := range value {
			if !sometimesZero[name] {
				masked[name] = x.masked(name, inner)
			}
		}
		return masked
	case []any:
		masked := []any{}
		for _, inner := range value {
			masked = append(masked, x.masked(name, inner))
		}
		return masked
	case json.Number:
		if name == "hash" && x.ownHash {
			return "a number"
		}
	case string:
		isText := strings.Trim(value, "0123456789") != ""
		switch {
		case (different[name] || name == "version") && isText:
			return "a text"
		case different[name], name == "ID" && len(value) > 9:
			return "a number"
		case name == "message" && x.ownText:
			return "a message"
		}
	}
	return value
}

func compare(t *testing.T, exchanges []exchange, options cluster.Options) {
	reference := cluster.Start(t, cluster.Reference(t), options)
	target := cluster.Start(t, cluster.Target(t), options)
	for _, x := range exchanges {
		want := x.send(t, reference.Members[0].Endpoint())
		got := x.send(t, target.Members[0].Endpoint())
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v:\n got %s\nwant %s", x, shown(got), shown(want))
		}
	}
}

func shown(a answer) string {
	var headers []string
	for name, value := range a.Headers {
		headers = append(headers, name+": "+value)
	}
	sort.Strings(headers)
	bodies, _ := json.Marshal(a.Bodies)
	return fmt.Sprintf("%d %v %.2000s", a.Status, headers, bodies)
}

func TestGateway(t *testing.T) {
	for name, exchanges := range groups {
		t.Run(name, func(t *testing.T) { compare(t, exchanges, cluster.Options{}) })
	}
}

func TestPermitted(t *testing.T) {
	args := []string{"--cors=http://a.example:1,http://b.example:2", "--host-whitelist=good.example,127.0.0.1"}
	compare(t, permitted, cluster.Options{Args: args})
}

func TestTurnedOff(t *testing.T) {
	compare(t, turnedOff, cluster.Options{Args: []string{"--enable-grpc-gateway=false"}})
}
