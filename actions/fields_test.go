package actions

import (
	"math"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/filter"
	"sessiond/internal/session"
	"sessiond/store/mem"
)

// unfiltered are the members of a session that no filter is about, and why.
var unfiltered = map[string]string{
	"authToken":              "a secret",
	"defaultResponseOptions": "an object",
	"defaultRetentionPolicy": "the server's, the same for all",
	"defaultRetentionUnit":   "the server's, the same for all",
	"defaultRetentionPeriod": "the server's, the same for all",
	"hostname":               "the server's, the same for all",
	"hostUuid":               "the server's, the same for all",
	"hostIpAddresses":        "the server's, the same for all",
	"hostServerNamePort":     "the server's, the same for all",
	"clientIpAddresses":      "a map: clientIpAddress is the one that it was created from",
}

// Each member that a session is answered with is a field, with the value that is
// answered, or it is said why not.
func TestFieldsAreTheMembersOfSessions(t *testing.T) {
	s := &sessions{Deps{Sessions: emptyKeeper(t)}}
	for name, v := range map[string]*session.View{"living": aSession(), "key": aKey(), "ended": anEnded()} {
		fields := sessionFields(&config.Config{})
		r := &record{View: v, fields: fields, server: s, caller: v.Handle, devices: map[string]session.Device{}}
		view := s.view(&dispatch.Call{Config: &config.Config{}}, v, &session.Caller{Live: session.Live{Handle: v.Handle}})
		left := map[string]int{}
		for i := range fields {
			left[fields[i].Name] = i
		}
		eachMember("", reflect.ValueOf(view), func(member string, value reflect.Value) {
			number, known := left[member]
			delete(left, member)
			if why := unfiltered[member]; known == (why != "") {
				t.Errorf("%s is a field: %t, and the reason why not is %q", member, known, why)
			}
			if !known {
				return
			}
			if member == "properties" {
				for key, text := range v.Properties {
					if got := r.Value(number, key); !reflect.DeepEqual(got, filter.OfText(text)) {
						t.Errorf("%s: properties/%s is %+v", name, key, got)
					}
				}
				return
			}
			if got, want := r.Value(number, ""), valueOf(t, fields[number].Field, value); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s is %+v, want %+v", name, member, got, want)
			}
		})
		for member := range left {
			t.Errorf("%s is a field, but no member", member)
		}
	}
}

// The guide lists the fields, each with its kind.
func TestGuideListsTheFields(t *testing.T) {
	guide, err := os.ReadFile("../docs/filter.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]filter.Kind{"Text": filter.Text, "Number": filter.Number, "Bool": filter.Bool, "Time": filter.Time, "Address": filter.Address, "Set": filter.Set}
	listed := map[string]filter.Kind{"properties": 0}
	for _, row := range regexp.MustCompile(`(?m)^\| ([A-Z]\w+) \| .* \| (.*) \|$`).FindAllStringSubmatch(string(guide), -1) {
		for _, name := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row[2], -1) {
			listed[name[1]] = kinds[row[1]]
		}
	}
	for _, f := range sessionFields(&config.Config{}) {
		if kind, ok := listed[f.Name]; !ok || kind != f.Kind {
			t.Errorf("the guide lacks %s, or has it as another kind", f.Name)
		}
		delete(listed, f.Name)
	}
	for name := range listed {
		t.Errorf("the guide has %s, which is no field", name)
	}
}

// Every value that a session may have is one that its field takes.
func TestFieldsTakeWhatThereIs(t *testing.T) {
	for _, s := range statuses() {
		if s == "" {
			t.Error("a status has no name")
		}
	}
	fields := sessionFields(&config.Config{})
	for number, name := range map[int]string{byUsername: "username", byRealm: "realm", byAccountID: "accountId", byHandle: "sessionHandle", byStatus: "status"} {
		if fields[number].Name != name {
			t.Errorf("field %d is %s, want %s", number, fields[number].Name, name)
		}
	}
	for _, name := range []string{"Alice", "ÄRGER", "ß", "", "a b", "\xff", "x.", strings.Repeat("A", 100), "Ａlice"} {
		if once := foldName(name); foldName(once) != once {
			t.Errorf("%q is folded twice", name)
		}
	}
}

