package goclient

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/coreos/go-semver/semver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var maintenanceCases = []testCase{
	{"status of every member", caseStatus},
	{"members and sync", caseMembers},
	{"hashes are equal", caseHashes},
	{"defragment", caseDefragment},
	{"health and version over http", caseHTTP},
}

func caseStatus(e *env) {
	e.put("k", "v")
	leaders := map[uint64]bool{}
	e.each(func(endpoint string, client *clientv3.Client) {
		_, err := client.Get(e.ctx, e.key("k"))
		e.must(err)
		status, err := client.Status(e.ctx, endpoint)
		e.must(err)
		version, err := semver.NewVersion(status.Version)
		e.must(err)
		if version.LessThan(semver.Version{Major: 3, Minor: 5, Patch: 13}) {
			e.Fatalf("version %s: a kube-apiserver would not ask for progress", version)
		}
		leaders[status.Leader] = true
		equal(e, "learner", status.IsLearner, false)
		equal(e, "errors", len(status.Errors), 0)
		if status.DbSize <= 0 || status.RaftIndex == 0 || status.RaftTerm == 0 || status.RaftAppliedIndex > status.RaftIndex || status.Leader == 0 {
			e.Fatalf("status is %v", status)
		}
	})
	equal(e, "leaders", len(leaders), 1)
}

func caseMembers(e *env) {
	e.each(func(endpoint string, client *clientv3.Client) {
		list, err := client.MemberList(e.ctx)
		e.must(err)
		equal(e, "members", len(list.Members), len(e.cluster.Members))
		for _, member := range list.Members {
			equal(e, "learner", member.IsLearner, false)
			found := false
			for _, started := range e.cluster.Members {
				if started.Name == member.Name {
					found = true
					equal(e, "client url", strings.Join(member.ClientURLs, ","), started.ClientURL())
					equal(e, "peer url", strings.Join(member.PeerURLs, ","), started.PeerURL())
				}
			}
			equal(e, "known member "+member.Name, found, true)
		}
		e.must(client.Sync(e.ctx))
		equal(e, "endpoints after sync", len(client.Endpoints()), len(e.cluster.Members))
	})
	e.put("k", "v")
}

func caseHashes(e *env) {
	for _, value := range []string{"1", "2", "3"} {
		e.put("k", value)
	}
	revision := e.get("k").Header.Revision
	hashes := map[uint32]bool{}
	e.each(func(endpoint string, client *clientv3.Client) {
		_, err := client.Get(e.ctx, e.key("k"))
		e.must(err)
		hash, err := client.HashKV(e.ctx, endpoint, revision)
		e.must(err)
		equal(e, "hash revision", hash.HashRevision, revision)
		hashes[hash.Hash] = true
	})
	equal(e, "hashes", len(hashes), 1)
	e.put("k", "4")
	e.each(func(endpoint string, client *clientv3.Client) {
		_, err := client.Get(e.ctx, e.key("k"))
		e.must(err)
		again, err := client.HashKV(e.ctx, endpoint, revision)
		e.must(err)
		equal(e, "hash of the same revision later", hashes[again.Hash], true)
		now, err := client.HashKV(e.ctx, endpoint, 0)
		e.must(err)
		equal(e, "hash of another revision", hashes[now.Hash], false)
	})
}

func caseDefragment(e *env) {
	e.put("k", "v")
	for _, endpoint := range e.cluster.Endpoints() {
		_, err := e.client.Defragment(e.ctx, endpoint)
		e.must(err)
	}
	equal(e, "value", e.value("k"), "v")
}

func caseHTTP(e *env) {
	for _, member := range e.cluster.Members {
		fetch := func(method, path string) (int, string) {
			request, err := http.NewRequestWithContext(e.ctx, method, member.ClientURL()+path, nil)
			e.must(err)
			response, err := http.DefaultClient.Do(request)
			e.must(err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			e.must(err)
			return response.StatusCode, string(body)
		}
		for path, want := range map[string]string{
			"/health":                   `{"health":"true","reason":""}`,
			"/health?serializable=true": `{"health":"true","reason":""}`,
			"/livez":                    "ok\n",
			"/readyz":                   "ok\n",
			"/livez/serializable_read":  "ok\n",
			"/livez?verbose":            "[+]serializable_read ok\nok\n",
		} {
			code, body := fetch(http.MethodGet, path)
			equal(e, path, code, http.StatusOK)
			equal(e, path, body, want)
		}
		code, _ := fetch(http.MethodPost, "/health")
		equal(e, "POST /health", code, http.StatusMethodNotAllowed)
		code, _ = fetch(http.MethodGet, "/nonsense")
		equal(e, "/nonsense", code, http.StatusNotFound)
		code, body := fetch(http.MethodGet, "/version")
		equal(e, "/version", code, http.StatusOK)
		var version struct{ Etcdserver, Etcdcluster string }
		e.must(json.Unmarshal([]byte(body), &version))
		for _, text := range []string{version.Etcdserver, version.Etcdcluster} {
			_, err := semver.NewVersion(text)
			e.must(err)
		}
	}
}
