package cluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// LockFile takes an exclusive lock that other test processes respect.
func LockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}

// Ports are drawn from below the kernel's ephemeral range, so that no outgoing
// connection takes one between the draw and the server's own bind.
const (
	portFirst = 11000
	portLast  = 31000
)

var (
	portMutex sync.Mutex
	portsHeld = map[int]*os.File{}
)

// freePort draws a port that nobody listens on and holds it against other
// processes of these suites until releasePort.
func freePort() (int, error) {
	portMutex.Lock()
	defer portMutex.Unlock()
	for range 1000 {
		port := portFirst + rand.IntN(portLast-portFirst)
		if _, held := portsHeld[port]; held {
			continue
		}
		claim, err := claimPort(port)
		if err != nil {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			claim.Close()
			continue
		}
		listener.Close()
		portsHeld[port] = claim
		return port, nil
	}
	return 0, fmt.Errorf("no free port between %d and %d", portFirst, portLast)
}

func claimPort(port int) (*os.File, error) {
	directory := filepath.Join(os.TempDir(), "holdfast-ports")
	if err := os.MkdirAll(directory, 0o777); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(directory, fmt.Sprint(port)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func releasePort(port int) {
	portMutex.Lock()
	defer portMutex.Unlock()
	if claim, held := portsHeld[port]; held {
		claim.Close()
		delete(portsHeld, port)
	}
}
