package httpd_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sessiond/internal/config"
	"sessiond/internal/httpd"
)

// Whatever stands in the headers that tell a client's address, the server and an
// oracle read the same out of it. The oracle is slow and simple: it splits
// everything first, and then walks from the right.
func TestForwardedOracle(t *testing.T) {
	const sets = 10_000
	peers := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::9")}
	told, believed := 0, 0
	for n := range sets {
		random := rand.New(rand.NewPCG(7, uint64(n)))
		name := pick(random, "X-Forwarded-For", "x-forwarded-for", "Forwarded", "FORWARDED", "CF-Connecting-IP")
		peer, raw := pick(random, peers...), someHeaders(random, name)
		want, why := oracle(peer, proxies, name, raw)
		if got := httpd.ForwardedFor(peer, proxies, name, []byte(raw)); got != want {
			t.Errorf("set %d, %s, behind %s: %v, want %v (%s)\n%q", n, name, peer, got, want, why, raw)
		}
		if strings.Contains(strings.ToLower(raw), strings.ToLower(name)) {
			told++
		}
		if want != peer {
			believed++
		}
	}
	t.Logf("%d sets of headers: %d hold the one that counts, of %d the client is told", sets, told, believed)
	if believed < sets/10 || believed > sets*9/10 {
		t.Error("the sets are too much alike to show anything")
	}
}

// Ten thousand connections from one /64 are connections from one client, those
// from a /56 from four, those from a /48 from sixteen.
func TestConnectionsOfOneNetwork(t *testing.T) {
	const addresses, limit = 10_000, 7
	for bits, times := range map[int]int{64: 1, 56: 4, 48: 16} {
		enter := httpd.Gate(&config.Config{MaxConnectionsPerIP: limit})
		var leave []func()
		for n := range addresses {
			a := [16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 1, 0x2f, 7}
			if bits <= 56 {
				a[7] = byte(n * 11)
			}
			if bits <= 48 {
				a[6] = byte(n * 7)
			}
			binary.BigEndian.PutUint64(a[8:], uint64(n)*0x9e3779b97f4a7c15)
			if out, in := enter(netip.AddrFrom16(a)); in {
				leave = append(leave, out)
			}
		}
		if len(leave) != limit*times {
			t.Errorf("of %d connections from a /%d, %d get in, want %d", addresses, bits, len(leave), limit*times)
		}
		if _, in := enter(netip.MustParseAddr("2001:db8:2::1")); !in {
			t.Errorf("/%d: somebody else does not get in", bits)
		}
		leave[0]()
		if _, in := enter(netip.MustParseAddr("2001:db8:1:2f07::1")); !in {
			t.Errorf("/%d: nobody gets in where one has left", bits)
		}
	}
}

