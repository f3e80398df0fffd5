package account

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sessiond/internal/api"
)

// Who finds a place in a queue of 16, by lane: f and o are familiar ones and
// others without a network, 1 to 9 are others of a network, a to e familiar ones
// of one. In what came of it, x was refused.
func TestPlacesOfTheQueue(t *testing.T) {
	for _, tt := range []struct{ why, come, want string }{
		{"familiar ones may hold all", "ffffffffffffffffff", "ffffffffffffffffxx"},
		{"others half", "oooooooooo", "ooooooooxx"},
		{"others leave the familiar their half", "oooooooooffffffffff", "ooooooooxffffffffxx"},
		{"others get what the familiar leave", "ffffffffffffffooooo", "ffffffffffffffooxxx"},
		{"a network a quarter", "11111122222233", "1111xx2222xxxx"},
		{"in each line", "111111aaaaaa", "1111xxaaaaxx"},
		{"without a network nothing is counted", "oooooooo", "oooooooo"},
	} {
		q := newQueue()
		var got strings.Builder
		for _, c := range tt.come {
			if q.push(&job{lane: laneOf(c)}, 16) {
				got.WriteRune(c)
			} else {
				got.WriteByte('x')
			}
		}
		if got.String() != tt.want {
			t.Errorf("%s: %s gives %s, want %s", tt.why, tt.come, got.String(), tt.want)
		}
	}
}

// Whose turn it is: familiar ones first, but one of the others after four.
func TestOrderOfTheQueue(t *testing.T) {
	for _, tt := range []struct{ why, come, want string }{
		{"first come, first served", "123", "123"},
		{"familiar ones first", "12ab", "ab12"},
		{"but not for ever", "12abcdeabcde", "abcd1eabc2de"},
		{"others do not wait for nobody", "1234", "1234"},
	} {
		q := newQueue()
		lanes := map[*job]rune{}
		for _, c := range tt.come {
			j := &job{lane: laneOf(c)}
			lanes[j] = c
			if !q.push(j, 64) {
				t.Fatalf("%s: no place for %c", tt.why, c)
			}
		}
		var got strings.Builder
		for j := q.pop(); j != nil; j = q.pop() {
			got.WriteRune(lanes[j])
		}
		if got.String() != tt.want {
			t.Errorf("%s: %s is taken as %s, want %s", tt.why, tt.come, got.String(), tt.want)
		}
		if q.len() != 0 || len(q.networks) != 0 {
			t.Errorf("%s: an empty queue holds %d jobs and %d networks", tt.why, q.len(), len(q.networks))
		}
	}
}

// Even the smallest queue has a place for anybody.
func TestTheSmallestQueue(t *testing.T) {
	for _, c := range "fo1a" {
		if q := newQueue(); !q.push(&job{lane: laneOf(c)}, 1) || q.push(&job{lane: laneOf(c)}, 1) {
			t.Errorf("lane %c: a queue of one place does not take one", c)
		}
	}
}

// While strangers fill their line, one who is known is served next.
func TestAFloodDoesNotKeepTheFamiliarOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHasherCost(1, 64, cheap)
		var wg sync.WaitGroup
		refused := 0
		for i := range 200 {
			wg.Go(func() {
				lane := Lane{Network: netip.AddrFrom4([4]byte{127, 0, 1, byte(i)})}
				if err := h.do(t.Context(), lane, func(*worker) { time.Sleep(30 * time.Millisecond) }); err != nil {
					refused++
				}
			})
			synctest.Wait()
		}
		if refused != 200-1-32 {
			t.Errorf("%d of 200 were refused; one is served and 32 may wait", refused)
		}
		begun := time.Now()
		if err := h.do(t.Context(), Lane{Familiar: true}, func(*worker) {}); err != nil {
			t.Errorf("one who is known: %v", err)
		}
		if waited := time.Since(begun); waited > 30*time.Millisecond {
			t.Errorf("one who is known waits %v, want no more than the hash under way", waited)
		}
		wg.Wait()
		h.Close()
	})
}

// As many may wait as are worked off within two seconds, 64 at most. The time to
// come back is what they need at the pace of late, on all workers, in whole
// seconds.
func TestTheQueueIsBoundedInTime(t *testing.T) {
	for _, tt := range []struct {
		workers int
		each    time.Duration
		places  int
		want    int64
	}{
		{1, 27 * time.Millisecond, 64, 2},
		{2, 27 * time.Millisecond, 64, 1},
		{1, time.Millisecond, 64, 1},
		{1, 100 * time.Millisecond, 20, 2},
		{2, 100 * time.Millisecond, 40, 2},
		{1, 3 * time.Second, 4, 12}, // some may wait at any pace
		{1, time.Hour, 4, 40},       // no hash takes that long: a step of the clock
	} {
		synctest.Test(t, func(t *testing.T) {
			h := NewHasherCost(tt.workers, 64, cheap)
			if got := h.overloaded().Data.RetryAfterSeconds; got != 1 {
				t.Errorf("before anything was measured: %d s, want 1", got)
			}
			for range 200 {
				h.took(tt.each)
			}
			release := make(chan struct{})
			var wg sync.WaitGroup
			for range tt.workers + tt.places {
				wg.Go(func() {
					if err := h.do(t.Context(), Lane{Familiar: true}, func(*worker) { <-release }); err != nil {
						t.Errorf("%d workers, %v each: %v, although fewer wait than %d", tt.workers, tt.each, err, tt.places)
					}
				})
				synctest.Wait()
			}
			_, err := h.Hash(t.Context(), Lane{Familiar: true}, api.NewSecret("x"))
			if e := api.FromError(err); e.Code != api.Overloaded || e.Data.RetryAfterSeconds != tt.want {
				t.Errorf("%d workers, %v each: %v after %d s, want %d", tt.workers, tt.each, err, e.Data.RetryAfterSeconds, tt.want)
			}
			close(release)
			wg.Wait()
			h.Close()
		})
	}
}

// The pace is measured.
func TestTheMeasuredPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHasherCost(1, 64, cheap)
		for range 100 {
			_ = h.do(t.Context(), Lane{}, func(*worker) { time.Sleep(40 * time.Millisecond) })
		}
		h.Close()
		if h.pace < 39*time.Millisecond || h.pace > 40*time.Millisecond {
			t.Errorf("hashes of 40 ms are taken for %v", h.pace)
		}
	})
}

// Whoever goes away leaves his place at once.
func TestAPlaceThatIsLeftIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHasherCost(1, 1, cheap)
		release := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { _ = h.do(t.Context(), Lane{}, func(*worker) { <-release }) })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { _ = h.do(ctx, laneOf('1'), func(*worker) { t.Error("it ran") }) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		wg.Go(func() {
			if err := h.do(t.Context(), laneOf('1'), func(*worker) {}); err != nil {
				t.Errorf("the place is still taken: %v", err)
			}
		})
		synctest.Wait()
		close(release)
		wg.Wait()
		h.Close()
	})
}

func laneOf(c rune) Lane {
	switch {
	case c == 'o' || c == 'f':
		return Lane{Familiar: c == 'f'}
	case c >= 'a':
		return Lane{Familiar: true, Network: netip.AddrFrom4([4]byte{192, 0, 2, byte(c)})}
	}
	return Lane{Network: netip.AddrFrom4([4]byte{192, 0, 2, byte(c)})}
}
