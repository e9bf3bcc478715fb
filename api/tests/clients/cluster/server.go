// Package cluster starts servers as real processes, one or three members on
// free loopback ports, and stops, kills and restarts them.
//
// It promises that a started member has logged that it serves clients, that
// nothing outlives the test process, and that a stop which does not end as it
// should is an error. It knows nothing of what is asked of the servers.
package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Server is one server program.
type Server struct {
	Name string // "holdfast", "etcd" or "etcd-debian"
	Path string
}

// IsEtcd says whether the program is etcd, which ends by the signal that stops
// it, where holdfast exits 0.
func (s Server) IsEtcd() bool { return s.Name != "holdfast" }

// Target is the server under test: the binary that HOLDFAST_BIN names, or real
// etcd when TARGET=etcd, which checks the suites themselves.
func Target(t testing.TB) Server {
	t.Helper()
	switch target := os.Getenv("TARGET"); target {
	case "etcd":
		return Server{Name: "etcd", Path: Tool(t, "etcd")}
	case "", "holdfast":
	default:
		t.Fatalf("TARGET=%q: want etcd or holdfast", target)
	}
	path := os.Getenv("HOLDFAST_BIN")
	if path == "" {
		t.Fatal("HOLDFAST_BIN names no holdfast binary; set it, or TARGET=etcd to check the suites against etcd")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("HOLDFAST_BIN: %v", err)
	}
	return Server{Name: "holdfast", Path: path}
}

// Reference is the etcd that this module pins, or Debian's when
// REFERENCE=debian.
func Reference(t testing.TB) Server {
	t.Helper()
	if os.Getenv("REFERENCE") == "debian" {
		path, err := exec.LookPath("etcd")
		if err != nil {
			t.Fatalf("Debian's etcd-server is not installed: %v", err)
		}
		return Server{Name: "etcd-debian", Path: path}
	}
	return Server{Name: "etcd", Path: Tool(t, "etcd")}
}

// toolPackages maps each program this module builds to its package.
var toolPackages = map[string]string{
	"etcd":    "go.etcd.io/etcd/server/v3",
	"etcdctl": "go.etcd.io/etcd/etcdctl/v3",
	"etcdutl": "go.etcd.io/etcd/etcdutl/v3",
}

var toolBuilds sync.Map // name -> *toolBuild

type toolBuild struct {
	once sync.Once
	path string
	err  error
}

// Tool is the path of a program built from the versions that go.mod pins. The
// build is skipped by go when it is up to date.
func Tool(t testing.TB, name string) string {
	t.Helper()
	entry, _ := toolBuilds.LoadOrStore(name, &toolBuild{})
	build := entry.(*toolBuild)
	build.once.Do(func() { build.path, build.err = buildTool(name) })
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// ToolDirectory is where the programs go: COMPAT_BIN, or a folder of the user's
// cache.
func ToolDirectory() (string, error) {
	if directory := os.Getenv("COMPAT_BIN"); directory != "" {
		return directory, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "holdfast-clients"), nil
}

func buildTool(name string) (string, error) {
	pkg, known := toolPackages[name]
	if !known {
		return "", fmt.Errorf("no package builds %q", name)
	}
	directory, err := ToolDirectory()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", err
	}
	unlock, err := LockFile(filepath.Join(directory, name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	path := filepath.Join(directory, name)
	_, self, _, _ := runtime.Caller(0)
	build := exec.Command("go", "build", "-o", path, pkg)
	build.Dir = filepath.Dir(filepath.Dir(self))
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, output)
	}
	return path, nil
}
