package event_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sessiond/internal/event"
	"sessiond/store"
	"sessiond/store/mem"
)

const long = time.Hour

func kinds(of ...event.Kind) event.Query { return event.Query{Kinds: of} }

// A wait ends with the first event that fits, and tells where to go on.
func TestNextWaitsForWhatFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, tail := tailOf(t, 3)
		got := make(chan event.Batch, 1)
		go func() { got <- next(t, tail, tail.Head(), kinds(event.SessionEnded), long) }()
		synctest.Wait()
		commit(t, s, event.SessionCreated, event.SessionAltered)
		synctest.Wait()
		if len(got) != 0 {
			t.Fatalf("answered before it happened: %+v", <-got)
		}
		commit(t, s, event.SessionEnded)
		if b := <-got; !slices.Equal(positions(b), []uint64{6}) || b.At != 6 || b.Gap {
			t.Errorf("%+v", b)
		}
	})
}

// What ends a wait without an event: the cursor goes on all the same, without a
// look into the store.
func TestAWaitIsOver(t *testing.T) {
	for _, tt := range []struct {
		why  string
		wait time.Duration
		end  func(tail *event.Tail, cancel func(), wanted *atomic.Bool)
		took time.Duration
	}{
		{"its time is", 7 * time.Second, func(*event.Tail, func(), *atomic.Bool) {}, 7 * time.Second},
		{"the server drains", long, func(tail *event.Tail, _ func(), _ *atomic.Bool) { tail.Drain() }, 0},
		{"its context ends", long, func(_ *event.Tail, cancel func(), _ *atomic.Bool) { cancel() }, 0},
		{"nobody wants it any more", long, func(_ *event.Tail, _ func(), wanted *atomic.Bool) { wanted.Store(false) }, 800 * time.Millisecond},
	} {
		t.Run(tt.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, tail := tailOf(t, 3)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var wanted atomic.Bool
				wanted.Store(true)
				got := make(chan event.Batch, 1)
				begun := time.Now()
				go func() {
					b, err := tail.Next(ctx, 3, kinds(event.SessionEnded), tt.wait, wanted.Load)
					if err != nil {
						t.Error(err)
					}
					got <- b
				}()
				synctest.Wait()
				commit(t, s, event.SessionCreated)
				synctest.Wait()
				tt.end(tail, cancel, &wanted)
				if b := <-got; len(b.Events) != 0 || b.At != 4 || b.Gap {
					t.Errorf("%+v", b)
				}
				if took := time.Since(begun); took != tt.took {
					t.Errorf("it took %v, want %v", took, tt.took)
				}
			})
		})
	}
}

// Readers who follow their cursors see each event that fits once and in commit
// order, whatever is committed meanwhile, however far they are behind.
func TestNothingIsLostOrRepeated(t *testing.T) {
	const writers, each, readers = 8, 900, 12
	s := &slow{Store: mem.New()}
	commit(t, s, event.AccountCreated)
	tail := open(t, s)
	begin := tail.Head()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				kind := event.SessionCreated
				if (w+i)%3 == 0 {
					kind = event.SessionEnded
				}
				commit(t, s, kind)
			}
		})
	}
	seen := make([][]uint64, readers)
	for r := range readers {
		wg.Go(func() {
			q := kinds(event.SessionEnded)
			q.Limit = []int{1, 7, 1000}[r%3]
			for at := begin; at < begin+writers*each; {
				b := next(t, tail, at, q, time.Second)
				if b.Gap || b.At < at {
					t.Errorf("from %d: %+v", at, b)
					return
				}
				seen[r], at = append(seen[r], positions(b)...), b.At
				if at, err := tail.Position(b.Cursor()); err != nil || at != b.At {
					t.Errorf("%d has the cursor %q, which is %d, %v", b.At, b.Cursor(), at, err)
				}
			}
		})
	}
	wg.Wait()
	want := readAll(t, s, event.Query{Kinds: []event.Kind{event.SessionEnded}, Oldest: true, Limit: 1000})
	if len(want) != writers*each/3 {
		t.Fatalf("%d happened", len(want))
	}
	for r := range seen {
		if !slices.Equal(seen[r], want) {
			t.Errorf("reader %d saw %d events, in order: %v; want %d", r, len(seen[r]), slices.IsSorted(seen[r]), len(want))
		}
	}
}

