// Package wire is strict JSON: it turns bytes from outside into an Envelope and
// params, and results into bytes. No other package imports a JSON library.
//
// What it takes is RFC 8259 narrowed by RFC 7493: one value and nothing behind
// it, UTF-8 without lone surrogates, no member twice in an object, however deep,
// names compared exactly. goccy/go-json's v2 package is the judge of that; what
// is plainly right (short ASCII without escapes, which is nearly every request)
// is recognized by a scanner of a page (plain.go), which never refuses: what it
// is not sure of goes to the library. Once a text is known to be valid, a cursor
// walks it, and need not doubt it again.
//
// What it refuses it refuses with an api.Error that points at the member and
// says what was expected. No message holds a value of the input, and none is a
// library's: those name Go types and quote what they have read. Pointers hold
// names of members, cut to api.MaxPointer.
//
// A Shape is made once from a Go struct, and drives three things, which so cannot
// differ: decoding params, the JSON Schema of them, and the reference.
package wire

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/goccy/go-json/jsontext"
	json "github.com/goccy/go-json/v2"

	"sessiond/internal/api"
)

// Raw is a JSON value as text, passed through. In params it is a copy and stays
// valid; nil, where the member is absent, is written as null.
type Raw []byte

// MarshalJSON returns r, or null for a nil r.
func (r Raw) MarshalJSON() ([]byte, error) {
	if r == nil {
		return []byte("null"), nil
	}
	return r, nil
}

// UnmarshalJSON takes a copy of a value.
func (r *Raw) UnmarshalJSON(b []byte) error {
	*r = bytes.Clone(b)
	return nil
}

// Appender is a value that writes itself as JSON, for results on the hot path.
// AppendJSON appends one valid JSON value to dst and returns the result.
type Appender interface{ AppendJSON(dst []byte) []byte }

// Append appends v as JSON to dst. An Appender, or a pointer to one, appends
// itself, also inside of another value. Maps are sorted by key, nil slices and
// maps are written as empty ones.
func Append(dst []byte, v any) ([]byte, error) {
	if a, ok := v.(Appender); ok {
		return a.AppendJSON(dst), nil
	}
	b, err := Marshal(v)
	if err != nil {
		return dst, err
	}
	return append(dst, b...), nil
}

// written says how our own values are written. What is stored and is not UTF-8
// after all can still be shown: U+FFFD stands for it.
var written = json.JoinOptions(
	json.Deterministic(true),
	jsontext.AllowInvalidUTF8(true),
	json.WithMarshalers(json.MarshalFunc(func(a Appender) ([]byte, error) { return a.AppendJSON(nil), nil })),
)

// Marshal returns v as JSON, as Append writes it. An error means that the type of
// v cannot be written.
func Marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v, written)
	if err != nil {
		return nil, fmt.Errorf("wire: cannot write %T as JSON: %w", v, err)
	}
	return b, nil
}

// Unmarshal reads data, as strictly as a request, into v: for what we stored or
// configured ourselves. Members that v does not have are refused. The error tells
// where, but not what was found there; v may then be partly filled.
func Unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	if f := check(data); f != nil {
		return fmt.Errorf("wire: %s, at %q", f.message, cut(f.pointer, api.MaxPointer))
	}
	var pointer jsontext.Pointer
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		pointer = e.JSONPointer
	}
	return fmt.Errorf("wire: the value does not fit %T, at %q", v, cut(string(pointer), api.MaxPointer))
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8 are replaced
// by U+FFFD; quotes, backslashes and control characters are escaped.
func AppendString(dst []byte, s string) []byte {
	if isPlain(s) {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	dst, err := jsontext.AppendQuote(dst, s)
	_ = err // bad UTF-8 is reported, and has been replaced
	return dst
}

// Indent appends a JSON text, indented by two spaces for people to read. Text that
// is no JSON is appended as it is.
func Indent(dst, text []byte) []byte {
	indented, err := jsontext.AppendFormat(dst, text,
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true),
		jsontext.Multiline(true), jsontext.SpaceAfterColon(true), jsontext.WithIndent("  "))
	if err != nil {
		return append(dst, text...)
	}
	return indented
}
