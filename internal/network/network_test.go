package network_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"sessiond/internal/network"
)

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		text, clean, of string
		bounds          []string
	}{
		{"192.0.2.1", "192.0.2.1", "192.0.2.1", []string{"192.0.2.1/32 ×1"}},
		{"::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1", []string{"192.0.2.1/32 ×1"}},
		{"::ffff:192.0.2.1%eth0", "192.0.2.1", "192.0.2.1", []string{"192.0.2.1/32 ×1"}},
		{"2001:db8:1:2fff::5", "2001:db8:1:2fff::5", "2001:db8:1:2fff::", []string{"2001:db8:1:2fff::/64 ×1", "2001:db8:1:2f00::/56 ×4", "2001:db8:1::/48 ×16"}},
		{"2001:db8:1:2fff:ffff:ffff:ffff:ffff", "2001:db8:1:2fff:ffff:ffff:ffff:ffff", "2001:db8:1:2fff::", []string{"2001:db8:1:2fff::/64 ×1", "2001:db8:1:2f00::/56 ×4", "2001:db8:1::/48 ×16"}},
		{"fe80::1%eth0", "fe80::1", "fe80::", []string{"fe80::/64 ×1", "fe80::/56 ×4", "fe80::/48 ×16"}},
		{"::1", "::1", "::", []string{"::/64 ×1", "::/56 ×4", "::/48 ×16"}},
		{"", "invalid IP", "invalid IP", nil},
	} {
		t.Run(tt.text, func(t *testing.T) {
			var a netip.Addr
			if tt.text != "" {
				a = netip.MustParseAddr(tt.text)
			}
			if got := network.Clean(a).String(); got != tt.clean {
				t.Errorf("Clean(%s) = %s, want %s", a, got, tt.clean)
			}
			if got := network.Of(a).String(); got != tt.of {
				t.Errorf("Of(%s) = %s, want %s", a, got, tt.of)
			}
			var bounds []string
			for prefix, times := range network.Bounds(a) {
				bounds = append(bounds, fmt.Sprintf("%s ×%d", prefix, times))
			}
			if !slices.Equal(bounds, tt.bounds) {
				t.Errorf("Bounds(%s) = %q, want %q", a, bounds, tt.bounds)
			}
		})
	}
}

func TestBoundsStopWhenAsked(t *testing.T) {
	for _, text := range []string{"192.0.2.1", "2001:db8::1"} {
		for range network.Bounds(netip.MustParseAddr(text)) {
			break
		}
	}
}

// FuzzAddresses: whatever the address, its writings count as one, Of keeps what
// it returns, and each bound holds the address and the bound before it.
func FuzzAddresses(f *testing.F) {
	for _, text := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "fe80::1%eth0", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			a = netip.Addr{}
		}
		of := network.Of(a)
		if again := network.Of(of); again != of {
			t.Errorf("Of(%s) = %s, but Of(%s) = %s", a, of, of, again)
		}
		inner := netip.PrefixFrom(network.Clean(a), network.Clean(a).BitLen())
		for bound := range network.Bounds(a) {
			if !bound.Contains(network.Clean(a)) || !bound.Contains(of) || bound.Bits() > inner.Bits() || !bound.Contains(inner.Addr()) {
				t.Errorf("%s: the bound %s does not hold %s", a, bound, inner)
			}
			inner = bound
		}
	})
}
