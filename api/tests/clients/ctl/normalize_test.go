package ctl

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// replacement turns what two clusters are free to choose into what they have
// in common.
type replacement struct {
	pattern *regexp.Regexp
	with    string
}

// numbers come first: one of 16 digits looks like a hexadecimal id, too.
var numbers = []replacement{
	{regexp.MustCompile(`"(cluster_id|member_id|raft_term|id|ID|leader|hash)":\d+`), `"$1":N`},
	{regexp.MustCompile(`"lease":\d{5,}`), `"lease":N`},
	{regexp.MustCompile(`"(ClusterID|MemberID|RaftTerm|ID|Leader|Lease)" : [1-9]\d{3,}`), `"$1" : N`},
}

// replacements follow when ids have names. The order matters.
var replacements = []replacement{
	{regexp.MustCompile(`took( =)? [0-9.]+(ns|µs|ms|s)`), "took$1 T"},
	{regexp.MustCompile(`"took":"[^"]*"`), `"took":"T"`},
	{regexp.MustCompile(`remaining\(\d+s\)`), "remaining(T)"},
	{regexp.MustCompile(`"(raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|dbSizeQuota)":\d+`), `"$1":N`},
	{regexp.MustCompile(`"(RaftTerm|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|DBSizeQuota|Hash)" : \d+`), `"$1" : N`},
	{regexp.MustCompile(`"ttl":\d+`), `"ttl":T`},
	{regexp.MustCompile(`[─┬┐┌┼┤├┴┘└+-]{3,}`), "---"},
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`(?m) $`), ""},
	{regexp.MustCompile(`(.)(?:x{50,})`), "$1..."},
}

var (
	hexID = regexp.MustCompile(`\b[0-9a-f]{10,16}\b`)
	// What etcdctl logs beside its error line: times and addresses.
	logLine = regexp.MustCompile(`(?m)^\{"level".*\}\n`)
)

// normalize replaces endpoints and ids by names in the order in which they
// come, and what replacements says.
func (s *session) normalize(text string) string {
	text = s.endpointNames(text)
	for _, r := range numbers {
		text = r.pattern.ReplaceAllString(text, r.with)
	}
	text = hexID.ReplaceAllStringFunc(text, func(id string) string {
		if _, known := s.names[id]; !known {
			s.names[id] = fmt.Sprintf("ID%d", len(s.names)+1)
		}
		return s.names[id]
	})
	for _, r := range replacements {
		text = r.pattern.ReplaceAllString(text, r.with)
	}
	return text
}

// endpointNames replaces the members' addresses.
func (s *session) endpointNames(text string) string {
	for i, member := range s.cluster.Members {
		text = strings.ReplaceAll(text, member.PeerURL(), fmt.Sprintf("PEER%c", 'A'+i))
		text = strings.ReplaceAll(text, member.Endpoint(), fmt.Sprintf("ENDPOINT%c", 'A'+i))
	}
	return text
}

// errorLines keeps of the standard error what etcdctl says itself, and of its
// client's log lines only the errors.
func errorLines(text string) string {
	return logLine.ReplaceAllStringFunc(text, func(line string) string {
		var entry struct{ Error string }
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Error == "" {
			return ""
		}
		return "logged: " + entry.Error + "\n"
	})
}

var (
	versionNumber = regexp.MustCompile(`\b3\.\d+\.\d+\b`)
	sizeText      = regexp.MustCompile(`\d+(\.\d+)? ?([kMG]B|B)\b`)
	percentText   = regexp.MustCompile(`\d+%`)
	bareNumber    = regexp.MustCompile(`\b\d+\b`)
)

// blurStatus keeps the shape of endpoint status: which columns hold a version,
// a size, a number. Which member leads is left out; how many do is counted.
func blurStatus(text string) string {
	text = versionNumber.ReplaceAllString(text, "VERSION")
	text = sizeText.ReplaceAllString(text, "SIZE")
	text = percentText.ReplaceAllString(text, "PERCENT")
	text = strings.ReplaceAll(text, "true, false,", "LEADER, false,")
	text = strings.ReplaceAll(text, "false, false,", "LEADER, false,")
	return bareNumber.ReplaceAllString(text, "N")
}
