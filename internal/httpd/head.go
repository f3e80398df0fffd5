package httpd

import "bytes"

// head is what the header lines of a request say to us. Its slices point into
// them.
type head struct {
	host, origin, fetchSite, userAgent          []byte
	contentType, contentEncoding, authorization []byte

	hasHost, hasType, hasAuthorization bool
	hasLength, isEncoded, isChunked    bool
	isPreflight                        bool
}

// maxLines is how many header lines a request may have.
const maxLines = 64

// read takes in the raw header lines, which fasthttp has found well-formed, and
// refuses what its own result no longer shows: lines that continue another, and
// two of a kind where proxies differ about which one counts.
func (h *head) read(raw []byte) refusal {
	*h = head{}
	for lines := 0; len(raw) > 0; lines++ {
		line := raw
		if end := bytes.IndexByte(raw, '\n'); end >= 0 {
			line, raw = raw[:end], raw[end+1:]
		} else {
			raw = nil
		}
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			return foldedHeader
		}
		if lines == maxLines {
			return tooManyHeaders
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return malformed
		}
		if !h.take(line[:colon], line[colon+1:]) {
			return duplicateHeader
		}
	}
	switch {
	case h.isEncoded && h.hasLength:
		return twoLengths
	case h.isEncoded && !h.isChunked: // identity: fasthttp would take the body for the next request
		return malformed
	}
	return accepted
}

// take notes one line and reports whether it may stand there.
func (h *head) take(name, value []byte) bool {
	switch len(name) {
	case len("host"):
		if is(name, "host") {
			return once(&h.hasHost, &h.host, value)
		}
	case len("origin"):
		if is(name, "origin") {
			// The second of two is kept, so that an allowed one does not hide another.
			h.origin = trim(value)
		}
	case len("user-agent"):
		if is(name, "user-agent") {
			h.userAgent = trim(value)
		}
	case len("content-type"):
		if is(name, "content-type") {
			return once(&h.hasType, &h.contentType, value)
		}
	case len("authorization"):
		if is(name, "authorization") {
			return once(&h.hasAuthorization, &h.authorization, value)
		}
	case len("content-length"): // and of sec-fetch-site
		if is(name, "content-length") {
			return once(&h.hasLength, nil, nil)
		}
		if is(name, "sec-fetch-site") {
			h.fetchSite = trim(value)
		}
	case len("content-encoding"):
		if is(name, "content-encoding") {
			h.contentEncoding = trim(value)
		}
	case len("transfer-encoding"):
		if is(name, "transfer-encoding") {
			h.isChunked = is(trim(value), "chunked")
			return once(&h.isEncoded, nil, nil)
		}
	case len("access-control-request-method"):
		if is(name, "access-control-request-method") {
			h.isPreflight = true
		}
	}
	return true
}

// once notes the only line of its kind, or reports that it is not the first.
func once(seen *bool, into *[]byte, value []byte) bool {
	if *seen {
		return false
	}
	*seen = true
	if into != nil {
		*into = trim(value)
	}
	return true
}

// is compares without case. Lower holds small letters and hyphens only, and name
// is a token, so that setting one bit cannot make two names alike.
func is(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if c|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// trim cuts blanks from both ends.
func trim(value []byte) []byte {
	for len(value) > 0 && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	for n := len(value); n > 0 && (value[n-1] == ' ' || value[n-1] == '\t'); n-- {
		value = value[:n-1]
	}
	return value
}
