package session

import (
	"maps"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// What a session's properties may take, names included: a record is read with
// every listing.
const (
	maxProperties    = 32
	maxPropertyBytes = 8 << 10
)

// PropertyChange is what becomes of a session's properties, by name: the new text,
// or nil where one is removed.
type PropertyChange map[string]*string

// On returns properties as the change leaves them, and them as they were. The
// error is an *api.Error with code TooLarge.
func (c PropertyChange) On(properties map[string]string) (map[string]string, error) {
	changed := maps.Clone(properties)
	if changed == nil {
		changed = map[string]string{}
	}
	for name, text := range c {
		if text == nil {
			delete(changed, name)
		} else {
			changed[name] = *text
		}
	}
	size := 0
	for name, text := range changed {
		size += len(name) + len(text)
	}
	if len(changed) > maxProperties || size > maxPropertyBytes {
		return nil, api.Errorf(api.TooLarge, "a session has at most %d properties, of %d bytes in all: remove some, by null", maxProperties, maxPropertyBytes).At("/params/properties")
	}
	return changed, nil
}

// AppendProperties appends properties, as they are shown, as a JSON object.
func AppendProperties(dst []byte, shown map[string]any) []byte {
	dst, err := wire.Append(dst, shown)
	_ = err // texts, numbers and truth values can be written
	return dst
}