// A thousand who wait for what does not come cost the store nothing.
func TestWaitersDoNotReadTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{Store: mem.New()}
		commit(t, s, event.AccountCreated)
		tail := open(t, s)
		s.lists.Store(0)
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				for at := uint64(1); at < 500; {
					b := next(t, tail, at, kinds(event.LoginFailed), 3*time.Second)
					if len(b.Events) != 0 {
						t.Errorf("%+v", b)
					}
					at = b.At
				}
			})
		}
		for range 500 {
			commit(t, s, event.SessionCreated)
		}
		wg.Wait()
		if n := s.lists.Load(); n != 0 {
			t.Errorf("the store was read %d times", n)
		}
	})
}

// Who comes back after more has happened than is kept in memory is answered from
// the store; who comes back after that was purged is told.
func TestWhoIsFarBehind(t *testing.T) {
	s, tail := tailOf(t, 1)
	flood(t, s, 6000)
	read := func(after uint64) (all []uint64, gaps int) {
		for after < tail.Head() {
			b := next(t, tail, after, event.Query{}, 0)
			if b.Gap {
				gaps++
			}
			all, after = append(all, positions(b)...), b.At
		}
		return all, gaps
	}
	for _, tt := range []struct {
		why           string
		purge         uint64 // up to this event
		after         uint64
		first, events int
		gaps          int
	}{
		{"from the beginning", 0, 1, 2, 6000, 0},
		{"from the edge of memory", 0, 1905, 1906, 4096, 0},
		{"beyond the edge", 0, 1904, 1905, 4097, 0},
		{"what comes next has been purged", 100, 99, 101, 5901, 1},
		{"what comes next has not", 100, 100, 101, 5901, 0},
		{"up to memory", 1905, 7, 1906, 4096, 1},
	} {
		if err := event.Purge(t.Context(), s, morning.Add(time.Duration(tt.purge)*time.Minute).Add(time.Second), always); err != nil {
			t.Fatal(err)
		}
		all, gaps := read(tt.after)
		if len(all) != tt.events || all[0] != uint64(tt.first) || !slices.IsSorted(all) || gaps != tt.gaps {
			t.Errorf("%s: %d events from %d on, %d gaps; want %d from %d on, %d", tt.why, len(all), all[0], gaps, tt.events, tt.first, tt.gaps)
		}
	}
	if err := event.Purge(t.Context(), s, morning.Add(long*1e4), always); err != nil {
		t.Fatal(err)
	}
	again := open(t, s)
	if again.Head() != 6001 {
		t.Errorf("a log that was purged to its end begins at %d", again.Head())
	}
	if b := next(t, again, 17, event.Query{}, long); !b.Gap || len(b.Events) != 0 || b.At != 6001 {
		t.Errorf("from what was purged to the end: %+v", b)
	}
}

func TestPositions(t *testing.T) {
	_, tail := tailOf(t, 3)
	for cursor, want := range map[string]uint64{"": 3, "o1": 1, "o3": 3} {
		if at, err := tail.Position(cursor); at != want || err != nil {
			t.Errorf("%q: %d, %v", cursor, at, err)
		}
	}
	for _, cursor := range []string{"o4", "n1", "o0", "o", "x", "o-1", " o1"} {
		if at, err := tail.Position(cursor); err == nil {
			t.Errorf("%q: %d", cursor, at)
		}
	}
}

