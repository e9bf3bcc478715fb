package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Options say how a cluster is started; the zero value is one member with the
// server's defaults.
type Options struct {
	Members int
	NoFsync bool
	Args    []string
	// Discovery is flags that take the place of --initial-cluster and its token.
	Discovery []string
	// ClientTLS and PeerTLS make the URLs https; the certificates are flags in Args.
	ClientTLS, PeerTLS bool
	// Before is called when names, ports and directories are known and nothing
	// runs yet.
	Before func(*Cluster) error
}

// Cluster is a set of members on loopback that share one token.
type Cluster struct {
	Server  Server
	Members []*Member

	directory string
}

// Start starts a cluster for a test, which stops it, checks how it
// stopped.
func Start(t testing.TB, server Server, options Options) *Cluster {
	t.Helper()
	c, err := Launch(server, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		c.remove()
	})
	return c
}

// Launch is Start for callers that stop the cluster themselves, with Close.
func Launch(server Server, options Options) (*Cluster, error) {
	c, err := prepare(server, options)
	if err != nil {
		return nil, err
	}
	if options.Before != nil {
		err = options.Before(c)
	}
	if err == nil {
		err = c.startAll()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func prepare(server Server, options Options) (*Cluster, error) {
	directory, err := os.MkdirTemp("", "clients-"+server.Name+"-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Server: server, directory: directory}
	for i := range max(options.Members, 1) {
		if _, err := c.Grow(fmt.Sprintf("m%d", i+1), options); err != nil {
			return nil, err
		}
	}
	for _, member := range c.Members {
		member.args = c.arguments(member, options)
	}
	return c, nil
}

// Grow makes room for one more member, which is not started.
func (c *Cluster) Grow(name string, options Options) (*Member, error) {
	member := &Member{Name: name, server: c.Server,
		clientScheme: scheme(options.ClientTLS), peerScheme: scheme(options.PeerTLS)}
	var err error
	if member.ClientPort, err = freePort(); err != nil {
		return nil, err
	}
	if member.PeerPort, err = freePort(); err != nil {
		return nil, err
	}
	member.DataDir = filepath.Join(c.directory, name)
	member.logPath = filepath.Join(c.directory, name+".log")
	c.Members = append(c.Members, member)
	return member, nil
}

// Forget takes a member that does not run out of the cluster.
func (c *Cluster) Forget(member *Member) {
	c.Members = slices.DeleteFunc(c.Members, func(other *Member) bool { return other == member })
	releasePort(member.ClientPort)
	releasePort(member.PeerPort)
}

// Join starts a member that has no data and has been added to the cluster of
// the present members.
func (c *Cluster) Join(member *Member, options Options) error {
	args := c.arguments(member, options)
	for i, argument := range args {
		if argument == "--initial-cluster-state=new" {
			args[i] = "--initial-cluster-state=existing"
		}
	}
	member.args = args
	return member.Start()
}

// Refused starts a member that has no data and must end by itself, with exit
// code 1.
func (c *Cluster) Refused(member *Member, options Options) error {
	member.args = c.arguments(member, options)
	if err := member.Spawn(); err != nil {
		return err
	}
	run := member.process
	if err := member.WaitEnded(); err != nil {
		_ = member.Kill()
		return err
	}
	var exit *exec.ExitError
	if !errors.As(run.err, &exit) || exit.ExitCode() != 1 {
		return fmt.Errorf("%s ended with %v, want exit code 1\n%s", member.Name, run.err, member.LogTail())
	}
	return nil
}

func scheme(tls bool) string {
	if tls {
		return "https"
	}
	return "http"
}

// RestoreArgs are the flags that make a member's data directory of a snapshot,
// etcdutl's and ours.
func (c *Cluster) RestoreArgs(member *Member) []string {
	var kept []string
	for _, argument := range c.arguments(member, Options{}) {
		for _, name := range []string{"name", "data-dir", "initial-advertise-peer-urls", "initial-cluster", "initial-cluster-token"} {
			if strings.HasPrefix(argument, "--"+name+"=") {
				kept = append(kept, argument)
			}
		}
	}
	return kept
}

func (c *Cluster) arguments(member *Member, options Options) []string {
	var peers []string
	for _, peer := range c.Members {
		peers = append(peers, peer.Name+"="+peer.PeerURL())
	}
	args := []string{
		"--name=" + member.Name,
		"--data-dir=" + member.DataDir,
		"--listen-client-urls=" + member.ClientURL(),
		"--advertise-client-urls=" + member.ClientURL(),
		"--listen-peer-urls=" + member.PeerURL(),
		"--initial-advertise-peer-urls=" + member.PeerURL(),
		"--initial-cluster-state=new",
	}
	if options.Discovery == nil {
		args = append(args, "--initial-cluster="+strings.Join(peers, ","), "--initial-cluster-token="+filepath.Base(c.directory))
	}
	args = append(args, options.Discovery...)
	if options.NoFsync {
		args = append(args, "--unsafe-no-fsync")
	}
	return append(args, options.Args...)
}

// startAll spawns every member before it waits for any: a member is ready only
// when a majority is there.
func (c *Cluster) startAll() error {
	for _, member := range c.Members {
		if err := member.Spawn(); err != nil {
			return err
		}
	}
	for _, member := range c.Members {
		if err := member.WaitReady(); err != nil {
			return err
		}
	}
	return nil
}

// Endpoints are the client addresses of all members.
func (c *Cluster) Endpoints() []string {
	var endpoints []string
	for _, member := range c.Members {
		endpoints = append(endpoints, member.Endpoint())
	}
	return endpoints
}

// Stop stops every running member with SIGTERM; a member that a test killed or
// stopped is left alone, one that ended by itself is an error.
func (c *Cluster) Stop() error {
	var problems []error
	for _, member := range c.Members {
		if member.process != nil {
			problems = append(problems, member.Stop())
		}
	}
	return errors.Join(problems...)
}

// Close kills what still runs and removes the data.
func (c *Cluster) Close() {
	for _, member := range c.Members {
		if member.Running() {
			_ = member.Kill()
		}
	}
	c.remove()
}

func (c *Cluster) remove() {
	for _, member := range c.Members {
		releasePort(member.ClientPort)
		releasePort(member.PeerPort)
	}
	_ = os.RemoveAll(c.directory)
}
