package api

import "net/netip"

// Request is one HTTP request, as the transport hands it to a dispatcher. Its
// bytes are valid until the dispatcher returns.
type Request struct {
	Body      []byte
	Bearer    Secret     // of an Authorization header
	Address   netip.Addr // the client's, unmapped and without a zone
	UserAgent string     // cut to 512 bytes
	Room      Room       // for a large answer; nil: there is no end of it
}

// Room is the memory that the answers of all requests share until they are sent.
type Room interface {
	// Grow reports whether the answer to the request may become so many bytes, all that
	// was granted before included. Small ones always may. Known is whether somebody
	// asks who has shown a live token.
	Grow(bytes int, known bool) bool
}

// Answer is what goes back: a JSON body and its HTTP status.
type Answer struct {
	Status            int
	RetryAfterSeconds int64 // 0: no Retry-After header
	Body              []byte
}
