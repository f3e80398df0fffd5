package account

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/clock"
)

func TestTheWaitDoublesFromTheFifthFailure(t *testing.T) {
	for _, exists := range []bool{true, false} {
		who := alice
		if !exists {
			who = nobody
		}
		c := clock.NewFake(morning)
		th := NewThrottle(c)
		var waits []int64
		for range 17 {
			a, refusal := th.begin(who, netip.Addr{})
			if refusal != nil {
				t.Fatalf("exists %t: refused after %v: %v", exists, waits, refusal)
			}
			a.fail()
			_, refusal = th.begin(who, netip.Addr{})
			if refusal == nil {
				waits = append(waits, 0)
				abandon(th, who)
				continue
			}
			if refusal.Code != api.LoginThrottled {
				t.Fatalf("code %d, want %d", refusal.Code, api.LoginThrottled)
			}
			waits = append(waits, refusal.Data.RetryAfterSeconds)
			c.Advance(time.Duration(refusal.Data.RetryAfterSeconds)*time.Second - 1)
			if _, refusal := th.begin(who, netip.Addr{}); refusal == nil || refusal.Data.RetryAfterSeconds != 1 {
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
			begin(t, th, alice, netip.Addr{}).fail()
		}
		begin(t, th, alice, netip.Addr{}).pass()
	}
	if len(th.accounts) != 0 {
		t.Errorf("%d counters are kept for nobody", len(th.accounts))
	}
}

func TestWhatWasNotCheckedIsNotCounted(t *testing.T) {
	th := NewThrottle(clock.NewFake(morning))
	address := netip.MustParseAddr("192.0.2.1")
	for range 10 * networkBurst {
		begin(t, th, alice, address).refund()
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
		begin(t, th, alice, netip.Addr{}).fail()
	}
	c.Advance(firstWait)
	guess := begin(t, th, alice, netip.Addr{})
	if _, refusal := th.begin(alice, netip.Addr{}); refusal == nil || refusal.Code != api.Overloaded {
		t.Errorf("a second at once gets %v, want %d", refusal, api.Overloaded)
	}
	guess.fail()
	if _, refusal := th.begin(alice, netip.Addr{}); refusal == nil || refusal.Data.RetryAfterSeconds != 2 {
		t.Errorf("the next gets %+v, want a wait of 2 s", refusal)
	}
}

// A success while others guess does not wash away the guesses under way.
func TestGuessesUnderWayOutlastASuccess(t *testing.T) {
	th := NewThrottle(clock.NewFake(morning))
	var guesses []*attempt
	for range freeFailures - 1 {
		guesses = append(guesses, begin(t, th, alice, netip.Addr{}))
	}
	begin(t, th, alice, netip.Addr{}).pass()
	for _, g := range guesses {
		g.fail()
	}
	begin(t, th, alice, netip.Addr{}).fail()
	if _, refusal := th.begin(alice, netip.Addr{}); refusal == nil {
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
			begin(t, th, alice, netip.Addr{}).fail()
		}
		c.Advance(tt.after)
		begin(t, th, alice, netip.Addr{}).fail()
		if _, refusal := th.begin(alice, netip.Addr{}); (refusal != nil) != tt.refused {
			t.Errorf("%d failures, one more after %v: %v", tt.failures, tt.after, refusal)
		}
	}
}

func TestInventedNamesMoveNoAccount(t *testing.T) {
	th := NewThrottle(clock.NewFake(morning))
	for range freeFailures - 1 {
		begin(t, th, alice, netip.Addr{}).fail()
	}
	name := []byte("acct/native:invented")
	for i := range 5_000_000 {
		to := target{name: string(strconv.AppendInt(name, int64(i), 10))}
		if a, refusal := th.begin(to, netip.Addr{}); refusal == nil {
			a.fail()
		}
	}
	if c := th.accounts[tallyKey{account: alice.account}]; c == nil || c.counter != (counter{last: morning.UnixNano(), failed: freeFailures - 1, alike: freeFailures - 1}) {
		t.Errorf("the counter is now %+v", c)
	}
	if len(th.accounts) != 1 {
		t.Errorf("invented names take up %d counters", len(th.accounts)-1)
	}
}

// However many accounts have failures, those of none are forgotten for others.
func TestManyFailuresPushNobodyOut(t *testing.T) {
	const accounts = 20_000
	th := NewThrottle(clock.NewFake(morning))
	for i := range accounts {
		begin(t, th, user(i), netip.Addr{}).fail()
	}
	for i := range accounts {
		if c := th.accounts[tallyKey{account: user(i).account}]; c == nil || c.failed != 1 {
			t.Fatalf("of %d accounts with one failure each, the counter of number %d is %+v", accounts, i, c)
		}
	}
}

func TestManyFailingAccountsAreSwept(t *testing.T) {
	c := clock.NewFake(morning)
	th := NewThrottle(c)
	for i := range 5000 {
		begin(t, th, user(i), netip.Addr{}).fail()
		c.Advance(10 * time.Second)
	}
	if n := len(th.accounts); n > 2048 {
		t.Errorf("%d counters are kept, at most 361 of them count", n)
	}
}

