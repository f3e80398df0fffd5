package main

import (
	"fmt"
	"strings"
	"testing"

	"sessiond/internal/config"
)

// Whatever sessions are shown with is refused as the name of a property, in either
// case of its letters.
func TestNoPropertyHasANameOfTheServers(t *testing.T) {
	checked := 0
	for _, d := range describeActions() {
		if d.Name != "getSessionInfo" {
			continue
		}
		for _, f := range d.Result {
			for _, name := range []string{f.Name, strings.ToUpper(f.Name), "sessiond" + f.Name} {
				checked++
				if _, err := config.Parse(fmt.Appendf(nil, `{"sessionProperties":[{"name":%q}]}`, name), "services.json"); err == nil {
					t.Errorf("a property may be called %s", name)
				}
			}
		}
	}
	if checked == 0 {
		t.Error("nothing was checked")
	}
}
