package languages

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"holdfast.dev/clients/cluster"
)

// etcdctl is the program in a setting, in somebody's name; the package ctl has
// the details, by plain text.
type etcdctl struct {
	*testing.T
	path   string
	access *access
	pair   pair
}

func TestTools(t *testing.T) {
	for _, setting := range settings {
		t.Run(setting.name, func(t *testing.T) {
			t.Parallel()
			a := open(t, setting)
			newest := etcdctl{path: cluster.Tool(t, "etcdctl"), access: a}
			if setting.tls {
				newest.pair = a.certificates.named
			}
			older := newest
			older.path = "/usr/bin/etcdctl"
			t.Run("newest etcdctl", newest.commands)
			t.Run("etcdctl 3.4", older.commands)
			t.Run("etcdutl: snapshot", func(t *testing.T) { newest.with(t).snapshot() })
		})
	}
}

func (e etcdctl) commands(t *testing.T) {
	t.Run("keys", func(t *testing.T) { e.with(t).keys() })
	t.Run("watch and lock", func(t *testing.T) { e.with(t).watchAndLock() })
	t.Run("leases", func(t *testing.T) { e.with(t).leases() })
	t.Run("cluster", func(t *testing.T) { e.with(t).cluster() })
	if e.access.users {
		t.Run("refusals", func(t *testing.T) { e.with(t).refusals() })
	}
}

func (e etcdctl) with(t *testing.T) etcdctl {
	e.T = t
	return e
}

// command goes to one member.
func (e etcdctl) command(login string, arguments ...string) *exec.Cmd {
	flags := []string{"--endpoints=" + e.access.cluster.Members[0].ClientURL(), "--dial-timeout=30s", "--command-timeout=30s"}
	if e.access.tls {
		flags = append(flags, "--cacert="+e.access.certificates.authority, "--cert="+e.pair.cert, "--key="+e.pair.key)
	}
	if e.access.users && login != "" {
		flags = append(flags, "--user="+login)
	}
	return exec.Command(e.path, append(flags, arguments...)...)
}

const (
	asUser = userName + ":" + userPassword
	asRoot = "root:" + rootPassword
)

// says runs a command that must succeed and say this.
func (e etcdctl) says(login, want string, arguments ...string) {
	e.Helper()
	out, err := e.command(login, arguments...).CombinedOutput()
	if err != nil || !regexp.MustCompile("^(?s:"+want+")$").Match(out) {
		e.Fatalf("%v: %v, %q, want %q", arguments, err, out, want)
	}
}

func (e etcdctl) refused(login, want string, arguments ...string) {
	e.Helper()
	out, err := e.command(login, arguments...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) {
		e.Fatalf("%v: %v, %q, want a refusal with %q", arguments, err, out, want)
	}
}

func (e etcdctl) keys() {
	e.says(asUser, "OK\n", "put", "app/ctl/keys/1", "one")
	e.says(asUser, "OK\n", "put", "app/ctl/keys/2", "two")
	e.says(asUser, "app/ctl/keys/1\none\napp/ctl/keys/2\ntwo\n", "get", "app/ctl/keys/", "--prefix")
	txn := e.command(asUser, "txn")
	txn.Stdin = strings.NewReader("value(\"app/ctl/keys/1\") = \"one\"\n\nput app/ctl/keys/3 three\nget app/ctl/keys/3\n\n\n")
	if out, err := txn.CombinedOutput(); err != nil || string(out) != "SUCCESS\n\nOK\n\napp/ctl/keys/3\nthree\n" {
		e.Fatalf("txn: %v, %q", err, out)
	}
	e.says(asUser, "3\n", "del", "app/ctl/keys/", "--prefix")
	e.says(asRoot, "", "get", "app/ctl/keys/1")
}

func (e etcdctl) watchAndLock() {
	watch := e.command(asUser, "watch", "app/ctl/watched", "--rev=1")
	out, err := watch.StdoutPipe()
	must(e.T, err)
	watch.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(e.T, watch.Start())
	defer func() { _ = watch.Process.Kill(); _ = watch.Wait() }()
	e.says(asUser, "OK\n", "put", "app/ctl/watched", "value")
	lines := bufio.NewScanner(out)
	for _, want := range []string{"PUT", "app/ctl/watched", "value"} {
		if !lines.Scan() || lines.Text() != want {
			e.Errorf("watch: %q, want %q", lines.Text(), want)
		}
	}
	e.says(asUser, "inside\n", "lock", "app/ctl/lock", "echo", "inside")
}

