package httpd_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sessiond/internal/config"
	"sessiond/internal/httpd"
)

// One address has 3 places. The addresses of a /64 are one; those of a /56 have
// 4 times as many together, those of a /48 16 times.
func TestConnectionsPerNetwork(t *testing.T) {
	for _, c := range []struct {
		name, address string // perhaps with the number of the connection
		admitted      int    // of 200
	}{
		{"one address", "192.0.2.1", 3},
		{"addresses of IPv4", "192.0.2.%d", 200},
		{"one address of IPv6", "2001:db8::1", 3},
		{"a /64", "2001:db8::%x", 3},
		{"the /64s of a /56", "2001:db8:0:%x::1", 12},
		{"the /56s of a /48", "2001:db8:0:%x00::1", 48},
		{"the /48s of a /40", "2001:db8:%x::1", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			enter := httpd.Gate(&config.Config{MaxConnectionsPerIP: 3})
			from := func(i int) netip.Addr {
				if !strings.Contains(c.address, "%") {
					return netip.MustParseAddr(c.address)
				}
				return netip.MustParseAddr(fmt.Sprintf(c.address, i))
			}
			var leave []func()
			for i := range 200 {
				if end, admitted := enter(from(i)); admitted {
					leave = append(leave, end)
				}
			}
			if len(leave) != c.admitted {
				t.Errorf("%d are let in, want %d", len(leave), c.admitted)
			}
			leave[0]()
			if _, admitted := enter(from(0)); !admitted {
				t.Error("a place that is free again is not given")
			}
		})
	}
}
