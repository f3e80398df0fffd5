package account

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// What a guesser tries first is refused: passwords of the list that is shipped,
// one short unit repeated, and what is made of hardly more than runs of keys and
// words that are expected here or common. See [weakness].
const (
	// enough is what a password must have besides runs, repetitions and expected
	// words, counted in characters: so much nobody guesses by trying.
	enough = 8
	// judged is how many bytes of a longer password are looked at, so that none
	// takes much time: its first 128 are as hard to guess as they are.
	judged = 128
	// longestUnit is the most characters whose mere repetition is refused: a
	// longer one is long enough by itself.
	longestUnit = MinPassword - 1
	// leastListed is the fewest letters and digits of an entry that is compared
	// with whole passwords; shorter ones are words that passwords are made of.
	leastListed = 12
	// leastPart is the fewest characters of a part of a name that is expected; the
	// name itself may be as short as any word.
	leastPart = 4
	// prefix is how many bytes of a word tell where to look for it, and so the
	// fewest that a word has.
	prefix = 3
)

// The reasons for a refusal, without the password.
const (
	reasonListed   = "this password is among the common ones that attackers try first: choose another, for example four random words"
	reasonRepeated = "this password is one short piece repeated, which attackers try first: choose another, for example four random words"
	reasonMadeUp   = "this password is little more than common or expected words, runs of keys and repetitions, which attackers try first: add to it, or choose another, for example four random words"
)

// expected are words that passwords are made of everywhere, beside those of a
// place and of a user.
const expected = `
sessiond session password passwort passphrase passwd admin administrator root superuser welcome login logon letmein
changeme changeit default guest user username account secret
`

// rows are the runs of keys, of the alphabet and of digits that are recognized,
// in both directions. A row that is a ring stands twice.
const rows = `
01234567890123456789 789456123 147258369
abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz
qwertyuiop[] asdfghjkl;' zxcvbnm,./ qweasdzxc123 123qweasdzxc
qwertzuiopü asdfghjklöä yxcvbnm azertyuiop qsdfghjklm wxcvbn
йцукенгшщзхъ фывапролджэ ячсмитьбю
!@#$%^&*()_+ !"£$%^&*() !"§$%&/()=?
1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/ qazwsxedcrfvtgbyhnujmikolp 1qazxsw23edcvfr45tgbnhy67ujm
1q2w3e4r5t6y7u8i9o0p q1w2e3r4t5y6u7i8o9p0 qawsedrftgyhujikolp a1b2c3d4e5f6g7h8i9j0 1a2b3c4d5e6f7g8h9i0j
`

// packed is a gzip of UTF-8 text: comments, which say where the list is
// from and how it was made, then one entry a line, as [key] gives it, sorted.
//
//go:embed common-passwords.txt.gz
var packed []byte

// known is what is recognized, made ready at the first use.
var known = sync.OnceValue(func() (k struct {
	listed   []string // keys of whole passwords, sorted
	common   lexicon  // short passwords
	expected lexicon
	rows     lexicon
},
) {
	k.common, k.expected, k.rows = lexicon{}, lexicon{}, lexicon{}
	for line := range strings.Lines(unpack(packed)) {
		switch entry := strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(entry, "#"):
		case len(entry) >= leastListed:
			k.listed = append(k.listed, entry)
		default:
			k.common.add(entry)
		}
	}
	for word := range strings.FieldsSeq(expected) {
		k.expected.add(leet(word))
	}
	for row := range strings.FieldsSeq(rows) {
		k.rows.addRow(row)
	}
	return k
})

// unpack returns nothing for what is no gzip; a test sees to it that the list is.
func unpack(packed []byte) string {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return ""
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return ""
	}
	return string(text)
}

// weakness says why a prepared password is one of the first that a guesser
// tries, or "" if it is not. words are those that are expected of this user in
// this place. Neither case, nor width, nor digits that look like letters make a
// difference.
//
// The password is read from left to right, the longest known piece first. What
// belongs to none counts a character each, a mark or space only once; a common
// password, a run or a year counts little, and nothing when it comes again;
// expected words count nothing. It has to come to [enough].
func weakness(password string, words []string) string {
	plain := plain(password)
	whole, core := key(plain), key(core(plain)) // with and without digits at the ends
	switch {
	case listed(whole) || listed(core):
		return reasonListed
	case 2*len(whole) >= len(plain) && (repeated(whole) || repeated(core)):
		return reasonRepeated
	case material(plain, words) < enough:
		return reasonMadeUp
	default:
		return ""
	}
}

// plain removes the differences of case and width from what is judged of s.
func plain(s string) string {
	for at := range s {
		if at >= judged {
			s = s[:at]
			break
		}
	}
	s = strings.ToLower(s)
	if norm.NFKC.IsNormalString(s) {
		return s
	}
	var it norm.Iter
	it.InitString(norm.NFKC, s)
	var out []byte
	for !it.Done() && len(out) < judged {
		out = append(out, it.Next()...)
	}
	return strings.ToLower(string(out))
}

// leet gives letters and the digits and marks that stand for them one form.
func leet(plain string) string {
	out := []byte(plain)
	for i, c := range out {
		out[i] = letterOf(c)
	}
	return string(out)
}

func letterOf(c byte) byte {
	switch c {
	case '0':
		return 'o'
	case '1', 'l', '!', '|':
		return 'i'
	case '3':
		return 'e'
	case '4', '@':
		return 'a'
	case '5', '$':
		return 's'
	case '7':
		return 't'
	default:
		return c
	}
}