func (e etcdctl) leases() {
	out, err := e.command(asUser, "lease", "grant", "60").Output()
	must(e.T, err)
	id := strings.Fields(string(out))[1]
	e.says(asUser, "OK\n", "put", "app/ctl/leased", "v", "--lease="+id)
	e.says(asUser, "lease "+id+" keepalived with TTL\\(60\\)\n", "lease", "keep-alive", "--once", id)
	e.says(asUser, "lease "+id+" granted with TTL\\(60s\\), remaining\\(\\d+s\\), attached keys\\(\\[app/ctl/leased\\]\\)\n", "lease", "timetolive", id, "--keys")
	e.says(asUser, "lease "+id+" revoked\n", "lease", "revoke", id)
	e.says(asUser, "", "get", "app/ctl/leased")
}

func (e etcdctl) cluster() {
	e.says(asUser, strings.Repeat("[0-9a-f]+, started, m\\d, [^\n]+\n", len(e.access.cluster.Members)), "member", "list")
	e.says(asUser, ".* is healthy: .*\n", "endpoint", "health")
	e.says(asUser, "[^,]+, [0-9a-f]+, 3\\.[^\n]+\n", "endpoint", "status")
	e.says(asRoot, "[^,]+, [0-9]+.*\n", "endpoint", "hashkv")
	e.says(asRoot, "Finished defragmenting.*\n", "defrag")
	e.says(asRoot, "", "alarm", "list")
}

func (e etcdctl) refusals() {
	const denied = "etcdserver: permission denied"
	e.refused(userName+":wrong", "etcdserver: authentication failed, invalid user ID or password", "get", "app/ctl/1")
	e.refused(asUser, denied, "put", "root-only", "v")
	e.refused(asUser, denied, "user", "list")
	if e.access.tls {
		e.says("", "OK\n", "put", "app/ctl/by-certificate", "v")
		e.refused("", denied, "put", "root-only", "v")
		e.pair = e.access.certificates.bare
		e.refused("", "Error: etcdserver: ", "put", "app/ctl/1", "v")
	} else {
		e.refused("", "etcdserver: user name is empty", "put", "app/ctl/1", "v")
	}
	e.says(asRoot, userName+"\nroot\n", "user", "list")
}

// A snapshot has the users and what was written; the members that etcdutl makes
// of it let the same ones in.
func (e etcdctl) snapshot() {
	e.says(asUser, "OK\n", "put", "app/ctl/kept", "value")
	folder := e.TempDir()
	file := filepath.Join(folder, "snapshot.db")
	e.says(asRoot, ".*Snapshot saved at .*\n", "snapshot", "save", file)
	if e.access.users {
		e.refused(asUser, "etcdserver: permission denied", "snapshot", "save", file+".not")
	}
	etcdutl := cluster.Tool(e.T, "etcdutl")
	if out, err := exec.Command(etcdutl, "snapshot", "status", file).CombinedOutput(); err != nil {
		e.Fatalf("status: %v\n%s", err, out)
	}
	restored := &access{setting: e.access.setting, certificates: e.access.certificates}
	options := cluster.Options{ClientTLS: e.access.tls, PeerTLS: e.access.tls, Before: func(c *cluster.Cluster) error {
		return exec.Command(etcdutl, append([]string{"snapshot", "restore", file}, c.RestoreArgs(c.Members[0])...)...).Run()
	}}
	if e.access.tls {
		options.Args = e.access.certificates.flags()
	}
	restored.cluster = cluster.Start(e.T, cluster.Reference(e.T), options)
	e.access = restored
	e.says(asUser, "app/ctl/kept\nvalue\n", "get", "app/ctl/kept")
	if e.access.users {
		e.refused(asUser, "etcdserver: permission denied", "get", "root-only")
	}
}
