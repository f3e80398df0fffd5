//go:build linux && bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// script is what wrk runs: it sends the bodies of a file one after the other, each
// made a whole request beforehand, so that sending one costs the same whatever it
// says.
const script = `
local requests, count, n = {}, 0, 0

function init(args)
  for body in io.lines(args[1]) do
    count = count + 1
    requests[count] = "POST /api HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
  end
end

function request()
  n = n % count + 1
  return requests[n]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`

// slice is what one run of the load has measured.
type slice struct {
	perSecond float64
	perCPU    float64       // requests in a second of the server's processor time
	bytes     float64       // of an answer, headers included
	p50, p99  time.Duration // from request to answer
}

// load sends requests with these bodies to a server for a while.
func load(t *testing.T, c *child, bodies []string, flight int, d time.Duration) slice {
	t.Helper()
	dir := t.TempDir()
	lua, file := filepath.Join(dir, "load.lua"), filepath.Join(dir, "bodies")
	for path, text := range map[string]string{lua: script, file: strings.Join(bodies, "\n")} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cmd := pinned(t, loadCore, "wrk", "-t1", "-c", strconv.Itoa(flight), "-d", fmt.Sprintf("%ds", int(d.Seconds())), "-s", lua, c.url, "--", file)
	before := c.cpu(t)
	out, err := cmd.CombinedOutput()
	used := c.cpu(t) - before
	if err != nil {
		t.Fatalf("wrk: %v (make deps installs it)\n%s", err, out)
	}
	_, line, _ := strings.Cut(string(out), "RESULT ")
	var requests, micros, bytes, p50, p99, errors int64
	if _, err := fmt.Sscan(line, &requests, &micros, &bytes, &p50, &p99, &errors); err != nil {
		t.Fatalf("wrk: %v in\n%s", err, out)
	}
	if errors > 0 || requests == 0 {
		t.Fatalf("wrk: %d errors, %d requests:\n%s%s", errors, requests, out, c.tail())
	}
	return slice{
		perSecond: float64(requests) / (float64(micros) / 1e6),
		perCPU:    float64(requests) / used.Seconds(),
		bytes:     float64(bytes) / float64(requests),
		p50:       time.Duration(p50) * time.Microsecond,
		p99:       time.Duration(p99) * time.Microsecond,
	}
}
