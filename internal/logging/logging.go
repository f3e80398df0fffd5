// Package logging writes what the operator reads: one record a line, as JSON for
// programs or as text for people, and nothing in it that could be a secret, forge
// a second line or turn the reader's terminal around.
//
// Messages are constants; whatever came from outside travels in fields, which are
// cleaned and cut. An error is logged once, where its request ends.
package logging

import (
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Formats of New.
const (
	JSON    = "json"
	Console = "console"
)

// Logger writes records. It is safe for concurrent use, and so is a nil one,
// which writes nothing.
type Logger struct {
	log zerolog.Logger
	now func() time.Time
}

// New returns a logger to w, which gets one Write per record, one at a time.
// Level is trace, debug, info, warn or error, and anything else means info;
// format is JSON or Console. Now stamps the records.
func New(w io.Writer, level, format string, now func() time.Time) *Logger {
	w = &oneAtATime{w: w}
	if format == Console {
		w = zerolog.ConsoleWriter{Out: w, NoColor: true, TimeFormat: timeFormat, TimeLocation: time.UTC}
	}
	at, err := zerolog.ParseLevel(level)
	if err != nil || at < zerolog.TraceLevel || at > zerolog.ErrorLevel {
		at = zerolog.InfoLevel
	}
	return &Logger{log: zerolog.New(w).Level(at), now: now}
}

// Nop returns a logger that writes nothing.
func Nop() *Logger { return nil }

// Error is for what an operator must look at.
func (l *Logger) Error(msg string, fields ...Field) { l.write(zerolog.ErrorLevel, msg, fields) }

// Warn is for what will become a fault if nobody looks.
func (l *Logger) Warn(msg string, fields ...Field) { l.write(zerolog.WarnLevel, msg, fields) }

// Info is for what an operator wants to find later.
func (l *Logger) Info(msg string, fields ...Field) { l.write(zerolog.InfoLevel, msg, fields) }

// Debug is for whoever looks into one fault.
func (l *Logger) Debug(msg string, fields ...Field) { l.write(zerolog.DebugLevel, msg, fields) }

// Trace is for whoever works on the server.
func (l *Logger) Trace(msg string, fields ...Field) { l.write(zerolog.TraceLevel, msg, fields) }

func (l *Logger) write(level zerolog.Level, msg string, fields []Field) {
	e := l.begin(level)
	if e == nil {
		return
	}
	for i := range fields {
		fields[i].add(e)
	}
	e.Msg(clean(msg))
}

// timeFormat is RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// begin returns a stamped event, or nil when the level is not written.
func (l *Logger) begin(level zerolog.Level) *zerolog.Event {
	if l == nil {
		return nil
	}
	e := l.log.WithLevel(level) //nolint:zerologlint // whoever called begin sends it
	if e == nil {
		return nil
	}
	var stamp [len(timeFormat)]byte
	return e.Bytes("time", l.now().UTC().AppendFormat(stamp[:0], timeFormat))
}

// oneAtATime keeps concurrent records apart.
type oneAtATime struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *oneAtATime) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
}
