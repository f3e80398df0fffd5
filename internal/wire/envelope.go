package wire

import (
	"bytes"
	"cmp"

	"sessiond/internal/api"
)

// maxRequestID is the longest requestId that is echoed, in bytes of JSON.
const maxRequestID = 256

// Names of unknown members are remembered for debugInfo, within these bounds.
const (
	maxUnknown     = 16
	maxUnknownName = 64
)

// Envelope is one request as it stands on the wire. Its strings, AuthToken,
// Params and RequestID included, live in the item that was decoded: whoever keeps
// one beyond the request clones it.
type Envelope struct {
	API             string // "" when absent, as with the others
	Action          string
	APIVersion      string
	Debug           string // none or max
	Params          []byte // raw JSON object; nil when absent or null
	AuthToken       api.Secret
	RequestID       []byte // raw JSON; nil when absent or null
	ResponseOptions *api.ResponseOptions
	Unknown         []string // names of unknown members, each cut to 64 bytes, at most 16
}

// Limits bound a request. A zero member stands for its default.
type Limits struct {
	Depth   int // of nesting in one request object, 32
	Members int // members and elements in the whole body, 10,000
	Batch   int // requests in a batch, 100
}

func (l Limits) withDefaults() Limits {
	return Limits{Depth: cmp.Or(l.Depth, 32), Members: cmp.Or(l.Members, 10_000), Batch: cmp.Or(l.Batch, 100)}
}

// Split appends to dst the requests in a body: one object, or each element of an
// array.
// The items are parts of body. A body that exceeds a limit gets 21008, one that is
// no well-formed array, is empty, or has too many elements 21001. A single object
// is not looked into beyond its limits; Decode does that.
func Split(dst [][]byte, body []byte, l Limits) (items [][]byte, batch bool, err error) {
	l = l.withDefaults()
	c := cursor{data: body}
	first := c.peek()
	if first != '{' && first != '[' {
		return nil, false, api.Errorf(api.BadEnvelope, "the body must be a JSON object, or an array of them")
	}
	outside := 0
	if first == '[' {
		outside = 1
	}
	if err := l.check(body, outside); err != nil {
		return nil, first == '[', err
	}
	if first == '{' {
		return append(dst, body), false, nil
	}
	if f := checkSyntax(body); f != nil {
		return nil, true, f.refusal()
	}
	items = dst
	for c.enter(); c.more(); {
		if len(items)-len(dst) == l.Batch {
			return nil, true, api.Errorf(api.BadEnvelope, "a batch must have at most %d requests", l.Batch)
		}
		items = append(items, c.value())
	}
	if len(items) == len(dst) {
		return nil, true, api.Errorf(api.BadEnvelope, "a batch must have at least one request")
	}
	return items, true, nil
}

// check counts brackets and commas wherever they stand, and looks closer only if
// there are enough of them to exceed a limit. Outside is how deep the requests
// themselves stand.
func (l Limits) check(body []byte, outside int) error {
	brackets := bytes.Count(body, []byte{'{'}) + bytes.Count(body, []byte{'['})
	if brackets <= l.Depth+outside && (len(body) <= l.Members || brackets+bytes.Count(body, []byte{','}) <= l.Members) {
		return nil
	}
	depth, members := measure(body)
	switch {
	case depth > l.Depth+outside:
		return api.Errorf(api.TooLarge, "the request is nested deeper than %d", l.Depth)
	case members > l.Members:
		return api.Errorf(api.TooLarge, "the request has more than %d members and elements", l.Members)
	}
	return nil
}

// measure returns the depth of a JSON text and how many members and elements it
// has. Of a text that is none it returns something.
func measure(text []byte) (depth, members int) {
	level, opened, inside := 0, false, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inside:
			switch c {
			case '\\':
				i++
			case '"':
				inside = false
			}
			continue
		case c <= ' ':
			continue
		}
		if opened && c != '}' && c != ']' {
			members++ // the first of a container; each other one has a comma
		}
		opened = false
		switch c {
		case '"':
			inside = true
		case ',':
			members++
		case '{', '[':
			opened = true
			level++
			depth = max(depth, level)
		case '}', ']':
			level--
		}
	}
	return depth, members
}

// Decode resets e and reads one request into it. An item that is no object, or
// is malformed, gets 21001; a member that stands twice anywhere in the item 21007,
// a missing action 21005, a member of the wrong type 21006, each with a pointer.
// null stands for an absent member. After any of these but 21001, e holds whatever
// could be read, so that the refusal is answered in the form that was asked for.
// The item must not change while e is in use.
func (e *Envelope) Decode(item []byte) error {
	*e = Envelope{Unknown: e.Unknown[:0]}
	refused := check(item)
	if refused != nil && (refused.code != api.DuplicateMember || checkSyntax(item) != nil) {
		return refused.refusal()
	}
	c := cursor{data: item}
	if c.peek() != '{' {
		return api.Errorf(api.BadEnvelope, "a request must be a JSON object")
	}
	for c.enter(); c.more(); {
		name, value := c.member()
		if f := e.member(unquote(name), value); f != nil && refused == nil {
			refused = f.in(string(unquote(name)))
		}
	}
	if refused != nil {
		return refused.refusal()
	}
	if e.Action == "" {
		return api.Errorf(api.MissingParam, "action is required; listActions lists them").At("/action")
	}
	return nil
}

// member takes over one member of the envelope.
func (e *Envelope) member(name, value []byte) *fault {
	if isNull(value) && known(name) {
		return nil
	}
	switch string(name) {
	case "api":
		return member(&e.API, "api", value)
	case "action":
		return member(&e.Action, "action", value)
	case "apiVersion":
		return member(&e.APIVersion, "apiVersion", value)
	case "debug":
		if f := member(&e.Debug, "debug", value); f != nil || e.Debug == "none" || e.Debug == "max" {
			return f
		}
		return faultf(api.BadParam, "debug must be one of none, max")
	case "authToken":
		var token string
		f := member(&token, "authToken", value)
		e.AuthToken = api.NewSecret(token)
		return f
	case "params":
		if value[0] != '{' {
			return faultf(api.BadParam, "params must be an object")
		}
		e.Params = value
	case "requestId":
		if len(value) > maxRequestID {
			return faultf(api.BadParam, "requestId must be at most %d bytes of JSON", maxRequestID)
		}
		e.RequestID = value
	case "responseOptions":
		if value[0] != '{' {
			return faultf(api.BadParam, "responseOptions must be an object")
		}
		options := new(api.ResponseOptions)
		if f := optionsShape.decode(value, options); f != nil {
			return f
		}
		e.ResponseOptions = options
	default:
		if len(e.Unknown) < maxUnknown {
			e.Unknown = append(e.Unknown, cut(withoutToken(string(name)), maxUnknownName))
		}
	}
	return nil
}

func known(name []byte) bool {
	switch string(name) {
	case "api", "action", "apiVersion", "debug", "authToken", "params", "requestId", "responseOptions":
		return true
	}
	return false
}

// member sets a string of the envelope.
func member(to *string, name string, value []byte) *fault {
	if value[0] != '"' {
		return faultf(api.BadParam, "%s must be a string", name)
	}
	*to = alias(unquote(value))
	return nil
}

var optionsShape = func() *Shape {
	s, err := Describe[api.ResponseOptions]()
	if err != nil {
		panic(err)
	}
	return s
}()
