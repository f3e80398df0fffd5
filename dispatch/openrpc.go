package dispatch

import (
	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// OpenRPC returns the catalogue as an OpenRPC 1.3 document, for tools that make
// clients and forms from one. Where the envelope differs from JSON-RPC (its
// names of members, the token, a status for each answer) the reference tells
// more. The same actions give the same bytes.
func OpenRPC(actions []Description, version string) []byte {
	doc := openRPC{
		OpenRPC: "1.3.2",
		Info: openInfo{
			Title: "sessiond", Version: version,
			Description: "Sessions and API keys. A request is POSTed as {\"action\": method, \"params\": {…}, \"authToken\": …} and answered by result, errorCode and errorMessage.",
		},
		Methods: make([]openMethod, 0, len(actions)),
	}
	for i := range actions {
		doc.Methods = append(doc.Methods, actions[i].method())
	}
	text, err := wire.Marshal(&doc)
	if err != nil {
		panic(err) // names and texts of the program's own
	}
	return append(wire.Indent(nil, text), '\n')
}

type openRPC struct {
	OpenRPC string       `json:"openrpc"`
	Info    openInfo     `json:"info"`
	Methods []openMethod `json:"methods"`
}

type openInfo struct {
	Title       string `json:"title"`
	Version     string `json:"version"`
	Description string `json:"description"`
}

type openMethod struct {
	Name           string        `json:"name"`
	Description    string        `json:"description"`
	Tags           []openTag     `json:"tags"`
	ParamStructure string        `json:"paramStructure"`
	Params         []openContent `json:"params"`
	Result         openContent   `json:"result"`
	Errors         []openError   `json:"errors"`
	Aliases        []string      `json:"x-aliases"`
	WhoMayCall     string        `json:"x-whoMayCall"`
	ResetsIdleTime bool          `json:"x-resetsIdleTime"`
}

type openTag struct {
	Name string `json:"name"`
}

// openContent is OpenRPC's "content descriptor".
type openContent struct {
	Name        string   `json:"name"`
	Description string   `json:"description,omitzero"`
	Required    bool     `json:"required,omitzero"`
	Schema      wire.Raw `json:"schema"`
}

type openError struct {
	Code    api.Code `json:"code"`
	Message string   `json:"message"`
}

func (d *Description) method() openMethod {
	m := openMethod{
		Name: d.Name, Description: d.Description, ParamStructure: "by-name",
		Result:  openContent{Name: "result", Required: true, Schema: d.ResultSchema},
		Aliases: d.Aliases, WhoMayCall: d.WhoMayCall, ResetsIdleTime: d.ResetsIdle,
	}
	for _, name := range d.APIs {
		m.Tags = append(m.Tags, openTag{name})
	}
	for _, c := range d.ErrorCodes {
		m.Errors = append(m.Errors, openError{c, c.Info().Doc})
	}
	schemas := members(d.ParamsSchema)
	for i := range d.Params {
		f := &d.Params[i]
		m.Params = append(m.Params, openContent{Name: f.Name, Description: f.Doc, Required: f.Required, Schema: schemas[f.Name]})
	}
	return m
}

// members returns the schemas of an object's members by name.
func members(schema []byte) map[string]wire.Raw {
	all := map[string]wire.Raw{}
	tree, _ := wire.ParseTree(schema)
	if tree == nil || tree.Member("properties") == nil {
		return all
	}
	for _, m := range tree.Member("properties").Members {
		all[m.Name] = m.Value.Raw
	}
	return all
}
