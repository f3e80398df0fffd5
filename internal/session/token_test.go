package session_test

import (
	"bytes"
	"crypto/rand"
	"math/big"
	mathrand "math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/session"
)

// handleOfVectors is 032anbLSr77FOCalmOmFEv.
var handleOfVectors = api.ID{0x01, 0x9c, 0xad, 0x1b, 0x3a, 0x20, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99}

// Tokens are stored by their users and recognized by scanners: their form does
// not change. The checksums were computed by another program.
func TestTokenVectors(t *testing.T) {
	count := func(from byte) []byte {
		b := make([]byte, 48)
		for i := range b {
			b[i] = from + byte(i)
		}
		return b
	}
	for _, tt := range []struct {
		why, prefix string
		random      []byte
		want        string
	}{
		{"the first bytes", "sdses_", count(0), "sdses_032anbLSr77FOCalmOmFEv0123456789ABCDEFGHIJKLMNOPQRST1bENcp"},
		{"bytes that would not be fair", "sdkey_", append([]byte{255, 254, 248, 247}, count(200)[:44]...), "sdkey_032anbLSr77FOCalmOmFEvzEFGHIJKLMNOPQRSTUVWXYZabcdefg1H25sn"},
		{"another prefix", "acme-live_", make([]byte, 48), "acme-live_032anbLSr77FOCalmOmFEv000000000000000000000000000000174iHT"},
	} {
		token, err := session.NewToken(tt.prefix, handleOfVectors, bytes.NewReader(tt.random))
		if err != nil || token.Reveal() != tt.want {
			t.Errorf("%s: %s, %v, want %s", tt.why, token.Reveal(), err, tt.want)
		}
	}
	for _, token := range []string{
		"sdses_032anbLSr77FOCalmOmFEv0123456789ABCDEFGHIJKLMNOPQRST1bENcp",
		"sdses_032anbLSr77FOCalmOmFEv0000000000000000000000000000Ef000vKW", // a small checksum, padded on the left
		"acme-live_032anbLSr77FOCalmOmFEv000000000000000000000000000000174iHT",
	} {
		if h, ok := session.Locate(token); !ok || h != handleOfVectors {
			t.Errorf("Locate(%s) = %s, %v", token, h, ok)
		}
	}
	if got := session.HandleText(handleOfVectors); got != "sh_032anbLSr77FOCalmOmFEv" {
		t.Errorf("the handle is written %s", got)
	}
}

func TestNewTokenWithoutRandomness(t *testing.T) {
	if token, err := session.NewToken("sdses_", handleOfVectors, bytes.NewReader(make([]byte, 47))); err == nil {
		t.Errorf("a token was made: %s", token.Reveal())
	}
}

func TestLocateRefusesEveryOtherCharacter(t *testing.T) {
	const token = "sdses_032anbLSr77FOCalmOmFEv0123456789ABCDEFGHIJKLMNOPQRST1bENcp"
	for i := range len(token) {
		for c := range 256 {
			if changed := token[:i] + string([]byte{byte(c)}) + token[i+1:]; changed != token {
				if _, ok := session.Locate(changed); ok {
					t.Errorf("accepted with %q at %d", byte(c), i)
				}
			}
		}
	}
}

func TestLocateRefusesOtherShapes(t *testing.T) {
	const token = "sdses_032anbLSr77FOCalmOmFEv0123456789ABCDEFGHIJKLMNOPQRST1bENcp"
	refused := map[string]string{
		"nothing": "", "upper case": strings.ToUpper(token), "lower case": strings.ToLower(token),
		"a space before": " " + token, "a space behind": token + " ", "twice": token + token, "a newline behind": token + "\n",
		"a handle": "sh_032anbLSr77FOCalmOmFEv",
		// With the right checksum, so that nothing else can be the reason.
		"a prefix of five":           checked("sdse_", handleOfVectors),
		"a prefix of 17":             checked("sdses-sdses-sdse_", handleOfVectors),
		"no underscore":              checked("sdsess", handleOfVectors),
		"a space in the prefix":      checked("sd es_", handleOfVectors),
		"a prefix that is not ASCII": checked("sdsé_", handleOfVectors),
		"the zero handle":            checked("sdses_", api.ID{}),
		"a handle beyond 128 bits":   withChecksum("sdses_" + strings.Repeat("z", 22) + strings.Repeat("0", 30)),
		"a handle with a dash":       withChecksum("sdses_" + strings.Repeat("0", 21) + "-" + strings.Repeat("0", 30)),
		"a secret with a dash":       withChecksum("sdses_032anbLSr77FOCalmOmFEv" + strings.Repeat("0", 29) + "-"),
		"a secret too short":         withChecksum("sdses_032anbLSr77FOCalmOmFEv" + strings.Repeat("0", 29)),
	}
	for i := range len(token) {
		refused["cut at "+token[:i]] = token[:i]
		refused["without "+token[:i]] = token[i+1:]
		refused["doubled at "+token[:i]] = token[:i] + token[i:i+1] + token[i:]
	}
	for why, text := range refused {
		if _, ok := session.Locate(text); ok {
			t.Errorf("accepted: %s: %q", why, text)
		}
	}
	for _, prefix := range []string{"sdses_", "a-b_c_", "0123456789abcde_"} {
		if h, ok := session.Locate(checked(prefix, handleOfVectors)); !ok || h != handleOfVectors {
			t.Errorf("refused with the prefix %s", prefix)
		}
	}
}

