// Package api holds the words of the wire: the envelope, the error codes, the
// error that carries one, the type that a secret travels in, and what services
// are and go through.
//
// It imports nothing of ours, so that every other package can speak it.
package api

// Names of the apis, as they stand in an envelope.
const (
	Admin   = "admin"   // management, and the session actions too
	Session = "session" // what applications, gateways and browsers do with a token
	Hub     = "hub"     // the whole enabled catalogue
)

// Version is the version of the protocol. Requests may name another minor
// version; other majors are refused.
const Version = "1.0"

// ResponseOptions ask for another form of result. The zero value asks for
// nothing. Options cascade: request, session, services.json, built in.
type ResponseOptions struct {
	NumberFormat  string   `json:"numberFormat,omitzero" enum:"number,string" doc:"string quotes every number inside result."`
	DataFormat    string   `json:"dataFormat,omitzero" enum:"objects,arrays" doc:"arrays turns each array of objects in result into fields and rows."`
	BinaryFormat  string   `json:"binaryFormat,omitzero" enum:"hex,base64,byteArray" doc:"How binary values are written."`
	Omit          []string `json:"omit,omitzero" max:"100" doc:"Members to leave out of the response, such as errorMessage, or of result."`
	IncludeFields []string `json:"includeFields,omitzero" max:"100" doc:"Keep only these members of result, or of the objects in its arrays."`
	ExcludeFields []string `json:"excludeFields,omitzero" max:"100" doc:"Leave out these members of result, or of the objects in its arrays."`
	SetCookie     bool     `json:"setCookie,omitzero" doc:"Accepted with a warning: this server sets no cookies."`
}

// maxFieldName is how long a name in ResponseOptions may be, in bytes.
const maxFieldName = 64

// Validate refuses names that no member has: they are kept with sessions.
func (o *ResponseOptions) Validate() error {
	for _, list := range []struct {
		member string
		names  []string
	}{{"omit", o.Omit}, {"includeFields", o.IncludeFields}, {"excludeFields", o.ExcludeFields}} {
		for _, name := range list.names {
			if len(name) > maxFieldName {
				return Errorf(BadParam, "%s must hold names of at most %d bytes", list.member, maxFieldName)
			}
		}
	}
	return nil
}

// Warning is one entry of debugInfo.warnings.
type Warning struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}
