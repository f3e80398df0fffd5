package bolt

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"sessiond/store"
)

// The words that a child says, one to a line.
const (
	sayProgress = "progress" // done and total
	saySound    = "sound"
	sayDamaged  = "damaged" // what, quoted
	sayFailed   = "failed"  // likewise: it could not be found out
)

const (
	childFile = 3 // the descriptor under which a child has the file
	maxSaid   = 64 << 10
)

// CheckWorker is the other end of InChild: it checks the file that its process was
// started with and says on out what came of it. It is all that its process does; it
// ends with in, and so with whoever started it.
func CheckWorker(ctx context.Context, in io.Reader, out io.Writer) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) // or it would look like a crash
	f := os.NewFile(childFile, "the store")
	if f == nil {
		return errors.New("bolt: there is no file to check: this is started by a server")
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	say := func(words ...string) error {
		_, err := io.WriteString(out, strings.Join(words, " ")+"\n")
		return err
	}
	err := check(ctx, f, func(done, total uint64) {
		_ = say(sayProgress, strconv.FormatUint(done, 10), strconv.FormatUint(total, 10)) // who does not listen is gone
	})
	switch {
	case err == nil:
		return say(saySound)
	case errors.Is(err, store.ErrCorrupt):
		return say(sayDamaged, strconv.Quote(err.Error()))
	}
	return say(sayFailed, strconv.Quote(err.Error()))
}

// A Child is how a process is started that runs CheckWorker.
type Child struct {
	Command string
	Args    []string

	// Failed is told why no child could be started; the file is then checked in this
	// process. Required.
	Failed func(error)

	patience time.Duration // 0: as InChild says
}

// InChild returns a Check that has a child do the work: whatever the file does to it,
// this process goes on. A file at which it crashes is called damaged; one whose child
// somebody killed, or heard nothing of, is not, for it may be the machine's fault. A
// child gets 30 s, and 10 s more per GiB, from each sign of progress to the next.
func InChild(c Child) Check {
	return c.check
}

func patience(size int64) time.Duration {
	return 30*time.Second + time.Duration(float64(size)/(1<<30)*float64(10*time.Second))
}

func (c *Child) check(ctx context.Context, f *os.File, p Progress) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	run, err := c.start(ctx, f, info)
	if err != nil {
		c.Failed(err)
		return check(ctx, f, p)
	}
	return run.follow(ctx, p, cmp.Or(c.patience, patience(info.Size())))
}

// checking is a child at work.
type checking struct {
	cmd    *exec.Cmd
	in     io.Closer // ends it
	out    io.Reader
	stderr *bytes.Buffer
}

// start gives a child nothing of ours but pipes and the file, to read: a
// description of its own, so that the lock stays here.
func (c *Child) start(ctx context.Context, f *os.File, info os.FileInfo) (*checking, error) {
	read, err := os.Open(f.Name())
	if err != nil {
		return nil, fmt.Errorf("bolt: the store cannot be opened for a child: %w", err)
	}
	defer func() { _ = read.Close() }() // the child has its own
	if same, err := read.Stat(); err != nil || !os.SameFile(info, same) {
		return nil, errors.New("bolt: the store was moved while it was opened")
	}
	run := &checking{cmd: exec.CommandContext(ctx, c.Command, c.Args...), stderr: new(bytes.Buffer)} //nolint:gosec // our own program
	run.cmd.Args[0] = os.Args[0]                                                                     // for who lists processes
	run.cmd.Env = []string{}
	run.cmd.ExtraFiles = []*os.File{read}
	run.cmd.Stderr = run.stderr
	run.cmd.WaitDelay = time.Second
	if run.in, err = run.cmd.StdinPipe(); err == nil {
		run.out, err = run.cmd.StdoutPipe()
	}
	if err == nil {
		err = run.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("bolt: a child that checks the file: %w", err)
	}
	return run, nil
}

// follow listens to a child until it has ended, and says what came of it.
func (run *checking) follow(ctx context.Context, p Progress, patience time.Duration) error {
	var hung atomic.Bool
	watchdog := time.AfterFunc(patience, func() {
		hung.Store(true)
		_ = run.cmd.Process.Kill() // it may be gone already
	})
	defer watchdog.Stop()
	verdict, at := error(nil), "before it said anything"
	lines := bufio.NewScanner(run.out)
	lines.Buffer(nil, maxSaid)
	said := false
	for !said && lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case sayProgress:
			done, total, ok := numbers(rest)
			if !ok {
				break
			}
			watchdog.Reset(patience)
			at = fmt.Sprintf("at %d of %d pages", done, total)
			if p != nil {
				p(done, total)
			}
		case saySound:
			said = true
		case sayDamaged:
			said, verdict = true, damagedAs(rest)
		case sayFailed:
			said, verdict = true, fmt.Errorf("bolt: the store could not be checked: %s", unquoted(rest))
		}
	}
	nonsense := lines.Err() != nil
	if nonsense {
		_ = run.cmd.Process.Kill()
	}
	_ = run.in.Close()
	ended := run.cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case hung.Load():
		return fmt.Errorf("bolt: checking the store came to a halt %s, for %v: the disk or the machine is too busy, or has a fault: start again", at, patience.Round(time.Second))
	case said && verdict != nil:
		return verdict
	case !said && !nonsense && killed(run.cmd.ProcessState):
		return fmt.Errorf("bolt: the process that checked the store was killed %s, as happens where memory runs short: free some, and start again", at)
	case !said || ended != nil:
		return corrupt("checking the file ended %s: %v %s", at, ended, firstLine(run.stderr.Bytes()))
	}
	return nil
}

// killed reports whether a process was ended by who asks no questions. What a file does
// to it ends it by other signals.
func killed(p *os.ProcessState) bool {
	status, ok := p.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func numbers(text string) (done, total uint64, ok bool) {
	first, second, _ := strings.Cut(text, " ")
	done, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	total, err = strconv.ParseUint(second, 10, 64)
	return done, total, err == nil
}

// damagedAs is an error of another process, as it was there.
func damagedAs(text string) error {
	what, _ := strings.CutPrefix(unquoted(text), store.ErrCorrupt.Error()+": ")
	return corrupt("%s", what)
}

func unquoted(text string) string {
	if plain, err := strconv.Unquote(text); err == nil {
		return plain
	}
	return text
}

func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(line)
}
