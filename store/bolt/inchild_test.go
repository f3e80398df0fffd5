package bolt

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiond/store"
)

func TestCheckInChild(t *testing.T) {
	sound := sample(t)
	broken := sample(t)
	damage(t, broken, func(file []byte) []byte { clear(file[2*4096:]); return file })
	for _, tt := range []struct{ worker, path, want string }{
		{"worker", sound, ""},
		{"worker", broken, "is not a page"},
		{"worker, silent", sound, "checking the file ended before it said anything"},
		{"worker, crashing", sound, "checking the file ended at 3 of 10 pages: exit status 2 panic: as a page had it"},
		{"worker, failing after all", sound, "checking the file ended at 3 of 10 pages: exit status 7"},
		{"worker, talking for ever", sound, "checking the file ended before it said anything"},
	} {
		t.Run(tt.worker+": "+tt.want, func(t *testing.T) {
			f, err := os.Open(tt.path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			c := Child{Command: os.Args[0], Args: []string{tt.worker}, Failed: func(err error) { t.Error(err) }}
			var last, total uint64
			err = InChild(c)(t.Context(), f, func(done, of uint64) { last, total = done, of })
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want == "" && (last == 0 || last > total):
				t.Errorf("told of %d of %d pages", last, total)
			case tt.want != "" && (!errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), store.ErrCorrupt.Error()) != 1):
				t.Errorf("%v, want ErrCorrupt, once, and %q", err, tt.want)
			}
		})
	}
}

func TestCheckInChildIsGivenUp(t *testing.T) {
	f, err := os.Open(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	c := Child{Command: os.Args[0], Args: []string{"worker, hanging"}, Failed: func(err error) { t.Error(err) }}
	if err := InChild(c)(ctx, f, func(uint64, uint64) { cancel() }); !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%v, want that of the context", err)
	}
}

// What may be the machine's fault is not blamed on the file.
func TestCheckInChildThatIsCutShort(t *testing.T) {
	for worker, want := range map[string]string{
		"worker, killed":  "was killed at 3 of 10 pages",
		"worker, hanging": "came to a halt at 3 of 10 pages, for 0s",
	} {
		t.Run(worker, func(t *testing.T) {
			f, err := os.Open(sample(t))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			c := Child{Command: os.Args[0], Args: []string{worker}, Failed: func(err error) { t.Error(err) }}
			if worker == "worker, hanging" {
				c.patience = 300 * time.Millisecond
			}
			if err := InChild(c)(t.Context(), f, nil); err == nil || errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

func TestCheckWithoutAChild(t *testing.T) {
	path := sample(t)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var told error
	c := Child{Command: path, Failed: func(err error) { told = err }}
	if err := InChild(c)(t.Context(), f, nil); err != nil || told == nil {
		t.Errorf("%v, told of %v", err, told)
	}
}

// checker is a worker, if that is what this process was started as.
func checker(name string) bool {
	say := func(text string) { _, _ = os.Stdout.WriteString(text + "\n") }
	switch name {
	case "worker":
		fail(CheckWorker(context.Background(), os.Stdin, os.Stdout))
	case "worker, silent":
	case "worker, crashing":
		say("progress 3 10")
		panic("as a page had it")
	case "worker, failing after all":
		say("progress 3 10")
		say("sound")
		os.Exit(7)
	case "worker, killed":
		say("progress 3 10")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it may take a moment
	case "worker, hanging":
		say("progress 3 10")
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "worker, talking for ever":
		for {
			if _, err := os.Stdout.WriteString("and so on "); err != nil {
				break
			}
		}
	default:
		return false
	}
	return true
}
