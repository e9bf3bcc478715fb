package differ

import (
	"errors"
	"time"
)

// Shrink looks for a short list of operations that still makes the servers
// differ: it leaves out pieces, large ones first, each time against fresh
// servers. It returns the best it found when the time is up.
func Shrink(servers Servers, operations []Operation, found *Difference, budget time.Duration) ([]Operation, *Difference) {
	servers.hurried = true
	deadline := time.Now().Add(budget)
	best := operations[:min(found.Step+1, len(operations))]
	for size := max(len(best)/2, 1); ; size = max(size/2, 1) {
		before := len(best)
		for start := 0; start < len(best); {
			if !time.Now().Before(deadline) {
				return best, found
			}
			candidate := append(append([]Operation{}, best[:start]...), best[min(start+size, len(best)):]...)
			var difference *Difference
			if errors.As(Play(servers, candidate), &difference) {
				best, found = candidate[:min(difference.Step+1, len(candidate))], difference
			} else {
				start += size
			}
		}
		if size == 1 && len(best) == before {
			return best, found
		}
	}
}
