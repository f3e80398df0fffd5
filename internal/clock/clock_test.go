package clock_test

import (
	"sync"
	"testing"
	"time"

	"sessiond/internal/clock"
)

// Whoever asks later is told no earlier time, whichever goroutine he is.
func TestTheSystemsTimeNeverGoesBack(t *testing.T) {
	system := clock.NewSystem()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := system.Now()
			for range 20_000 {
				now := system.Now()
				if now.Before(last) {
					t.Errorf("%v comes after %v", now, last)
					return
				}
				last = now
			}
		})
	}
	wg.Wait()
	if now := system.Now(); now.Location() != time.UTC || time.Since(now).Abs() > time.Minute {
		t.Errorf("it is %v", now)
	}
}

func TestAFakeClockStandsStill(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 15, 0, 0, time.FixedZone("", 3600))
	fake := clock.NewFake(start)
	if a, b := fake.Now(), fake.Now(); !a.Equal(start) || a != b || a.Location() != time.UTC {
		t.Errorf("it moves: %v, %v", a, b)
	}
	fake.Advance(-time.Hour)
	if got := fake.Now(); !got.Equal(start.Add(-time.Hour)) {
		t.Errorf("it was moved to %v", got)
	}
}
