package account

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/alexedwards/argon2id"

	"sessiond/internal/wire"
)

const (
	maxLine       = 8 << 10          // bytes of JSON each way; a password of MaxPassword bytes fits several times
	childPause    = time.Second      // between two starts: what ends at once must not be started over and over
	childPatience = 20 * time.Second // with a hash, of which the costliest takes two where nobody else wants the processor
)

var errNoHash = errors.New("account: no hash could be made")

// question is a hash to be made or checked.
type question struct {
	Number   uint64 `json:"number"`
	Make     bool   `json:"make"`
	Password []byte `json:"password"` // as bytes, so that none is replaced
	PHC      string `json:"phc"`      // what is checked, or a hash of the cost of which one is made
}

// answer is what came of the question with the same number.
type answer struct {
	Number uint64 `json:"number"`
	Match  bool   `json:"match"`
	PHC    string `json:"phc"`
	Failed bool   `json:"failed"`
}

// answer does the work.
func (q question) answer() answer {
	a := answer{Number: q.Number}
	var err error
	if q.Make {
		var cost *argon2id.Params
		if cost, _, _, err = argon2id.DecodeHash(q.PHC); err == nil {
			a.PHC, err = argon2id.CreateHash(string(q.Password), cost)
		}
	} else {
		a.Match, err = argon2id.ComparePasswordAndHash(string(q.Password), q.PHC)
	}
	a.Failed = err != nil // the cause may show parts of the hash
	return a
}

// fits reports whether a child that was asked q may say a.
func (a answer) fits(q question) bool {
	switch {
	case a.Number != q.Number:
		return false
	case a.Failed:
		return !a.Match && a.PHC == ""
	case q.Make:
		return !a.Match && checkPHC(a.PHC) == nil
	}
	return a.PHC == ""
}

// HashWorker is the other end of InChild: it answers questions from in on out, one
// after the other, until in ends. It is all that its process does, which gives way
// to every other one from then on and outlives the signals that end a server: that
// drains, and may still ask.
func HashWorker(in io.Reader, out io.Writer) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	giveWay()
	return answerAll(in, out)
}

func answerAll(in io.Reader, out io.Writer) error {
	lines := bufio.NewReaderSize(in, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("account: read what is asked: %w", err)
		}
		var q question
		if err := wire.Unmarshal(line, &q); err != nil {
			return err
		}
		if err := checkPHC(q.PHC); err != nil {
			return err
		}
		if line, err = wire.Marshal(q.answer()); err != nil {
			return err
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("account: write the answer: %w", err)
		}
	}
}

// inChild says how workers get children, and to whom they tell their trouble.
type inChild struct {
	failed   func(error)
	command  string
	args     []string
	patience time.Duration
}

// HasherOption changes how a Hasher works.
type HasherOption func(*Hasher)

// InChild has each worker run its hashes in a child process of its own, which a
// command starts that ends in HashWorker. Such a process can step behind all
// others, which threads of this one cannot (x/crypto computes on goroutines that
// it starts itself), and the memory of its hashes is no garbage of ours. It is
// started when it is first needed.
//
// What a child does not answer is done in this process instead, and a new child is
// tried for later work. failed, which must not block, is told why: once, until a
// child has answered again.
func InChild(failed func(error), command string, args ...string) HasherOption {
	return func(h *Hasher) {
		h.inChild = &inChild{failed: failed, command: command, args: args, patience: childPatience}
	}
}

// worker does one hash at a time. It belongs to one goroutine.
type worker struct {
	*Hasher

	child *child
	tried time.Time // when the last child was started
	told  bool      // of trouble that has not ended
	asked uint64
}

// answer asks the child, and does the work itself where there is none.
func (w *worker) answer(q question) answer {
	w.asked++
	q.Number = w.asked
	if err := w.start(); err != nil {
		w.tell(err)
	}
	if w.child == nil {
		return q.answer()
	}
	a, err := w.child.ask(q, w.inChild.patience)
	if err != nil {
		w.stop()
		w.tell(err)
		return q.answer()
	}
	w.told = false
	return a
}

// start starts a child where one is wanted and it is time.
func (w *worker) start() (err error) {
	if w.inChild == nil || w.child != nil || w.clock.Now().Sub(w.tried) < childPause {
		return nil
	}
	w.tried = w.clock.Now()
	w.child, err = startChild(w.inChild.command, w.inChild.args)
	return err
}

// stop ends the child, which holds nothing that could be lost.
func (w *worker) stop() {
	if w.child == nil {
		return
	}
	_ = w.child.process.Kill() // it may be gone already
	<-w.child.exited
	w.child = nil
}

func (w *worker) tell(err error) {
	if !w.told {
		w.inChild.failed(err)
	}
	w.told = true
}

// child is a process that runs HashWorker.
type child struct {
	process *os.Process
	in      io.Writer
	out     *bufio.Reader
	exited  chan struct{} // closed once it is gone and reaped
}

// startChild gives a child nothing of ours but the two pipes: they close in it
// when this process ends, however that ends.
func startChild(command string, args []string) (*child, error) {
	cmd := exec.Command(command, args...) //nolint:gosec // our own program: no part of it comes from a request
	cmd.Args[0] = os.Args[0]              // for who lists processes
	cmd.Env = []string{"GOMAXPROCS=1"}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("account: a pipe to a hash worker: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("account: a pipe from a hash worker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("account: start a hash worker: %w", err)
	}
	c := &child{process: cmd.Process, in: in, out: bufio.NewReaderSize(out, maxLine), exited: make(chan struct{})}
	go func() { // ends with the child, which stop sees to
		_ = cmd.Wait() // how it ended does not matter; closes the pipes
		close(c.exited)
	}()
	return c, nil
}

// ask sends a question and waits for its answer. After an error the child is of
// no more use.
func (c *child) ask(q question, patience time.Duration) (a answer, err error) {
	line, err := wire.Marshal(q)
	if err != nil {
		return a, err
	}
	defer time.AfterFunc(patience, func() { _ = c.process.Kill() }).Stop()
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return a, fmt.Errorf("account: ask a hash worker: %w", err)
	}
	line, err = c.out.ReadSlice('\n')
	if err != nil {
		return a, fmt.Errorf("account: a hash worker does not answer: %w", err)
	}
	if wire.Unmarshal(line, &a) != nil || !a.fits(q) {
		return a, errors.New("account: a hash worker answers something else") // what, might be a hash
	}
	return a, nil
}
