package filter_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sessiond/internal/api"
	"sessiond/internal/filter"
)

// Any text is a filter or is refused at a position within it, repeating nothing.
// A filter's canonical form is the same filter, and its own canonical form.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`username eq "alice" and realm eq "/alpha"`,
		`!(roles co "admin" or properties/plan in ["free", 'it\'s']) and sessionStartTimestamp lt "-30d"`,
		`clientIpAddress in ["10.0.0.0/8", "2001:db8::1"] or idleConnectionTimeoutSeconds ge -1`,
		`not status eq "ended" and (permanentSession eq true or false)`,
		`description co "\ud83d\ude00 \u0000 é"`, `properties/a~1b~0 pr`, `((((((true`, "realm eq \"\xff", `maxIdleExpirationTimestamp le "2026-01-31T10:00:00.5+01:00"`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, bad := filter.Parse(text, fields, noon)
		if bad != nil {
			var position int
			if _, err := fmt.Sscanf(bad.Message, "filter, position %d: ", &position); err != nil || bad.Code != api.BadParam || position < 1 || position > len([]rune(text))+1 {
				t.Fatalf("%q: %v", text, bad)
			}
			return
		}
		canonical := parsed.String()
		again, bad := filter.Parse(canonical, fields, noon.Add(time.Hour))
		if bad != nil {
			if len(canonical) <= filter.MaxBytes {
				t.Fatalf("%q is canonically %q: %v", text, canonical, bad)
			}
			return
		}
		if again.String() != canonical {
			t.Fatalf("%q is canonically %q, then %q", text, canonical, again)
		}
		for _, r := range []record{alice, key, {}} {
			if parsed.Match(r) != again.Match(r) {
				t.Fatalf("%q and %q differ about %v", text, canonical, r)
			}
		}
	})
}

// No refusal repeats what stands in a filter, wherever it stands.
func TestRefusalsRepeatNothing(t *testing.T) {
	const secret = "hunter2"
	for _, text := range []string{
		secret, secret + ` eq "x"`, `realm ` + secret, `realm eq ` + secret, `realm eq "` + secret, `realm pr ` + secret, `realm in [` + secret, `realm in ["a" ` + secret,
		`status eq "` + secret + `"`, `permanentSession eq ` + secret, `idleConnectionTimeoutSeconds eq ` + secret, `sessionStartTimestamp eq "` + secret + `"`,
		`clientIpAddress eq "` + secret + `"`, `properties/internal.` + secret + ` pr`, `(realm pr ` + secret, `realm eq "` + secret + `\x"`,
	} {
		switch _, bad := filter.Parse(text, fields, noon); {
		case bad == nil:
			t.Errorf("%s is accepted", text)
		case strings.Contains(bad.Message, secret):
			t.Errorf("%s is refused with %q", text, bad.Message)
		}
	}
}

// A filter finds what a slow evaluator, which shares no code with it, says it
// means, however it is spelt; and what it requires, all that it finds has.
func TestMatchAgreesWithWhatItMeans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		meant := drawMeaning(t, 4)
		text := meant.spell(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "spelling"), 0)))
		f, bad := filter.Parse(text, fields, noon)
		if bad != nil {
			t.Fatalf("%s: %v", text, bad)
		}
		again, bad := filter.Parse(f.String(), fields, noon.Add(time.Hour))
		if bad != nil || again.String() != f.String() {
			t.Fatalf("%s is canonically %s, then %s, %v", text, f, again, bad)
		}
		required, confined := f.Required(fUsername)
		for range 10 {
			r := drawRecord(t)
			want := meant.of(r)
			if f.Match(r) != want || again.Match(r) != want {
				t.Fatalf("%s, canonically %s, is %v of %v, want %v", text, f, !want, r, want)
			}
			if name, _ := r[fUsername].(string); want && confined && !slices.Contains(required, name) {
				t.Fatalf("%s finds %v, but requires one of %q", text, r, required)
			}
		}
	})
}

// meaning is a filter as the slow evaluator has it.
type meaning struct {
	join     string // and, or, not, true, false; else a comparison
	kids     []meaning
	field    int
	member   string
	operator string
	values   []any // of the types that record holds, and netip.Prefix
}

// of reports whether it is true of a record.
func (m meaning) of(r record) bool {
	switch m.join {
	case "true":
		return true
	case "false":
		return false
	case "not":
		return !m.kids[0].of(r)
	case "and":
		return m.kids[0].of(r) && m.kids[1].of(r)
	case "or":
		return m.kids[0].of(r) || m.kids[1].of(r)
	}
	v := r[m.field]
	if members, ok := v.(map[string]any); ok {
		v = members[m.member]
	}
	if set, ok := v.([]string); ok {
		return slices.ContainsFunc(set, func(element string) bool {
			return m.operator == "pr" || slices.ContainsFunc(m.values, func(want any) bool {
				return element == want || m.operator == "sw" && strings.HasPrefix(element, fmt.Sprint(want))
			})
		})
	}
	if v == nil || m.operator == "pr" {
		return v != nil
	}
	return slices.ContainsFunc(m.values, func(want any) bool { return compares(v, m.operator, want) })
}

