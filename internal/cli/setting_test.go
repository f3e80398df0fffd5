package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/cli"
	"sessiond/internal/config"
)

// A flag comes before its variable, that before services.json, that before what
// is built in.
func TestWhatIsSaidWhere(t *testing.T) {
	type outcome struct {
		Dir, Level, Format, Listener string
		Insecure                     bool
	}
	usual := outcome{Dir: "./data", Level: "info", Format: "json", Listener: "http8080 127.0.0.1:8080"}
	const file = `{
		"listeners": [{"serviceName": "a", "port": 7001, "protocol": "http"}, {"serviceName": "b", "port": 7002, "protocol": "http"}],
		"storage": {"dir": "/file"}, "log": {"level": "warn", "format": "console"}
	}`
	fromFile := outcome{Dir: "/file", Level: "warn", Format: "console", Listener: "a 127.0.0.1:7001, b 127.0.0.1:7002"}
	variables := map[string]string{
		"SESSIOND_DATA": "/env", "SESSIOND_LISTEN": "127.0.0.1:7003", "SESSIOND_LOG_LEVEL": "debug", "SESSIOND_LOG_FORMAT": "json", "SESSIOND_INSECURE_HTTP": "true",
	}
	fromVariables := outcome{Dir: "/env", Level: "debug", Format: "json", Listener: "listen 127.0.0.1:7003", Insecure: true}

	for name, tt := range map[string]struct {
		file      string // services.json in the working folder
		variables map[string]string
		args      string
		want      outcome
	}{
		"nothing":                       {want: usual},
		"a file":                        {file: file, want: fromFile},
		"variables":                     {variables: variables, want: fromVariables},
		"variables over a file":         {file: file, variables: variables, want: fromVariables},
		"a file that a variable names":  {variables: map[string]string{"SESSIOND_CONFIG": "other.json"}, want: outcome{Dir: "/other", Level: "info", Format: "json", Listener: "http8080 127.0.0.1:8080"}},
		"a file that a flag names":      {file: file, variables: map[string]string{"SESSIOND_CONFIG": "nosuch.json"}, args: "--config other.json", want: outcome{Dir: "/other", Level: "info", Format: "json", Listener: "http8080 127.0.0.1:8080"}},
		"an empty variable is none":     {file: file, variables: map[string]string{"SESSIOND_DATA": "", "SESSIOND_LISTEN": ""}, want: fromFile},
		"flags over variables and file": {file: file, variables: variables, args: "--data /flag --listen localhost:7004 --log-level error --log-format console --insecure-http=false", want: outcome{Dir: "/flag", Level: "error", Format: "console", Listener: "listen localhost:7004"}},
		"everywhere, insecurely":        {args: "--listen :7005 --insecure-http", want: outcome{Dir: "./data", Level: "info", Format: "json", Listener: "listen *:7005", Insecure: true}},
		"an IPv6 address":               {args: "--listen [::1]:0", want: outcome{Dir: "./data", Level: "info", Format: "json", Listener: "listen ::1:0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, "other.json", `{"storage": {"dir": "/other"}}`)
			if tt.file != "" {
				write(t, "services.json", tt.file)
			}
			for variable, value := range tt.variables {
				t.Setenv(variable, value)
			}
			o := served(t, strings.Fields(tt.args)...)
			again, err := o.Load()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []*config.Config{o.Config, again} {
				got := outcome{Dir: c.Storage.Dir, Level: c.Log.Level, Format: c.Log.Format, Insecure: c.InsecureHTTP}
				var listeners []string
				for _, l := range c.Listeners {
					listeners = append(listeners, l.ServiceName+" "+l.Address+":"+strconv.Itoa(l.Port))
				}
				got.Listener = strings.Join(listeners, ", ")
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
			}
			if o.Dir != o.Config.Storage.Dir {
				t.Errorf("the data folder is %s, and in the configuration %s", o.Dir, o.Config.Storage.Dir)
			}
		})
	}
}

