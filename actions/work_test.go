package actions_test

import (
	"slices"
	"strings"
	"testing"

	"sessiond/actions"
	"sessiond/dispatch"
)

// works says by the first word of an action's name what work it may be.
var works = map[string][]dispatch.Work{
	"alter":    {dispatch.Writing},
	"assign":   {dispatch.Writing, dispatch.Ending},
	"change":   {dispatch.Writing},
	"clone":    {dispatch.Writing},
	"create":   {dispatch.Writing},
	"delete":   {dispatch.Ending},
	"describe": {dispatch.Listing},
	"disable":  {dispatch.Ending},
	"drop":     {dispatch.Ending},
	"explain":  {dispatch.Reading},
	"get":      {dispatch.Reading},
	"list":     {dispatch.Listing, dispatch.Quick},
	"logout":   {dispatch.Ending},
	"ping":     {dispatch.Quick},
	"refresh":  {dispatch.Quick},
	"replay":   {dispatch.Writing},
	"revoke":   {dispatch.Ending},
	"validate": {dispatch.Quick},
	"watch":    {dispatch.Watching},
}

// What ends sessions is never held up by other work, nor is validate, and what
// walks over many is bounded.
func TestEachActionIsTheWorkThatItsNameSays(t *testing.T) {
	for _, a := range dispatch.Describe(actions.Table(actions.Deps{})) {
		for word, may := range works {
			if strings.HasPrefix(a.Name, word) && !slices.Contains(may, a.Work) {
				t.Errorf("%s %s: not what one that begins with %q is to do", a.Name, a.Work, word)
			}
		}
	}
}