// key is the form in which whole passwords are compared: letters and digits.
func key(plain string) string {
	out := make([]byte, 0, len(plain))
	for at, r := range plain {
		switch {
		case r < utf8.RuneSelf && !mark(r):
			out = append(out, letterOf(plain[at]))
		case !mark(r):
			out = utf8.AppendRune(out, r)
		}
	}
	return string(out)
}

// mark reports whether r is neither letter nor digit, nor belongs to one.
func mark(r rune) bool {
	if r < utf8.RuneSelf {
		return (r < 'a' || 'z' < r) && (r < '0' || '9' < r) && (r < 'A' || 'Z' < r)
	}
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
}

// core is the password without digits and marks at its ends, if they are too few
// to count.
func core(plain string) string {
	trimmed := strings.TrimFunc(plain, func(r rune) bool { return !unicode.IsLetter(r) })
	if utf8.RuneCountInString(plain)-utf8.RuneCountInString(trimmed) >= enough {
		return plain
	}
	return trimmed
}

func listed(key string) bool {
	_, found := slices.BinarySearch(known().listed, key)
	return found
}

// repeated reports whether s is one short unit at least twice; the last time may
// be cut.
func repeated(s string) bool {
	characters := 0
	for unit := range s {
		if characters > longestUnit || 2*unit > len(s) {
			return false
		}
		if unit > 0 && s[unit:] == s[:len(s)-unit] {
			return true
		}
		characters++
	}
	return false
}

// What a piece counts, the first time; a letter or single digit always.
const (
	countsLetter = 1
	countsMark   = 1
	countsRun    = 1 // and a year; month and day beside it count as digits
	countsCommon = 2
)

// material counts what makes a password hard to guess, up to enough.
func material(plain string, words []string) (count int) {
	k, here := known(), lexicon{}
	for _, word := range words {
		here.add(leet(word))
	}
	folded := leet(plain)
	var seen []string // pieces and marks that were counted
	once := func(piece string, counts int) {
		if !slices.Contains(seen, piece) {
			seen = append(seen, piece)
			count += counts
		}
	}
	for at := 0; at < len(plain) && count < enough; {
		context := max(here.longest(folded[at:]), k.expected.longest(folded[at:]))
		common, run, date := k.common.longest(folded[at:]), k.rows.run(plain[at:]), dated(plain, at)
		length := max(context, common, run, date)
		switch length {
		case 0:
			r, size := utf8.DecodeRuneInString(plain[at:])
			if mark(r) {
				once(plain[at:at+size], countsMark)
			} else {
				count += countsLetter
			}
			length = size
		case context:
		case run:
			once(plain[at:at+run], countsRun)
		case date:
			once(plain[at:at+date], countsRun+date-4)
		default:
			once(folded[at:at+common], countsCommon)
		}
		at += length
	}
	return count
}

// run is the length in bytes of the run that s begins with, one character again
// and again or a part of a row, or 0.
func (l lexicon) run(s string) (longest int) {
	head := beginning(s)
	if head == "" {
		return 0
	}
	_, size := utf8.DecodeRuneInString(s)
	for longest = size; strings.HasPrefix(s[longest:], s[:size]); {
		longest += size
	}
	if longest < len(head) {
		longest = 0
	}
	for _, row := range l[head] {
		n := len(head)
		for at, r := range row[n:] {
			if next, _ := utf8.DecodeRuneInString(s[n+at:]); next != r {
				break
			}
			longest = max(longest, n+at+utf8.RuneLen(r))
		}
		longest = max(longest, n)
	}
	return longest
}

// beginning returns the first four characters of s, the least that can be a run,
// or "" if s is shorter.
func beginning(s string) string {
	n := 0
	for at := range s {
		if n == 4 {
			return s[:at]
		}
		n++
	}
	if n == 4 {
		return s
	}
	return ""
}

// dated is the length of the date that stands alone at this place: a year of our
// time, with or without month and day. It is 0 if there is none.
func dated(s string, at int) int {
	if !digit(s[at]) || at > 0 && digit(s[at-1]) {
		return 0
	}
	end := at
	for end < len(s) && digit(s[end]) {
		end++
	}
	switch group := s[at:end]; {
	case len(group) == 4 && year(group), len(group) == 8 && (year(group[:4]) || year(group[4:])):
		return len(group)
	default:
		return 0
	}
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func year(s string) bool { return s[:2] == "19" || s[:2] == "20" }

// A lexicon finds words, or rows, by how they begin.
type lexicon map[string][]string

func (l lexicon) add(word string) {
	if len(word) >= prefix {
		l[word[:prefix]] = append(l[word[:prefix]], word)
	}
}

// longest is the length of the longest word that s begins with.
func (l lexicon) longest(s string) (length int) {
	if len(s) < prefix {
		return 0
	}
	for _, word := range l[s[:prefix]] {
		if len(word) > length && strings.HasPrefix(s, word) {
			length = len(word)
		}
	}
	return length
}

// addRow makes the parts of a row be found, forth and back.
func (l lexicon) addRow(row string) {
	back := []rune(row)
	slices.Reverse(back)
	for _, row := range []string{row, string(back)} {
		for at := range row {
			if head := beginning(row[at:]); head != "" {
				l[head] = append(l[head], row[at:])
			}
		}
	}
}
