package account

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
)

func TestAnAddressHasAnAllowance(t *testing.T) {
	c := clock.NewFake(morning)
	th := NewThrottle(c)
	guess := func(i int, from string) *api.Error {
		a, refusal := th.begin(user(i), netip.MustParseAddr(from))
		if refusal == nil {
			a.fail()
		}
		return refusal
	}
	for i := range networkBurst {
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

// A network's allowance is shared by its addresses, and those of the networks
// around it by theirs.
func TestSprayingFromManyAddresses(t *testing.T) {
	for _, tt := range []struct {
		why     string
		address func(i int) netip.Addr
		guesses int // that are let through, of 10,000 at as many accounts
	}{
		{"one /64", func(i int) netip.Addr { return v6(0, uint64(i)) }, networkBurst},
		{"the /64s of a /56", func(i int) netip.Addr { return v6(uint64(i%256), uint64(i)) }, 4 * networkBurst},
		{"the /64s of a /48", func(i int) netip.Addr { return v6(uint64(i%65536), 1) }, 16 * networkBurst},
		{"IPv4", func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }, 10_000},
		{"many /48s", func(i int) netip.Addr { return v6(uint64(i)<<16, 1) }, 10_000},
	} {
		c := clock.NewFake(morning)
		th := NewThrottle(c)
		th.key = [16]byte{1} // of all cells that networks may share, these are shared by none of them
		spray := func() (through int) {
			for i := range 10_000 {
				if a, refusal := th.begin(user(i), tt.address(i)); refusal == nil {
					a.fail()
					through++
				}
			}
			return through
		}
		if got := spray(); got != tt.guesses {
			t.Errorf("%s: %d of 10,000 guesses are let through, want %d", tt.why, got, tt.guesses)
		}
		if tt.guesses == 10_000 {
			continue
		}
		c.Advance(networkPace)
		if got, want := spray(), tt.guesses/networkBurst; got != want {
			t.Errorf("%s: after the pace %d more, want %d", tt.why, got, want)
		}
	}
}

// v6 returns an address of the given /64 of 2001:db8::/32.
func v6(subnet, host uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], 0x20010db8<<32|subnet)
	binary.BigEndian.PutUint64(b[8:], host)
	return netip.AddrFrom16(b)
}
