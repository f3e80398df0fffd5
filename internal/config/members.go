package config

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// members are an object that encoding/json writes in this order.
type members []member

type member struct {
	name  string
	value any // string, number, boolean, slice of such, or members
}

// MarshalJSON writes the members of an object in their order.
func (m members) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, one := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(one.name)
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		value, err := json.Marshal(one.value)
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// indented writes strings, numbers, booleans and members, which cannot fail.
func indented(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return b.Bytes()
}
