package account

import (
	"fmt"
	"io"

	"sessiond/internal/api"
)

// oneTimeAlphabet has 32 characters, none of which is taken for another one.
const oneTimeAlphabet = "abcdefghjkmnpqrstuvwxyz123456789"

// OneTimePassword returns a random password that people can copy: four groups of
// five characters, 100 bits.
func (d *Directory) OneTimePassword() (api.Secret, error) {
	var random [20]byte
	if _, err := io.ReadFull(d.rand, random[:]); err != nil {
		return api.Secret{}, fmt.Errorf("account: make a password: %w", err)
	}
	var text []byte
	for i, b := range random {
		if i > 0 && i%5 == 0 {
			text = append(text, '-')
		}
		text = append(text, oneTimeAlphabet[b%32])
	}
	return api.NewSecret(string(text)), nil
}
