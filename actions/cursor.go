package actions

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"sessiond/internal/api"
)

// A cursor says where a listing goes on. Clients give it back as it is. Its sum
// tells one that was damaged, or that belongs to another listing or server; it is
// no secret, for a cursor reaches nothing that its user does not.
type cursor struct {
	given int64 // Unix seconds, when it was answered
	now   int64 // what the relative times of the filter are relative to
	at    position
}

const (
	cursorHead = 8 + 8 + 16
	cursorSum  = 12
)

// text returns the cursor of a listing.
func (k *cursor) text(listing string) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(k.given)) //nolint:gosec // after 1970
	b = binary.BigEndian.AppendUint64(b, uint64(k.now))      //nolint:gosec // after 1970
	b = append(append(b, k.at.handle[:]...), k.at.key...)
	return base64.RawURLEncoding.EncodeToString(append(b, sumOf(b, listing)...))
}

// parseCursor reads a cursor of a listing.
func parseCursor(text, listing string) (k cursor, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < cursorHead+cursorSum || strings.ContainsAny(text, "\r\n") { // which base64 passes over
		return cursor{}, false
	}
	b, sum := b[:len(b)-cursorSum], b[len(b)-cursorSum:]
	if subtle.ConstantTimeCompare(sum, sumOf(b, listing)) != 1 {
		return cursor{}, false
	}
	k.given, k.now = int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:])) //nolint:gosec // as text wrote them
	k.at = position{handle: api.ID(b[16:cursorHead]), key: string(b[cursorHead:])}
	return k, true
}

// goodAt reports whether a cursor was given not longer than some seconds ago, nor in
// the future.
func (k *cursor) goodAt(now, seconds int64) bool {
	return k.given <= now && now-seconds <= k.given
}

func sumOf(b []byte, listing string) []byte {
	h := sha256.New()
	h.Write(b)
	h.Write([]byte(listing))
	return h.Sum(nil)[:cursorSum]
}

// listing names what a selection lists, so that its cursors are known again.
func (s *sessions) listing(p *selection) string {
	parts := []string{s.Host.UUID, p.Sort, "all"}
	switch {
	case p.Filter != nil:
		parts = append(parts[:2], "filter", *p.Filter)
	case p.UsernameFilter != nil:
		parts = append(append(parts[:2], "names"), p.UsernameFilter...)
	}
	return strings.Join(parts, "\x00")
}
