package bolt

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSlowCommitsAreToldOfOnceAMinute(t *testing.T) {
	for _, tt := range []struct {
		name  string
		takes []time.Duration // each a commit, or below 0 a pause before the next
		want  []time.Duration // told of
	}{
		{"quick", []time.Duration{time.Millisecond, 999 * time.Millisecond}, nil},
		{"slow", []time.Duration{1500 * time.Millisecond}, []time.Duration{1500 * time.Millisecond}},
		{"again and again", []time.Duration{2 * time.Second, 3 * time.Second, 4 * time.Second}, []time.Duration{2 * time.Second}},
		{"again after a minute", []time.Duration{2 * time.Second, -time.Minute, 3 * time.Second}, []time.Duration{2 * time.Second, 3 * time.Second}},
		{"it hangs", []time.Duration{150 * time.Second}, []time.Duration{10 * time.Second, 70 * time.Second, 130 * time.Second, 150 * time.Second}},
		{"quick after one that hung", []time.Duration{15 * time.Second, time.Millisecond}, []time.Duration{10 * time.Second, 15 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []time.Duration
				p := stopwatch{now: time.Now, report: func(took time.Duration) { got = append(got, took) }}
				for _, d := range tt.takes {
					if d < 0 {
						time.Sleep(-d)
						continue
					}
					p.begin()
					time.Sleep(d)
					p.end()
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("told of (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// The machine's clock says an hour, but the commit was quick.
func TestAJumpOfTheClockIsNoSlowCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		p := stopwatch{now: func() time.Time { return now }, report: func(took time.Duration) { t.Errorf("told of %v", took) }}
		p.begin()
		now = now.Add(time.Hour)
		p.end()
	})
}
