// Package tls runs a target under TLS with certificates made here: clients and
// members with certificates and without, good ones and bad ones, replaced and
// revoked while the members run. TARGET=etcd shows that etcd does the same.
package tls

import (
	"context"
	cryptotls "crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"holdfast.dev/clients/cluster"
)

const patience = 60 * time.Second

// clientFlags make a member serve clients by mutual TLS.
func clientFlags(a *authority, p pair) []string {
	return []string{"--cert-file=" + p.cert, "--key-file=" + p.key, "--trusted-ca-file=" + a.file(), "--client-cert-auth=true"}
}

// peerFlags make it talk to the others by mutual TLS.
func peerFlags(a *authority, p pair) []string {
	return []string{"--peer-cert-file=" + p.cert, "--peer-key-file=" + p.key, "--peer-trusted-ca-file=" + a.file(), "--peer-client-cert-auth=true"}
}

func connect(t *testing.T, config *cryptotls.Config, endpoints ...string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: config, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func urls(c *cluster.Cluster) []string {
	var all []string
	for _, member := range c.Members {
		all = append(all, member.ClientURL())
	}
	return all
}

// works puts, gets and watches a key.
func works(t *testing.T, client *clientv3.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	events := client.Watch(ctx, "key", clientv3.WithCreatedNotify())
	if created := <-events; !created.Created {
		t.Fatalf("watch: %v", created.Err())
	}
	value := fmt.Sprint(time.Now().UnixNano())
	_, err := client.Put(ctx, "key", value)
	must(t, err)
	response, err := client.Get(ctx, "key")
	must(t, err)
	if len(response.Kvs) != 1 || string(response.Kvs[0].Value) != value {
		t.Fatalf("got %v, want %s", response.Kvs, value)
	}
	if event := <-events; len(event.Events) != 1 || string(event.Events[0].Kv.Value) != value {
		t.Fatalf("watched %v, want %s", event.Events, value)
	}
}

// fails says that a client gets nowhere.
func fails(t *testing.T, config *cryptotls.Config, endpoint string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if _, err := connect(t, config, endpoint).Get(ctx, "key"); err == nil {
		t.Fatal("a client was let in")
	}
}

// logged waits for a line that has all the texts.
func logged(t *testing.T, m *cluster.Member, texts ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, line := range strings.Split(m.Log(), "\n") {
			found := true
			for _, text := range texts {
				found = found && strings.Contains(line, text)
			}
			if found {
				return
			}
		}
	}
	t.Fatalf("no line with %q\n%s", texts, m.LogTail())
}

func TestMutual(t *testing.T) {
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d members", members), func(t *testing.T) {
			a := newAuthority(t)
			server, user := a.issue("server", subject{name: "server"}), a.issue("user", subject{name: "user"})
			c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: members, ClientTLS: true, PeerTLS: true,
				Args: append(clientFlags(a, server), peerFlags(a, server)...)})
			works(t, connect(t, a.config(&user), urls(c)...))
			for _, url := range urls(c) {
				works(t, connect(t, a.config(&user), url))
			}
			ctl(t, a, user, strings.Join(urls(c), ","), "endpoint", "health")
			ctl(t, a, user, strings.Join(urls(c), ","), "put", "key", "value")
			refusedClients(t, c, a)
			strangersAtThePeerPort(t, c, a)
			works(t, connect(t, a.config(&user), urls(c)...))
		})
	}
}

// ctl runs etcdctl, the newest and Debian's.
func ctl(t *testing.T, a *authority, p pair, endpoints string, arguments ...string) {
	t.Helper()
	flags := []string{"--endpoints=" + endpoints, "--cacert=" + a.file(), "--cert=" + p.cert, "--key=" + p.key, "--dial-timeout=30s", "--command-timeout=30s"}
	for _, etcdctl := range []string{cluster.Tool(t, "etcdctl"), "/usr/bin/etcdctl"} {
		command := exec.Command(etcdctl, append(flags, arguments...)...)
		command.Env = append(os.Environ(), "ETCDCTL_API=3")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", etcdctl, arguments, err, out)
		}
	}
}

func refusedClients(t *testing.T, c *cluster.Cluster, a *authority) {
	const rejected = "rejected connection on client endpoint"
	member, other := c.Members[0], newAuthority(t)
	fails(t, a.config(nil), member.ClientURL())
	logged(t, member, rejected, "tls: client didn't provide a certificate")
	stranger := other.issue("stranger", subject{name: "stranger"})
	fails(t, a.config(&stranger), member.ClientURL())
	logged(t, member, rejected, "certificate signed by unknown authority")
	expired := a.issue("expired", subject{name: "expired", expired: true})
	fails(t, a.config(&expired), member.ClientURL())
	logged(t, member, rejected, "certificate has expired or is not yet valid")
	serverOnly := a.issue("server-only", subject{name: "server-only", serverOnly: true})
	fails(t, a.config(&serverOnly), member.ClientURL())
	logged(t, member, rejected, "incompatible key usage")
	// Plain text, as another protocol and as a client that was told http.
	garbage(t, member.ClientPort, "GET /health HTTP/1.0\r\n\r\n")
	logged(t, member, rejected, "tls: first record does not look like a TLS handshake")
	fails(t, nil, "http://"+member.Endpoint())
}

