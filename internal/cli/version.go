package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"sessiond/dispatch"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/wire"
	"sessiond/store/bolt"
)

func (p *Program) version() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: `Prints the version of the program, that of Go, the system it was built for, and the
format of the data that it writes: it reads that and all lower ones.`,
		Example: "  sessiond version\n  sessiond version --output json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			about := struct {
				Version  string `json:"version"`
				Protocol string `json:"protocol"`
				Go       string `json:"go"`
				OS       string `json:"os"`
				Arch     string `json:"arch"`
				Format   int    `json:"dataFormat"`
			}{p.Version, api.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH, bolt.Format}
			format, err := output(cmd, formatText)
			if err != nil {
				return err
			}
			if format == formatJSON {
				return printJSON(cmd, &about)
			}
			return printLine(cmd, fmt.Sprintf("sessiond %s, %s, %s/%s, data format %d", about.Version, about.Go, about.OS, about.Arch, about.Format))
		},
	}
	addOutput(cmd, formatText, formatJSON)
	return cmd
}

func (p *Program) docs() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "docs --out DIR",
		Short:  "Write the generated part of the documentation",
		Long:   "Writes reference.md, openrpc.json, configuration.md and services.schema.json, made from the code, into a folder.",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, name := said(cmd, "out", "")
			if name == "" || dir == "" {
				return usagef("name a folder with --out")
			}
			for name, content := range p.pages() {
				if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil { //nolint:gosec // documentation is for everybody
					return fmt.Errorf("write the documentation: %w", err)
				}
			}
			return nil
		},
	}
	cmd.Flags().String("out", "", "write into the folder `DIR`")
	return cmd
}

// pages returns the generated files of docs/ by name.
func (p *Program) pages() map[string][]byte {
	actions := p.Actions()
	return map[string][]byte{
		"reference.md":         dispatch.Reference(actions),
		"openrpc.json":         dispatch.OpenRPC(actions, api.Version),
		"configuration.md":     config.Reference(),
		"services.schema.json": config.Schema(),
	}
}

func printLine(cmd *cobra.Command, text string) error {
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), text); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

func printJSON(cmd *cobra.Command, v any) error {
	text, err := wire.Marshal(v)
	if err != nil {
		return err
	}
	return printLine(cmd, escaped(wire.Indent(nil, text)))
}
