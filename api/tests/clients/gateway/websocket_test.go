package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"holdfast.dev/clients/cluster"
)

// step is something done in a conversation over a WebSocket.
type step struct {
	send string // a text message
	post *exchange
	read int // so many messages
	// unordered says that nothing orders what is read here.
	unordered bool
	// shut sends the frame that closes the connection, and waits for the other one.
	shut bool
	// ended waits for the server to close the connection.
	ended bool
}

// conversation is what goes over one WebSocket.
type conversation struct {
	path         string
	subprotocols []string
	header       map[string]string
	steps        []step
	ownText      bool
}

func say(text string, answers int) step { return step{send: text, read: answers} }

func also(path, body string) step {
	x := post(path, body)
	return step{post: &x}
}

var (
	end  = step{ended: true}
	shut = step{shut: true}
)

var conversations = []conversation{
	{path: "/v3/watch", steps: []step{
		say(`{"create_request":{"key":"Zm9v","range_end":"Zm9w"}}`, 1),
		also("kv/put", `{"key":"Zm9v","value":"YmFy"}`),
		{read: 1},
		say(`{"create_request":{"key":"eA==","watch_id":"9"}}`, 1),
		also("kv/put", `{"key":"Zm9vMg==","value":"YmF6"}`),
		{read: 1},
		say(`{"cancel_request":{"watch_id":"9"}}`, 1),
		shut,
	}},
	// A watch of the past, in two messages of a frame each; a frame may hold several values.
	{path: "/v3/watch", steps: []step{
		{send: `{"create_request":{"key":"Zm9v","start_revision":"2"}} {"create_request":{"key":"Zm9vMg=="}}`, read: 3, unordered: true},
		shut,
	}},
	{path: "/v3beta/watch", steps: []step{say(`{"create_request":{"key":"eA=="}}`, 1), shut}},
	{path: "/v3/watch?method=GET", steps: []step{say(`{"create_request":{"key":"eA=="}}`, 1), shut}},
	{path: "/v3/lease/keepalive", steps: []step{
		also("lease/grant", `{"ID":"77","TTL":"1000"}`),
		say(`{"ID":"77"}`, 1), say(`{"ID":"77"}`, 1), say(`{"ID":"78"}`, 1), shut,
	}},
	// What there is no call for.
	{path: "/v3/nothing", steps: []step{{read: 1}, end}},
	{path: "/v3/watch", steps: []step{say(`5`, 0), shut}},
	{path: "/v3/lease/keepalive", steps: []step{say(`{"ID":"x"}`, 0), shut}},
	// The token's place; without authentication nobody looks.
	{path: "/v3/watch", subprotocols: []string{"Bearer", "abc.1"}, steps: []step{say(`{"create_request":{"key":"eA=="}}`, 1), shut}},
	{path: "/v3/watch", subprotocols: []string{"other"}, steps: []step{say(`{"create_request":{"key":"eA=="}}`, 1), shut}},
	{path: "/v3/watch", header: map[string]string{"Origin": "http://a.example"}, steps: []step{say(`{"create_request":{"key":"eA=="}}`, 1), shut}},
}