func strangersAtThePeerPort(t *testing.T, c *cluster.Cluster, a *authority) {
	const rejected = "rejected connection on peer endpoint"
	member := c.Members[0]
	garbage(t, member.PeerPort, "\x00\x01garbage, and more of it than a record\r\n\r\n")
	logged(t, member, rejected, "tls: first record does not look like a TLS handshake")
	if connection, err := cryptotls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", member.PeerPort), a.config(nil)); err == nil {
		// Under TLS 1.3 the client is done before it is judged.
		_, err = connection.Read(make([]byte, 1))
		if err == nil {
			t.Error("a stranger was let in")
		}
		connection.Close()
	}
	logged(t, member, rejected, "tls: client didn't provide a certificate")
}

// garbage sends bytes and waits until the other side has closed.
func garbage(t *testing.T, port int, text string) {
	t.Helper()
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	must(t, err)
	defer connection.Close()
	must(t, connection.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(connection, text)
	must(t, err)
	// A reset is as good as an end.
	_, _ = io.ReadAll(connection)
}

func TestBothHTTPVersionsOnOnePort(t *testing.T) {
	a := newAuthority(t)
	server := a.issue("server", subject{name: "server"})
	metrics := freePort(t)
	c := cluster.Start(t, cluster.Target(t), cluster.Options{ClientTLS: true,
		Args: append(clientFlags(a, server), fmt.Sprintf("--listen-metrics-urls=https://127.0.0.1:%d", metrics))})
	for _, endpoint := range []string{c.Members[0].ClientURL(), fmt.Sprintf("https://127.0.0.1:%d", metrics)} {
		for _, major := range []int{1, 2} {
			transport := &http.Transport{TLSClientConfig: a.config(&server), ForceAttemptHTTP2: major == 2}
			client := http.Client{Transport: transport, Timeout: patience}
			response, err := client.Get(endpoint + "/health")
			must(t, err)
			body, err := io.ReadAll(response.Body)
			must(t, err)
			response.Body.Close()
			if response.ProtoMajor != major || !strings.Contains(string(body), `"health":"true"`) {
				t.Errorf("%s: HTTP/%d, %s; want HTTP/%d and health", endpoint, response.ProtoMajor, body, major)
			}
			transport.CloseIdleConnections()
		}
	}
}

func TestCertificatesAreReplacedAndRevokedWhileRunning(t *testing.T) {
	a := newAuthority(t)
	server, good, bad := a.issue("server", subject{name: "server"}), a.issue("good", subject{name: "good"}), a.issue("bad", subject{name: "bad"})
	c := cluster.Start(t, cluster.Target(t), cluster.Options{ClientTLS: true,
		Args: append(clientFlags(a, server), "--client-crl-file="+a.revoke())})
	member := c.Members[0]
	works(t, connect(t, a.config(&bad), member.ClientURL()))
	// Another authority beside the first, and a certificate of it.
	other := newAuthority(t)
	both, err := os.ReadFile(other.file())
	must(t, err)
	first, err := os.ReadFile(a.file())
	must(t, err)
	must(t, os.WriteFile(a.file(), append(first, both...), 0o600))
	a.revoke(bad)
	next := a.issue("server", subject{name: "server"})
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		connection, err := cryptotls.Dial("tcp", member.Endpoint(), a.config(&good))
		must(t, err)
		serial := connection.ConnectionState().PeerCertificates[0].SerialNumber
		connection.Close()
		if serial.Cmp(next.serial) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not used")
		}
	}
	fails(t, a.config(&bad), member.ClientURL())
	logged(t, member, "rejected connection on client endpoint", "transport: certificate serial", "revoked")
	works(t, connect(t, a.config(&good), member.ClientURL()))
	if !c.Server.IsEtcd() {
		// etcd reads its authorities when it starts.
		config, stranger := a.config(nil), other.issue("stranger", subject{name: "stranger"})
		config.GetClientCertificate = other.config(&stranger).GetClientCertificate
		works(t, connect(t, config, member.ClientURL()))
	}
}

func TestCertificatesMadeByTheMembers(t *testing.T) {
	c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3, ClientTLS: true, PeerTLS: true,
		Args: []string{"--auto-tls", "--peer-auto-tls"}})
	works(t, connect(t, &cryptotls.Config{InsecureSkipVerify: true}, urls(c)...))
	must(t, c.Members[0].Stop())
	must(t, c.Members[0].Start())
	works(t, connect(t, &cryptotls.Config{InsecureSkipVerify: true}, c.Members[0].ClientURL()))
	for _, file := range []string{"client/cert.pem", "client/key.pem", "peer/cert.pem", "peer/key.pem"} {
		if _, err := os.Stat(filepath.Join(c.Members[0].DataDir, "fixtures", file)); err != nil {
			t.Error(err)
		}
	}
}

