package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"sessiond/internal/api"
	"sessiond/internal/logging"
)

func TestRecords(t *testing.T) {
	id, err := api.ParseID("0000000000000000000012")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		level string
		write func(*logging.Logger)
		want  string
	}{
		{"every kind of field", "info", func(l *logging.Logger) {
			l.Info("listening", logging.Str("service", "main"), logging.Int("port", 8080), logging.Bool("tls", true),
				logging.Dur("ms", 1500*time.Microsecond), logging.Err(errors.New("none")), logging.Err(nil))
		}, `{"level":"info","time":"2026-03-02T08:15:00.250Z","service":"main","port":8080,"tls":true,"ms":1.5,"error":"none","message":"listening"}`},
		{
			"a newline forges no line", "info", func(l *logging.Logger) { l.Warn("m", logging.Str("user", "a\nb\x1b[31m")) },
			`{"level":"warn","time":"2026-03-02T08:15:00.250Z","user":"a\\u000ab\\u001b[31m","message":"m"}`,
		},
		{
			"bidi, separators, C1 and bad UTF-8 are shown, not obeyed", "info", func(l *logging.Logger) { l.Error("m", logging.Str("user", "a\u202eb\u2028c\u0085d\xff\ufeff")) },
			`{"level":"error","time":"2026-03-02T08:15:00.250Z","user":"a\\u202eb\\u2028c\\u0085d\\xff\\ufeff","message":"m"}`,
		},
		{
			"letters of every language pass", "info", func(l *logging.Logger) { l.Info("m", logging.Str("user", `"Žofie" 雪`)) },
			`{"level":"info","time":"2026-03-02T08:15:00.250Z","user":"\"Žofie\" 雪","message":"m"}`,
		},
		{
			"long text is cut between characters", "info", func(l *logging.Logger) { l.Info("m", logging.Str("user", strings.Repeat("é", 200)+"x")) },
			`{"level":"info","time":"2026-03-02T08:15:00.250Z","user":"` + strings.Repeat("é", 128) + `...","message":"m"}`,
		},
		{
			"a secret does not show", "info", func(l *logging.Logger) { l.Info("m", logging.Str("token", api.NewSecret("hunter2").String())) },
			`{"level":"info","time":"2026-03-02T08:15:00.250Z","token":"[redacted]","message":"m"}`,
		},
		{"below the level: nothing", "warn", func(l *logging.Logger) { l.Info("m"); l.Debug("m"); l.Trace("m") }, ``},
		{
			"trace writes all", "trace", func(l *logging.Logger) { l.Trace("m") },
			`{"level":"trace","time":"2026-03-02T08:15:00.250Z","message":"m"}`,
		},
		{
			"an unknown level means info", "disabled", func(l *logging.Logger) { l.Debug("m"); l.Info("m") },
			`{"level":"info","time":"2026-03-02T08:15:00.250Z","message":"m"}`,
		},
		{"a request", "info", func(l *logging.Logger) {
			l.Request(logging.Line{
				API: "session", Action: "validate", Session: id, Code: api.InvalidAuthToken, Took: 1234567 * time.Nanosecond,
				Address: netip.MustParseAddr("fe80::1%eth0"), Err: errors.New("expired"), Warnings: 2,
			})
		}, `{"level":"info","time":"2026-03-02T08:15:00.250Z","api":"session","action":"validate","session":"sh_0000000000000000000012","code":12031,"ms":1.234,"address":"fe80::1","warnings":2,"error":"expired","message":"request"}`},
		{
			"a request of which nothing is known", "info", func(l *logging.Logger) { l.Request(logging.Line{Code: api.BadEnvelope}) },
			`{"level":"info","time":"2026-03-02T08:15:00.250Z","code":21001,"ms":0,"message":"request"}`,
		},
		{
			"the server's own failure is an error", "error", func(l *logging.Logger) { l.Request(logging.Line{Code: api.StorageFailed}); l.Request(logging.Line{}) },
			`{"level":"error","time":"2026-03-02T08:15:00.250Z","code":21903,"ms":0,"message":"request"}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			c.write(logging.New(&out, c.level, logging.JSON, clock))
			if got := strings.TrimSuffix(out.String(), "\n"); got != c.want {
				t.Errorf("written\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestConsoleIsOneLineForPeople(t *testing.T) {
	var out bytes.Buffer
	logging.New(&out, "info", logging.Console, clock).Info("listening", logging.Str("address", "127.0.0.1:8080"), logging.Str("user", "a\nb"))
	want := `2026-03-02T08:15:00.250Z INF listening address=127.0.0.1:8080 user="a\\u000ab"` + "\n"
	if got := out.String(); got != want {
		t.Errorf("written %q, want %q", got, want)
	}
}

func TestNopWritesNothing(*testing.T) {
	logging.Nop().Error("m", logging.Str("k", "v"))
	logging.Nop().Request(logging.Line{Code: api.Internal})
}

// One record is one line of valid JSON in which nothing is invisible, whatever
// was in its fields.
func FuzzOneRecordIsOneLine(f *testing.F) {
	f.Add("", "")
	f.Add("a\r\n{\"level\":\"error\"}", "\u202e\u2066\u2028\x00\x7f\u009b")
	f.Add(strings.Repeat("é", 129), "\xf0\x9f\x98")
	f.Fuzz(func(t *testing.T, value, reason string) {
		for _, format := range []string{logging.JSON, logging.Console} {
			var out bytes.Buffer
			l := logging.New(&out, "info", format, clock)
			l.Info("message", logging.Str("value", value), logging.Err(errors.New(reason)))
			l.Request(logging.Line{API: value, Action: value, Err: errors.New(reason)})
			lines := strings.SplitAfter(out.String(), "\n")
			if len(lines) != 3 || lines[2] != "" {
				t.Fatalf("%d lines for 2 records: %q", len(lines)-1, lines)
			}
			for _, line := range lines[:2] {
				line = strings.TrimSuffix(line, "\n")
				if format == logging.JSON && !json.Valid([]byte(line)) {
					t.Fatalf("not JSON: %q", line)
				}
				if !utf8.ValidString(line) {
					t.Fatalf("not UTF-8: %q", line)
				}
				for _, r := range line {
					if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
						t.Fatalf("%U in %q", r, line)
					}
				}
			}
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	l := logging.New(discard{}, "info", logging.JSON, clock)
	line := logging.Line{API: "session", Action: "createSession", Session: api.ID{1}, Took: time.Millisecond, Address: netip.MustParseAddr("192.0.2.7")}
	b.ReportAllocs()
	for b.Loop() {
		l.Request(line)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func clock() time.Time { return time.Date(2026, 3, 2, 8, 15, 0, 250e6, time.UTC) }
