// Package storage runs the tests of Kubernetes' storage layer, as their authors
// wrote them, over clusters of the target.
//
// Those tests stand in files that cannot be imported, and need functions that
// are not exported; so k8s.io/apiserver is copied from the module cache into a
// folder of the user's cache, its testserver package is replaced with ours,
// and the packages' test programs are built there. Nothing else is changed.
package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

const apiserver = "k8s.io/apiserver"

// tree is a copy of k8s.io/apiserver in which our testserver takes the place of
// its own, beside a go.mod that says to use the copy.
type tree struct {
	directory string
}

// plant makes the tree, or completes the one of an earlier run. The folder is
// always the same, so that go's build cache holds for it.
func plant(t *testing.T) *tree {
	t.Helper()
	_, self, _, _ := runtime.Caller(0)
	module := filepath.Dir(filepath.Dir(self))
	source := download(t, module)
	cache, err := os.UserCacheDir()
	must(t, err)
	tree := &tree{directory: filepath.Join(cache, "holdfast-kubernetes", filepath.Base(source))}
	must(t, os.MkdirAll(tree.directory, 0o755))
	tree.lock(t)
	tree.copyModule(t, source)
	tree.copyFile(t, filepath.Join(module, "testserver", "server.go"), "apiserver/pkg/storage/etcd3/testserver/test_server.go")
	tree.copyFile(t, filepath.Join(module, "go.mod"), "go.mod")
	tree.copyFile(t, filepath.Join(module, "go.sum"), "go.sum")
	tree.command(t, "go", "mod", "edit", "-replace="+apiserver+"=./apiserver",
		"-replace=holdfast.dev/clients="+filepath.Join(filepath.Dir(module), "clients"))
	return tree
}

// download is where the module cache has the version that go.mod pins.
func download(t *testing.T, module string) string {
	t.Helper()
	command := exec.Command("go", "mod", "download", "-json", apiserver)
	command.Dir = module
	output, err := command.Output()
	var answer struct{ Dir, Error string }
	if err := errors.Join(err, json.Unmarshal(output, &answer)); err != nil {
		t.Fatalf("downloading %s: %v\n%s", apiserver, err, answer.Error)
	}
	return answer.Dir
}

// lock keeps other runs out of the tree until this process ends.
func (tree *tree) lock(t *testing.T) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(tree.directory, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	must(t, err)
	must(t, syscall.Flock(int(file.Fd()), syscall.LOCK_EX))
	t.Cleanup(func() { file.Close() })
}

// copyModule copies the whole module once; a copy that was interrupted has not
// got its last name yet.
func (tree *tree) copyModule(t *testing.T, source string) {
	t.Helper()
	final := filepath.Join(tree.directory, "apiserver")
	if _, err := os.Stat(final); err == nil {
		return
	}
	partial := final + ".partial"
	must(t, os.RemoveAll(partial))
	must(t, os.CopyFS(partial, os.DirFS(source)))
	must(t, os.Rename(partial, final))
}

// copyFile puts a file of ours into the tree; what was there may be read-only,
// as it is in the module cache.
func (tree *tree) copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	must(t, err)
	to = filepath.Join(tree.directory, to)
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	must(t, os.WriteFile(to, content, 0o644))
}

func (tree *tree) command(t *testing.T, name string, arguments ...string) {
	t.Helper()
	command := exec.Command(name, arguments...)
	command.Dir = tree.directory
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, fmt.Sprint(arguments), err, output)
	}
}

// folder is where a package's files lie, and where its tests expect to run.
func (tree *tree) folder(pkg string) string {
	return filepath.Join(tree.directory, "apiserver", "pkg", "storage", pkg)
}

// build makes a package's test program.
func (tree *tree) build(t *testing.T, pkg string) string {
	t.Helper()
	program := filepath.Join(tree.directory, filepath.Base(pkg)+".test")
	tree.command(t, "go", "test", "-c", "-vet=off", "-o", program, apiserver+"/pkg/storage/"+pkg)
	return program
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
