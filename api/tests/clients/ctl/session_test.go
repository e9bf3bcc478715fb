// Package ctl plays one script of etcdctl commands against etcd and against the
// target, with Debian's etcdctl and with the newest, on one member and on
// three. What the two runs print, and the exit codes, must be the same; ids,
// terms, sizes and times are replaced first (normalize_test.go).
package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast.dev/clients/cluster"
)

const commandTimeout = 30 * time.Second

// tool is one etcdctl program.
type tool struct {
	name  string
	path  string
	newer bool // has the options that came after 3.4
}

// session is one run of a script against one cluster, with its transcript.
type session struct {
	*testing.T
	tool       tool
	cluster    *cluster.Cluster
	transcript strings.Builder
	names      map[string]string // id -> the name it has in the transcript
}

func (s *session) command(ctx context.Context, args []string) *exec.Cmd {
	if !strings.Contains(strings.Join(args, " "), "--endpoints=") {
		args = append([]string{"--endpoints=" + strings.Join(s.cluster.Endpoints(), ",")}, args...)
	}
	cmd := exec.CommandContext(ctx, s.tool.path, args...)
	cmd.Env = []string{"ETCDCTL_API=3", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a command to its end, writes the transcript and returns what it
// printed.
func (s *session) run(args ...string) string { return s.runWith("", args...) }

// runWith is run with a standard input.
func (s *session) runWith(input string, args ...string) string {
	s.Helper()
	output, errors, code := s.execute(input, args)
	s.note("$ etcdctl %s\n%s%sexit %d", strings.Join(args, " "), output, errorLines(errors), code)
	return output
}

// quiet runs a command that must succeed and keeps it out of the transcript.
func (s *session) quiet(args ...string) string {
	s.Helper()
	output, errors, code := s.execute("", args)
	if code != 0 {
		s.Fatalf("etcdctl %s: exit %d: %s%s", strings.Join(args, " "), code, output, errors)
	}
	return output
}

func (s *session) execute(input string, args []string) (stdout, stderr string, code int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := s.command(ctx, args)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &err
	failure := cmd.Run()
	var exit *exec.ExitError
	if failure != nil && (!errors.As(failure, &exit) || ctx.Err() != nil) {
		s.Fatalf("etcdctl %s: %v: %s%s", strings.Join(args, " "), failure, out.String(), err.String())
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// note adds normalized text to the transcript.
func (s *session) note(format string, args ...any) {
	text := s.normalize(fmt.Sprintf(format, args...))
	s.transcript.WriteString(strings.TrimRight(text, "\n") + "\n")
}

// revision is the store's.
func (s *session) revision() int64 {
	s.Helper()
	var answer struct{ Header struct{ Revision int64 } }
	if err := json.Unmarshal([]byte(s.quiet("get", "revision", "-w", "json")), &answer); err != nil {
		s.Fatal(err)
	}
	return answer.Header.Revision
}

// next is the revision that the next write will have, as text.
func (s *session) next() string { return fmt.Sprint(s.revision() + 1) }

// background is a command that goes on while others run.
type background struct {
	s     *session
	args  []string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mutex  sync.Mutex
	output bytes.Buffer
}

// Write collects what the command prints.
func (b *background) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.output.Write(p)
}

func (b *background) text() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.output.String()
}

func (s *session) start(args ...string) *background {
	s.Helper()
	b := &background{s: s, args: args, cmd: s.command(context.Background(), args), ended: make(chan struct{})}
	stdin, err := b.cmd.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	b.stdin, b.cmd.Stdout = stdin, b
	if err := b.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	go func() { _ = b.cmd.Wait(); close(b.ended) }()
	s.Cleanup(func() { _ = b.cmd.Process.Kill(); <-b.ended })
	return b
}

// send writes a line to the command.
func (b *background) send(line string) {
	b.s.Helper()
	if _, err := io.WriteString(b.stdin, line+"\n"); err != nil {
		b.s.Fatal(err)
	}
}

// expect waits until the command has printed a text n times.
func (b *background) expect(text string, n int) {
	b.s.Helper()
	for deadline := time.Now().Add(commandTimeout); strings.Count(b.text(), text) < n; {
		if time.Now().After(deadline) {
			b.s.Fatalf("etcdctl %s has not printed %q %d times, only:\n%s", strings.Join(b.args, " "), text, n, b.text())
		}
		time.Sleep(10 * time.Millisecond) // polling another process's output
	}
}

// interrupt ends the command as Ctrl-C does and writes the transcript.
func (b *background) interrupt() string {
	b.s.Helper()
	if err := b.cmd.Process.Signal(syscall.SIGINT); err != nil {
		b.s.Fatal(err)
	}
	return b.wait()
}

// wait waits for the end of the command and writes the transcript.
func (b *background) wait() string {
	b.s.Helper()
	select {
	case <-b.ended:
	case <-time.After(commandTimeout):
		b.s.Fatalf("etcdctl %s does not end:\n%s", strings.Join(b.args, " "), b.text())
	}
	b.s.note("$ etcdctl %s\n%s", strings.Join(b.args, " "), b.text())
	return b.text()
}
