//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts plays testdata/scripts: the program as it is met in a shell. Beside
// the commands of testscript there are
//
//	status CODE program [args...]    runs a program whose exit code is to be CODE
//	await FILE                       waits until the log in FILE tells that a server listens; $SESSIOND_URL is its address
//	await FILE REGEXP                waits until FILE holds something
//	capture NAME REGEXP FILE         sets $NAME to what the group in REGEXP matches; FILE as for grep, or stdout, stderr
//	signal NAME                      sends TERM or HUP to what runs in the background
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/scripts/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("there are no scripts: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/scripts",
		Setup: func(env *testscript.Env) error {
			bin := filepath.Join(env.WorkDir, ".bin")
			if err := os.Mkdir(bin, 0o700); err != nil {
				return err
			}
			env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
			program := "#!/bin/sh\n" + childMark + "=1 exec '" + self + "' '-test.run=^TestMainProcess$' -- \"$@\"\n"
			return os.WriteFile(filepath.Join(bin, "sessiond"), []byte(program), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": scriptStatus, "await": scriptAwait, "capture": scriptCapture, "signal": scriptSignal,
		},
		RequireUniqueNames: true,
	})
}

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE program [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: await FILE [REGEXP]")
	}
	pattern := `"address":"([0-9.:]+)",.*"message":"listening"`
	if len(args) == 2 {
		pattern = args[1]
	}
	found, err := awaited(ts.MkAbs(args[0]), regexp.MustCompile(pattern))
	ts.Check(err)
	if len(args) == 1 {
		ts.Setenv("SESSIOND_URL", "http://"+found[1]+"/api")
	}
}

// awaited returns what a pattern matches in a file, once it does.
func awaited(file string, pattern *regexp.Regexp) ([]string, error) {
	look, late := time.NewTicker(5*time.Millisecond), time.NewTimer(20*time.Second)
	defer look.Stop()
	defer late.Stop()
	for {
		content, _ := os.ReadFile(file) // it may not be there yet
		if found := pattern.FindStringSubmatch(string(content)); found != nil {
			return found, nil
		}
		select {
		case <-look.C:
		case <-late.C:
			return nil, fmt.Errorf("%s does not come to hold %s:\n%s", file, pattern, content)
		}
	}
}

func scriptCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: capture NAME REGEXP FILE")
	}
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile(args[2]))
	if len(found) < 2 {
		ts.Fatalf("%s does not hold %s", args[2], args[1])
	}
	ts.Setenv(args[0], found[1])
}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	known := map[string]os.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}
	if neg || len(args) != 1 || known[args[0]] == nil {
		ts.Fatalf("usage: signal TERM|HUP")
	}
	if len(ts.BackgroundCmds()) == 0 {
		ts.Fatalf("nothing runs in the background")
	}
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(known[args[0]]))
	}
}

// No subcommand is without a script.
func TestScriptsCoverTheSubcommands(t *testing.T) {
	scripts, err := filepath.Glob("testdata/scripts/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for _, command := range []string{"serve", "call", "check-config", "reset-admin", "verify", "salvage", "version", "completion"} {
		if !strings.Contains(all.String(), "sessiond "+command) {
			t.Errorf("no script runs sessiond %s", command)
		}
	}
}
