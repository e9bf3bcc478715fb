package languages

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runTimeout is for all cases of a program in one setting.
const runTimeout = 3 * time.Minute

// command runs a program. It says on a line each:
//
//	ok NAME              the case passed
//	FAILED NAME: TEXT    it did not
//	restart              kill the first member with kill -9, start it again, and
//	                     answer "done"
//	end                  these were all
//
// What it says elsewhere is shown where a case failed.
type command struct {
	arguments   []string
	environment []string
}

// run gives the number of cases that said how they ended.
func (c command) run(t *testing.T, a *access) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.arguments[0], c.arguments[1:]...)
	cmd.Env = append(a.environment(), c.environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	input, err := cmd.StdinPipe()
	must(t, err)
	output, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	count, ended := follow(t, a, output, input)
	if err := cmd.Wait(); err != nil || !ended {
		t.Errorf("the program ended early, or not well: %v, %v", err, ctx.Err())
	}
	if t.Failed() && complaints.Len() > 0 {
		t.Logf("it complained:\n%s", complaints.String())
	}
	return count
}

// follow makes a test of every verdict.
func follow(t *testing.T, a *access, output io.Reader, input io.Writer) (count int, ended bool) {
	t.Helper()
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "ok":
			count++
			t.Run(rest, func(*testing.T) {})
		case "FAILED":
			count++
			name, text, _ := strings.Cut(rest, ": ")
			t.Run(name, func(t *testing.T) { t.Error(text) })
		case "restart":
			must(t, a.cluster.Members[0].Kill())
			must(t, a.cluster.Members[0].Start())
			_, err := io.WriteString(input, "done\n")
			must(t, err)
		case "end":
			ended = true
		default:
			t.Errorf("it said %q", lines.Text())
		}
	}
	must(t, lines.Err())
	return count, ended
}