func pick[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

// someHeaders returns lines of headers, of which some tell an address.
func someHeaders(random *rand.Rand, name string) string {
	var b strings.Builder
	for range random.IntN(6) {
		switch random.IntN(8) {
		case 0:
			b.WriteString(pick(random, "Host: 203.0.113.1\r\n", "X-Real-IP: 203.0.113.2\r\n", "X-Forwarded-Forx: 203.0.113.3\r\n", "Via: 1.1 proxy\r\n", "X_Forwarded_For: 203.0.113.4\r\n"))
		case 1:
			b.WriteString(pick(random, "X-Forwarded-For", "Forwarded", "X-Forwarded-Host") + ": " + someHops(random, name) + "\r\n")
		default:
			b.WriteString(pick(random, name, strings.ToLower(name), strings.ToUpper(name)) + ":" + pick(random, "", " ", "  ", "\t") + someHops(random, name) + pick(random, "", " ", "\t ") + "\r\n")
		}
	}
	return b.String()
}

func someHops(random *rand.Rand, name string) string {
	hops := make([]string, 1+random.IntN(5))
	for i := range hops {
		hops[i] = someHop(random)
		if strings.EqualFold(name, "Forwarded") && random.IntN(15) > 0 {
			hops[i] = element(random, hops[i])
		}
	}
	return strings.Join(hops, pick(random, ",", ", ", " , ", ",\t"))
}

// someHop returns an address in one of its writings, trusted or not, or something
// else.
func someHop(random *rand.Rand) string {
	four := fmt.Sprintf(pick(random, "203.0.113.%d", "10.9.8.%d", "10.0.0.%d"), random.IntN(256))
	six := fmt.Sprintf(pick(random, "2001:db8:%x::1", "fd00::%x", "FD00:0:0:1::%X", "::ffff:10.1.1.%d", "::ffff:198.51.100.%d"), random.IntN(256))
	port := pick(random, ":4711", ":0", ":65535")
	switch random.IntN(14) {
	case 0, 1, 2, 3:
		return four
	case 4, 5:
		return six
	case 6:
		return "[" + six + "]"
	case 7:
		return four + port
	case 8:
		return "[" + six + "]" + port
	case 9:
		return six + pick(random, "%eth0", "%1", "%")
	case 10: // nearly one
		return pick(random, "["+six, six+"]", "["+four, four+"]", "["+four+"]", "["+four+"]"+port, six+"]"+port, "[["+six+"]]", four+":", four+":65536", four+":http",
			four+"::1", four+"/24", four+".", "0"+four, four+" "+four, "["+six+"] "+port, "["+six+"]4711", "[]", "[]"+port, port)
	case 11:
		return pick(random, "unknown", "_hidden", "_SEVKISEK", "", "-", "localhost", "0.0.0.0", "::", "[::]", "::ffff:0.0.0.0", "0.0.0.0:80", "1.2.3", "0x7f.1", "2130706433", "256.1.1.1", "١٠.0.0.1", "null")
	case 12:
		return pick(random, `"`+four+`"`, `"[`+six+`]"`, `"`+four, four+`"`, `""`, `"`, `'`+four+`'`)
	}
	return pick(random, four, six)
}

// element returns an element of Forwarded, RFC 7239, or nearly one.
func element(random *rand.Rand, hop string) string {
	key := pick(random, "for", "for", "for", "For", "FOR", "for ", " for", "fo", "by", "forx")
	value := pick(random, hop, hop, `"`+hop+`"`, `"`+hop+`"`, ` `+hop, `"`+hop)
	parts := []string{key + "=" + value}
	for range random.IntN(3) {
		parts = append(parts, pick(random, "proto=https", "by=10.0.0.1", `by="[fd00::1]:80"`, `host="a,b"`, "host=example.org", "for=10.1.1.1", "proto", "", `ext="x;y"`))
	}
	random.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return strings.Join(parts, pick(random, ";", "; ", " ;"))
}

// oracle returns the client, and why. Where a list cannot be read as far as it
// needs to be, the client is the peer.
func oracle(peer netip.Addr, trusted []netip.Prefix, name, raw string) (netip.Addr, string) {
	var hops []string
	for line := range strings.SplitSeq(raw, "\r\n") {
		parts := strings.SplitN(line, ":", 2)
		if len(parts) == 2 && strings.EqualFold(parts[0], name) {
			hops = append(hops, strings.Split(parts[1], ",")...)
		}
	}
	slices.Reverse(hops)
	for _, hop := range hops {
		text := strings.TrimSpace(hop)
		if strings.EqualFold(name, "Forwarded") {
			var ok bool
			if text, ok = oracleFor(text); !ok {
				return peer, fmt.Sprintf("%q has no one for=", hop)
			}
		}
		a, ok := oracleAddress(text)
		if !ok {
			return peer, fmt.Sprintf("%q is no address", hop)
		}
		if !slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return a, "the first that is not trusted"
		}
	}
	return peer, "all are trusted"
}

// oracleFor returns the value of the one for= of an element whose parts are all
// pairs.
func oracleFor(element string) (value string, ok bool) {
	found := 0
	for pair := range strings.SplitSeq(element, ";") {
		parts := strings.SplitN(strings.TrimSpace(pair), "=", 2)
		if len(parts) != 2 {
			return "", false
		}
		if strings.EqualFold(parts[0], "for") {
			found++
			value = parts[1]
		}
	}
	if quoted := quotedForm.FindStringSubmatch(value); quoted != nil {
		value = quoted[1]
	}
	return value, found == 1
}

// The writings of an address: IPv4 with or without a port, IPv6 likewise, but with
// a port only in brackets, and in either case with a zone, which is dropped.
var (
	quotedForm = regexp.MustCompile(`^"(.*)"$`)
	fourForm   = regexp.MustCompile(`^([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)(?::([0-9]+))?$`)
	sixForm    = regexp.MustCompile(`^([0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(?:%[^%\]]+)?$`)
	boxedForm  = regexp.MustCompile(`^\[([0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(?:%[^%\]]+)?\](?::([0-9]+))?$`)
)

func oracleAddress(text string) (netip.Addr, bool) {
	for _, form := range []*regexp.Regexp{fourForm, boxedForm, sixForm} {
		parts := form.FindStringSubmatch(text)
		if parts == nil {
			continue
		}
		if len(parts) == 3 && parts[2] != "" {
			if port, err := strconv.Atoi(parts[2]); err != nil || port > 65535 {
				return netip.Addr{}, false
			}
		}
		ip := net.ParseIP(parts[1])
		if ip == nil || ip.IsUnspecified() {
			return netip.Addr{}, false
		}
		if four := ip.To4(); four != nil {
			return netip.AddrFrom4([4]byte(four)), true
		}
		return netip.AddrFrom16([16]byte(ip)), true
	}
	return netip.Addr{}, false
}
