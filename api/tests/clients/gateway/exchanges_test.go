package gateway

import (
	"net/http"
	"strings"
)

// groups of exchanges; each has servers of its own, and goes on where the
// exchange before it stopped.
var groups = map[string][]exchange{
	"keys":     keys,
	"input":    input,
	"paths":    paths,
	"leases":   leases,
	"cluster":  clusterAndMaintenance,
	"recipes":  recipes,
	"streams":  streams,
	"metadata": metadata,
}

func post(path, body string) exchange { return exchange{path: "/v3/" + path, body: body} }

var keys = []exchange{
	post("kv/range", `{"key":"Zm9v"}`),
	post("kv/put", `{"key":"Zm9v","value":"YmFy"}`),
	post("kv/put", `{"key":"Zm9v","value":"YmF6","prev_kv":true}`),
	post("kv/put", `{"key":"Zm9vMg==","value":""}`),
	post("kv/put", `{"key":"PCY+","value":"AP8="}`),
	post("kv/range", `{"key":"AA==","range_end":"AA=="}`),
	post("kv/range", `{"key":"AA==","range_end":"AA==","limit":1,"sort_order":"DESCEND","sort_target":"MOD"}`),
	post("kv/range", `{"key":"AA==","rangeEnd":"AA==","countOnly":true}`),
	post("kv/range", `{"key":"AA==","range_end":"AA==","keys_only":true,"revision":"2"}`),
	post("kv/range", `{"key":"Zm9v","revision":99}`),
	post("kv/put", `{"value":"YmFy"}`),
	post("kv/put", `{"key":"Zm9v","lease":"77"}`),
	post("kv/put", `{"key":"bm9uZQ==","ignore_value":true}`),
	post("kv/txn", `{"compare":[{"key":"Zm9v","target":"VERSION","result":"EQUAL","version":"0"}],
		"success":[{"request_put":{"key":"Zm9v","value":"YmFy"}}],
		"failure":[{"requestRange":{"key":"Zm9v"}},{"request_delete_range":{"key":"eA=="}},
			{"request_txn":{"success":[{"request_put":{"key":"eQ==","value":"eg=="}}]}}]}`),
	post("kv/txn", `{"compare":[{"key":"Zm9v","target":3,"result":1,"value":"AA=="}],"success":[{"request_put":{"key":"Zm9v"}}]}`),
	post("kv/txn", `{"success":[{"request_put":{"key":"Zm9v"}},{"request_put":{"key":"Zm9v"}}]}`),
	post("kv/txn", `{"success":[{}]}`),
	post("kv/txn", ``),
	post("kv/deleterange", `{"key":"Zm9v","range_end":"Zm9w","prev_kv":true}`),
	post("kv/deleterange", `{"key":"Zm9v"}`),
	post("kv/compaction", `{"revision":"3"}`),
	post("kv/compaction", `{"revision":"3","physical":true}`),
	post("kv/range", `{"key":"Zm9v","revision":1}`),
	post("kv/put", `{"key":"Zm9v","value":"`+strings.Repeat("A", 1_400_000)+`"}`),
	post("kv/range", `{"key":"Zm9v"}`),
	post("kv/put", `{"key":"Zm9v","value":"`+strings.Repeat("A", 2_400_000)+`"}`),
	post("kv/put", `{"key":"Zm9v","value":"`+strings.Repeat("A", 3_600_000)+`"}`),
	{path: "/v3/kv/put", body: `{"key":"Zm9v","value":"` + strings.Repeat("A", 9_000_000) + `"}`, ownText: true},
}

// What is compared here is only whether it is refused, and with which code, if
// the words are the JSON library's.
var input = append([]exchange{
	post("kv/put", `{"key":"Zm9v","value":"YmFy"}`),
	post("kv/put", `{"key":"++++/w==","value":"YmFy"}`),
	post("kv/range", ``),
	post("kv/range", ` `),
	post("kv/range", `{}`),
	post("kv/range", `{"key":null}`),
	post("kv/range", `{"key":"Zm9v","nobody":[{"knows":"this"}]}`),
	post("kv/range", `{"key":"Zm9v"} and something else`),
	post("kv/range", `{"key":"Zm9v"}{"key":"eA=="}`),
	post("kv/range", `{"key":"++++/w=="}`),
	post("kv/range", `{"key":"----_w"}`),
	post("kv/range", `{"key":"----_w=="}`),
	post("kv/range", `{"key":"\u005am9v","limit":"1"}`),
	post("kv/range", `{"key":"Zm9v","limit":1.0}`),
	post("kv/range", `{"key":"Zm9v","limit":1e2}`),
	post("kv/range", `{"key":"Zm9v","limit":"-9223372036854775808"}`),
	post("kv/range", `{"key":"Zm9v","sort_order":2,"sortTarget":"CREATE"}`),
	post("kv/range", `{"key":"Zm9v","sort_order":77}`),
	post("kv/range", `{"key":"Zm9v","sort_order":"NOBODY"}`),
	post("kv/range", `{"key":"Zm9v","sort_order":null,"keys_only":null}`),
}, refusedJSON(
	`{bad`, `{"key":`, `{"key":"Zm9v"`, `[]`, `5`, `"text"`, `nope`,
	`{"key":5}`, `{"key":"*"}`, `{"key":["Zm9v"]}`, `{"key":{}}`, `{"key":true}`,
	`{"key":"Zm9v","limit":"x"}`, `{"key":"Zm9v","limit":1.5}`, `{"key":"Zm9v","limit":99999999999999999999}`,
	`{"key":"Zm9v","limit":""}`, `{"key":"Zm9v","limit":" 1"}`, `{"key":"Zm9v","limit":true}`,
	`{"key":"Zm9v","keys_only":"true"}`, `{"key":"Zm9v","keys_only":1}`,
	`{"key":"Zm9v","sort_order":[]}`, `{"key":"Zm9v","sort_order":1.5}`,
)...)

