package api

import (
	"fmt"
	"io"
)

// Redacted stands wherever a secret would be printed.
const Redacted = "[redacted]"

// Secret holds a password or a token. However it is printed, marshalled or
// logged, it shows Redacted; Reveal is the only way out, so review its callers.
// The zero Secret is the absent one.
type Secret struct{ value string }

// NewSecret returns a secret that holds value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the value.
func (s Secret) Reveal() string { return s.value }

// IsZero reports whether the secret is absent or empty, which is the same.
func (s Secret) IsZero() bool { return s.value == "" }

// String returns Redacted.
func (s Secret) String() string { return Redacted }

// Format writes Redacted under every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// MarshalText returns Redacted.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// UnmarshalText takes the value over from a request.
func (s *Secret) UnmarshalText(text []byte) error {
	s.value = string(text)
	return nil
}
