package config

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// form is what a string must look like. Without a parse function every string
// between least and most bytes passes.
type form struct {
	oneOf   []string // these alone
	ignored []string // FairCom's beside them, without effect
	least   int      // bytes
	most    int      // bytes; 0 means longestText
	want    string   // completes "must be …"
	pattern string   // for editors; at most what parse refuses
	example string
	parse   func(string) (string, bool) // returns the form that is kept
}

const longestText = 256

func (f form) limit() int {
	if f.most == 0 {
		return longestText
	}
	return f.most
}

func (f form) note() note {
	n := note{kind: "string", enum: f.oneOf, ignored: f.ignored, pattern: f.pattern, example: f.example}
	if f.oneOf == nil {
		n.min, n.max = int64(f.least), int64(f.limit())
	}
	return n
}

// check returns s as it is kept, or what is wrong with it.
func (f form) check(s string) (kept, fault string) {
	switch {
	case f.oneOf != nil && !slices.Contains(f.oneOf, s):
		fault = "must be " + alternatives(f.oneOf)
		if near := nearest(s, f.oneOf); near != "" {
			fault += "; did you mean " + near + "?"
		}
		return "", fault
	case f.oneOf != nil:
		return s, ""
	case len(s) < f.least || len(s) > f.limit():
		return "", "must be a string of " + strconv.Itoa(f.least) + " to " + strconv.Itoa(f.limit()) + " bytes"
	case f.parse == nil:
		return s, ""
	}
	kept, ok := f.parse(s)
	if !ok {
		return "", "must be " + f.want
	}
	return kept, ""
}

func alternatives(of []string) string {
	if len(of) == 1 {
		return of[0]
	}
	return strings.Join(of[:len(of)-1], ", ") + " or " + of[len(of)-1]
}

// matching makes a parse function of an expression that keeps what matches.
func matching(expression *regexp.Regexp) func(string) (string, bool) {
	return func(s string) (string, bool) { return s, expression.MatchString(s) }
}

// The patterns mean the same in ECMA 262, as the schema has them.
var (
	realmPattern  = regexp.MustCompile(`^[A-Za-z0-9._/-]+$`)
	rolePattern   = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	headerPattern = regexp.MustCompile(`^[A-Za-z0-9-]+$`)
	pathPattern   = regexp.MustCompile(`^\.?(/[A-Za-z0-9._~-]+)+$`)
	hostname      = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)
)

func serviceNameForm() form { return form{least: 1, most: 64} }

func realmNameForm() form {
	return form{
		least: 1, most: 64, pattern: realmPattern.String(), parse: matching(realmPattern),
		want: `a name of letters, digits, ".", "_", "-" and "/"`,
	}
}

func roleNameForm() form {
	return form{
		least: 1, most: 64, pattern: rolePattern.String(), parse: matching(rolePattern),
		want: `the name of a role: letters, digits, ".", "_" and "-"`,
	}
}

func headerForm() form {
	return form{
		least: 1, most: 64, pattern: headerPattern.String(), parse: matching(headerPattern), example: "X-Forwarded-For",
		want: "the name of an HTTP header, such as X-Forwarded-For",
	}
}

// pathForm takes FairCom's "./api" for "/api".
func pathForm() form {
	return form{
		least: 2, most: 128, pattern: pathPattern.String(), example: "./api",
		want: `a path such as "/api" or "./api", without a slash at its end, and none of the server's own (/healthz, /readyz)`,
		parse: func(s string) (string, bool) {
			ok := pathPattern.MatchString(s)
			s = strings.TrimPrefix(s, ".")
			parts := strings.Split(s, "/")
			return s, ok && !slices.Contains(parts, ".") && !slices.Contains(parts, "..") && s != "/healthz" && s != "/readyz"
		},
	}
}

func addressForm() form {
	return form{
		least: 1, most: 253, example: "127.0.0.1",
		want: `an IP address, such as 127.0.0.1, or a name of this machine, or "*" for all; the port is a member of its own`,
		parse: func(s string) (string, bool) {
			if a, err := netip.ParseAddr(s); err == nil {
				return a.String(), true
			}
			s = strings.ToLower(s)
			return s, s == anywhere || isHostname(s)
		},
	}
}

// anywhere is the address of a listener that takes all networks.
const anywhere = "*"

// prefixForm takes a prefix in CIDR notation or one address.
func prefixForm() form {
	return form{
		least: 2, most: 64, example: "10.0.0.0/8",
		want: "an IP address or a prefix such as 10.0.0.0/8 or fd00::/8, without address bits after the prefix, and IPv4 in its own form",
		parse: func(s string) (string, bool) {
			p, err := netip.ParsePrefix(s)
			if a, addrErr := netip.ParseAddr(s); addrErr == nil {
				p, err = netip.PrefixFrom(a, a.BitLen()), nil
			}
			ok := err == nil && p == p.Masked() && p.Addr().Zone() == "" && !p.Addr().Is4In6()
			return p.String(), ok
		},
	}
}

// isHostname reports whether s, in lower case, can be a name: one that ends in a
// number is a slip in an IP address.
func isHostname(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	return len(s) <= 253 && hostname.MatchString(s) && strings.Trim(last, "0123456789") != ""
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0' && s[0] != '+'
}

func wordForm() form {
	return form{least: 3, most: 64, example: "acme", want: "a word of at least three characters"}
}

func hostForm() form {
	return form{
		least: 1, most: 260, example: "sessions.example.com",
		want: "a host name such as sessions.example.com, perhaps with a port, without a scheme; IP addresses need no entry",
		parse: func(s string) (string, bool) {
			s = strings.ToLower(s)
			name, port, found := strings.Cut(s, ":")
			return s, isHostname(name) && (!found || isPort(port))
		},
	}
}

// originForm keeps an origin as browsers send it: lower case, no default port.
func originForm() form {
	return form{
		least: 8, most: 300, pattern: "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+$", example: "https://app.example.com",
		want: "an origin such as https://app.example.com: a scheme, a host and perhaps a port, nothing after them",
		parse: func(s string) (string, bool) {
			u, err := url.Parse(strings.ToLower(s))
			if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.String() != u.Scheme+"://"+u.Host {
				return "", false
			}
			host, port := u.Hostname(), u.Port()
			if _, err := netip.ParseAddr(host); err != nil && !isHostname(host) {
				return "", false
			}
			if strings.HasSuffix(u.Host, ":") || port != "" && !isPort(port) {
				return "", false
			}
			if u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
				return strings.TrimSuffix(u.String(), ":"+port), true
			}
			return u.String(), true
		},
	}
}
