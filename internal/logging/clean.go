package logging

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxText is how much of a text is written, in bytes before escaping.
const MaxText = 256

// clean returns s as it can stand in a log: cut to MaxText bytes at the border
// of a character, with everything that moves a cursor, ends a line or turns the
// direction of writing replaced by its \x or \u form.
func clean(s string) string {
	if len(s) <= MaxText && isPlain(s) {
		return s
	}
	cut := len(s) > MaxText
	if cut {
		end := MaxText
		for end > MaxText-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	out := make([]byte, 0, len(s)+16)
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			out = fmt.Appendf(out, `\x%02x`, s[0])
		case isHostile(r):
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, s[:size]...)
		}
		s = s[size:]
	}
	if cut {
		out = append(out, "..."...)
	}
	return string(out)
}

// isPlain reports whether s is printable ASCII.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isHostile reports whether r is invisible or moves what stands around it:
// controls (C0, C1, DEL), the separators of lines and paragraphs, and format
// characters, among them all bidirectional controls and the byte order mark.
func isHostile(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Cf, r)
}