// After more came at once than is kept, events are handed out again, though there was
// no moment at which nobody waited.
func TestHandingOutGoesOnAfterAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, tail := tailOf(t, 1)
		asked, answer := make(chan struct{}), make(chan bool)
		var wg sync.WaitGroup
		wg.Go(func() {
			b, err := tail.Next(t.Context(), tail.Head(), kinds(event.LoginFailed), long, func() bool {
				asked <- struct{}{}
				return <-answer
			})
			if err != nil || len(b.Events) != 1 {
				t.Errorf("%+v, %v", b, err)
			}
		})
		<-asked // it waits, and does not notice yet
		shown, others := make(chan struct{}), kinds()
		others.Only = func(e *event.Event) bool {
			if e.Kind == event.SessionAltered { // it keeps the one who hands out busy
				shown <- struct{}{}
				<-shown
			}
			return e.Kind == event.LoginFailed
		}
		other := make(chan event.Batch, 1)
		go func() { other <- next(t, tail, tail.Head(), others, long) }()
		synctest.Wait()
		commit(t, s, event.SessionAltered)
		<-shown
		flood(t, s, 5000)
		shown <- struct{}{}
		synctest.Wait()
		commit(t, s, event.SessionCreated)
		synctest.Wait()
		if handed, head := tail.Handed(), tail.Head(); handed != head {
			t.Errorf("handed out up to %d of %d", handed, head)
		}
		answer <- true
		commit(t, s, event.LoginFailed)
		if b := <-other; !slices.Equal(positions(b), []uint64{5004}) {
			t.Errorf("%+v", b)
		}
		wg.Wait()
	})
}

// Those who read the store do it in turn; none of them is waited for when the server
// stops.
func TestWhoIsFarBehindIsAnsweredWhenTheServerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{Store: mem.New(), held: make(chan struct{})}
		flood(t, s, 6000)
		tail := open(t, s)
		s.lists.Store(0)
		s.hold.Store(true)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { next(t, tail, 1, kinds(event.LoginFailed), long) })
		}
		synctest.Wait()
		tail.Drain()
		synctest.Wait()
		close(s.held)
		wg.Wait()
		if n := int(s.lists.Load()); n > runtime.GOMAXPROCS(0) {
			t.Errorf("the store was read %d times", n)
		}
	})
}

// slow is a store that counts its reads, and can hold them up.
type slow struct {
	store.Store

	lists atomic.Int64
	hold  atomic.Bool
	held  chan struct{} // closed when those that are held up go on
}

func (s *slow) List(ctx context.Context, r store.Range) ([]store.Item, error) {
	s.lists.Add(1)
	if s.hold.Load() {
		<-s.held
	}
	return s.Store.List(ctx, r)
}

// tailOf returns a store of n events, and its tail.
func tailOf(t *testing.T, n int) (store.Store, *event.Tail) {
	s := mem.New()
	for range n {
		commit(t, s, event.AccountCreated)
	}
	return s, open(t, s)
}

func open(t *testing.T, s store.Store) *event.Tail {
	t.Helper()
	tail, err := event.OpenTail(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tail.Close)
	return tail
}

// commit appends events, each a minute after the one at the position before it.
func commit(t *testing.T, s store.Store, of ...event.Kind) {
	var tx store.Tx
	for i, kind := range of {
		event.Append(&tx, event.Event{Kind: kind, Time: morning.Add(time.Duration(int(s.Rev())*len(of)+i-len(of)+2) * time.Minute), SessionHandle: fmt.Sprint("sh_", i)})
	}
	if _, err := s.Commit(t.Context(), tx); err != nil {
		t.Error(err)
	}
}

// flood appends n events, as many in a commit as there may be.
func flood(t *testing.T, s store.Store, n int) {
	for range n / 100 {
		commit(t, s, slices.Repeat([]event.Kind{event.SessionCreated}, 100)...)
	}
}

func next(t *testing.T, tail *event.Tail, after uint64, q event.Query, wait time.Duration) event.Batch {
	b, err := tail.Next(t.Context(), after, q, wait, nil)
	if err != nil {
		t.Error(err)
	}
	return b
}

func positions(b event.Batch) (all []uint64) {
	for i := range b.Events {
		all = append(all, b.Events[i].Seq)
	}
	return all
}
