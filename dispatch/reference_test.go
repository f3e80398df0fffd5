package dispatch

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/session"
)

type fetchParams struct {
	Name   string            `json:"name" min:"1" max:"9" doc:"Which | of them."`
	Kind   string            `json:"kind,omitzero" enum:"big,small" doc:"What kind."`
	Secret api.Secret        `json:"secret,omitzero" max:"64" doc:"What proves it."`
	Deep   map[string][]leaf `json:"deep,omitzero" doc:"By name."`
}

type fetchResult struct {
	Leaves []leaf `json:"leaves" max:"3" doc:"What was found."`
	At     *int64 `json:"at" min:"0" doc:"Where."`
}

type leaf struct {
	Color string `json:"color" doc:"Its color."`
}

func described() []Description {
	return Describe([]Action{
		Protected(Spec{
			Name: "fetchIt", Aliases: []string{"getIt"}, APIs: []string{api.Admin}, Doc: "Fetches it.", Errors: []api.Code{api.NotFound},
			Allow: Holders(account.EventsRead).SessionsOnly(),
		}, func(context.Context, *Call, *session.Caller, fetchParams) (fetchResult, error) {
			return fetchResult{}, nil
		}),
		Public(Spec{Name: "ping", APIs: []string{api.Session}, Work: Quick, Doc: "Pings.", Allow: Anyone()},
			func(context.Context, *Call, struct{}) (struct{}, error) { return struct{}{}, nil }),
	})
}

const wantActions = "\n### fetchIt\n" + `
Fetches it.

- Also called: ¬getIt¬
- Apis: ¬admin¬, ¬hub¬
- Who may call it: holders of sessiond.events.read, with a session and not an API key
- Resets the idle time of the caller's session: yes
- Under load: waits its turn among the listings, or is refused with 21901
- Errors of its own: 21401 notFound

Params:

| member | type | required | meaning |
|---|---|---|---|
| ¬name¬ | string, 1 to 9 bytes | yes | Which \| of them. |
| ¬kind¬ | ¬big¬, ¬small¬ | no | What kind. |
| ¬secret¬ | secret, at most 64 bytes | no | What proves it. |
| ¬deep¬ | map of array of object | no | By name. |
| ¬deep.*[].color¬ | string | yes | Its color. |

Result:

| member | type | always there | meaning |
|---|---|---|---|
| ¬leaves¬ | array of object, at most 3 elements | yes | What was found. |
| ¬leaves[].color¬ | string | yes | Its color. |
| ¬at¬ | integer, at least 0 | no | Where. |

### ping

Pings.

- Apis: ¬session¬, ¬hub¬
- Who may call it: anybody
- Resets the idle time of the caller's session: yes
- Under load: is answered at once

Params: none.

Result: none.
`

func TestReference(t *testing.T) {
	page := string(Reference(described()))
	_, actions, found := strings.Cut(page, "Every action is in the api `hub` too.\n")
	if diff := cmp.Diff(strings.ReplaceAll(wantActions, "¬", "`"), actions); diff != "" || !found {
		t.Error(diff)
	}
	for _, want := range []string{"  - [fetchIt](#fetchit)\n  - [ping](#ping)\n", "| 12031 | invalidAuthToken | 401 |", "| `authToken` | string |"} {
		if !strings.Contains(page, want) {
			t.Errorf("it does not hold %q", want)
		}
	}
	for _, row := range api.Codes() {
		if !strings.Contains(page, " | "+row.Name+" | ") {
			t.Errorf("it does not explain %s", row.Name)
		}
	}
}

func TestOpenRPC(t *testing.T) {
	text := OpenRPC(described(), "1.0")
	var doc struct {
		OpenRPC string
		Info    struct{ Title, Version string }
		Methods []struct {
			Name, ParamStructure string
			Params               []struct {
				Name     string
				Required bool
				Schema   struct {
					Type any
					Enum []any
				}
			}
			Result struct {
				Schema struct{ Properties map[string]any }
			}
			Errors []struct{ Code int }
			Tags   []struct{ Name string }
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenRPC != "1.3.2" || doc.Info.Title != "sessiond" || doc.Info.Version != "1.0" || len(doc.Methods) != 2 {
		t.Fatalf("got %s", text)
	}
	m := doc.Methods[0]
	if m.Name != "fetchIt" || m.ParamStructure != "by-name" || len(m.Params) != 4 || len(m.Errors) != 1 || m.Errors[0].Code != 21401 || len(m.Tags) != 2 {
		t.Errorf("got %+v", m)
	}
	if p := m.Params[0]; p.Name != "name" || !p.Required || p.Schema.Type != "string" {
		t.Errorf("got %+v", p)
	}
	if p := m.Params[1]; p.Name != "kind" || p.Required || len(p.Schema.Enum) != 3 {
		t.Errorf("got %+v", p)
	}
	if _, ok := m.Result.Schema.Properties["leaves"]; !ok {
		t.Errorf("got %+v", m.Result)
	}
}

func TestTheReferenceIsTheSameEachTime(t *testing.T) {
	for range 20 {
		if !bytes.Equal(Reference(described()), Reference(described())) || !bytes.Equal(OpenRPC(described(), "1"), OpenRPC(described(), "1")) {
			t.Fatal("it differs")
		}
	}
}