// etcd 3.7 reads the request of such a call to the end of its connection, and then
// has nobody to answer any more. It did answer before, and a browser has no other way
// to follow an election.
var answered = []struct {
	conversation
	want string
}{
	{conversation{path: "/v3/election/observe", steps: []step{
		also("lease/grant", `{"ID":"77","TTL":"1000"}`),
		say(`{"name":"ZWxlY3Rpb24="}`, 0),
		also("election/campaign", `{"name":"ZWxlY3Rpb24=","lease":"77","value":"YQ=="}`),
		{read: 1},
		also("election/resign", `{"leader":{"name":"ZWxlY3Rpb24=","key":"ZWxlY3Rpb24vNGQ=","rev":"2","lease":"77"}}`),
		also("election/campaign", `{"name":"ZWxlY3Rpb24=","lease":"77","value":"Yg=="}`),
		{read: 1},
		shut,
	}}, `"result":{"header":.*"kv":{.*"value":"YQ==".*"value":"Yg==".*closed with 1000`},
	// Whoever waits, says more than it is asked, and goes away, waits no longer.
	{conversation{path: "/v3/lock/lock", steps: []step{
		also("lease/grant", `{"ID":"78","TTL":"1000"}`),
		also("lease/grant", `{"ID":"79","TTL":"1000"}`),
		also("lock/lock", `{"name":"bG9jaw==","lease":"78"}`),
		say(`{"name":"bG9jaw==","lease":"79"}`, 0), say(`{}`, 0), say(`{}`, 0),
		shut,
	}}, `closed with 1000`},
	{conversation{path: "/v3/kv/put", steps: []step{say(`{"key":"Zm9v","value":"YmFy"}`, 1), end}},
		`"kind 1",{"header":{.*"revision":.*},"closed with 1006"`},
	{conversation{path: "/v3/kv/range", steps: []step{say(`{"key":"Zm9v"} {"key":"eA=="}`, 1), end}},
		`"kind 1",{"count":"1",.*"value":"YmFy".*"closed with 1006"`},
	{conversation{path: "/v3/kv/put", steps: []step{say(`{"value":"YmFy"}`, 1), end}},
		`"kind 1",{"code":3,"message":"etcdserver: key is not provided"},"closed with 1006"`},
	{conversation{path: "/v3/kv/range", steps: []step{say(`[]`, 1), end}}, `"kind 1",{"code":3,"message":.*"closed with 1006"`},
	{conversation{path: "/v3/kv/put", steps: []step{
		say(`{"key":"Zm9v","value":"`+strings.Repeat("A", 6_000_000)+`"}`, 1), end,
	}}, `"kind 1",{"code":8,"message":"grpc: received message larger than max .*"closed with 1006"`},
	{conversation{path: "/v3/kv/range", subprotocols: []string{"Bearer", "abc.1"}, steps: []step{say(`{"key":"eA=="}`, 1), end}},
		`^\["Bearer",.*"kind 1",{"header":.*"closed with 1006"`},
}

func TestAnsweredWebSockets(t *testing.T) {
	server := cluster.Target(t)
	if server.Name == "etcd" {
		t.Skip("etcd answers none of these over a WebSocket")
	}
	target := cluster.Start(t, server, cluster.Options{})
	for _, c := range answered {
		got, err := json.Marshal(c.hold(t, target.Members[0].Endpoint()))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(c.want).Match(got) {
			t.Errorf("%s:\n got %s\nwant %s", c.path, got, c.want)
		}
	}
}

// hold makes the conversation, and gives everything that was answered.
func (c conversation) hold(t *testing.T, endpoint string) []any {
	t.Helper()
	var seen []any
	header := http.Header{}
	for name, value := range c.header {
		header.Set(name, value)
	}
	dialer := websocket.Dialer{Subprotocols: c.subprotocols, HandshakeTimeout: answerTimeout}
	connection, response, err := dialer.Dial("ws://"+endpoint+c.path, header)
	if err != nil {
		t.Fatalf("%s: %v", c.path, err)
	}
	defer connection.Close()
	seen = append(seen, connection.Subprotocol(), response.Header.Values("Access-Control-Allow-Origin"))
	for _, step := range c.steps {
		seen = append(seen, step.take(t, c, connection, endpoint)...)
	}
	return seen
}

