package filter_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/filter"
)

// What a filter says, in its canonical form, and of whom it is true: a is alice's
// session and k an API key of bob's; below, what they are.
func TestFinds(t *testing.T) {
	for _, tt := range []struct{ text, canonical, finds string }{
		{`true`, `true`, "ak"},
		{`false`, `false`, ""},
		{`!true`, `false`, ""},
		{`not not TRUE`, `true`, "ak"},

		{`realm eq "native"`, `realm eq "native"`, "a"},
		{`/realm EQ 'native'`, `realm eq "native"`, "a"},
		{`realm eq "Native"`, `realm eq "Native"`, ""},
		{`username eq "ALICE"`, `username eq "alice"`, "a"},
		{`username co "LI"`, `username co "li"`, "a"},
		{`username sw "Bo"`, `username sw "bo"`, "k"},
		{`username in ["bob", "carol","BOB"]`, `username in ["bob", "carol"]`, "k"},
		{`username in ["bob"]`, `username eq "bob"`, "k"},
		{`username lt "b"`, `username lt "b"`, "a"},
		{`username le "bob"`, `username le "bob"`, "ak"},
		{`username gt "alice"`, `username gt "alice"`, "k"},
		{`username ge "bob"`, `username ge "bob"`, "k"},
		{`description eq ""`, `description eq ""`, "k"},
		{`description pr`, `description pr`, "ak"},
		{`description co "é"`, `description co "é"`, "a"},
		{`description eq "caf\u00e9 \"\u2615\" \\\/"`, `description eq "café \"☕\" \\/"`, "a"},
		{`description eq 'caf\u00e9 "☕" \\/'`, `description eq "café \"☕\" \\/"`, "a"},
		{`description co '\'\ud83d\ude00\t\u0000'`, `description co "'😀\u0009\u0000"`, ""},
		{`device/browser sw "Firefox"`, `device/browser sw "Firefox"`, "a"},
		{`/device/kind eq "mobile"`, `device/kind eq "mobile"`, ""},
		{`status in ["revoked","active"]`, `status in ["active", "revoked"]`, "a"},

		{`properties/plan eq "free"`, `properties/plan eq "free"`, "a"},
		{`!properties/plan eq "free"`, `!properties/plan eq "free"`, "k"},
		{`properties/plan pr`, `properties/plan pr`, "a"},
		{`!properties/plan pr`, `!properties/plan pr`, "k"},
		{`properties/app/plan eq "x" or /properties/app~1plan eq "y"`, `properties/app/plan eq "x" or properties/app/plan eq "y"`, "k"},
		{`properties/~0~01 pr`, `properties/~0~01 pr`, "k"},
		{`properties/seats ge 10`, `properties/seats ge 10`, "a"},

		{`permanentSession eq true`, `permanentSession eq true`, "k"},
		{`permanentSession eq FALSE`, `permanentSession eq false`, "a"},
		{`permanentSession in [true, false]`, `permanentSession in [false, true]`, "ak"},
		{`idleConnectionTimeoutSeconds gt 0`, `idleConnectionTimeoutSeconds gt 0`, "a"},
		{`idleConnectionTimeoutSeconds eq -1`, `idleConnectionTimeoutSeconds eq -1`, "k"},
		{`idleConnectionTimeoutSeconds in [3600, -1, 7]`, `idleConnectionTimeoutSeconds in [-1, 7, 3600]`, "ak"},
		{`idleConnectionTimeoutSeconds le 9223372036854775807`, `idleConnectionTimeoutSeconds le 9223372036854775807`, "ak"},

		{`sessionStartTimestamp eq "2026-01-31T11:00:00+01:00"`, `sessionStartTimestamp eq "2026-01-31T10:00:00Z"`, "a"},
		{`sessionStartTimestamp lt "2026-01-31T10:00:00.000000001Z"`, `sessionStartTimestamp lt "2026-01-31T10:00:00.000000001Z"`, "ak"},
		{`sessionStartTimestamp ge "-2h"`, `sessionStartTimestamp ge "2026-01-31T10:00:00Z"`, "a"},
		{`sessionStartTimestamp lt "-30d"`, `sessionStartTimestamp lt "2026-01-01T12:00:00Z"`, "k"},
		{`sessionStartTimestamp gt "-1w"`, `sessionStartTimestamp gt "2026-01-24T12:00:00Z"`, "a"},
		{`maxIdleExpirationTimestamp le "+15m"`, `maxIdleExpirationTimestamp le "2026-01-31T12:15:00Z"`, "a"},
		{`maxIdleExpirationTimestamp gt "+10s"`, `maxIdleExpirationTimestamp gt "2026-01-31T12:00:10Z"`, "a"},
		{`maxIdleExpirationTimestamp pr`, `maxIdleExpirationTimestamp pr`, "a"},
		{`maxIdleExpirationTimestamp ge "0001-01-01T00:00:00Z"`, `maxIdleExpirationTimestamp ge "0001-01-01T00:00:00Z"`, "a"},

		{`clientIpAddress eq "10.1.2.3"`, `clientIpAddress eq "10.1.2.3"`, "a"},
		{`clientIpAddress eq "::ffff:10.1.2.3"`, `clientIpAddress eq "10.1.2.3"`, "a"},
		{`clientIpAddress sw "10.9.9.9/8"`, `clientIpAddress eq "10.0.0.0/8"`, "a"},
		{`clientIpAddress eq "::ffff:10.0.0.0/104"`, `clientIpAddress eq "10.0.0.0/8"`, "a"},
		{`clientIpAddress in ["2001:DB8::/32", "10.1.2.3/32", "10.1.2.3"]`, `clientIpAddress in ["10.1.2.3", "2001:db8::/32"]`, "ak"},
		{`clientIpAddress eq "::/0"`, `clientIpAddress eq "::/0"`, "k"},
		{`!clientIpAddress eq "0.0.0.0/0"`, `!clientIpAddress eq "0.0.0.0/0"`, "k"},

		{`roles eq "admin"`, `roles eq "admin"`, "a"},
		{`roles co "admin"`, `roles eq "admin"`, "a"},
		{`roles co "adm"`, `roles eq "adm"`, ""},
		{`roles sw "ad"`, `roles sw "ad"`, "a"},
		{`roles in ["auditor", "zoo"]`, `roles in ["auditor", "zoo"]`, "a"},
		{`roles pr`, `roles pr`, "a"},
		{`!roles eq "admin"`, `!roles eq "admin"`, "k"},

		{`true or true and false`, `true`, "ak"},
		{`(true or true) and false`, `(true or true) and false`, ""},
		{"  username\teq\r\n\"bob\"and(roles pr)or!roles pr", `username eq "bob" and roles pr or !roles pr`, "k"},
		{`!(username eq "bob" or roles pr)`, `!(username eq "bob" or roles pr)`, ""},
		{`!!((username eq "bob" and (realm pr))) and roles pr`, `username eq "bob" and realm pr and roles pr`, ""},
		{`NOT username eq "bob" AND realm pr`, `!username eq "bob" and realm pr`, "a"},
		{`username eq "b0f30dfb-4e01-457e-a567-c258a74e4fe2" and realm eq "/alpha"`, `username eq "b0f30dfb-4e01-457e-a567-c258a74e4fe2" and realm eq "/alpha"`, ""},
	} {
		t.Run(tt.text, func(t *testing.T) {
			f, bad := filter.Parse(tt.text, fields, noon)
			if bad != nil {
				t.Fatal(bad)
			}
			if got := f.String(); got != tt.canonical {
				t.Errorf("canonical: %s, want %s", got, tt.canonical)
			}
			finds := ""
			for _, s := range []struct {
				letter string
				record record
			}{{"a", alice}, {"k", key}} {
				if f.Match(s.record) {
					finds += s.letter
				}
			}
			if finds != tt.finds {
				t.Errorf("finds %q, want %q", finds, tt.finds)
			}
		})
	}
}