func TestPasswordOfTheFirstAccount(t *testing.T) {
	for name, tt := range map[string]struct {
		variables map[string]string
		file      string
		want      string
		wantCode  int
		inStderr  string
	}{
		"none":                    {},
		"in a variable":           {variables: map[string]string{"SESSIOND_ADMIN_PASSWORD": " as it stands "}, want: " as it stands "},
		"in a file":               {variables: map[string]string{"SESSIOND_ADMIN_PASSWORD_FILE": "password"}, file: "from a file\n", want: "from a file"},
		"in a file from Windows":  {variables: map[string]string{"SESSIOND_ADMIN_PASSWORD_FILE": "password"}, file: "from a file\r\n", want: "from a file"},
		"in both":                 {variables: map[string]string{"SESSIOND_ADMIN_PASSWORD": "secret-a", "SESSIOND_ADMIN_PASSWORD_FILE": "password"}, file: "secret-b", wantCode: 2, inStderr: "are both set: unset one"},
		"in a file that is empty": {variables: map[string]string{"SESSIOND_ADMIN_PASSWORD_FILE": "password"}, file: "\n", wantCode: 1, inStderr: "must hold one line and nothing else"},
		"in a file of lines":      {variables: map[string]string{"SESSIOND_ADMIN_PASSWORD_FILE": "password"}, file: "secret-a\nsecret-b\n", wantCode: 1, inStderr: "must hold one line and nothing else"},
		"in no file":              {variables: map[string]string{"SESSIOND_ADMIN_PASSWORD_FILE": "nosuch"}, wantCode: 1, inStderr: "the file that SESSIOND_ADMIN_PASSWORD_FILE names cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, "password", tt.file)
			for variable, value := range tt.variables {
				t.Setenv(variable, value)
			}
			var got api.Secret
			p := program()
			p.Serve = func(_ context.Context, o cli.ServeOptions) error {
				got = o.Password
				return nil
			}
			code, stdout, stderr := run(t, p, "", "serve")
			if code != tt.wantCode || got.Reveal() != tt.want || !strings.Contains(stderr, tt.inStderr) {
				t.Errorf("exit code %d, a password of %d bytes, stderr: %s", code, len(got.Reveal()), stderr)
			}
			if strings.Contains(stdout+stderr, "secret-") {
				t.Errorf("it shows the password: %s%s", stdout, stderr)
			}
		})
	}
}

func TestCheckConfig(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "good.json", `{"apiRoot": "/api"}`)
	write(t, "warned.json", `{"mqtt": {}}`)
	write(t, "open.json", `{"listeners": [{"serviceName": "a", "address": "*", "port": 80, "protocol": "http"}]}`)
	write(t, "bad.json", "{\n  \"apiRoot\": 7,\n  \"apiRot\": \"/api\"\n}")
	for _, tt := range []struct {
		args           string
		want           int
		stdout, stderr string
	}{
		{args: "", stdout: "OK\n"},
		{args: "good.json", stdout: "OK\n"},
		{args: "warned.json", stdout: "OK\n", stderr: "warning: warned.json:1:"},
		{args: "open.json", want: 1, stderr: "open.json:1:48: /listeners/0/address: plain HTTP beyond loopback"},
		{args: "open.json --insecure-http", stdout: "OK\n"},
		{args: "bad.json", want: 1, stderr: "bad.json:2:14: /apiRoot: "},
		{args: "bad.json", want: 1, stderr: "\nbad.json:3:3: /apiRot: is no member of services.json here; did you mean apiRoot?\n"},
		{args: "nosuch.json", want: 1, stderr: "nosuch.json"},
	} {
		code, stdout, stderr := run(t, program(), "", append([]string{"check-config"}, strings.Fields(tt.args)...)...)
		if code != tt.want || stdout != tt.stdout || !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
			t.Errorf("%s: exit code %d\nstdout: %s\nstderr: %s", tt.args, code, stdout, stderr)
		}
	}
}

// served returns what serve starts a server with.
func served(t *testing.T, args ...string) cli.ServeOptions {
	t.Helper()
	var options *cli.ServeOptions
	p := program()
	p.Serve = func(_ context.Context, o cli.ServeOptions) error {
		options = &o
		return nil
	}
	if code, _, stderr := run(t, p, "", append([]string{"serve"}, args...)...); code != 0 || options == nil {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	return *options
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Clean(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