func refusedJSON(bodies ...string) []exchange {
	var exchanges []exchange
	for _, body := range bodies {
		exchanges = append(exchanges, exchange{path: "/v3/kv/range", body: body, ownText: true})
	}
	return append(exchanges,
		exchange{path: "/v3/kv/txn", ownText: true, body: `{"success":[null]}`},
		exchange{path: "/v3/kv/txn", ownText: true, body: `{"success":{}}`},
		exchange{path: "/v3/kv/txn", ownText: true, body: `{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}`},
	)
}

var paths = []exchange{
	{path: "/v3/nothing", body: `{}`},
	{path: "/v3/", body: `{}`},
	{path: "/v3/kv/range/", body: `{"key":"Zm9v"}`},
	{path: "/v3/kv/Range", body: `{"key":"Zm9v"}`},
	{path: "/v3/kv/rangestream", body: `{"key":"Zm9v"}`},
	{path: "/v3/kv/range?key=YQ", body: `{"key":"Zm9v"}`},
	{path: "/v3beta/kv/range", body: `{"key":"Zm9v"}`},
	{path: "/v3beta/nothing"},
	{path: "/v3alpha/kv/range", body: `{"key":"Zm9v"}`, onlyStatus: true},
	{path: "/v4/kv/range", body: `{"key":"Zm9v"}`, onlyStatus: true},
	{path: "/v3/kv/range", method: http.MethodGet},
	{path: "/v3/kv/range", method: http.MethodPut, body: `{"key":"Zm9v"}`},
	{path: "/v3/kv/range", method: http.MethodDelete},
	{path: "/v3/kv/range", method: http.MethodHead, onlyStatus: true},
	{path: "/v3/kv/range", method: http.MethodOptions},
	{path: "/v3/nothing", method: http.MethodGet},
	{path: "/nothing", method: http.MethodOptions},
	{path: "/health", method: http.MethodGet, onlyStatus: true},
	{path: "/health", method: http.MethodPost, onlyStatus: true},
}

var leases = []exchange{
	post("lease/grant", `{"ID":"1234","TTL":"1000"}`),
	post("lease/grant", `{"ID":1234,"TTL":1000}`),
	post("lease/grant", `{"TTL":1000}`),
	post("lease/grant", `{"ID":5,"TTL":"9999999999"}`),
	post("kv/put", `{"key":"Zm9v","value":"YmFy","lease":1234}`),
	post("lease/keepalive", `{"ID":1234}`),
	post("lease/keepalive", `{"ID":1234} {"ID":"1234"}{"ID":99}`),
	post("kv/lease/timetolive", `{"ID":99,"keys":true}`),
	post("lease/timetolive", `{"ID":99}`),
	post("kv/lease/revoke", `{"ID":99}`),
	post("lease/revoke", `{"ID":1234}`),
	post("lease/revoke", `{"ID":1234}`),
	post("kv/range", `{"key":"Zm9v"}`),
}

var clusterAndMaintenance = []exchange{
	post("cluster/member/list", `{}`),
	post("cluster/member/list", `{"linearizable":true}`),
	post("maintenance/status", ``),
	{path: "/v3/maintenance/hash", ownHash: true},
	post("maintenance/hashkv", `{}`),
	post("maintenance/hashkv", `{"revision":77}`),
	post("maintenance/defragment", `{}`),
	post("maintenance/alarm", `{}`),
	post("maintenance/alarm", `{"action":"GET","alarm":"NOSPACE"}`),
	post("maintenance/transfer-leadership", `{"targetID":"77"}`),
	post("maintenance/transfer-leadership", `{}`),
}