// What is wrong is told with its position, counted in characters.
func TestRefuses(t *testing.T) {
	const (
		wantTerm     = `a field, "true", "false", "!" or "(" is expected`
		wantField    = `there is no field of this name: the reference lists them`
		wantAny      = `one of the operators of this field is expected: eq, co, sw, lt, le, gt, ge, in or pr`
		wantOrdered  = `one of the operators of this field is expected: eq, lt, le, gt, ge, in or pr`
		wantBool     = `"true" or "false" is expected, without quotes`
		wantText     = `a text in quotes is expected`
		wantNumber   = `a whole number is expected`
		wantTime     = `a time in quotes is expected, such as "2026-01-31T00:00:00Z", or one relative to now: a sign, a number and one of s, m, h, d and w, such as "-30d"`
		wantAddress  = `an address or a network in quotes is expected, such as "10.0.0.1" or "10.0.0.0/8"`
		wantStatus   = `one of the values of this field is expected: active, ended, revoked`
		wantMore     = `"and", "or" or the end is expected`
		wantClose    = `"and", "or" or ")" is expected`
		wantList     = `"[" is expected, and values with commas between them`
		wantNext     = `"," or "]" is expected`
		wantQuote    = `the text that begins here lacks its closing quote`
		wantEscape   = `a backslash is followed by \, /, b, f, n, r, t, the quote that the text began with, or u and four hexadecimal digits of a character`
		wantControl  = `a control character stands in a text as \u and four hexadecimal digits`
		wantShorter  = `a filter has at most 4096 bytes`
		wantShallow  = `parentheses are nested at most 16 deep`
		wantFewer    = `a filter has at most 100 comparisons`
		wantFewerIn  = `a list has at most 100 values`
		wantUnicode  = `this is no UTF-8`
		quotedNumber = `idleConnectionTimeoutSeconds eq `
	)
	for _, tt := range []struct {
		text     string
		position int
		want     string
	}{
		{``, 1, wantTerm},
		{`   `, 4, wantTerm},
		{`and`, 1, wantTerm},
		{`"username" eq "alice"`, 1, wantTerm},
		{`realm pr and`, 13, wantTerm},
		{`realm pr or or realm pr`, 13, wantTerm},
		{`!`, 2, wantTerm},
		{`()`, 2, wantTerm},
		{`realm pr and )`, 14, wantTerm},
		{`realm pr )`, 10, wantMore},
		{`realm pr realm pr`, 10, wantMore},
		{`true eq true`, 6, wantMore},
		{`realm eq "a" "b"`, 14, wantMore},
		{`(realm pr`, 10, wantClose},
		{`(realm pr]`, 10, wantClose},

		{`nosuch eq "x"`, 1, wantField},
		{`realm pr and nosuch eq "x"`, 14, wantField},
		{`Realm pr`, 1, wantField},
		{`//realm pr`, 1, wantField},
		{`/ pr`, 1, wantField},
		{`realm/x pr`, 1, wantField},
		{`username=alice`, 1, wantField},
		{`properties pr`, 1, wantField},
		{`properties/ pr`, 1, wantField},
		{`properties/internal.secret pr`, 1, wantField},
		{`description eq "☕☕" and nosuch pr`, 25, wantField},

		{`realm`, 6, wantAny},
		{`realm = "x"`, 7, wantAny},
		{`realm != "x"`, 7, wantAny},
		{`realm ne "x"`, 7, wantAny},
		{`realm "eq" "x"`, 7, wantAny},
		{`sessionStartTimestamp co "2026"`, 23, wantOrdered},
		{`properties/seats sw 1`, 18, wantOrdered},
		{`permanentSession lt true`, 18, `one of the operators of this field is expected: eq, in or pr`},
		{`clientIpAddress co "10."`, 17, `one of the operators of this field is expected: eq, sw, in or pr`},
		{`roles gt "a"`, 7, `one of the operators of this field is expected: eq, co, sw, in or pr`},

		{`realm eq`, 9, wantText},
		{`realm eq native`, 10, wantText},
		{`realm eq 5`, 10, wantText},
		{`realm eq [`, 10, wantText},
		{`status eq "actve"`, 11, wantStatus},
		{`status in ["active", "Ended"]`, 22, wantStatus},
		{quotedNumber + `"5"`, 33, wantNumber},
		{quotedNumber + `5.0`, 33, wantNumber},
		{quotedNumber + `1e3`, 33, wantNumber},
		{quotedNumber + `05`, 33, wantNumber},
		{quotedNumber + `+5`, 33, wantNumber},
		{quotedNumber + `9223372036854775808`, 33, wantNumber},
		{`permanentSession eq "true"`, 21, wantBool},
		{`permanentSession eq 1`, 21, wantBool},
		{`sessionStartTimestamp lt -30d`, 26, wantTime},
		{`sessionStartTimestamp lt "30d"`, 26, wantTime},
		{`sessionStartTimestamp lt "-30"`, 26, wantTime},
		{`sessionStartTimestamp lt "-d"`, 26, wantTime},
		{`sessionStartTimestamp lt "--1d"`, 26, wantTime},
		{`sessionStartTimestamp lt "-30M"`, 26, wantTime},
		{`sessionStartTimestamp lt "-1073741824s"`, 26, wantTime},
		{`sessionStartTimestamp lt "-999999999w"`, 26, wantTime},
		{`sessionStartTimestamp lt "+999999w"`, 26, wantTime},
		{`sessionStartTimestamp lt ""`, 26, wantTime},
		{`sessionStartTimestamp lt "2026-01-31"`, 26, wantTime},
		{`sessionStartTimestamp lt "2026-02-30T00:00:00Z"`, 26, wantTime},
		{`sessionStartTimestamp lt "2026-01-31T00:00:00"`, 26, wantTime},
		{`sessionStartTimestamp lt "2026-01-31T1:00:00Z"`, 26, wantTime},
		{`sessionStartTimestamp lt "2026-01-31T01:00:00,5Z"`, 26, wantTime},
		{`sessionStartTimestamp lt "0001-01-01T00:00:00+01:00"`, 26, wantTime},
		{`sessionStartTimestamp lt "9999-12-31T23:59:59-01:00"`, 26, wantTime},
		{`clientIpAddress eq "10."`, 20, wantAddress},
		{`clientIpAddress eq "10.0.0.0/33"`, 20, wantAddress},
		{`clientIpAddress eq "fe80::1%eth0"`, 20, wantAddress},
		{`clientIpAddress eq 10`, 20, wantAddress},

		{`realm in "a"`, 10, wantList},
		{`realm in ("a")`, 10, wantList},
		{`realm in []`, 11, wantText},
		{`realm in ["a",]`, 15, wantText},
		{`realm in ["a" "b"]`, 15, wantNext},
		{`realm in ["a"`, 14, wantNext},

		{`realm eq "a`, 10, wantQuote},
		{`realm eq 'a"`, 10, wantQuote},
		{`realm eq "a\`, 12, wantEscape},
		{`realm eq "a\x"`, 12, wantEscape},
		{`realm eq "a\'"`, 12, wantEscape},
		{`realm eq "\u12"`, 11, wantEscape},
		{`realm eq "\u+123"`, 11, wantEscape},
		{`realm eq "\ud83d"`, 11, wantEscape},
		{`realm eq "\ud83d\u0041"`, 11, wantEscape},
		{`realm eq "\ude00\ud83d"`, 11, wantEscape},
		{"realm eq \"a\nb\"", 12, wantControl},
		{"realm eq \"☕\xff\"", 12, wantUnicode},
		{"realm pr and \x80", 14, wantUnicode},

		{strings.Repeat(" ", 4096-8) + `realm  pr`, 4097, wantShorter},
		{`realm eq "x` + strings.Repeat("☕", 1362) + `"`, 1373, wantShorter}, // 11 bytes and three for each
		{strings.Repeat("(", 17) + `true` + strings.Repeat(")", 17), 17, wantShallow},
		{strings.Repeat("!(", 17), 34, wantShallow},
		{strings.Repeat("true and ", 100) + "true", 901, wantFewer},
		{`realm in [` + strings.Repeat(`"a",`, 100) + `"a"]`, 411, wantFewerIn},
	} {
		t.Run(fmt.Sprintf("%.40s", tt.text), func(t *testing.T) {
			f, bad := filter.Parse(tt.text, fields, noon)
			if bad == nil {
				t.Fatalf("accepted as %s", f)
			}
			if want := fmt.Sprintf("filter, position %d: %s", tt.position, tt.want); bad.Message != want || bad.Code != api.BadParam {
				t.Errorf("%d %s\nwant %d %s", bad.Code, bad.Message, api.BadParam, want)
			}
		})
	}
}

func TestBoundsAreInclusive(t *testing.T) {
	for name, text := range map[string]string{
		"bytes":  `realm eq "` + strings.Repeat("x", filter.MaxBytes-11) + `"`,
		"depth":  strings.Repeat("(", filter.MaxDepth) + "true" + strings.Repeat(")", filter.MaxDepth),
		"groups": strings.Repeat("(true) and ", filter.MaxDepth+1) + "true",
		"terms":  strings.Repeat("true and ", filter.MaxTerms-1) + "realm pr",
		"values": `realm in [` + strings.Repeat(`"a",`, filter.MaxValues-1) + `"a"]`,
		"not":    strings.Repeat("!", filter.MaxBytes-4) + "true",
	} {
		if _, bad := filter.Parse(text, fields, noon); bad != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
}

// Whom a filter can find at all.
func TestRequired(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string // nil: anybody
	}{
		{`username eq "Bob"`, []string{"bob"}},
		{`username in ["carol", "Bob"]`, []string{"bob", "carol"}},
		{`username eq "bob" and roles pr`, []string{"bob"}},
		{`roles pr and (username eq "bob" or username eq "al" or username eq "bob")`, []string{"al", "bob"}},
		{`username in ["al", "bob"] and username eq "carol"`, []string{"carol"}},
		{`(username eq "bob" and roles pr) or (realm pr and username eq "al")`, []string{"al", "bob"}},
		{`false`, []string{}},
		{`username eq "bob" and false`, []string{}},
		{`!!username eq "bob"`, []string{"bob"}},
		{`true`, nil},
		{`!username eq "bob"`, nil},
		{`username eq "bob" or roles pr`, nil},
		{`username sw "bob"`, nil},
		{`username pr`, nil},
		{`realm eq "native"`, nil},
		{`!(username eq "bob" and roles pr)`, nil},
	} {
		f, bad := filter.Parse(tt.text, fields, noon)
		if bad != nil {
			t.Fatal(tt.text, bad)
		}
		if got, ok := f.Required(fUsername); ok != (tt.want != nil) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v, want %q", tt.text, got, ok, tt.want)
		}
	}
}

func TestUses(t *testing.T) {
	f, bad := filter.Parse(`username eq "bob" or !(realm pr and properties/plan pr)`, fields, noon)
	if bad != nil {
		t.Fatal(bad)
	}
	for field, want := range map[int]bool{fUsername: true, fRealm: true, fProperties: true, fRoles: false, fStatus: false} {
		if f.Uses(field) != want {
			t.Errorf("%s takes part: %v", fields[field].Name, !want)
		}
	}
}

// What nobody made finds nobody, and no value makes a comparison of another kind
// true.
func TestNothingIsFoundByMistake(t *testing.T) {
	if new(filter.Filter).Match(alice) {
		t.Error("the zero Filter finds a session")
	}
	for _, v := range []filter.Value{{}, filter.OfNumber(0), filter.OfTime(time.Time{}), filter.OfUnix(0), filter.OfAddress(netip.Addr{}), filter.OfSet(nil)} {
		for _, text := range []string{`realm eq ""`, `realm pr`, `realm lt "x"`, `realm co ""`} {
			f, bad := filter.Parse(text, fields, noon)
			if bad != nil {
				t.Fatal(bad)
			}
			if f.Match(record{fRealm: v}) {
				t.Errorf("%s finds %+v", text, v)
			}
		}
	}
	for _, v := range []filter.Value{filter.OfTime(time.Time{}), filter.OfUnix(0)} {
		if f, _ := filter.Parse(`sessionStartTimestamp pr`, fields, noon); f.Match(record{fStart: v}) {
			t.Errorf("%+v is present", v)
		}
	}
}

// The fields of these tests: some of those that sessions have, one of each sort.
const (
	fUsername = iota
	fRealm
	fDescription
	fBrowser
	fDeviceKind
	fStatus
	fPermanent
	fIdle
	fStart
	fIdleAt
	fAddress
	fRoles
	fProperties = fRoles + 2 // leaves a gap, which names nothing
)

var fields = filter.Table{
	fUsername:    {Name: "username", Kind: filter.Text, Fold: strings.ToLower},
	fRealm:       {Name: "realm", Kind: filter.Text},
	fDescription: {Name: "description", Kind: filter.Text},
	fBrowser:     {Name: "device/browser", Kind: filter.Text},
	fDeviceKind:  {Name: "device/kind", Kind: filter.Text, OneOf: []string{"desktop", "mobile", "tablet", "bot", "other"}},
	fStatus:      {Name: "status", Kind: filter.Text, OneOf: []string{"active", "ended", "revoked"}},
	fPermanent:   {Name: "permanentSession", Kind: filter.Bool},
	fIdle:        {Name: "idleConnectionTimeoutSeconds", Kind: filter.Number},
	fStart:       {Name: "sessionStartTimestamp", Kind: filter.Time},
	fIdleAt:      {Name: "maxIdleExpirationTimestamp", Kind: filter.Time},
	fAddress:     {Name: "clientIpAddress", Kind: filter.Address},
	fRoles:       {Name: "roles", Kind: filter.Set},
	fProperties: {Name: "properties", Members: func(member string) (filter.Kind, bool) {
		if member == "seats" {
			return filter.Number, true
		}
		return filter.Text, member != "" && !strings.HasPrefix(member, "internal.")
	}},
}

var (
	noon  = time.Date(2026, 1, 31, 12, 0, 0, 999, time.UTC)
	alice = record{
		fUsername: "alice", fRealm: "native", fDescription: `café "☕" \/`, fBrowser: "Firefox 140.0", fDeviceKind: "desktop", fStatus: "active",
		fPermanent: false, fIdle: int64(3600), fStart: noon.Add(-2 * time.Hour).Truncate(time.Second), fIdleAt: noon.Add(10 * time.Minute),
		fAddress: netip.MustParseAddr("::ffff:10.1.2.3"), fRoles: []string{"admin", "auditor"}, fProperties: map[string]any{"plan": "free", "seats": int64(12)},
	}
	key = record{
		fUsername: "bob", fRealm: "trusted/eu", fDescription: "", fStatus: "ended",
		fPermanent: true, fIdle: int64(-1), fStart: noon.Add(-40 * 24 * time.Hour).Truncate(time.Second),
		fAddress: netip.MustParseAddr("2001:db8::1%eth0"), fProperties: map[string]any{"app/plan": "y", "~~1": "z"},
	}
)

// A record has its fields by their numbers, the properties as a map of theirs.
type record map[int]any

func (r record) Value(field int, member string) filter.Value {
	v := r[field]
	if members, ok := v.(map[string]any); ok {
		v = members[member]
	}
	switch v := v.(type) {
	case string:
		return filter.OfText(v)
	case int64:
		return filter.OfNumber(v)
	case bool:
		return filter.OfBool(v)
	case time.Time:
		return filter.OfTime(v)
	case netip.Addr:
		return filter.OfAddress(v)
	case []string:
		return filter.OfSet(v)
	case filter.Value:
		return v
	default:
		return filter.Value{}
	}
}