// A member whose name is not permitted gets nowhere, and the others say why.
func TestPermittedNames(t *testing.T) {
	a := newAuthority(t)
	member := a.issue("member", subject{name: "member"})
	flags := append(peerFlags(a, member), "--peer-cert-allowed-cn=other,member")
	c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3, PeerTLS: true, Args: flags})
	works(t, connect(t, nil, c.Endpoints()...))
	stranger := a.issue("stranger", subject{name: "stranger"})
	connection, err := cryptotls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.Members[0].PeerPort), a.config(&stranger))
	if err == nil {
		_, _ = connection.Read(make([]byte, 1))
		connection.Close()
	}
	logged(t, c.Members[0], "rejected connection on peer endpoint", "client certificate authentication failed")
}

func TestPermittedHostnames(t *testing.T) {
	a := newAuthority(t)
	server := a.issue("server", subject{name: "server"})
	c := cluster.Start(t, cluster.Target(t), cluster.Options{ClientTLS: true,
		Args: append(clientFlags(a, server), "--client-cert-allowed-hostname=localhost")})
	works(t, connect(t, a.config(&server), urls(c)...))
	nameless := a.issue("nameless", subject{name: "localhost", noAddress: true})
	fails(t, a.config(&nameless), c.Members[0].ClientURL())
	logged(t, c.Members[0], "rejected connection on client endpoint", "client certificate authentication failed")
}

// Connections that say nothing hold up nobody.
func TestSilentConnections(t *testing.T) {
	a := newAuthority(t)
	server := a.issue("server", subject{name: "server"})
	c := cluster.Start(t, cluster.Target(t), cluster.Options{ClientTLS: true, PeerTLS: true,
		Args: append(clientFlags(a, server), peerFlags(a, server)...)})
	for range 200 {
		for _, port := range []int{c.Members[0].ClientPort, c.Members[0].PeerPort} {
			connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			must(t, err)
			defer connection.Close()
		}
	}
	works(t, connect(t, a.config(&server), urls(c)...))
}

func TestWhatCannotStart(t *testing.T) {
	a := newAuthority(t)
	one, two := a.issue("one", subject{name: "one"}), a.issue("two", subject{name: "two"})
	for name, test := range map[string]struct {
		flags []string
		text  string
		late  bool // etcd says that it serves before it reads the files
	}{
		"no certificate": {nil, "TLS key/cert (--cert-file, --key-file) must be provided for client url", false},
		"missing file":   {[]string{"--cert-file=/nowhere/cert.pem", "--key-file=" + one.key}, "open /nowhere/cert.pem: ", true},
		"another key":    {[]string{"--cert-file=" + one.cert, "--key-file=" + two.key}, "tls: private key does not match public key", true},
		"only one":       {[]string{"--cert-file=" + one.cert}, "must both be present", true},
	} {
		if test.late && cluster.Target(t).IsEtcd() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c, err := cluster.Launch(cluster.Target(t), cluster.Options{ClientTLS: true, Args: test.flags})
			if err == nil {
				c.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), test.text) {
				t.Fatalf("got %v, want %q", err, test.text)
			}
		})
	}
}

func TestTLSToAPlainPort(t *testing.T) {
	c := cluster.Start(t, cluster.Target(t), cluster.Options{Members: 3})
	_, err := cryptotls.Dial("tcp", c.Members[0].Endpoint(), &cryptotls.Config{InsecureSkipVerify: true})
	if err == nil {
		t.Fatal("a handshake with plain text")
	}
	garbage(t, c.Members[0].PeerPort, "\x00garbage\r\n\r\n")
	if !c.Members[0].Running() {
		t.Fatal("garbage at the peer port ended it")
	}
	if !c.Server.IsEtcd() {
		logged(t, c.Members[0], "rejected connection on client endpoint", "plain-text listener")
		logged(t, c.Members[0], "rejected connection on peer endpoint", "not a member's connection")
	}
	works(t, connect(t, nil, c.Endpoints()...))
}

func TestUnixSockets(t *testing.T) {
	a := newAuthority(t)
	server := a.issue("server", subject{name: "server"})
	// The Go client takes the file's name for the server's.
	plain, secure := filepath.Join(t.TempDir(), "plain.sock"), filepath.Join(t.TempDir(), "localhost")
	flags := append(clientFlags(a, server), "--listen-client-urls=unix://"+plain+",unixs://"+secure)
	cluster.Start(t, cluster.Target(t), cluster.Options{Args: flags})
	works(t, connect(t, nil, "unix://"+plain))
	works(t, connect(t, a.config(&server), "unixs://"+secure))
}

func freePort(t *testing.T) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
