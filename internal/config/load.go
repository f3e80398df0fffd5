package config

import (
	"bytes"
	_ "embed" // for the shipped file
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode"
)

// FileName is where the configuration is looked for when no path is given.
const FileName = "services.json"

// mostBytes is the size of a file that is still read; real ones have a few KiB.
const mostBytes = 1 << 20

//go:embed services.json
var shipped string

// Shipped returns the file that comes with the program, which Default means.
func Shipped() []byte { return []byte(shipped) }

// Error is every reason why a file is no configuration.
type Error struct {
	Name   string // of the file
	Faults []Fault
}

// Fault is one of them.
type Fault struct {
	Line    int    // from 1; 0 where the fault is not in the file, but in flags over it
	Column  int    // from 1, in characters
	Pointer string // JSON Pointer (RFC 6901) of the member; empty is the whole file
	Message string // what was expected, and what to do; never a value of the file
}

// Error prints a fault on each line, in the order of the file:
//
//	services.json:12:5: /listeners/0/port: must be an integer between 0 and 65535
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Faults))
	for _, f := range e.Faults {
		lines = append(lines, f.in(e.Name))
	}
	return strings.Join(lines, "\n")
}

func (f Fault) in(name string) string {
	var b strings.Builder
	b.WriteString(name)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	if f.Pointer != "" {
		b.WriteString(": " + printable(f.Pointer))
	}
	b.WriteString(": " + f.Message)
	return b.String()
}

// printable keeps a name of the file from breaking or forging a line, or filling
// a screen.
func printable(pointer string) string {
	const most = 200
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, pointer)
	if runes := []rune(clean); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return clean
}

// An Override is a flag or a variable of the environment, which comes before the
// file: it changes what was read before the whole is checked.
type Override func(*Config)

// Load reads the file at path. An empty path means ./services.json if there is
// one, else the file that is shipped. The error is an *Error where the content is
// at fault; it holds all faults at once.
func Load(path string, overrides ...Override) (*Config, error) {
	name := path
	if name == "" {
		name = FileName
	}
	file, err := os.Open(name)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return parseShipped(overrides...)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, mostBytes+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(data, name, overrides...)
}

// Default returns what the shipped file says.
func Default() *Config {
	c, err := parseShipped()
	if err != nil {
		panic(err) // the file is part of the program
	}
	return c
}

func parseShipped(overrides ...Override) (*Config, error) {
	return Parse(Shipped(), "built-in "+FileName, overrides...)
}

// Parse reads the content of a file; name is what faults and warnings call it.
// The error is an *Error and holds all faults at once.
func Parse(data []byte, name string, overrides ...Override) (*Config, error) {
	if len(data) > mostBytes {
		return nil, &Error{Name: name, Faults: []Fault{{Line: 1, Column: 1, Message: "the file is larger than 1 MiB"}}}
	}
	r := newReader(name, bytes.TrimPrefix(data, []byte("\ufeff"))) // some editors begin a file with a mark of its encoding
	c := r.config(overrides)
	if len(r.faults) > 0 {
		return nil, &Error{Name: name, Faults: r.sorted(r.faults)}
	}
	for _, w := range r.sorted(r.warnings) {
		c.Warnings = append(c.Warnings, w.in(name))
	}
	return c, nil
}
