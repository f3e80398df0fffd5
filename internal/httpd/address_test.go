package httpd_test

import (
	"net/netip"
	"strings"
	"testing"

	"sessiond/internal/httpd"
)

var (
	proxy   = netip.MustParseAddr("10.0.0.1")
	proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
)

func TestForwardedFor(t *testing.T) {
	for _, c := range []struct{ name, header, raw, want string }{
		{"one address", "X-Forwarded-For", "X-Forwarded-For: 203.0.113.9⏎", "203.0.113.9"},
		{"the last is nearest", "X-Forwarded-For", "X-Forwarded-For: 198.51.100.1, 203.0.113.9⏎", "203.0.113.9"},
		{"trusted hops are skipped", "X-Forwarded-For", "X-Forwarded-For: 198.51.100.1, 203.0.113.9,10.9.9.9 , fd00::1⏎", "203.0.113.9"},
		{"all lines are one list", "X-Forwarded-For", "X-Forwarded-For: 198.51.100.1⏎Host: x⏎x-forwarded-for: 203.0.113.9⏎X-FORWARDED-FOR: 10.2.2.2⏎", "203.0.113.9"},
		{"what the client invents is not reached", "X-Forwarded-For", "X-Forwarded-For: evil, 203.0.113.9⏎", "203.0.113.9"},
		{"only trusted hops", "X-Forwarded-For", "X-Forwarded-For: 10.1.1.1⏎", "10.0.0.1"},
		{"rubbish nearest", "X-Forwarded-For", "X-Forwarded-For: 203.0.113.9, unknown⏎", "10.0.0.1"},
		{"rubbish behind a trusted hop", "X-Forwarded-For", "X-Forwarded-For: 203.0.113.9, , 10.1.1.1⏎", "10.0.0.1"},
		{"an empty line", "X-Forwarded-For", "X-Forwarded-For: 203.0.113.9⏎X-Forwarded-For: ⏎", "10.0.0.1"},
		{"no such line", "X-Forwarded-For", "X-Real-IP: 203.0.113.9⏎", "10.0.0.1"},
		{"a name that begins alike", "X-Forwarded-For", "X-Forwarded-Forx: 203.0.113.9⏎", "10.0.0.1"},
		{"with a port", "X-Forwarded-For", "X-Forwarded-For: 203.0.113.9:4711⏎", "203.0.113.9"},
		{"IPv6", "X-Forwarded-For", "X-Forwarded-For: 2001:db8::7⏎", "2001:db8::7"},
		{"IPv6 in brackets", "X-Forwarded-For", "X-Forwarded-For: [2001:db8::7]⏎", "2001:db8::7"},
		{"IPv6 with a port", "X-Forwarded-For", "X-Forwarded-For: [2001:db8::7]:4711⏎", "2001:db8::7"},
		{"mapped and with a zone", "X-Forwarded-For", "X-Forwarded-For: ::ffff:203.0.113.9⏎", "203.0.113.9"},
		{"a zone is dropped", "X-Forwarded-For", "X-Forwarded-For: fe80::1%eth0⏎", "fe80::1"},
		{"no address at all", "X-Forwarded-For", "X-Forwarded-For: 0.0.0.0⏎", "10.0.0.1"},
		{"leading zeros", "X-Forwarded-For", "X-Forwarded-For: 203.0.113.09⏎", "10.0.0.1"},
		{"another header", "CF-Connecting-IP", "X-Forwarded-For: 198.51.100.1⏎cf-connecting-ip: 203.0.113.9⏎", "203.0.113.9"},
		{"Forwarded", "Forwarded", `Forwarded: for=198.51.100.1, For="[2001:db8::7]:4711";proto=https;by=10.0.0.1⏎`, "2001:db8::7"},
		{"Forwarded, several lines", "Forwarded", "Forwarded: for=203.0.113.9⏎Forwarded: proto=http; for=10.1.1.1⏎", "203.0.113.9"},
		{"Forwarded, hidden", "Forwarded", "Forwarded: for=203.0.113.9, for=_hidden⏎", "10.0.0.1"},
		{"Forwarded without for", "Forwarded", "Forwarded: for=203.0.113.9, proto=https⏎", "10.0.0.1"},
		{"Forwarded with two", "Forwarded", "Forwarded: for=203.0.113.9;for=198.51.100.1⏎", "10.0.0.1"},
		{"Forwarded with a comma in quotes", "Forwarded", `Forwarded: for="203.0.113.9,";by="x"⏎`, "10.0.0.1"},
		{"no header is configured", "", "X-Forwarded-For: 203.0.113.9⏎", "10.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := httpd.ForwardedFor(proxy, proxies, c.header, []byte(strings.ReplaceAll(c.raw, "⏎", "\r\n"))); got.String() != c.want {
				t.Errorf("the client is %v, want %s", got, c.want)
			}
		})
	}
}

// Whatever a client writes to the left of what the proxies add changes nothing.
func FuzzForwardedFor(f *testing.F) {
	f.Add("1.1.1.1", "X-Forwarded-For")
	f.Add(`for="[::1]", for=10.0.0.1;by="`, "Forwarded")
	f.Add(",,", "X")
	f.Fuzz(func(t *testing.T, invented, header string) {
		if strings.ContainsAny(header, ": \r\n") || header == "" || strings.ContainsAny(invented, "\r\n") {
			return
		}
		added := "203.0.113.9, 10.1.1.1"
		if strings.EqualFold(header, "Forwarded") {
			added = "for=203.0.113.9, for=10.1.1.1"
		}
		for _, raw := range []string{
			header + ": " + invented + ", " + added + "\r\n",
			header + ": " + invented + "\r\n" + header + ": " + added + "\r\n",
		} {
			if got := httpd.ForwardedFor(proxy, proxies, header, []byte(raw)); got.String() != "203.0.113.9" {
				t.Fatalf("%q: the client is %v", raw, got)
			}
		}
		if got := httpd.ForwardedFor(proxy, proxies, header, []byte(header+": "+invented+"\r\n")); !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Fatalf("%q: the client is %v", invented, got)
		}
	})
}

func TestCutPort(t *testing.T) {
	for host, want := range map[string]string{
		"localhost": "localhost", "localhost:80": "localhost", "localhost:": "localhost", "a.b:1": "a.b",
		"127.0.0.1:80": "127.0.0.1", "[::1]": "[::1]", "[::1]:80": "[::1]",
		"::1": "-", "a:b:80": "-", "[a]": "-", "[::1": "-", "::1]": "-", "a:x": "-", "a@b": "-", "a/b": "-", "a b": "-", "a,b": "-", "ä": "-",
	} {
		name, ok := httpd.CutPort(host)
		if !ok {
			name = "-"
		}
		if name != want {
			t.Errorf("CutPort(%q) = %q, want %q", host, name, want)
		}
	}
}
