package filter

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A token is a part of the text. Punctuation is its own kind.
type token struct {
	kind byte // one of ( ) [ ] , ! or of those below
	at   int  // offset of its first byte
	text string
}

const (
	end    byte = 0
	word   byte = 'w' // a keyword, a field or a number
	quoted byte = 'q' // its text is what it stands for
)

const (
	spaces      = " \t\r\n"
	punctuation = "()[],!"
	delimiters  = spaces + punctuation + `"'`
)

// next reads a token into p.token. After an error there is only the end.
func (p *parser) next() {
	if p.bad != nil {
		p.token = token{kind: end, at: len(p.text)}
		return
	}
	rest := strings.TrimLeft(p.text[p.offset:], spaces)
	at := len(p.text) - len(rest)
	switch {
	case rest == "":
		p.token, p.offset = token{kind: end, at: at}, at
	case strings.IndexByte(punctuation, rest[0]) >= 0:
		p.token, p.offset = token{kind: rest[0], at: at}, at+1
	case rest[0] == '"' || rest[0] == '\'':
		p.quoted(at)
	default:
		n := strings.IndexAny(rest, delimiters)
		if n < 0 {
			n = len(rest)
		}
		p.token, p.offset = token{kind: word, at: at, text: rest[:n]}, at+n
	}
}

// quoted reads a text between quotes: a JSON string (RFC 8259, section 7), or
// the same between single ones.
func (p *parser) quoted(at int) {
	quote := p.text[at]
	var text []byte
	for i := at + 1; i < len(p.text); {
		switch c := p.text[i]; {
		case c == quote:
			p.token, p.offset = token{kind: quoted, at: at, text: string(text)}, i+1
			return
		case c < ' ':
			p.fail(i, `a control character stands in a text as \u and four hexadecimal digits`)
			return
		case c != '\\':
			text = append(text, c)
			i++
		default:
			r, n := escaped(p.text[i:], quote)
			if n == 0 {
				p.fail(i, `a backslash is followed by \, /, b, f, n, r, t, the quote that the text began with, or u and four hexadecimal digits of a character`)
				return
			}
			text = utf8.AppendRune(text, r)
			i += n
		}
	}
	p.fail(at, "the text that begins here lacks its closing quote")
}

// escaped returns the character that an escape stands for, and the length of
// the escape: 0 if it is none.
func escaped(s string, quote byte) (r rune, n int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch c := s[1]; c {
	case '\\', '/', quote:
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	r, ok := unit(s)
	switch {
	case !ok:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	}
	low, ok := unit(s[6:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// unit reads \u and four hexadecimal digits.
func unit(s string) (rune, bool) {
	if len(s) < 6 || s[:2] != `\u` {
		return 0, false
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	return rune(n), err == nil
}
