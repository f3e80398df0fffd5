package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-json/jsontext"

	"sessiond/internal/api"
)

// fault is what is wrong with a text, and where. Its pointer grows at the front
// while the finding travels up.
type fault struct {
	code    api.Code
	pointer string
	offset  int
	message string
	own     error // of a Validate method, passed on as it is
}

func faultf(code api.Code, format string, args ...any) *fault {
	return &fault{code: code, message: fmt.Sprintf(format, args...)}
}

// in says that the fault is inside of the named member.
func (f *fault) in(name string) *fault {
	f.pointer = segment(name) + f.pointer
	return f
}

// inItem says that the fault is inside of the array's i-th element.
func (f *fault) inItem(i int) *fault {
	f.pointer = "/" + strconv.Itoa(i) + f.pointer
	return f
}

// refusal returns the fault as an error for the client.
func (f *fault) refusal() error {
	f.pointer = withoutTokens(f.pointer)
	if e, ok := errors.AsType[*api.Error](f.own); ok {
		if e.Data.Pointer == "" {
			e = e.At(cut(f.pointer, api.MaxPointer))
		}
		return e
	}
	e := api.Errorf(f.code, "%s", f.message).At(cut(f.pointer, api.MaxPointer))
	if f.own != nil {
		e = e.Because(f.own)
	}
	return e
}

// segment returns a member's name as a part of a JSON Pointer.
func segment(name string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(cut(name, api.MaxPointer))
}

// cut returns the first n bytes of s, less what would be half a character, and
// with bad UTF-8 replaced.
func cut(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	if utf8.ValidString(s) {
		return s
	}
	return cut(strings.ToValidUTF8(s, "?"), n)
}

// check returns what is wrong with the syntax of data, a duplicate member
// included, or nil.
func check(data []byte) *fault {
	if plain(data) || jsontext.Value(data).IsValid() {
		return nil
	}
	return locate(data)
}

// checkSyntax is check, but for duplicate members.
func checkSyntax(data []byte) *fault {
	if plain(data) || jsontext.Value(data).IsValid(jsontext.AllowDuplicateNames(true)) {
		return nil
	}
	return locate(data, jsontext.AllowDuplicateNames(true))
}

// locate finds the place of a fault that the library has seen.
func locate(data []byte, options ...jsontext.Options) *fault {
	f := &fault{code: api.BadEnvelope, offset: len(data), message: "something follows the JSON value; there must be exactly one"}
	d := jsontext.NewDecoder(bytes.NewReader(data), options...)
	_, err := d.ReadValue()
	if err == nil {
		f.offset = int(d.InputOffset())
		return f
	}
	e, ok := errors.AsType[*jsontext.SyntacticError](err)
	if ok {
		f.offset, f.pointer = min(int(e.ByteOffset), len(data)), string(e.JSONPointer)
	}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		f.code, f.message = api.DuplicateMember, "the member stands twice in its object"
	case errors.Is(err, io.EOF):
		f.message = "there is no JSON value"
	case errors.Is(err, io.ErrUnexpectedEOF):
		f.message = "the JSON text ends too early"
	case errors.Is(err, jsontext.ErrNonStringName):
		f.message = fmt.Sprintf("no well-formed JSON: a member's name in double quotes is expected at byte %d", f.offset)
	case !utf8.Valid(data):
		f.message = "the JSON text must be UTF-8"
	default:
		f.message = fmt.Sprintf("no well-formed JSON at byte %d", f.offset)
	}
	return f
}