// Whatever strangers do, and their neighbours too, the user gets in from where he
// has been before; and they gain nothing by that.
func TestStrangersLockNobodyOutAtHome(t *testing.T) {
	c := clock.NewFake(morning)
	th := NewThrottle(c)
	home := v6(1, 1)
	stranger := netip.MustParseAddr("192.0.2.1")
	through := 0
	for i := range 20_000 {
		if a, refusal := th.begin(alice, stranger); refusal == nil {
			a.fail()
			through++
		}
		if a, refusal := th.begin(user(1+i), v6(2+uint64(i%200), uint64(i))); refusal == nil {
			a.fail() // the neighbours use up the allowance of the /56
		}
		a, refusal := th.begin(atHome(alice), home)
		if refusal != nil {
			t.Fatalf("after %d guesses the user is refused: %v", through, refusal)
		}
		if i%100 == 0 { // now and then he mistypes
			a.fail()
			a = begin(t, th, atHome(alice), home)
		}
		a.pass()
		c.Advance(time.Second)
	}
	if _, refusal := th.begin(alice, v6(9<<16, 1)); refusal == nil {
		t.Error("the strangers' counter does not hold")
	}
	// 5 at once, 10 while the wait doubles in 1023 s, and then one each 900 s.
	if want := 15 + (20_000-1023)/900; through > want {
		t.Errorf("%d guesses are let through, want at most %d", through, want)
	}
}

// The familiar network has a counter too, and it is no way around the common one.
func TestAFamiliarNetworkHasACounter(t *testing.T) {
	th := NewThrottle(clock.NewFake(morning))
	home, office := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for range freeFailures {
		begin(t, th, atHome(alice), home).fail()
	}
	if _, refusal := th.begin(atHome(alice), home); refusal == nil || refusal.Code != api.LoginThrottled {
		t.Errorf("a sixth guess at home gets %v", refusal)
	}
	begin(t, th, atHome(alice), office).pass()
	begin(t, th, alice, netip.MustParseAddr("192.0.2.3")).pass()
	if _, refusal := th.begin(atHome(alice), home); refusal == nil {
		t.Error("a success elsewhere has opened it")
	}
}

// A success takes back the failures that one has had oneself just before.
func TestASuccessClearsNobodyElsesFailures(t *testing.T) {
	one, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, tt := range []struct {
		failures string // 1 from the network of the success, 2 from another
		want     uint16
	}{
		{"", 0},
		{"1", 0},
		{"1111", 0},
		{"2222", 4},
		{"2211", 2},
		{"1122", 4},
		{"1212", 4},
		{"1221", 3},
	} {
		th := NewThrottle(clock.NewFake(morning))
		for _, from := range tt.failures {
			begin(t, th, alice, map[rune]netip.Addr{'1': one, '2': other}[from]).fail()
		}
		begin(t, th, alice, one).pass()
		var got uint16
		if c := th.accounts[tallyKey{account: alice.account}]; c != nil {
			got = c.failed
		}
		if got != tt.want {
			t.Errorf("after %s %d failures are left, want %d", tt.failures, got, tt.want)
		}
	}
}

// NIST SP 800-63B-4, 3.2.2: no more than 100 failures in a row; then a day.
func TestAHundredFailuresCostADay(t *testing.T) {
	for _, who := range []target{alice, nobody, {name: "x", account: user(1).account, policy: policy{after: 1000, wait: time.Minute}}} {
		c := clock.NewFake(morning)
		th := NewThrottle(c)
		fail := func() time.Duration {
			begin(t, th, who, netip.Addr{}).fail()
			_, refusal := th.begin(who, netip.Addr{})
			if refusal == nil {
				abandon(th, who)
				return 0
			}
			return time.Duration(refusal.Data.RetryAfterSeconds) * time.Second
		}
		for i := 1; i < manyFailures; i++ {
			wait := fail()
			if wait > longestWait {
				t.Fatalf("%s: failure %d costs %v", who.name, i, wait)
			}
			c.Advance(wait)
		}
		for i := range 3 {
			wait := fail()
			if wait != manyWait {
				t.Fatalf("%s: failure %d costs %v, want %v", who.name, manyFailures+i, wait, manyWait)
			}
			c.Advance(wait)
		}
	}
}

// However many an account itself allows, and however many come at once.
func TestAHundredGuessesAtOnce(t *testing.T) {
	th := NewThrottle(clock.NewFake(morning))
	who := alice
	who.policy = policy{after: 1000, wait: time.Minute}
	through := 0
	for range 2 * manyFailures {
		if _, refusal := th.begin(who, netip.Addr{}); refusal == nil {
			through++
		}
	}
	if through != manyFailures {
		t.Errorf("%d are let through, want %d", through, manyFailures)
	}
}

