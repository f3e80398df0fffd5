package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sessiond/dispatch"
	"sessiond/internal/cli"
	"sessiond/internal/wire"
	"sessiond/store"
)

// What is typed, and what the shell and the reader get.
func TestExitCodes(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tt := range []struct {
		args     string
		want     int
		inStdout string
		inStderr string
	}{
		{"", 0, "Available Commands:", ""},
		{"--help", 0, "sessiond serve", ""},
		{"help call", 0, "sessiond call pingSession", ""},
		{"version", 0, "sessiond 1.2.3-test, go", ""},
		{"version --output json", 0, `"version": "1.2.3-test"`, ""},
		{"help completion bash", 0, "sessiond completion bash", ""},
		{"completion", 0, "sessiond completion [command]", ""},
		{"completion bash", 0, "__start_sessiond", ""},
		{"completion zsh", 0, "#compdef sessiond", ""},
		{"completion fish", 0, "complete -c sessiond", ""},
		{"completion powershell", 0, "Register-ArgumentCompleter", ""},
		{"__complete call p", 0, "pingSession\tTells that it lives", ""},
		{"__complete call --output ", 0, "json\ntable\n", ""},
		{"__complete serve --log-level ", 0, "trace\ndebug\n", ""},

		{"nosuch", 2, "", "sessiond: there is no subcommand of that name\nRun sessiond --help for how it is used.\n"},
		{"serv", 2, "", "sessiond: there is no subcommand of that name; did you mean serve?\n"},
		{"serve --nosuch", 2, "", "sessiond: unknown flag: --nosuch\nRun sessiond serve --help for how it is used.\n"},
		{"serve now", 2, "", "sessiond: serve takes flags only\n"},
		{"serve --listen 8080", 2, "", "sessiond: --listen is HOST:PORT, such as 127.0.0.1:8080, or :8080 for all networks\n"},
		{"serve --listen 127.0.0.1:http", 2, "", "--listen is HOST:PORT"},
		{"serve --listen 127.0.0.1:65536", 2, "", "--listen is HOST:PORT"},
		{"serve --data=", 2, "", "--data is the path of a folder"},
		{"help nosuch", 2, "", "sessiond: there is no subcommand of that name"},
		{"completion tcsh", 2, "", "Run sessiond completion --help"},
		{"serve --log-level loud", 2, "", "sessiond: --log-level is one of trace, debug, info, warn, error\n"},
		{"serve --log-format xml", 2, "", "sessiond: --log-format is one of console, json\n"},
		{"version --output xml", 2, "", "sessiond: --output is text or json\n"},
		{"call", 2, "", "sessiond: name the action to call, such as pingSession"},
		{"call a {} {}", 2, "", "put the JSON in single quotes"},
		{"call a []", 2, "", "the params must be a JSON object"},
		{`call a {"a":1`, 2, "", "sessiond: the params:1:7: "},
		{"call a --url nowhere", 2, "", "--url is an http or https URL, such as http://127.0.0.1:8080/api"},
		{"call a --url http://alice:secret@localhost", 2, "", "--url must hold no user name or password"},
		{"call a --timeout 0s", 2, "", "--timeout is a duration above 0"},
		{"call a --token a --token-file b", 2, "", "--token and --token-file name a token each"},
		{"check-config a b", 2, "", "check-config reads one file"},
		{"verify --head 12", 2, "", "--head is SEQ:HEX"},
		{"verify --head 0:" + strings.Repeat("00", 32), 2, "", "--head is SEQ:HEX"},
		{"reset-admin --username a:\x00", 2, "", "--username: a user name consists of"},
		{"docs", 2, "", "name a folder with --out"},

		{"call a --token-file nosuch", 1, "", "the file that --token-file names cannot be read"},
		{"call a --ca nosuch", 1, "", "the file that --ca names cannot be read"},
		{"serve --config nosuch.json", 1, "", "nosuch.json"},
		{"verify --data nosuch", 1, "", "sessiond: there is no store of a server in nosuch: name its folder with --data\n"},
		{"reset-admin --data nosuch", 1, "", "sessiond: there is no store of a server in nosuch: name its folder with --data\n"},
		{"docs --out nosuch", 1, "", "write the documentation"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			p := program()
			code, stdout, stderr := run(t, p, "", strings.Fields(tt.args)...)
			if strings.HasSuffix(tt.args, " ") {
				code, stdout, stderr = run(t, p, "", append(strings.Fields(tt.args), "")...)
			}
			if code != tt.want || !strings.Contains(stdout, tt.inStdout) || !strings.Contains(stderr, tt.inStderr) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, tt.want, stdout, stderr)
			}
			if tt.want != 0 && stdout != "" || tt.want == 0 && stderr != "" && !strings.HasPrefix(tt.args, "__") {
				t.Errorf("something is in the wrong stream\nstdout: %s\nstderr: %s", stdout, stderr)
			}
		})
	}
}

func TestEverySubcommandExplainsItself(t *testing.T) {
	for _, name := range []string{"serve", "call", "check-config", "reset-admin", "verify", "version"} {
		code, stdout, _ := run(t, program(), "", name, "--help")
		if code != 0 || !strings.Contains(stdout, "Examples:\n  sessiond "+name) && !strings.Contains(stdout, "sessiond "+name+" --") {
			t.Errorf("%s --help has no example:\n%s", name, stdout)
		}
	}
}

func TestWhatServeReturnsDecidesTheExitCode(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("the port is in use"), 1},
		{fmt.Errorf("open: %w: value 7", store.ErrCorrupt), 65},
	} {
		p := program()
		p.Serve = func(context.Context, cli.ServeOptions) error { return tt.err }
		code, _, stderr := run(t, p, "", "serve")
		if code != tt.want || tt.err != nil && stderr != "sessiond: "+tt.err.Error()+"\n" {
			t.Errorf("%v: exit code %d, want %d; stderr: %s", tt.err, code, tt.want, stderr)
		}
	}
}

func TestDocsWritesEveryPage(t *testing.T) {
	dir := t.TempDir()
	if code, _, stderr := run(t, program(), "", "docs", "--out", dir); code != 0 {
		t.Fatal(stderr)
	}
	for name, want := range map[string]string{
		"reference.md": "### pingSession", "openrpc.json": `"name": "pingSession"`,
		"configuration.md": "# services.json", "services.schema.json": "draft/2020-12",
	} {
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Contains(page, []byte(want)) {
			t.Errorf("%s does not hold %q: %v", name, want, err)
		}
	}
}

func TestRandomPasswordsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		p := cli.RandomPassword()
		if len(p) < 22 || strings.ContainsFunc(p, func(r rune) bool { return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", r) }) {
			t.Fatalf("%q needs quotes or can be guessed", p)
		}
		seen[p] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d of 1000 differ", len(seen))
	}
}

// program is one without a server behind it.
func program() *cli.Program {
	return &cli.Program{
		Version: "1.2.3-test",
		Serve:   func(context.Context, cli.ServeOptions) error { return nil },
		Actions: func() []dispatch.Description {
			return []dispatch.Description{{
				Name: "pingSession", Aliases: []string{"ping"}, APIs: []string{"session", "hub"}, Description: "Tells that it lives. And more.",
				ParamsSchema: wire.Raw(`{"type":"object","properties":{}}`), ResultSchema: wire.Raw(`{"type":"object"}`),
			}}
		},
	}
}

// run executes one command line in an environment without settings of ours.
func run(t *testing.T, p *cli.Program, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = p.Run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}
