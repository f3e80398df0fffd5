package session

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"hash/crc32"
	"io"

	"sessiond/internal/api"
)

// A token is prefix, handle, secret and checksum, in this order:
//
//	sdses_  2rTqYq0oXXXXXXXXXXXXXX  30 base62 characters  6 base62 characters
//
// The handle selects the record, the SHA-256 of the whole string is the proof,
// the checksum (CRC-32/IEEE over all that precedes it) lets a secret scanner
// recognize a token and refuses junk before any look-up.
const (
	prefixSession = "sdses_"
	prefixKey     = "sdkey_"

	secretLen   = 30 // base62 characters, 178 bits
	checksumLen = 6
	afterPrefix = api.IDLen + secretLen + checksumLen

	minPrefix, maxPrefix = 6, 16

	maskLen = 8 // characters of a token that may be shown: its last
)

// HandlePrefix stands before a handle on the wire.
const HandlePrefix = "sh_"

// HandleText returns a handle as the wire has it.
func HandleText(h api.ID) string { return string(AppendHandle(nil, h)) }

// AppendHandle appends a handle as the wire has it.
func AppendHandle(dst []byte, h api.ID) []byte { return h.Append(append(dst, HandlePrefix...)) }

// ParseHandle reads a handle off the wire.
func ParseHandle(text string) (api.ID, bool) {
	if len(text) != len(HandlePrefix)+api.IDLen || text[:len(HandlePrefix)] != HandlePrefix {
		return api.ID{}, false
	}
	h, err := api.ParseID(text[len(HandlePrefix):])
	return h, err == nil
}

// clientPrefix stands before a client's handle on the wire.
const clientPrefix = "cl_"

// ClientText returns the handle of a client as the wire has it.
func ClientText(client api.ID) string { return clientPrefix + client.String() }

// hash is the SHA-256 over a whole token: all that is ever stored of one.
type hash [sha256.Size]byte

// newToken makes the token of a session with the given handle.
func newToken(prefix string, handle api.ID, random io.Reader) (api.Secret, error) {
	b := make([]byte, 0, len(prefix)+afterPrefix)
	b = append(b, prefix...)
	b = handle.Append(b)
	b, err := appendSecret(b, random)
	if err != nil {
		return api.Secret{}, err
	}
	return api.NewSecret(string(appendChecksum(b))), nil
}

// appendSecret appends secretLen characters, each of them equally likely.
func appendSecret(dst []byte, random io.Reader) ([]byte, error) {
	const fair = 256 - 256%len(api.Base62) // bytes from here on would favour the first characters
	var pool [48]byte
	for n := 0; n < secretLen; {
		if _, err := io.ReadFull(random, pool[:]); err != nil {
			return nil, err
		}
		for _, c := range pool {
			if int(c) < fair && n < secretLen {
				dst = append(dst, api.Base62[int(c)%len(api.Base62)])
				n++
			}
		}
	}
	return dst, nil
}

// appendChecksum appends the checksum of b.
func appendChecksum(b []byte) []byte {
	sum := crc32.ChecksumIEEE(b)
	var digits [checksumLen]byte
	for i := checksumLen - 1; i >= 0; i-- {
		digits[i] = api.Base62[sum%62]
		sum /= 62
	}
	return append(b, digits[:]...)
}

// Locate tells which session a token speaks of, without saying that it is
// right: ok is false for whatever has not a token's shape and checksum. Tokens
// that are found in another way are to be told apart here and nowhere else.
func Locate(token string) (handle api.ID, ok bool) {
	prefix := len(token) - afterPrefix
	if prefix < minPrefix || prefix > maxPrefix || token[prefix-1] != '_' {
		return api.ID{}, false
	}
	body := len(token) - checksumLen
	for i := range prefix - 1 {
		if !api.IsBase62(token[i]) && token[i] != '_' && token[i] != '-' {
			return api.ID{}, false
		}
	}
	var sum uint64
	for i := body; i < len(token); i++ {
		d := api.Digit62(token[i])
		if d < 0 {
			return api.ID{}, false
		}
		sum = sum*62 + uint64(d)
	}
	if sum != uint64(checksum(token[:body])) {
		return api.ID{}, false
	}
	for i := prefix + api.IDLen; i < body; i++ {
		if !api.IsBase62(token[i]) {
			return api.ID{}, false
		}
	}
	handle, err := api.ParseID(token[prefix : prefix+api.IDLen])
	return handle, err == nil && !handle.IsZero()
}

func checksum(s string) uint32 { return crc32.ChecksumIEEE(bytesOf(s)) }

// hashOf returns the proof that a token gives.
func hashOf(token string) hash { return sha256.Sum256(bytesOf(token)) }

// is compares in constant time.
func (h *hash) is(other *hash) bool { return subtle.ConstantTimeCompare(h[:], other[:]) == 1 }

// masked returns what may be shown of a token: its prefix and its last
// characters.
func masked(prefix, mask string) string { return prefix + "..." + mask }

// newHandle returns a handle of the given moment's session.
func (k *Keeper) newHandle() (api.ID, error) {
	var random [10]byte
	if _, err := io.ReadFull(k.random, random[:]); err != nil {
		return api.ID{}, err
	}
	return api.NewID(k.clock.Now(), random), nil
}

// randomOr returns r, or the system's source.
func randomOr(r io.Reader) io.Reader {
	if r == nil {
		return rand.Reader
	}
	return r
}