// A token of a living session in which one character is another one, with the
// checksum that it has then, is nobody's.
func TestEveryCharacterOfATokenCounts(t *testing.T) {
	w := newWorld(t, unlimited())
	_, token := w.issued("ann")
	body := token[:len(token)-6]
	for i := range body {
		other := "0"
		if body[i] == '0' {
			other = "1"
		}
		if w.lives(withChecksum(body[:i] + other + body[i+1:])) {
			t.Errorf("it is good with another character at %d", i)
		}
	}
	if withChecksum(body) != token || !w.lives(token) {
		t.Error("the token itself is not good")
	}
}

func TestTokensAreUniqueAndFair(t *testing.T) {
	const tokens = 100_000
	random := mathrand.NewChaCha8([32]byte{1})
	seen := make(map[string]bool, tokens)
	var counts [62]int
	for range tokens {
		token, err := session.NewToken("sdses_", handleOfVectors, random)
		if err != nil {
			t.Fatal(err)
		}
		text := token.Reveal()
		seen[text] = true
		for _, c := range []byte(text[28:58]) {
			counts[strings.IndexByte(api.Base62, c)]++
		}
	}
	if len(seen) != tokens {
		t.Errorf("%d of %d tokens are unique", len(seen), tokens)
	}
	const expected = tokens * 30.0 / 62
	chi := 0.0
	for _, n := range counts {
		chi += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	if chi > 119 { // 61 degrees of freedom: one in 100,000 is above
		t.Errorf("chi² is %.1f: %v", chi, counts)
	}
}

func TestParseHandle(t *testing.T) {
	if h, ok := session.ParseHandle("sh_032anbLSr77FOCalmOmFEv"); !ok || h != handleOfVectors {
		t.Errorf("%s, %v", h, ok)
	}
	for _, text := range []string{"", "sh_", "032anbLSr77FOCalmOmFEv", "SH_032anbLSr77FOCalmOmFEv", "sh_032anbLSr77FOCalmOmFE", "sh_032anbLSr77FOCalmOmFEv0", "sh_032anbLSr77FOCalmOmFE-", "sh_zzzzzzzzzzzzzzzzzzzzzz"} {
		if _, ok := session.ParseHandle(text); ok {
			t.Errorf("%q is accepted", text)
		}
	}
}

// What Locate accepts is exactly what another reading of the definition accepts,
// and names the handle that stands in it.
func FuzzToken(f *testing.F) {
	f.Add("sdses_032anbLSr77FOCalmOmFEv0123456789ABCDEFGHIJKLMNOPQRST1bENcp", byte(0), byte(1))
	f.Add("acme-live_032anbLSr77FOCalmOmFEv000000000000000000000000000000174iHT", byte(9), byte('-'))
	f.Add(checked("0123456789abcde_", handleOfVectors), byte(20), byte('0'))
	f.Add(checked("sdse_", handleOfVectors), byte(5), byte(0))
	f.Add("", byte(0), byte(0))
	f.Fuzz(func(t *testing.T, text string, at, char byte) {
		handle, ok := session.Locate(text)
		want, wantOK := locate(text)
		if ok != wantOK || handle != want && ok {
			t.Fatalf("Locate(%q) = %s, %v, want %s, %v", text, handle, ok, want, wantOK)
		}
		if !ok {
			// The nearest token that is right, to reach the other side often.
			if len(text) < 5 || len(text) > 15 {
				return
			}
			text = checked(text+"_", handleOfVectors)
			if _, ok := session.Locate(text); ok != tokenShape.MatchString(text) {
				t.Fatalf("Locate(%q) = %v", text, ok)
			} else if !ok {
				return
			}
		}
		changed := []byte(text)
		changed[int(at)%len(changed)] ^= char
		if _, ok := session.Locate(string(changed)); ok && char != 0 {
			t.Fatalf("accepted after a change: %q", changed)
		}
	})
}

var tokenShape = regexp.MustCompile(`^[0-9A-Za-z_-]{5,15}_[0-9A-Za-z]{58}$`)

// locate is Locate, written from the definition once more.
func locate(text string) (api.ID, bool) {
	if !tokenShape.MatchString(text) || withChecksum(text[:len(text)-6]) != text {
		return api.ID{}, false
	}
	n := new(big.Int)
	for _, c := range []byte(text[len(text)-58 : len(text)-36]) {
		n.Add(n.Mul(n, big.NewInt(62)), big.NewInt(int64(strings.IndexByte(api.Base62, c))))
	}
	if n.BitLen() > 128 || n.Sign() == 0 {
		return api.ID{}, false
	}
	return api.ID(n.FillBytes(make([]byte, 16))), true
}

// checked is a token with a random secret and the right checksum.
func checked(prefix string, handle api.ID) string {
	return withChecksum(prefix + handle.String() + rand.Text()[:26] + "0aZz")
}

// withChecksum appends the CRC-32 of IEEE 802.3, bit by bit.
func withChecksum(text string) string {
	crc := ^uint32(0)
	for _, c := range []byte(text) {
		crc ^= uint32(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xEDB88320
			} else {
				crc >>= 1
			}
		}
	}
	digits := "00000" + new(big.Int).SetUint64(uint64(^crc)).Text(62) // 0-9a-zA-Z
	swapped := []byte(digits[len(digits)-6:])
	for i, c := range swapped {
		if c >= 'a' {
			swapped[i] = c - 'a' + 'A'
		} else if c >= 'A' {
			swapped[i] = c - 'A' + 'a'
		}
	}
	return text + string(swapped)
}
