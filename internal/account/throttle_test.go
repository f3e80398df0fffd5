package account

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/clock"
)

func TestTheWaitDoublesFromTheFifthFailure(t *testing.T) {
	for _, exists := range []bool{true, false} {
		c := clock.NewFake(morning)
		th := NewThrottle(c)
		var waits []int64
		for range 17 {
			a, refusal := th.begin("acct/native:alice", exists, netip.Addr{})
			if refusal != nil {
				t.Fatalf("exists %t: refused after %v: %v", exists, waits, refusal)
			}
			a.fail()
			_, refusal = th.begin("acct/native:alice", exists, netip.Addr{})
			if refusal == nil {
				waits = append(waits, 0)
				abandon(th, "acct/native:alice", exists)
				continue
			}
			if refusal.Code != api.LoginThrottled {
				t.Fatalf("code %d, want %d", refusal.Code, api.LoginThrottled)
			}
			waits = append(waits, refusal.Data.RetryAfterSeconds)
			c.Advance(time.Duration(refusal.Data.RetryAfterSeconds)*time.Second - 1)
			if _, refusal := th.begin("acct/native:alice", exists, netip.Addr{}); refusal == nil || refusal.Data.RetryAfterSeconds != 1 {
				t.Fatalf("exists %t: a nanosecond too early gets %v", exists, refusal)
			}
			c.Advance(1)
		}
		want := "[0 0 0 0 1 2 4 8 16 32 64 128 256 512 900 900 900]"
		if got := fmt.Sprint(waits); got != want {
			t.Errorf("exists %t: waits are %s, want %s", exists, got, want)
		}
	}
}

func TestASuccessEndsTheRowOfFailures(t *testing.T) {
	th := NewThrottle(clock.NewFake(morning))
	for range 10 {
		for range freeFailures - 1 {
			begin(t, th, "acct/native:alice", netip.Addr{}).fail()
		}
		begin(t, th, "acct/native:alice", netip.Addr{}).pass()
	}
	if len(th.accounts) != 0 {
		t.Errorf("%d counters are kept for nobody", len(th.accounts))
	}
}

func TestWhatWasNotCheckedIsNotCounted(t *testing.T) {
	th := NewThrottle(clock.NewFake(morning))
	address := netip.MustParseAddr("192.0.2.1")
	for range 10 * addressBurst {
		begin(t, th, "acct/native:alice", address).refund()
	}
	if len(th.accounts) != 0 {
		t.Errorf("%d counters are kept for nobody", len(th.accounts))
	}
}

// After a wait there is one more guess, not one for each who waited.
func TestOneGuessFollowsAWait(t *testing.T) {
	c := clock.NewFake(morning)
	th := NewThrottle(c)
	for range freeFailures {
		begin(t, th, "acct/native:alice", netip.Addr{}).fail()
	}
	c.Advance(firstWait)
	guess := begin(t, th, "acct/native:alice", netip.Addr{})
	if _, refusal := th.begin("acct/native:alice", true, netip.Addr{}); refusal == nil || refusal.Code != api.Overloaded {
		t.Errorf("a second at once gets %v, want %d", refusal, api.Overloaded)
	}
	guess.fail()
	if _, refusal := th.begin("acct/native:alice", true, netip.Addr{}); refusal == nil || refusal.Data.RetryAfterSeconds != 2 {
		t.Errorf("the next gets %+v, want a wait of 2 s", refusal)
	}
}

// A success while others guess does not wash away the guesses under way.
func TestGuessesUnderWayOutlastASuccess(t *testing.T) {
	th := NewThrottle(clock.NewFake(morning))
	var guesses []*attempt
	for range freeFailures - 1 {
		guesses = append(guesses, begin(t, th, "acct/native:alice", netip.Addr{}))
	}
	begin(t, th, "acct/native:alice", netip.Addr{}).pass()
	for _, g := range guesses {
		g.fail()
	}
	begin(t, th, "acct/native:alice", netip.Addr{}).fail()
	if _, refusal := th.begin("acct/native:alice", true, netip.Addr{}); refusal == nil {
		t.Error("a sixth guess is let through")
	}
}

func TestFailuresAreForgotten(t *testing.T) {
	for _, tt := range []struct {
		failures int
		after    time.Duration
		refused  bool // one more failure makes a wait
	}{
		{4, time.Hour, true},
		{4, time.Hour + 1, false},
		{5, 24 * time.Hour, true},
		{5, 24*time.Hour + 1, false},
	} {
		c := clock.NewFake(morning)
		th := NewThrottle(c)
		for range tt.failures {
			begin(t, th, "acct/native:alice", netip.Addr{}).fail()
		}
		c.Advance(tt.after)
		begin(t, th, "acct/native:alice", netip.Addr{}).fail()
		if _, refusal := th.begin("acct/native:alice", true, netip.Addr{}); (refusal != nil) != tt.refused {
			t.Errorf("%d failures, one more after %v: %v", tt.failures, tt.after, refusal)
		}
	}
}