func compares(v any, operator string, want any) bool {
	if text, ok := v.(string); ok {
		switch operator {
		case "co":
			return strings.Contains(text, fmt.Sprint(want))
		case "sw":
			return strings.HasPrefix(text, fmt.Sprint(want))
		}
	}
	var less, equal bool
	switch want := want.(type) {
	case string:
		less, equal = fmt.Sprint(v) < want, v == want
	case int64:
		n, _ := v.(int64)
		less, equal = n < want, n == want
	case bool:
		equal = v == want
	case time.Time:
		at, _ := v.(time.Time)
		less, equal = at.Before(want), at.Equal(want)
	case netip.Prefix:
		a, _ := v.(netip.Addr)
		equal = want.Contains(a)
	}
	switch operator {
	case "lt":
		return less
	case "le":
		return less || equal
	case "gt":
		return !less && !equal
	case "ge":
		return !less
	default: // eq, in; sw of an address
		return equal
	}
}

// spell writes it down in one of its many ways.
func (m meaning) spell(random *rand.Rand) string {
	some := func(of ...string) string { return of[random.IntN(len(of))] }
	space := func() string { return some(" ", " ", "  ", "\t", " \n ") }
	maybe := func() string { return some("", "", "", " ", "\r\n") }
	group := func(m meaning, spelt string) string {
		if m.join == "and" || m.join == "or" || random.IntN(4) == 0 {
			return "(" + maybe() + spelt + maybe() + ")"
		}
		return spelt
	}
	switch m.join {
	case "true", "false":
		return some(m.join, strings.ToUpper(m.join))
	case "not":
		return some("!"+maybe(), "not ", "NOT\t") + group(m.kids[0], m.kids[0].spell(random))
	case "and", "or":
		var sides [2]string
		for i, side := range m.kids {
			sides[i] = side.spell(random)
			if m.join == "and" && side.join == "or" || random.IntN(2) == 0 {
				sides[i] = group(side, sides[i])
			}
		}
		return sides[0] + space() + some(m.join, strings.ToUpper(m.join)) + space() + sides[1]
	}
	text := some("", "/") + fields[m.field].Name
	if m.member != "" {
		text += "/" + m.member
	}
	text += space() + some(m.operator, strings.ToUpper(m.operator))
	values := make([]string, len(m.values))
	for i, v := range m.values {
		values[i] = spellValue(random, v)
	}
	switch m.operator {
	case "pr":
		return text
	case "in":
		return text + maybe() + "[" + maybe() + strings.Join(values, maybe()+","+maybe()) + maybe() + "]"
	default:
		return text + space() + values[0]
	}
}

func spellValue(random *rand.Rand, v any) string {
	switch v := v.(type) {
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		if d := v.Unix() - noon.Unix(); v.Nanosecond() == 0 && random.IntN(2) == 0 {
			return fmt.Sprintf(`"%+ds"`, d)
		}
		return `"` + v.In(time.FixedZone("", random.IntN(24)*3600)).Format(time.RFC3339Nano) + `"`
	case netip.Prefix:
		if v.IsSingleIP() {
			return `"` + v.Addr().String() + `"`
		}
		return `"` + v.String() + `"`
	default:
		quote := "\"'"[random.IntN(2)]
		text := []byte{quote}
		for _, r := range fmt.Sprint(v) {
			switch {
			case r < ' ' || random.IntN(8) == 0 && r < 0x10000:
				text = fmt.Appendf(text, `\u%04X`, r)
			case r == '\\' || r == rune(quote):
				text = append(text, '\\', byte(r))
			default:
				text = append(text, string(r)...)
			}
		}
		return string(append(text, quote))
	}
}

