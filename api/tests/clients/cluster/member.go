package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyLine    = "ready to serve client requests"
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
)

// Member is one server process and its data directory, which survives the
// process.
type Member struct {
	Name       string
	ClientPort int
	PeerPort   int
	DataDir    string

	clientScheme, peerScheme string

	server  Server
	args    []string
	logPath string
	process *process
}

// process is one run of the program.
type process struct {
	cmd   *exec.Cmd
	ready chan struct{} // closed by the ready line
	ended chan struct{} // closed after wait
	err   error         // of wait; read after ended
}

// ClientURL is where clients reach the member.
func (m *Member) ClientURL() string {
	return fmt.Sprintf("%s://127.0.0.1:%d", m.clientScheme, m.ClientPort)
}

// Endpoint is the same without a scheme.
func (m *Member) Endpoint() string { return fmt.Sprintf("127.0.0.1:%d", m.ClientPort) }

// PeerURL is where the other members reach it.
func (m *Member) PeerURL() string { return fmt.Sprintf("%s://127.0.0.1:%d", m.peerScheme, m.PeerPort) }

// With adds flags for the next starts, and gives what takes them away again.
func (m *Member) With(flags ...string) (without func()) {
	before := m.args
	m.args = append(slices.Clone(before), flags...)
	return func() { m.args = before }
}

// Spawn starts the process and does not wait for it.
func (m *Member) Spawn() error {
	log, err := os.OpenFile(m.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(m.server.Path, m.args...)
	cmd.Stdout, cmd.Stderr = writer, writer
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = cleanEnvironment()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	writer.Close()
	run := &process{cmd: cmd, ready: make(chan struct{}), ended: make(chan struct{})}
	m.process = run
	drained := make(chan struct{})
	go func() { defer close(drained); defer log.Close(); defer reader.Close(); run.follow(reader, log) }()
	go func() { run.err = cmd.Wait(); <-drained; close(run.ended) }()
	return nil
}

// follow copies the log and closes ready at the first ready line.
func (p *process) follow(reader io.Reader, log io.Writer) {
	var once sync.Once
	lines := bufio.NewReaderSize(reader, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		_, _ = log.Write(line)
		if bytes.Contains(line, []byte(readyLine)) {
			once.Do(func() { close(p.ready) })
		}
		if err != nil {
			return
		}
	}
}

// cleanEnvironment drops ETCD_ variables, which would shadow flags.
func cleanEnvironment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "ETCD_") && !strings.HasPrefix(variable, "ETCDCTL_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// WaitReady returns when the member has said that it serves.
func (m *Member) WaitReady() error {
	select {
	case <-m.process.ready:
		return nil
	case <-m.process.ended:
		return fmt.Errorf("%s ended before it was ready: %v\n%s", m.Name, m.process.err, m.LogTail())
	case <-time.After(startTimeout):
		return fmt.Errorf("%s was not ready after %s\n%s", m.Name, startTimeout, m.LogTail())
	}
}

// Start is Spawn and WaitReady.
func (m *Member) Start() error {
	if err := m.Spawn(); err != nil {
		return err
	}
	return m.WaitReady()
}

// Running says whether a process was started and has not ended.
func (m *Member) Running() bool {
	if m.process == nil {
		return false
	}
	select {
	case <-m.process.ended:
		return false
	default:
		return true
	}
}

// Kill ends the process as kill -9 does and waits until it is gone.
func (m *Member) Kill() error {
	if !m.Running() {
		return fmt.Errorf("%s is not running: %w", m.Name, m.endedBy())
	}
	if err := m.process.cmd.Process.Kill(); err != nil {
		return err
	}
	<-m.process.ended
	m.process = nil
	return nil
}

// Wipe removes the data of a member that does not run.
func (m *Member) Wipe() error { return os.RemoveAll(m.DataDir) }

// WaitEnded waits until the process has ended by itself, and forgets it.
func (m *Member) WaitEnded() error {
	select {
	case <-m.process.ended:
		m.process = nil
		return nil
	case <-time.After(startTimeout):
		return fmt.Errorf("%s runs on after %s\n%s", m.Name, startTimeout, m.LogTail())
	}
}

// Stop sends SIGTERM and checks how the process ends: holdfast exits 0, etcd
// lets the signal end it.
func (m *Member) Stop() error {
	if !m.Running() {
		return fmt.Errorf("%s had already ended: %w\n%s", m.Name, m.endedBy(), m.LogTail())
	}
	if err := m.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-m.process.ended:
	case <-time.After(stopTimeout):
		_ = m.process.cmd.Process.Kill()
		<-m.process.ended
		return fmt.Errorf("%s did not end within %s of SIGTERM\n%s", m.Name, stopTimeout, m.LogTail())
	}
	err := m.process.err
	tail := m.LogTail()
	m.process = nil
	if err == nil || m.server.IsEtcd() && endedBySigterm(err) {
		return nil
	}
	return fmt.Errorf("%s after SIGTERM: %w\n%s", m.Name, err, tail)
}

func (m *Member) endedBy() error {
	if m.process == nil {
		return errors.New("it was stopped")
	}
	if m.process.err == nil {
		return errors.New("it exited 0")
	}
	return m.process.err
}

func endedBySigterm(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGTERM
}

// Log is everything the member has logged so far.
func (m *Member) Log() string {
	content, err := os.ReadFile(m.logPath)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// LogTail is the end of the member's log, for error messages.
func (m *Member) LogTail() string {
	const linesMost, lineMost = 15, 300
	content, err := os.ReadFile(m.logPath)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	lines = lines[max(len(lines)-linesMost, 0):]
	for i, line := range lines {
		lines[i] = line[:min(len(line), lineMost)]
	}
	return fmt.Sprintf("--- end of %s\n%s", filepath.Base(m.logPath), strings.Join(lines, "\n"))
}
