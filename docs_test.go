package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"sessiond/dispatch"
	"sessiond/internal/api"
	"sessiond/internal/config"
)

// What docs/ says of actions and configuration is what the program does.
func TestDocsAreCurrent(t *testing.T) {
	actions := describeActions()
	for name, want := range map[string][]byte{
		"reference.md":         dispatch.Reference(actions),
		"openrpc.json":         dispatch.OpenRPC(actions, api.Version),
		"configuration.md":     config.Reference(),
		"services.schema.json": config.Schema(),
	} {
		got, err := os.ReadFile(filepath.Join("docs", name))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("docs/%s is old: make docs writes it", name)
		}
	}
}
