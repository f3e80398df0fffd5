package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/store/mem"
)

// persons are names of accounts, in their canonical form. What the letters of one
// are made of, decompositions tells.
var persons = []string{
	"w.alice", "bob_17", "x-ray", "o'neil", "a+b@example.org", "ops:night/shift", "kelvin", "fiona", "office", "istanbul",
	"josé", "zoë", "françois", "müller", "søren", "łukasz", "ñandú", "ångström", "dvořák", "čapek",
	"ağaoğlu", "nguyễn", "phạm", "việt", "ệva", "þórr", "œuvre", "straße", "groß", "ırmak",
	"ольга", "юрий", "фёдор", "ґалаґан", "ελένη", "νίκος", "αθηνά", "ὀδυσσεύς", "հայկ", "ნინო",
	"山田_taro", "たなか-2026", "がくせい.01", "カタカナ.k", "한국-seoul", "अजय.2026", "ไทย_2026", "אבי-2026", "علي2026", "ⴰⵣⵓⵍ_77",
}

// Every spelling of a name either is no name, or is the account's: its counter of
// failures, its limit of sessions, its record. Where Unicode has two letters that
// only look or sound alike, the name is another one, and that in every respect.
func TestSpellingsOfNames(t *testing.T) {
	const (
		each  = 1000 / lessUnderRace // spellings of a name
		free  = 5                    // failures of an account before it has to wait
		limit = 3                    // sessions of an account
	)
	s, err := newStage(t.Context(), props{
		store: mem.New(), hasher: cheapHasher(t), logins: []string{"admin"},
		config: fmt.Sprintf(`{"jsonActionApiDefaults":{"maxJsonApiSessions":0,"maxJsonApiSessionsPerUsername":%d}}`, limit),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.sessions.Close()
	admin, requests := s.byName["token:admin"], 0
	login := func(username, password string) heard {
		requests++
		return s.say(t, ipv4(requests), spoken{"", "createSession", object{"username": username, "password": password}})
	}
	create := func(username string) heard {
		requests++
		return s.say(t, ipv4(requests), spoken{admin, "createAccount", object{"username": username, "password": stagePassword}})
	}
	seen := map[kinship]int{}
	exists := map[string]bool{}
	for _, name := range persons {
		exists[name] = true
	}
	for i, name := range persons {
		spellings := spell(rand.New(rand.NewPCG(11, uint64(i))), name, each)
		made := create(name)
		if made.Code != api.OK {
			t.Fatalf("%s is no name: %s", name, made.raw)
		}
		sessions := 0
		for _, sp := range spellings {
			if seen[sp.kin]++; sp.kin == same && sessions <= limit {
				sessions++
				got, want := login(sp.text, stagePassword), api.OK
				if sessions > limit {
					want = api.SessionLimitPerUsername
				}
				if got.Code != want || want == api.OK && got.Result.AccountID != made.Result.AccountID {
					t.Errorf("log-in %d of %s as %+q: %s", sessions, name, sp.text, got.raw)
				}
			}
		}
		for _, sp := range spellings {
			canonical, err := account.Canonical(sp.text)
			want := api.AlreadyExists
			switch {
			case err != nil:
				want = api.BadParam
			case !exists[canonical]:
				want, exists[canonical] = api.OK, true
			}
			if kin := kinOf(canonical, err, name); kin != sp.kin && (sp.kin != other || kin != none) {
				t.Errorf("%+q, a spelling of %s, has the form %q, %v: it is %s, want %s", sp.text, name, canonical, err, kin, sp.kin)
			}
			if got := create(sp.text); got.Code != want {
				t.Errorf("createAccount of %+q, a spelling of %s: %s, want %d", sp.text, name, got.raw, want)
			}
		}
		failures := map[string]int{}
		for _, sp := range spellings {
			canonical, err := account.Canonical(sp.text)
			want := api.LoginFailed
			switch {
			case len(sp.text) > account.MaxUsername:
				want = api.BadParam
			case err != nil: // every such text is tried once
			case failures[canonical] == free:
				want = api.LoginThrottled
			default:
				failures[canonical]++
			}
			if got := login(sp.text, guessedWrong); got.Code != want {
				t.Errorf("a guess at %+q, a spelling of %s: %s, want %d", sp.text, name, got.raw, want)
			}
		}
		if got := login(name, stagePassword); got.Code != api.LoginThrottled || failures[name] != free {
			t.Errorf("after %d failures %s gets %s, want %d", failures[name], name, got.raw, api.LoginThrottled)
		}
	}
	t.Logf("%d spellings: %d the same, %d no name, %d another name", len(persons)*each, seen[same], seen[none], seen[other])
	if seen[same] < 10_000 || seen[none] < 10_000 || seen[other] < 1000 {
		t.Error("the spellings are too much alike to show anything")
	}
}

// kinship is what a spelling is to the name.
type kinship string

const (
	same  kinship = "the same name"
	none  kinship = "no name"
	other kinship = "another name"
)

func kinOf(canonical string, err error, name string) kinship {
	switch {
	case err != nil:
		return none
	case canonical == name:
		return same
	}
	return other
}

type spelling struct {
	text string
	kin  kinship
}

// spell returns so many spellings of a name, no two alike.
func spell(random *rand.Rand, name string, n int) []spelling {
	all := map[string]kinship{}
	for tries := 0; len(all) < n; tries++ {
		text, kin := name, same
		dice := random.IntN(100)
		if dice < 15 {
			if changed := lookalike(random, text); changed != text {
				text, kin = changed, other
			}
		}
		if kin == same || dice < 3 { // a change of letters that only look alike is left as it is, mostly
			text = rewrite(random, text)
		}
		if dice >= 65 || tries > 4*n && dice >= 15 { // some names have few spellings that are names
			text, kin = intrude(random, text), none
		}
		if len(text) > account.MaxUsername {
			kin = none
		}
		all[text] = kin
	}
	var list []spelling
	for _, text := range slices.Sorted(maps.Keys(all)) {
		list = append(list, spelling{text, all[text]})
	}
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// decompositions are letters of persons, and what they are made of: the normal form
// D, and what lies between.
var decompositions = map[rune][]string{
	'é': {"e\u0301"}, 'ë': {"e\u0308"}, 'ç': {"c\u0327"}, 'ü': {"u\u0308"}, 'ñ': {"n\u0303"}, 'ú': {"u\u0301"}, 'å': {"a\u030a", "\u212b"}, 'ö': {"o\u0308"},
	'ř': {"r\u030c"}, 'á': {"a\u0301"}, 'č': {"c\u030c"}, 'ğ': {"g\u0306"}, 'ễ': {"e\u0302\u0303", "ê\u0303"}, 'ạ': {"a\u0323"},
	'ệ': {"e\u0323\u0302", "e\u0302\u0323", "ê\u0323", "ẹ\u0302"}, 'ó': {"o\u0301"},
	'й': {"и\u0306"}, 'ё': {"е\u0308"}, 'έ': {"ε\u0301", "\u1f73"}, 'ί': {"ι\u0301", "\u1f77"}, 'ά': {"α\u0301", "\u1f71"}, 'ὀ': {"ο\u0313"}, 'ύ': {"υ\u0301", "\u1f7b"},
	'が': {"か\u3099"}, '한': {"\u1112\u1161\u11ab", "하\u11ab"}, '국': {"\u1100\u116e\u11a8", "구\u11a8"}, 'k': {"\u212a"}, 'ß': {"\u1e9e"},
	'カ': {"\uff76"}, 'タ': {"\uff80"}, 'ナ': {"\uff85"},
}

// rewrite changes case, width and normal form, letter by letter: the name stays
// the same.
func rewrite(random *rand.Rand, name string) string {
	var b strings.Builder
	how := random.IntN(16) // which kinds of change there are
	for _, r := range name {
		parts := string(r)
		if d := decompositions[r]; how&1 != 0 && d != nil && random.IntN(2) == 0 {
			parts = d[random.IntN(len(d))]
		}
		for _, part := range parts {
			if upper := unicode.ToUpper(part); how&2 != 0 && unicode.ToLower(upper) == part && random.IntN(2) == 0 {
				part = upper
			}
			if how&4 != 0 && part > ' ' && part <= '~' && random.IntN(2) == 0 {
				part += '！' - '!'
			}
			b.WriteRune(part)
		}
	}
	return b.String()
}

// lookalike replaces or adds what makes another name of it, or none.
func lookalike(random *rand.Rand, name string) string {
	pairs := [][2]string{
		{"i", "ı"},
		{"i", "\u0130"},
		{"ı", "i"},
		{"a", "а"},
		{"e", "е"},
		{"o", "о"},
		{"o", "0"},
		{"l", "1"},
		{"ς", "σ"},
		{"σ", "ς"},
		{"ß", "ss"},
		{"ss", "ß"},
		{"œ", "oe"},
		{"ø", "o"},
		{"ł", "l"},
		{"þ", "th"},
		{"ñ", "n"},
		{"é", "e"},
		{"ü", "ue"},
		{"й", "и"},
		{"カ", "か"},
		{"か", "カ"},
		{"-", "_"},
		{"'", "`"},
		{"عل", "ع\u200cل"},
		{"لي", "ل\u200cي"}, // which joins no letters, and so is seen
	}
	pair := pairs[random.IntN(len(pairs))]
	if random.IntN(3) == 0 {
		return name + []string{".", "..", "．", "\u0300", "\u0331", "\u20dd", "s", "0", "·", "\u200c"}[random.IntN(10)]
	}
	return strings.Replace(name, pair[0], pair[1], 1)
}

// intruders are what no name holds, wherever it stands.
var intruders = []string{
	"\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f", "\u180e", "\u200e", "\u200f", "\u061c", "\u202a", "\u202e", "\u2066", "\u2069",
	"\u3164", "\u115f", "\u17b4", "\ufe0f", "\ufe00", "\U000e0020", "\U000e0100", "\x00", "\t", "\n", "\r", "\x7f", "\u0085", "\u2028", "\ufff9", "\ufffe",
	" ", "\u00a0", "\u3000", "\u2003", "\u1680", "\u202f", "\u205f",
	"ﬁ", "ﬀ", "ﬃ", "ﬆ", "ĳ", "ŉ", "ǆ", "ſ", "ª", "①", "ⓐ", "𝐚", "𝒶", "ⅷ", "ℓ", "™", "²", "㎏", "㌀", "ﷺ", "…", "。", "\ue000", "\U000f0000",
}

// intrude adds what makes it no name.
func intrude(random *rand.Rand, name string) string {
	letters := []rune(name)
	at := random.IntN(len(letters) + 1)
	if random.IntN(3) == 0 {
		at = len(letters)
	}
	what := intruders[random.IntN(len(intruders))]
	if random.IntN(4) == 0 {
		what += intruders[random.IntN(len(intruders))]
	}
	return string(letters[:at]) + what + string(letters[at:])
}