// A property is compared as what services.json says that it is, and as a text where
// that differs, or is no longer said.
func TestPropertiesHaveTypes(t *testing.T) {
	c, err := config.Parse([]byte(`{
	  "sessionProperties": [{"name":"seats","type":"integer"}, {"name":"trial","type":"boolean"}, {"name":"plan"}],
	  "realms": [{"name":"a","type":"trusted","sessionProperties":[{"name":"mixed","type":"integer"}]}, {"name":"b","type":"trusted","sessionProperties":[{"name":"mixed"}]}]
	}`), "services.json")
	if err != nil {
		t.Fatal(err)
	}
	fields := sessionFields(c)
	v := &session.View{Record: &session.Record{Properties: map[string]string{"seats": "10", "trial": "true", "plan": "9", "mixed": "10", "gone": "10"}}}
	for source, want := range map[string]string{
		`properties/seats gt 9`: "found", `properties/seats in [9, 11]`: "not found", `properties/seats gt "9"`: "refused",
		`properties/trial eq true`: "found", `!properties/trial pr`: "not found", `properties/trial eq "true"`: "refused",
		`properties/plan eq "9"`: "found", `properties/plan eq 9`: "refused",
		`properties/mixed eq "10"`: "found", `properties/mixed lt "9"`: "found", `properties/gone eq "10"`: "found", `properties/none pr`: "not found",
		`properties/ pr`: "refused", `properties pr`: "refused",
	} {
		got := "refused"
		if f, err := parseFilter(source, fields, time.Time{}); err == nil {
			if got = "not found"; f.Match(&record{View: v, fields: fields}) {
				got = "found"
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", source, got, want)
		}
	}
	v.Properties["seats"] = "ten" // from when it was a string
	if f, err := parseFilter(`properties/seats pr`, fields, time.Time{}); err != nil || f.Match(&record{View: v, fields: fields}) {
		t.Errorf("a text is a number: %v", err)
	}
}

// A cursor is good as it was given, for the listing that it was given for.
func TestCursors(t *testing.T) {
	k := cursor{given: 7, now: 5, at: position{key: "alice", handle: api.ID{1, 15: 2}}}
	text := k.text("this")
	if got, ok := parseCursor(text, "this"); !ok || got != k {
		t.Errorf("%+v, %t", got, ok)
	}
	if len((&cursor{at: position{key: strings.Repeat("x", account.MaxUsername)}}).text("")) > 255 {
		t.Error("a cursor may be longer than the params take")
	}
	for given, want := range map[int64]bool{100: true, 40: true, 39: false, 101: false, math.MinInt64: false, math.MaxInt64: false} {
		if (&cursor{given: given}).goodAt(100, 60) != want {
			t.Errorf("given at %d it is good: %v", given, !want)
		}
	}
	if _, ok := parseCursor(text, "that"); ok {
		t.Error("it is good for another listing")
	}
	for i := range text {
		other := byte('A')
		if text[i] == other {
			other = 'B'
		}
		if _, ok := parseCursor(text[:i]+string(other)+text[i+1:], "this"); ok {
			t.Errorf("it is good with another character %d", i)
		}
		if _, ok := parseCursor(text[:i], "this"); ok {
			t.Errorf("it is good when cut to %d", i)
		}
	}
}

func emptyKeeper(t *testing.T) *session.Keeper {
	t.Helper()
	cfg, err := config.Parse(config.Shipped(), "services.json")
	if err != nil {
		t.Fatal(err)
	}
	hasher := account.NewHasherCost(1, 0, account.Cost{MemoryKiB: 8, Iterations: 1, Parallelism: 1})
	t.Cleanup(hasher.Close)
	st, now := mem.New(), clock.NewFake(time.Unix(1_800_000_000, 0))
	k, err := session.Open(t.Context(), session.Deps{
		Store: st, Accounts: account.New(account.Deps{Store: st, Clock: now, Hasher: hasher}), Clock: now, Config: config.NewHolder(cfg),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// aSession has no zero members but those of its end.
func aSession() *session.View {
	return &session.View{
		Live: true, IdleAt: 1_800_003_600, MaxAt: 1_800_007_200, Roles: []string{"clerk"}, RealmRoles: []string{"user"},
		Record: &session.Record{
			Handle: api.ID{1}, Prefix: "sdses_", Secrets: []session.Secret{{Mask: "12345678"}}, AccountID: api.ID{2}, Realm: "native", Username: "Alice",
			RememberMe: true, Description: "laptop", IdleSeconds: 3600, MaxSeconds: 7200, AbandonAfter: 99, CursorSeconds: 60,
			Settings: config.Settings{
				DefaultAPI: "hub", DefaultDebug: "max", DefaultDatabaseName: "db", DefaultOwnerName: "me", DefaultBinaryFormat: "hex",
				DefaultVariantFormat: "json", TransformBufferBytes: 512,
			},
			Created: 1_799_999_000, Authenticated: 1_799_999_001, LastAccess: 1_799_999_002, Methods: session.ByPassword,
			Address: netip.MustParseAddr("10.1.2.3"), UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
			Last:     session.Sighting{Address: netip.MustParseAddr("10.1.2.4"), UserAgent: "curl/8.5.0", At: 1_799_999_002},
			Revision: 3, Properties: map[string]string{"plan": "free", "a/b": ""},
		},
	}
}

func aKey() *session.View {
	v := aSession()
	v.Permanent, v.IdleSeconds, v.IdleAt, v.MaxAt, v.UserAgent, v.Address, v.Last = true, 0, 0, 0, "", netip.Addr{}, session.Sighting{}
	return v
}

func anEnded() *session.View {
	v := aSession()
	v.Live, v.Roles, v.RealmRoles = false, nil, nil
	v.End = session.End{Status: session.Revoked, At: 1_800_000_000, Reason: "audit", By: "sh_0000000000000000000001"}
	return v
}

// eachMember calls do for each member as the wire names it, those of device by
// their paths.
func eachMember(prefix string, v reflect.Value, do func(member string, value reflect.Value)) {
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		value := v.Field(i)
		if d, ok := reflect.TypeAssert[*device](value); ok {
			if d == nil {
				d = &device{}
			}
			eachMember(name+"/", reflect.ValueOf(*d), do)
			continue
		}
		do(prefix+name, value)
	}
}

// valueOf returns a member's value as a filter has it. What the wire leaves out
// is absent.
func valueOf(t *testing.T, f filter.Field, value reflect.Value) filter.Value {
	t.Helper()
	switch f.Kind {
	case filter.Text:
		text := value.String()
		if f.Fold != nil {
			text = f.Fold(text)
		}
		if text == "" && slices.Contains([]string{"userAgent", "endReason", "endedBy", "defaultVariantFormat", "device/browser", "device/os", "device/kind", "lastUserAgent", "lastDevice/browser", "lastDevice/os", "lastDevice/kind"}, f.Name) {
			return filter.Value{}
		}
		return filter.OfText(text)
	case filter.Number:
		if value.CanUint() {
			return filter.OfNumber(int64(value.Uint()))
		}
		return filter.OfNumber(value.Int())
	case filter.Bool:
		return filter.OfBool(value.Bool())
	case filter.Time:
		moment, _ := reflect.TypeAssert[time.Time](value)
		return filter.OfTime(moment)
	case filter.Set:
		set, _ := reflect.TypeAssert[[]string](value)
		return filter.OfSet(set)
	case filter.Address:
		address, err := netip.ParseAddr(value.String())
		if value.String() == "" {
			return filter.Value{}
		}
		if err != nil {
			t.Error(err)
		}
		return filter.OfAddress(address)
	}
	t.Errorf("%s has no kind", f.Name)
	return filter.Value{}
}
