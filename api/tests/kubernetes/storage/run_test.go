package storage

import (
	"bufio"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// results are how one run of a test program ended: for each test and subtest
// "pass", "fail" or "skip", and what it printed.
type results struct {
	actions map[string]string
	output  map[string]*strings.Builder
	ended   error
}

// run runs a test program in its package's folder against clusters of so many
// members.
func (tree *tree) run(t *testing.T, program, pkg string, members int, tests []string) results {
	t.Helper()
	command := exec.Command("go", "tool", "test2json", program, "-test.v=test2json", "-test.timeout=20m",
		"-test.run=^("+strings.Join(tests, "|")+")$")
	command.Dir = tree.folder(pkg)
	command.Env = append(os.Environ(), fmt.Sprint("MEMBERS=", members))
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	found := results{actions: map[string]string{}, output: map[string]*strings.Builder{}}
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		found.take(t, lines.Bytes())
	}
	must(t, lines.Err())
	found.ended = command.Wait()
	return found
}

func (r results) take(t *testing.T, line []byte) {
	t.Helper()
	var event struct{ Action, Test, Output string }
	must(t, json.Unmarshal(line, &event))
	switch event.Action {
	case "output":
		if r.output[event.Test] == nil {
			r.output[event.Test] = &strings.Builder{}
		}
		r.output[event.Test].WriteString(event.Output)
	case "pass", "fail", "skip":
		if event.Test != "" {
			r.actions[event.Test] = event.Action
		}
	}
}

// said is what a test printed, or its end where that is long.
func (r results) said(test string) string {
	const most = 8 << 10
	if r.output[test] == nil {
		return ""
	}
	text := r.output[test].String()
	return text[max(len(text)-most, 0):]
}

// testsIn are the tests that stand in files of a package, without those that
// have no statement: Kubernetes left some of the cacher's to be written.
func (tree *tree) testsIn(t *testing.T, pkg string, files []string) (tests []string) {
	t.Helper()
	for _, file := range files {
		paths, err := filepath.Glob(filepath.Join(tree.folder(pkg), file))
		must(t, err)
		if len(paths) == 0 {
			t.Fatalf("%s has no file %s", pkg, file)
		}
		for _, path := range paths {
			parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			must(t, err)
			for _, declaration := range parsed.Decls {
				function, is := declaration.(*ast.FuncDecl)
				if is && function.Recv == nil && strings.HasPrefix(function.Name.Name, "Test") && len(function.Body.List) > 0 {
					tests = append(tests, function.Name.Name)
				}
			}
		}
	}
	return tests
}