// What is drawn is little, so that filters often find something.
var (
	drawText    = rapid.SampledFrom([]string{"", "a", "b", "ab", "ba", "abc", `"`, `'\`, "é\n😀"})
	drawName    = rapid.SampledFrom([]string{"al", "bob", "carol"})
	drawStatus  = rapid.SampledFrom([]string{"active", "ended", "revoked"})
	drawNumber  = rapid.SampledFrom([]int64{-1, 0, 1, 3600, 1 << 62})
	drawTime    = rapid.Map(rapid.SampledFrom([]time.Duration{-time.Hour, -time.Second, -1, 0, 1, time.Second, 30 * 24 * time.Hour}), func(d time.Duration) time.Time { return noon.Truncate(time.Second).Add(d) })
	drawAddress = rapid.Map(rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.1.0.1", "2001:db8::1", "2001:db8:1::1"}), netip.MustParseAddr)
	drawNetwork = rapid.Map(rapid.SampledFrom([]string{"10.0.0.1/32", "10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/48", "2001:db8::1/128", "::/0"}), netip.MustParsePrefix)
)

func drawMeaning(t *rapid.T, depth int) meaning {
	joins := []string{"", "", "", "true", "false", "not", "and", "or", "and", "or"}
	if depth == 0 {
		joins = joins[:5]
	}
	switch m := (meaning{join: rapid.SampledFrom(joins).Draw(t, "join")}); m.join {
	case "":
		return drawComparison(t)
	case "not":
		m.kids = []meaning{drawMeaning(t, depth-1)}
		return m
	case "and", "or":
		m.kids = []meaning{drawMeaning(t, depth-1), drawMeaning(t, depth-1)}
		return m
	default:
		return m
	}
}

func drawComparison(t *rapid.T) meaning {
	text, ordered := []string{"eq", "co", "sw", "lt", "le", "gt", "ge", "in", "pr"}, []string{"eq", "lt", "le", "gt", "ge", "in", "pr"}
	row := rapid.SampledFrom([]struct {
		field     int
		member    string
		operators []string
		value     func() any
	}{
		{fUsername, "", []string{"eq", "in", "eq", "in", "sw", "pr"}, func() any { return drawName.Draw(t, "name") }},
		{fDescription, "", text, func() any { return drawText.Draw(t, "text") }},
		{fProperties, "plan", text, func() any { return drawText.Draw(t, "text") }},
		{fProperties, "seats", ordered, func() any { return drawNumber.Draw(t, "number") }},
		{fStatus, "", []string{"eq", "in", "pr"}, func() any { return drawStatus.Draw(t, "status") }},
		{fIdle, "", ordered, func() any { return drawNumber.Draw(t, "number") }},
		{fPermanent, "", []string{"eq", "in", "pr"}, func() any { return rapid.Bool().Draw(t, "bool") }},
		{fStart, "", ordered, func() any { return drawTime.Draw(t, "time") }},
		{fAddress, "", []string{"eq", "sw", "in", "pr"}, func() any { return drawNetwork.Draw(t, "network") }},
		{fRoles, "", []string{"eq", "co", "sw", "in", "pr"}, func() any { return drawText.Draw(t, "role") }},
	}).Draw(t, "field")
	m := meaning{field: row.field, member: row.member, operator: rapid.SampledFrom(row.operators).Draw(t, "operator")}
	switch m.operator {
	case "pr":
	case "in":
		for range rapid.IntRange(1, 4).Draw(t, "values") {
			m.values = append(m.values, row.value())
		}
	default:
		m.values = []any{row.value()}
	}
	return m
}

func drawRecord(t *rapid.T) record {
	r := record{fProperties: map[string]any{}}
	set := func(field int, v any) {
		if rapid.IntRange(0, 4).Draw(t, "absent") > 0 {
			r[field] = v
		}
	}
	set(fUsername, drawName.Draw(t, "name"))
	set(fDescription, drawText.Draw(t, "text"))
	set(fStatus, drawStatus.Draw(t, "status"))
	set(fIdle, drawNumber.Draw(t, "number"))
	set(fPermanent, rapid.Bool().Draw(t, "bool"))
	set(fStart, drawTime.Draw(t, "time"))
	set(fAddress, drawAddress.Draw(t, "address"))
	set(fRoles, rapid.SliceOfN(drawText, 0, 3).Draw(t, "roles"))
	set(fProperties, map[string]any{"plan": drawText.Draw(t, "plan"), "seats": drawNumber.Draw(t, "seats")})
	return r
}

const fiveTerms = `(roles eq "zoo" or username in ["carol", "alice"]) and clientIpAddress eq "10.0.0.0/8" and sessionStartTimestamp lt "-30m" and !properties/plan eq "paid"`

func TestMatchAllocatesNothing(t *testing.T) {
	r := newRow()
	for _, text := range []string{fiveTerms, `roles sw "aud" and description co "é" and realm in ["a", "native"]`} {
		f, bad := filter.Parse(text, fields, noon)
		if bad != nil {
			t.Fatal(bad)
		}
		if n := testing.AllocsPerRun(100, func() {
			if !f.Match(r) {
				t.Fatalf("%s does not find the row", text)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	f, bad := filter.Parse(fiveTerms, fields, noon)
	if bad != nil {
		b.Fatal(bad)
	}
	r := newRow()
	b.ReportAllocs()
	for b.Loop() {
		if !f.Match(r) {
			b.Fatal("the row is not found")
		}
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, bad := filter.Parse(fiveTerms, fields, noon); bad != nil {
			b.Fatal(bad)
		}
	}
}

// row is a record as a program has it.
type row struct {
	username, realm, description string
	start                        int64
	address                      netip.Addr
	roles                        []string
	properties                   map[string]string
}

func newRow() *row {
	return &row{
		username: "alice", realm: "native", description: "café", start: noon.Add(-time.Hour).Unix(),
		address: netip.MustParseAddr("10.1.2.3"), roles: []string{"admin", "auditor"}, properties: map[string]string{"plan": "free"},
	}
}

func (r *row) Value(field int, member string) filter.Value {
	switch field {
	case fUsername:
		return filter.OfText(r.username)
	case fRealm:
		return filter.OfText(r.realm)
	case fDescription:
		return filter.OfText(r.description)
	case fStart:
		return filter.OfUnix(r.start)
	case fAddress:
		return filter.OfAddress(r.address)
	case fRoles:
		return filter.OfSet(r.roles)
	case fProperties:
		if text, ok := r.properties[member]; ok {
			return filter.OfText(text)
		}
	}
	return filter.Value{}
}
