package dispatch

import (
	"slices"
	"strconv"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// appendAnswer writes the answer to one envelope.
func (d *Dispatcher) appendAnswer(dst []byte, c *call, item []byte, failure *api.Error) []byte {
	begin := len(dst)
	a := answerWriter{dst: append(dst, '{'), omit: c.omit()}
	if failure == nil {
		a.member("result", c.result)
		a.member("errorCode", []byte("0"))
		a.member("errorMessage", []byte(`""`))
	} else {
		a.failure(failure)
	}
	if id := c.envelope.RequestID; id != nil {
		a.member("requestId", id)
	}
	if token := c.shownToken(); failure == nil && !token.IsZero() {
		a.text("authToken", token.Reveal())
	}
	if failure != nil && failure.Data != (api.ErrorData{}) {
		if data, err := wire.Marshal(&failure.Data); err == nil {
			a.member("errorData", data)
		}
	}
	if c.debug {
		a.member("debugInfo", c.debugInfo(item))
	}
	dst = append(a.dst, '}')
	if c.debug {
		plain := slices.Clone(dst[begin:])
		dst = wire.Indent(dst[:begin], plain)
	}
	return dst
}

// appendFailure writes the answer to a body in which no envelope was found.
func appendFailure(dst []byte, failure *api.Error) []byte {
	a := answerWriter{dst: append(dst, '{')}
	a.failure(failure)
	if failure.Data != (api.ErrorData{}) {
		if data, err := wire.Marshal(&failure.Data); err == nil {
			a.member("errorData", data)
		}
	}
	return append(a.dst, '}')
}

// answerWriter appends members, but for those that are to be left out.
type answerWriter struct {
	dst  []byte
	omit []string
	more bool
}

func (a *answerWriter) member(name string, value []byte) {
	if a.name(name) {
		a.dst = append(a.dst, value...)
	}
}

func (a *answerWriter) text(name, value string) {
	if a.name(name) {
		a.dst = wire.AppendString(a.dst, value)
	}
}

func (a *answerWriter) name(name string) bool {
	if len(a.omit) > 0 && slices.Contains(a.omit, name) {
		return false
	}
	if a.more {
		a.dst = append(a.dst, ',')
	}
	a.more = true
	a.dst = append(a.dst, '"')
	a.dst = append(a.dst, name...)
	a.dst = append(a.dst, '"', ':')
	return true
}

func (a *answerWriter) failure(failure *api.Error) {
	a.member("result", []byte("{}"))
	if a.name("errorCode") {
		a.dst = strconv.AppendInt(a.dst, int64(failure.Code), 10)
	}
	a.text("errorMessage", failure.Message)
}

// omit returns the members to leave out of the answer. errorCode always stays:
// without it nobody could read the rest.
func (c *call) omit() []string {
	if c.options == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.options.Omit), func(name string) bool { return name == "errorCode" })
}

// shownToken returns the token that stands at the top of a successful answer: a
// new one, or the caller's own from the body.
func (c *call) shownToken() api.Secret {
	if !c.issued.IsZero() {
		return c.issued
	}
	if c.Config.EchoAuthToken {
		return c.envelope.AuthToken
	}
	return api.Secret{}
}

// debugInfo returns what debug asks for. No secret is in it.
func (c *call) debugInfo(item []byte) []byte {
	type supplied struct {
		API             string              `json:"api"`
		APIVersion      string              `json:"apiVersion"`
		Debug           string              `json:"debug"`
		ResponseOptions api.ResponseOptions `json:"responseOptions"`
	}
	options := c.Settings.DefaultResponseOptions
	if full := cascade(c.envelope.ResponseOptions, &options); full != nil {
		options = *full
	}
	info := struct {
		Request  wire.Raw      `json:"request"`
		Supplied supplied      `json:"serverSuppliedValues"`
		Warnings []api.Warning `json:"warnings"`
	}{wire.Raw(item), supplied{c.apiName(), api.Version, "max", options}, c.warnings}
	b, err := wire.Marshal(&info)
	if err != nil { // the request names a member twice, which an answer must not
		info.Request = nil
		b, err = wire.Marshal(&info)
	}
	if err != nil {
		return []byte("{}")
	}
	return wire.Redact(nil, b) // what the server supplies may be the client's words too
}