func (s step) take(t *testing.T, c conversation, connection *websocket.Conn, endpoint string) []any {
	t.Helper()
	var seen []any
	if s.post != nil {
		s.post.send(t, endpoint)
	}
	if s.send != "" {
		if err := connection.WriteMessage(websocket.TextMessage, []byte(s.send)); err != nil {
			t.Fatalf("%s: %s: %v", c.path, s.send, err)
		}
	}
	connection.SetReadDeadline(time.Now().Add(answerTimeout))
	var messages []any
	for range s.read {
		kind, message, err := connection.ReadMessage()
		if err != nil {
			t.Fatalf("%s: %+v: %v", c.path, s, err)
		}
		var value any
		decoder := json.NewDecoder(strings.NewReader(string(message)))
		decoder.UseNumber()
		if err := decoder.Decode(&value); err != nil {
			t.Fatalf("%s: %q: %v", c.path, message, err)
		}
		messages = append(messages, []any{fmt.Sprint("kind ", kind), exchange{ownText: c.ownText, ownHash: true}.masked("", value)})
	}
	if s.unordered {
		slices.SortFunc(messages, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	for _, message := range messages {
		seen = append(seen, message.([]any)...)
	}
	if s.shut {
		code := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		if err := connection.WriteControl(websocket.CloseMessage, code, time.Now().Add(answerTimeout)); err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
	}
	if s.shut || s.ended {
		_, message, err := connection.ReadMessage()
		if err == nil {
			t.Fatalf("%s: %s came after the end", c.path, message)
		}
		seen = append(seen, ending(err))
	}
	return seen
}

// ending says how a connection ended: not whether the network did it politely.
func ending(err error) string {
	if code, ok := err.(*websocket.CloseError); ok {
		return fmt.Sprint("closed with ", code.Code)
	}
	var operation *net.OpError
	if errors.As(err, &operation) && !operation.Timeout() {
		// The rest of the connection was lost with it, which depends on who was faster.
		return fmt.Sprint("closed with ", websocket.CloseAbnormalClosure)
	}
	return fmt.Sprintf("%T", err)
}

func TestWebSockets(t *testing.T) {
	reference := cluster.Start(t, cluster.Reference(t), cluster.Options{})
	target := cluster.Start(t, cluster.Target(t), cluster.Options{})
	for _, c := range conversations {
		want := c.hold(t, reference.Members[0].Endpoint())
		got := c.hold(t, target.Members[0].Endpoint())
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s %+v:\n got %v\nwant %v", c.path, c.steps, got, want)
		} else if testing.Verbose() {
			t.Logf("%s: %.300v", c.path, got)
		}
	}
}

// handshake is what makes a GET one that asks for a WebSocket.
var handshake = map[string]string{
	"Connection": "keep-alive, Upgrade", "Upgrade": "websocket",
	"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

// with replaces or, if the value is empty, drops headers of the handshake.
func with(changes map[string]string) map[string]string {
	headers := map[string]string{}
	for name, value := range handshake {
		headers[name] = value
	}
	for name, value := range changes {
		headers[name] = value
		if value == "" {
			delete(headers, name)
		}
	}
	return headers
}

// What is no handshake, or a bad one.
var handshakes = []exchange{
	{method: "GET", path: "/v3/kv/range", header: with(nil)},
	{method: "GET", path: "/v3/kv/range", header: with(map[string]string{"Connection": "close"})},
	{method: "GET", path: "/v3/kv/range", header: with(map[string]string{"Upgrade": "h2c"})},
	{method: "POST", path: "/v3/kv/range", header: with(nil)},
	{method: "GET", path: "/v3/kv/range", header: with(map[string]string{"Sec-WebSocket-Version": "8"})},
	{method: "GET", path: "/v3/kv/range", header: with(map[string]string{"Sec-WebSocket-Key": ""})},
	{method: "GET", path: "/v3/kv/range", header: with(map[string]string{"Sec-WebSocket-Key": "short"})},
	{method: "GET", path: "/version", header: with(nil)},
	{method: "OPTIONS", path: "/v3/watch", header: with(nil)},
}

func (x exchange) shake(t *testing.T, endpoint string) []any {
	t.Helper()
	request, err := http.NewRequest(x.method, "http://"+endpoint+x.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range x.header {
		request.Header.Set(name, value)
	}
	request.Host = x.header["Host"]
	transport := &http.Transport{DisableKeepAlives: false}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatalf("%v: %v", x, err)
	}
	defer response.Body.Close()
	seen := []any{response.Status}
	for _, name := range []string{"Upgrade", "Sec-Websocket-Accept", "Sec-Websocket-Version", "Access-Control-Allow-Origin"} {
		seen = append(seen, response.Header.Get(name))
	}
	if response.StatusCode != http.StatusSwitchingProtocols && response.StatusCode != http.StatusMisdirectedRequest {
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatalf("%v: %v", x, err)
		}
		var value any
		if json.Unmarshal(text, &value) != nil {
			value = string(text)
		}
		if x.path != "/version" {
			seen = append(seen, value)
		}
	}
	return seen
}

func compareHandshakes(t *testing.T, options cluster.Options, handshakes []exchange) {
	reference := cluster.Start(t, cluster.Reference(t), options)
	target := cluster.Start(t, cluster.Target(t), options)
	for _, x := range handshakes {
		want := x.shake(t, reference.Members[0].Endpoint())
		got := x.shake(t, target.Members[0].Endpoint())
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v:\n got %q\nwant %q", x, got, want)
		} else if testing.Verbose() {
			t.Logf("%v: %q", x, got)
		}
	}
}

