package logging

import (
	"time"

	"github.com/rs/zerolog"
)

// Field is a name and a value beside a message. Names are constants.
type Field struct {
	key    string
	kind   kind
	text   string
	number int64
	err    error
}

type kind uint8

const (
	text kind = iota
	number
	duration
	boolean
	failure
)

// Str returns a field of text, which may come from outside: it is cleaned and
// cut to MaxText bytes.
func Str(key, value string) Field { return Field{key: key, kind: text, text: value} }

// Int returns a field of a number.
func Int[T ~int | ~int32 | ~int64 | ~uint16 | ~uint32](key string, value T) Field {
	return Field{key: key, kind: number, number: int64(value)}
}

// Dur returns a field of a duration, written in milliseconds.
func Dur(key string, value time.Duration) Field {
	return Field{key: key, kind: duration, number: int64(value)}
}

// Bool returns a field of true or false.
func Bool(key string, value bool) Field {
	f := Field{key: key, kind: boolean}
	if value {
		f.number = 1
	}
	return f
}

// Err returns the field "error" with the text of err, cleaned and cut as Str
// does; for nil nothing is written.
func Err(err error) Field { return Field{key: "error", kind: failure, err: err} }

func (f *Field) add(e *zerolog.Event) {
	switch f.kind {
	case text:
		e.Str(f.key, clean(f.text))
	case number:
		e.Int64(f.key, f.number)
	case duration:
		e.Float64(f.key, milliseconds(time.Duration(f.number)))
	case boolean:
		e.Bool(f.key, f.number != 0)
	case failure:
		if f.err != nil {
			e.Str(f.key, clean(f.err.Error()))
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
