package httpd

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strings"

	"sessiond/internal/network"
)

// addressOf returns the address of a peer, unmapped and without a zone; the zero
// one where it has none.
func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return network.Clean(tcp.AddrPort().Addr())
	}
	return netip.Addr{}
}

func isTrusted(a netip.Addr, proxies []netip.Prefix) bool {
	return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// forwardedFor returns the client that trusted proxies report in the header of
// the given name (Forwarded as RFC 7239 has it, any other as a list of
// addresses). All its lines, in order, are one list, to which each proxy has
// added at the end; so it is read from there, and the first address that is no
// trusted proxy's is the client's. Anything unreadable on the way, and a list of
// trusted ones only, means the proxy itself: what stands further left could be
// anybody's invention.
func forwardedFor(proxy netip.Addr, proxies []netip.Prefix, name string, raw []byte) netip.Addr {
	if name == "" {
		return proxy
	}
	parse := parseHop
	if strings.EqualFold(name, "Forwarded") {
		parse = parseForwarded
	}
	var lines []string
	for line := range bytes.Lines(raw) {
		key, value, found := bytes.Cut(line, []byte(":"))
		if found && strings.EqualFold(string(key), name) {
			lines = append(lines, string(value))
		}
	}
	for _, line := range slices.Backward(lines) {
		for rest, more := line, true; more; {
			var hop string
			if i := strings.LastIndexByte(rest, ','); i >= 0 {
				rest, hop = rest[:i], rest[i+1:]
			} else {
				hop, more = rest, false
			}
			a, ok := parse(strings.Trim(hop, " \t\r\n"))
			if !ok {
				return proxy
			}
			if !isTrusted(a, proxies) {
				return a
			}
		}
	}
	return proxy
}

// parseHop reads an address with or without a port.
func parseHop(hop string) (netip.Addr, bool) {
	if strings.HasSuffix(hop, "]") {
		hop += ":0" // what brackets may stand around is known where a port follows
	}
	a, err := netip.ParseAddr(hop)
	if err != nil {
		ap, err := netip.ParseAddrPort(hop)
		if err != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	}
	if a = network.Clean(a); a.IsUnspecified() {
		return netip.Addr{}, false
	}
	return a, true
}

// parseForwarded reads the for= of one element. A quoted string with a comma in
// it has been cut before and is unreadable, as it should be.
func parseForwarded(element string) (netip.Addr, bool) {
	var found string
	for pair := range strings.SplitSeq(element, ";") {
		key, value, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
		if !ok {
			return netip.Addr{}, false
		}
		if !strings.EqualFold(key, "for") {
			continue
		}
		if found != "" {
			return netip.Addr{}, false
		}
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		found = value
	}
	return parseHop(found)
}
