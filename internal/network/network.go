// Package network says what a client's address counts as, wherever something is
// counted, limited or remembered by address.
//
// An IPv4 address counts by itself. Of IPv6 a subscriber has a /64 to himself
// (RFC 4291, section 2.5.1), so that is what counts; and since a /56 or a /48 is
// easily had too (RFC 6177), those may do no more than a few /64s together.
package network

import (
	"iter"
	"net/netip"
)

// Clean returns an address without what two writings of it may differ in:
// IPv4 in IPv6 becomes IPv4, and a zone goes.
func Clean(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Of returns what an address counts as: IPv4 itself, of IPv6 the first address
// of its /64. The zero address, which stands for none, stays what it is.
func Of(a netip.Addr) netip.Addr {
	a = Clean(a)
	if a.Is6() {
		return masked(a, 64).Addr()
	}
	return a
}

// Bounds returns each network that an address counts in, the narrowest first,
// and how many times what one client may do it may do: for IPv4 the address
// alone, for IPv6 its /64 once, its /56 four times, its /48 sixteen times. The
// zero address is in none.
func Bounds(a netip.Addr) iter.Seq2[netip.Prefix, int] {
	return func(yield func(netip.Prefix, int) bool) {
		switch a := Clean(a); {
		case !a.IsValid():
		case a.Is4():
			yield(masked(a, 32), 1)
		default:
			_ = yield(masked(a, 64), 1) && yield(masked(a, 56), 4) && yield(masked(a, 48), 16)
		}
	}
}

// masked is Addr.Prefix of a number of bits that the address has.
func masked(a netip.Addr, bits int) netip.Prefix { return netip.PrefixFrom(a, bits).Masked() }
