package account_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	"sessiond/internal/account"
	"sessiond/internal/api"
)

func TestSpellingsOfANameMeet(t *testing.T) {
	for _, tt := range []struct{ typed, canonical string }{
		{"alice", "alice"},
		{"ALICE", "alice"},
		{"Ａｌｉｃｅ", "alice"},     // full width
		{"JOSÉ", "josé"},       // precomposed
		{"jose\u0301", "josé"}, // combining
		{"a.b+c@Example.ORG", "a.b+c@example.org"},
		{"ops:night/shift", "ops:night/shift"},
		{"Ольга", "ольга"},
	} {
		got, err := account.Canonical(tt.typed)
		if err != nil || got != tt.canonical {
			t.Errorf("Canonical(%q) = %q, %v; want %q", tt.typed, got, err, tt.canonical)
		}
	}
}

func TestWhatIsNoName(t *testing.T) {
	for why, typed := range map[string]string{
		"empty":                    "",
		"a space":                  "alice smith",
		"a trailing space":         "alice ",
		"a newline":                "alice\n",
		"NUL":                      "alice\x00",
		"a zero-width space":       "al\u200bice",
		"a soft hyphen":            "al\u00adice",
		"an override of direction": "\u202eecila",
		"a mark of direction":      "alice\u200f",
		"mixed directions":         "alice\u05d0",
		"a byte order mark":        "\ufeffalice",
		"no UTF-8":                 "alice\xff",
		"a ligature":               "ﬁona",
		"65 bytes":                 strings.Repeat("a", 65),
		"longer when canonical":    strings.Repeat("Ⱥ", 32), // two bytes each, three in lower case
	} {
		got, err := account.Canonical(typed)
		if err == nil {
			t.Errorf("%s: accepted as %q", why, got)
			continue
		}
		e := api.FromError(err)
		if e.Code != api.BadParam {
			t.Errorf("%s: code %d, want %d", why, e.Code, api.BadParam)
		}
		if typed != "" && strings.Contains(err.Error(), typed) {
			t.Errorf("%s: the refusal quotes the name", why)
		}
	}
}

// A name of ASCII is canonical as it is, or is not, just as the profile of RFC 8265
// has it, which is asked only about other names.
func TestPlainNamesAreThoseOfTheProfile(t *testing.T) {
	for c := range 128 {
		for _, name := range []string{string(rune(c)), "a" + string(rune(c)), string(rune(c)) + "1b", "0." + string(rune(c)) + "-"} {
			want, err := precis.UsernameCaseMapped.String(name)
			got, refused := account.CanonicalPrefix(name)
			if got != want && err == nil || (refused == nil) != (err == nil) {
				t.Errorf("%q is %q, %v; want %q, %v", name, got, refused, want, err)
			}
		}
	}
}

// A canonical name is its own canonical form, whatever its letters' case was.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{"alice", "ＡＬＩＣＥ", "jose\u0301", "ΣΊΣΥΦΟΣ", "ß", "İ", "\u05d0b", "a\u200db", "ﷺ", "ǅ", "1٣", "·l·l", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		once, err := account.Canonical(typed)
		if err != nil {
			return
		}
		if twice, err := account.Canonical(once); err != nil || twice != once {
			t.Fatalf("Canonical(%q) = %q, but a second pass gives %q, %v", typed, once, twice, err)
		}
		if len(typed) > account.MaxUsername || len(once) > account.MaxUsername || once == "" || !utf8.ValidString(once) || !utf8.ValidString(typed) {
			t.Fatalf("Canonical(%q) = %q: out of bounds", typed, once)
		}
		for _, r := range typed + once {
			if unicode.IsControl(r) || unicode.IsSpace(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("Canonical(%q) = %q: it holds %U", typed, once, r)
			}
		}
		if upper := strings.ToUpper(typed); strings.ToLower(upper) == once {
			if other, err := account.Canonical(upper); err == nil && other != once {
				t.Fatalf("%q and %q differ: %q, %q", typed, upper, once, other)
			}
		}
	})
}
