package httpd

import "bytes"

// head is what the header lines of a request say to us. Its slices point into
// them.
type head struct {
	host, origin, fetchSite, userAgent          []byte
	contentType, contentEncoding, authorization []byte

	hasHost, hasType, hasAuthorization bool
	hasOrigin, hasFetchSite            bool
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
		if !h.take(line) {
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

// take notes one line and reports whether it may stand there. Most lines are
// none of ours and are known by their first letter.
func (h *head) take(line []byte) bool {
	switch line[0] | 0x20 {
	case 'a':
		if value, ok := named(line, "authorization"); ok {
			return once(&h.hasAuthorization, &h.authorization, value)
		}
		if _, ok := named(line, "access-control-request-method"); ok {
			h.isPreflight = true
		}
	case 'c':
		if value, ok := named(line, "content-type"); ok {
			return once(&h.hasType, &h.contentType, value)
		}
		if _, ok := named(line, "content-length"); ok {
			return once(&h.hasLength, nil, nil)
		}
		if value, ok := named(line, "content-encoding"); ok {
			h.contentEncoding = trim(value)
		}
	case 'h':
		if value, ok := named(line, "host"); ok {
			return once(&h.hasHost, &h.host, value)
		}
	case 'o':
		if value, ok := named(line, "origin"); ok {
			return once(&h.hasOrigin, &h.origin, value)
		}
	case 's':
		if value, ok := named(line, "sec-fetch-site"); ok {
			return once(&h.hasFetchSite, &h.fetchSite, value)
		}
	case 't':
		if value, ok := named(line, "transfer-encoding"); ok {
			h.isChunked = is(trim(value), "chunked")
			return once(&h.isEncoded, nil, nil)
		}
	case 'u':
		if value, ok := named(line, "user-agent"); ok {
			h.userAgent = trim(value)
		}
	}
	return true
}

// named returns the value of a line of the given name, in small letters.
func named(line []byte, name string) ([]byte, bool) {
	n := len(name)
	if len(line) <= n || line[n] != ':' || !is(line[:n], name) {
		return nil, false
	}
	return line[n+1:], true
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