var recipes = []exchange{
	post("lease/grant", `{"ID":"1234","TTL":"1000"}`),
	post("lock/lock", `{"name":"bQ==","lease":1234}`),
	post("lock/lock", `{"name":"bQ==","lease":99}`),
	post("lock/unlock", `{"key":"bS80ZDI="}`),
	post("lock/unlock", ``),
	post("election/leader", `{"name":"ZQ=="}`),
	post("election/campaign", `{"name":"ZQ==","lease":"1234","value":"YW5u"}`),
	post("election/leader", `{"name":"ZQ=="}`),
	{path: "/v3/election/observe", body: `{"name":"ZQ=="}`, lines: 1},
	post("election/proclaim", `{}`),
	post("election/proclaim", `{"leader":{"name":"ZQ==","key":"ZS80ZDI=","rev":"99","lease":"1234"},"value":"Ym9i"}`),
	post("election/proclaim", `{"leader":{"name":"ZQ==","key":"ZS80ZDI=","rev":"4","lease":"1234"},"value":"Ym9i"}`),
	{path: "/v3/election/observe", body: `{"name":"ZQ=="} and more`, lines: 1},
	post("election/resign", `{"leader":{"name":"ZQ==","key":"ZS80ZDI=","rev":"4","lease":"1234"}}`),
	post("election/resign", `{}`),
	{path: "/v3/election/observe", body: `{"name":"ZQ=="}`, silent: true},
	{path: "/v3/election/observe", body: `{bad`, ownText: true},
	{path: "/v3/election/observe", method: http.MethodGet},
}

var streams = []exchange{
	post("kv/put", `{"key":"Zm9v","value":"YmFy"}`),
	post("kv/put", `{"key":"Zm9v","value":"YmF6"}`),
	{path: "/v3/watch", body: `{"create_request":{"key":"Zm9v","start_revision":"2"}}`, lines: 2},
	{path: "/v3/watch", body: `{"createRequest":{"key":"Zm9v","startRevision":2,"prevKv":true,"filters":["NOPUT",1]}}`, lines: 1},
	{path: "/v3/watch", body: `{"create_request":{"key":"Zm9v","start_revision":3,"prev_kv":true}}`, lines: 2},
	{path: "/v3/watch", body: `{"create_request":{"key":"Zm9v"}} {"create_request":{"key":"eA==","watch_id":7}}`, lines: 2},
	{path: "/v3/watch", body: `{"create_request":{"key":"Zm9v"}}{"cancel_request":{}}`, lines: 2},
	{path: "/v3/watch", body: `{"create_request":{"key":"Zm9v","watch_id":1}}{"create_request":{"key":"Zm9v","watch_id":1}}`, lines: 2},
	{path: "/v3/watch", body: `{"create_request":{"key":"Yg==","range_end":"YQ=="}}`, lines: 1},
	{path: "/v3/watch", body: `{"create_request":{"key":"Zm9v"}}{bad`, lines: 1},
	{path: "/v3/watch", body: ``, silent: true},
	{path: "/v3/watch", body: `{bad`, silent: true},
	{path: "/v3/watch", body: `[]`, silent: true},
	{path: "/v3/watch", method: http.MethodGet},
	post("lease/keepalive", ``),
	post("lease/keepalive", `{bad`),
	post("lease/keepalive", `{"ID":"x"}`),
	post("lease/keepalive", `{"ID":5}`),
	post("lease/keepalive", `{"ID":5}{bad{"ID":6}`),
	post("lease/keepalive", `{}`),
	post("kv/deleterange", `{"key":"Zm9v"}`),
	{path: "/v3/watch", body: `{"create_request":{"key":"Zm9v","start_revision":3}}`, lines: 2},
	post("kv/compaction", `{"revision":4}`),
	{path: "/v3/watch", body: `{"create_request":{"key":"Zm9v","start_revision":2}}`, lines: 2},
}

var metadata = []exchange{
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Authorization": "a token"}},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Grpc-Metadata-Token": "a token"}},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Grpc-Metadata-Hasleader": "true"}},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Grpc-Timeout": "10S"}},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Grpc-Timeout": "1n"}},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Grpc-Timeout": "soon"}},
	{path: "/v3/watch", body: ``, header: map[string]string{"Grpc-Timeout": "300m"}, onlyStatus: true},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Content-Type": "text/html", "Accept": "text/html"}},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Host": "anywhere.example", "Origin": "http://a.example:1"}},
}

var permitted = []exchange{
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Host": "good.example"}},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Host": "good.example:2379"}},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Host": "evil.example"}, onlyStatus: true},
	{path: "/v3/kv/range", method: http.MethodOptions, header: map[string]string{"Host": "evil.example"}, onlyStatus: true},
	{path: "/health", method: http.MethodGet, header: map[string]string{"Host": "evil.example"}, onlyStatus: true},
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, header: map[string]string{"Origin": "http://a.example:1"}},
	{path: "/v3/kv/range", method: http.MethodOptions, header: map[string]string{"Origin": "http://b.example:2"}},
	{path: "/v3/kv/range", method: http.MethodOptions, header: map[string]string{"Origin": "http://c.example:3"}},
}

var turnedOff = []exchange{
	{path: "/v3/kv/range", body: `{"key":"Zm9v"}`, onlyStatus: true},
	{path: "/v3/kv/range", method: http.MethodOptions},
	{path: "/health", method: http.MethodGet, onlyStatus: true},
}