func TestHandshakes(t *testing.T) {
	compareHandshakes(t, cluster.Options{}, handshakes)
}

func TestHandshakesPermitted(t *testing.T) {
	args := []string{"--cors=http://a.example:1", "--host-whitelist=good.example,127.0.0.1"}
	compareHandshakes(t, cluster.Options{Args: args}, []exchange{
		{method: "GET", path: "/v3/watch", header: with(nil)},
		{method: "GET", path: "/v3/watch", header: with(map[string]string{"Origin": "http://a.example:1"})},
		{method: "GET", path: "/v3/watch", header: with(map[string]string{"Host": "good.example"})},
		{method: "GET", path: "/v3/watch", header: with(map[string]string{"Host": "bad.example"})},
	})
	// No browser keeps the answers of a WebSocket from a page that is not permitted; etcd lets it in.
	if server := cluster.Target(t); server.Name != "etcd" {
		target := cluster.Start(t, server, cluster.Options{Args: args})
		endpoint := target.Members[0].Endpoint()
		for origin, want := range map[string]string{
			"http://b.example:1": "403 Forbidden", "null": "403 Forbidden", "http://" + endpoint: "101 Switching Protocols",
		} {
			x := exchange{method: "GET", path: "/v3/watch", header: with(map[string]string{"Origin": origin})}
			if got := x.shake(t, endpoint)[0]; got != want {
				t.Errorf("%v: got %v, want %v", x, got, want)
			}
		}
	}
	compareHandshakes(t, cluster.Options{Args: []string{"--enable-grpc-gateway=false"}}, []exchange{
		{method: "GET", path: "/v3/watch", header: with(nil)},
	})
}

// TestWebSocketTokens watches a key that only root may read.
func TestWebSocketTokens(t *testing.T) {
	target := cluster.Start(t, cluster.Target(t), cluster.Options{})
	endpoint := target.Members[0].Endpoint()
	for _, x := range []exchange{
		post("auth/user/add", `{"name":"root","password":"p"}`),
		post("auth/user/grant", `{"user":"root","role":"root"}`),
		post("auth/enable", `{}`),
	} {
		if got := x.send(t, endpoint); got.Status != http.StatusOK {
			t.Fatalf("%v: %s", x, shown(got))
		}
	}
	login := post("auth/authenticate", `{"name":"root","password":"p"}`).send(t, endpoint)
	token, ok := login.Bodies[0].(map[string]any)["token"].(string)
	if !ok {
		t.Fatalf("no token: %s", shown(login))
	}
	watch := say(`{"create_request":{"key":"eA=="}}`, 1)
	for _, c := range []struct {
		token string
		want  string
	}{
		{token, `"created":true`},
		{"nobody.1", `invalid auth token`},
		{"", `user name is empty`},
	} {
		call := conversation{path: "/v3/watch", steps: []step{watch}}
		if c.token != "" {
			call.subprotocols = []string{"Bearer", c.token}
		}
		got, err := json.Marshal(call.hold(t, endpoint))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(got), c.want) {
			t.Errorf("%q: got %s, want %s", c.token, got, c.want)
		}
	}
}