func TestInventedNamesMoveNoAccount(t *testing.T) {
	th := NewThrottle(clock.NewFake(morning))
	for range freeFailures - 1 {
		begin(t, th, "acct/native:alice", netip.Addr{}).fail()
	}
	for i := range 100_000 {
		if a, refusal := th.begin(fmt.Sprint("acct/native:invented", i), false, netip.Addr{}); refusal == nil {
			a.fail()
		}
	}
	if c := th.accounts["acct/native:alice"]; c == nil || *c != (counter{last: morning.UnixNano(), failed: freeFailures - 1}) {
		t.Errorf("the counter is now %+v", c)
	}
	if len(th.accounts) != 1 {
		t.Errorf("invented names take up %d counters", len(th.accounts)-1)
	}
}

func TestManyFailingAccountsAreSwept(t *testing.T) {
	c := clock.NewFake(morning)
	th := NewThrottle(c)
	for i := range 5000 {
		begin(t, th, fmt.Sprint("acct/native:user", i), netip.Addr{}).fail()
		c.Advance(10 * time.Second)
	}
	if n := len(th.accounts); n > 2048 {
		t.Errorf("%d counters are kept, at most 361 of them count", n)
	}
}

func TestAnAddressHasAnAllowance(t *testing.T) {
	c := clock.NewFake(morning)
	th := NewThrottle(c)
	guess := func(i int, from string) *api.Error {
		a, refusal := th.begin(fmt.Sprint("acct/native:user", i), true, netip.MustParseAddr(from))
		if refusal == nil {
			a.fail()
		}
		return refusal
	}
	for i := range addressBurst {
		if refusal := guess(i, fmt.Sprintf("2001:db8::%x", i)); refusal != nil {
			t.Fatalf("guess %d is refused: %v", i, refusal)
		}
	}
	for _, tt := range []struct {
		from    string
		refused bool
	}{
		{"2001:db8::ffff", true},
		{"2001:db8::1%eth0", true},
		{"2001:db8:0:1::1", false},
		{"192.0.2.1", false},
	} {
		if refusal := guess(1000, tt.from); (refusal != nil) != tt.refused {
			t.Errorf("%s: %v", tt.from, refusal)
		}
	}
	refusal := guess(1001, "2001:db8::1")
	if refusal == nil || refusal.Code != api.LoginThrottled || refusal.Data.RetryAfterSeconds != 10 {
		t.Fatalf("the refusal is %+v, want 10 s", refusal)
	}
	c.Advance(10 * time.Second)
	if refusal := guess(1001, "2001:db8::1"); refusal != nil {
		t.Errorf("after the wait: %v", refusal)
	}
	if refusal := guess(1002, "2001:db8::1"); refusal == nil {
		t.Error("a second guess within the pace is let through")
	}
}

func TestMappedAddressesAreOne(t *testing.T) {
	for _, text := range []string{"::ffff:192.0.2.1", "192.0.2.1"} {
		if got, want := network(netip.MustParseAddr(text)), netip.MustParseAddr("192.0.2.1"); got != want {
			t.Errorf("network(%s) = %s, want %s", text, got, want)
		}
	}
}

// Whatever happens in whatever order, both kinds of counters answer alike, and
// never more checks are under way than there are free failures.
func TestBothCountersAnswerAlike(t *testing.T) {
	c := clock.NewFake(morning)
	known, invented := NewThrottle(c), NewThrottle(c)
	rapid.Check(t, func(t *rapid.T) {
		c.Advance(2 * forgetMany)
		var a, b []*attempt
		defer func() {
			for i := range a {
				a[i].pass()
				b[i].pass()
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				x, refusedX := known.begin("acct/native:alice", true, netip.Addr{})
				y, refusedY := invented.begin("acct/native:alice", false, netip.Addr{})
				if (refusedX == nil) != (refusedY == nil) || refusedX != nil && fmt.Sprintf("%+v", *refusedX) != fmt.Sprintf("%+v", *refusedY) {
					t.Fatalf("an account answers %v, an invented name %v", refusedX, refusedY)
				}
				if refusedX == nil {
					a, b = append(a, x), append(b, y)
				}
				if len(a) > freeFailures {
					t.Fatalf("%d are under way", len(a))
				}
			},
			"end": func(t *rapid.T) {
				if len(a) == 0 {
					t.Skip("nothing is under way")
				}
				i := rapid.IntRange(0, len(a)-1).Draw(t, "which")
				switch rapid.IntRange(0, 4).Draw(t, "how") {
				case 0:
					a[i].pass()
					b[i].pass()
				case 1:
					a[i].refund()
					b[i].refund()
				default:
					a[i].fail()
					b[i].fail()
				}
				a, b = append(a[:i:i], a[i+1:]...), append(b[:i:i], b[i+1:]...)
			},
			"wait": func(t *rapid.T) {
				c.Advance(time.Duration(rapid.IntRange(0, 2000).Draw(t, "seconds")) * time.Second)
			},
		})
	})
}

func BenchmarkThrottle(b *testing.B) {
	th := NewThrottle(clock.NewFake(morning))
	from := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		a, _ := th.begin("acct/native:alice", true, from)
		a.pass()
	}
}

var morning = time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC)

func begin(t *testing.T, th *Throttle, key string, from netip.Addr) *attempt {
	t.Helper()
	a, refusal := th.begin(key, true, from)
	if refusal != nil {
		t.Fatal(refusal)
	}
	return a
}

// abandon takes back the charge that a question for the wait has cost.
func abandon(th *Throttle, key string, exists bool) {
	if exists {
		th.accounts[key].pending--
		return
	}
	th.nameCell(key).pending--
}
