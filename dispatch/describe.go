package dispatch

import (
	"slices"

	"sessiond/internal/api"
	"sessiond/internal/wire"
)

// Catalogue is a table of actions as listActions answers it. It is written once:
// anybody may ask for it, and to write it takes milliseconds.
type Catalogue struct {
	Actions []Description `json:"actions" doc:"The actions, in the order of the reference."`

	text []byte
}

// NewCatalogue returns the catalogue of actions. An error means that they cannot
// be written as JSON.
func NewCatalogue(actions []Description) (Catalogue, error) {
	type unwritten Catalogue
	text, err := wire.Marshal(&unwritten{Actions: actions})
	return Catalogue{actions, text}, err
}

// AppendJSON implements wire.Appender.
func (c Catalogue) AppendJSON(dst []byte) []byte { return append(dst, c.text...) }

// Description is an action as listActions answers it, and as the reference is
// made of.
type Description struct {
	Name         string     `json:"name" doc:"The action."`
	Aliases      []string   `json:"aliases" doc:"Other names of it."`
	APIs         []string   `json:"apis" doc:"The apis that have it."`
	Description  string     `json:"description" doc:"What it does."`
	WhoMayCall   string     `json:"whoMayCall" doc:"Who may call it, and whose objects it reaches."`
	ResetsIdle   bool       `json:"resetsIdleTime" doc:"Does calling it count as a use of the caller's session?"`
	ErrorCodes   []api.Code `json:"errorCodes" doc:"Its own error codes, beside those that any request may meet."`
	ParamsSchema wire.Raw   `json:"params" doc:"JSON Schema of params."`
	ResultSchema wire.Raw   `json:"result" doc:"JSON Schema of result."`

	Work   Work         `json:"-"`
	Params []wire.Field `json:"-"`
	Result []wire.Field `json:"-"`
}

// Describe describes a table of actions, in its order.
func Describe(table []Action) []Description {
	all := make([]Description, 0, len(table))
	for i := range table {
		a := &table[i]
		if a.err != nil {
			continue // New says so
		}
		all = append(all, Description{
			Name: a.Name, Aliases: slices.Clone(a.Aliases), APIs: append(slices.Clone(a.APIs), api.Hub), Description: a.Doc,
			WhoMayCall: a.Allow.String(), ResetsIdle: !a.KeepsIdle, ErrorCodes: slices.Clone(a.Errors),
			ParamsSchema: a.params.Schema(), ResultSchema: a.result.Schema(), Work: a.Work, Params: a.params.Fields(), Result: a.result.Fields(),
		})
	}
	return all
}
