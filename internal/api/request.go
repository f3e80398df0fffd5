package api

import "net/netip"

// Request is one HTTP request, as the transport hands it to a dispatcher. Its
// bytes are valid until the dispatcher returns.
type Request struct {
	Body      []byte
	Bearer    Secret     // of an Authorization header
	Address   netip.Addr // the client's, unmapped and without a zone
	UserAgent string     // cut to 512 bytes
}

// Answer is what goes back: a JSON body and its HTTP status.
type Answer struct {
	Status            int
	RetryAfterSeconds int64 // 0: no Retry-After header
	Body              []byte
}