func TestAnAccountsOwnLockout(t *testing.T) {
	for _, tt := range []struct {
		account Account
		want    string // what each failure costs, in seconds
	}{
		{Account{}, "[0 0 0 0 1 2 4]"},
		{Account{Settings: Settings{LockoutMinutes: 7}}, "[0 0 0 0 1 2 4]"},
		{Account{Settings: Settings{LockoutAfter: 1}}, "[300 300 300 300 300 300 300]"},
		{Account{Settings: Settings{LockoutAfter: 3}}, "[0 0 300 300 300 300 300]"},
		{Account{Settings: Settings{LockoutAfter: 3, LockoutMinutes: 60}}, "[0 0 3600 3600 3600 3600 3600]"},
		{Account{Settings: Settings{LockoutAfter: 6, LockoutMinutes: 2}}, "[0 0 0 0 0 120 120]"},
	} {
		for _, familiar := range []bool{true, false} {
			c := clock.NewFake(morning)
			th := NewThrottle(c)
			who := alice
			who.policy, who.familiar = policyOf(&tt.account), familiar
			var waits []int64
			for range 7 {
				begin(t, th, who, netip.MustParseAddr("192.0.2.1")).fail()
				var wait int64
				if a, refusal := th.begin(who, netip.MustParseAddr("192.0.2.1")); refusal != nil {
					wait = refusal.Data.RetryAfterSeconds
				} else {
					a.refund()
				}
				waits = append(waits, wait)
				c.Advance(time.Duration(wait) * time.Second)
			}
			if got := fmt.Sprint(waits); got != tt.want {
				t.Errorf("%d failures, %d minutes: failures cost %s, want %s", tt.account.LockoutAfter, tt.account.LockoutMinutes, got, tt.want)
			}
		}
	}
}

// Forgetting is no way around a long wait, nor around a generous policy.
func TestNoWaitEndsByForgetting(t *testing.T) {
	for _, p := range []policy{{}, {1, 72 * time.Hour}, {3, 25 * time.Hour}, {50, time.Hour}} {
		c := clock.NewFake(morning)
		th := NewThrottle(c)
		who := alice
		who.policy = p
		for range p.free() {
			begin(t, th, who, netip.Addr{}).fail()
		}
		c.Advance(max(p.wait, firstWait) - 1)
		th.sweep(c.Now().UnixNano())
		if _, refusal := th.begin(who, netip.Addr{}); refusal == nil {
			t.Errorf("%+v: the wait ends too early", p)
		}
		c.Advance(1)
		begin(t, th, who, netip.Addr{}).fail()
		if _, refusal := th.begin(who, netip.Addr{}); refusal == nil {
			t.Errorf("%+v: after the wait the count begins anew", p)
		}
	}
}

// A clock that is put back neither frees anybody nor makes a wait longer than it
// was at first.
func TestTheClockGoesBack(t *testing.T) {
	c := clock.NewFake(morning)
	th := NewThrottle(c)
	from := netip.MustParseAddr("192.0.2.1")
	for _, who := range []target{alice, nobody} {
		for range freeFailures {
			begin(t, th, who, netip.Addr{}).fail()
		}
	}
	for i := range networkBurst {
		begin(t, th, user(1+i), from).fail()
	}
	c.Advance(-365 * 24 * time.Hour)
	for _, who := range []target{alice, nobody} {
		if _, refusal := th.begin(who, netip.Addr{}); refusal == nil || refusal.Data.RetryAfterSeconds != 1 {
			t.Errorf("%s: the wait is %+v, want 1 s", who.name, refusal)
		}
	}
	if _, refusal := th.begin(user(1000), from); refusal == nil || refusal.Data.RetryAfterSeconds != 10 {
		t.Errorf("the network's wait is %+v, want 10 s", refusal)
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
				x, refusedX := known.begin(alice, netip.Addr{})
				y, refusedY := invented.begin(nobody, netip.Addr{})
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
		a, _ := th.begin(alice, from)
		a.pass()
	}
}

var morning = time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC)

var (
	alice  = user(0)
	nobody = target{name: "acct/native:nobody"}
)

// user returns one of many accounts.
func user(i int) target {
	return target{name: fmt.Sprint("acct/native:user", i), account: api.NewID(morning, [10]byte{byte(i), byte(i >> 8), byte(i >> 16)})}
}

// atHome returns the target as it is from a familiar network.
func atHome(to target) target {
	to.familiar = true
	return to
}

func begin(t *testing.T, th *Throttle, to target, from netip.Addr) *attempt {
	t.Helper()
	a, refusal := th.begin(to, from)
	if refusal != nil {
		t.Fatal(refusal)
	}
	return a
}

// abandon takes back the charge that a question for the wait has cost.
func abandon(th *Throttle, to target) {
	if !to.account.IsZero() {
		th.accounts[tallyKey{account: to.account}].pending--
		return
	}
	th.nameCell(&attempt{}, to.name).pending--
}
