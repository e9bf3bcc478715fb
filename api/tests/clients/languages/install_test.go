package languages

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"holdfast.dev/clients/cluster"
)

// installed gives a folder of the user's cache that install has filled. It is
// filled once for each content of the files that say what goes into it.
func installed(t *testing.T, name string, install func(directory string), files ...string) string {
	t.Helper()
	sum := sha256.New()
	for _, file := range files {
		content, err := os.ReadFile(file)
		must(t, err)
		sum.Write(content)
	}
	parent, err := cluster.ToolDirectory()
	must(t, err)
	must(t, os.MkdirAll(parent, 0o755))
	directory := filepath.Join(parent, fmt.Sprintf("%s-%x", name, sum.Sum(nil)[:6]))
	unlock, err := cluster.LockFile(directory + ".lock")
	must(t, err)
	defer unlock()
	finished := filepath.Join(directory, "installed")
	if _, err := os.Stat(finished); err == nil {
		return directory
	}
	must(t, os.RemoveAll(directory))
	must(t, os.MkdirAll(directory, 0o755))
	install(directory)
	must(t, os.WriteFile(finished, nil, 0o644))
	return directory
}

// execute runs a command to its end.
func execute(t *testing.T, directory string, arguments ...string) {
	t.Helper()
	cmd := exec.Command(arguments[0], arguments[1:]...)
	cmd.Dir = directory
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", arguments, err, output)
	}
}

// python runs one of the suites; each library has an environment of its own,
// since they need different versions of protobuf.
func python(library string) func(t *testing.T) command {
	return func(t *testing.T) command {
		requirements := absolute(t, "python", "requirements-"+library+".txt")
		directory := installed(t, "python-"+library, func(directory string) {
			execute(t, directory, "python3", "-m", "venv", "venv")
			execute(t, directory, "venv/bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "-r", requirements)
		}, requirements)
		// Without -B it would write beside the sources.
		return command{arguments: []string{filepath.Join(directory, "venv/bin/python"), "-B", "-u", absolute(t, "python", "suite_"+library+".py")}}
	}
}

func node(t *testing.T) command {
	manifest, lock := absolute(t, "node", "package.json"), absolute(t, "node", "package-lock.json")
	directory := installed(t, "node", func(directory string) {
		execute(t, directory, "cp", manifest, lock, ".")
		execute(t, directory, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	}, manifest, lock)
	return command{
		arguments:   []string{"node", absolute(t, "node", "suite.js")},
		environment: []string{"NODE_PATH=" + filepath.Join(directory, "node_modules")},
	}
}

func rust(t *testing.T) command {
	parent, err := cluster.ToolDirectory()
	must(t, err)
	directory := filepath.Join(parent, "rust")
	execute(t, absolute(t, "rust"), "cargo", "build", "--quiet", "--locked", "--target-dir="+directory)
	return command{arguments: []string{filepath.Join(directory, "debug", "clients-rust")}}
}

func absolute(t *testing.T, parts ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(parts...))
	must(t, err)
	return path
}
