package dispatch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/logging"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

type none struct{}

type named struct {
	Name string `json:"name" doc:"A name."`
}

func fine(context.Context, *dispatch.Call, none) (none, error) { return none{}, nil }

func forCallers(context.Context, *dispatch.Call, *session.Caller, none) (none, error) {
	return none{}, nil
}

// A table that leaves something unsaid does not start.
func TestNewRefusesWhatIsNotSaid(t *testing.T) {
	good := dispatch.Spec{Name: "a", APIs: []string{api.Admin}, Doc: "Does it.", Allow: dispatch.Anyone()}
	with := func(change func(*dispatch.Spec)) dispatch.Spec {
		s := good
		change(&s)
		return s
	}
	type undocumented struct {
		Name string `json:"name"`
	}
	for name, test := range map[string]struct {
		table []dispatch.Action
		want  string
	}{
		"no constructor":                         {[]dispatch.Action{{Spec: good}}, "was not made by"},
		"no rule":                                {[]dispatch.Action{dispatch.Public(with(func(s *dispatch.Spec) { s.Allow = dispatch.Rule{} }), fine)}, "does not say who may call it"},
		"no doc":                                 {[]dispatch.Action{dispatch.Public(with(func(s *dispatch.Spec) { s.Doc = "" }), fine)}, "has no doc"},
		"no api":                                 {[]dispatch.Action{dispatch.Public(with(func(s *dispatch.Spec) { s.APIs = nil }), fine)}, "belongs to no api"},
		"twice":                                  {[]dispatch.Action{dispatch.Public(good, fine), dispatch.Public(with(func(s *dispatch.Spec) { s.Name = "A" }), fine)}, "stands twice"},
		"a caller that the rule does not demand": {[]dispatch.Action{dispatch.Protected(good, forCallers)}, "disagree"},
		"no caller though the rule demands one":  {[]dispatch.Action{dispatch.Public(with(func(s *dispatch.Spec) { s.Allow = dispatch.Holders(account.EventsRead) }), fine)}, "disagree"},
		"a member without doc":                   {[]dispatch.Action{dispatch.Public(good, func(context.Context, *dispatch.Call, undocumented) (none, error) { return none{}, nil })}, "undocumented.Name"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := dispatch.New(dispatch.Deps{}, test.table); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("New: %v, want %q", err, test.want)
			}
		})
	}
	if _, err := dispatch.New(dispatch.Deps{}, []dispatch.Action{dispatch.Public(good, fine)}); err != nil {
		t.Errorf("a good table is refused: %v", err)
	}
}

// Whatever a handler does, the client gets an answer that tells no more than it
// may, and the log one line that tells all.
func TestHandlersFailSafely(t *testing.T) {
	const secret = "only-for-the-log"
	for name, test := range map[string]struct {
		fail   func() error
		code   api.Code
		status int
	}{
		"panic":           {func() error { panic(secret) }, api.Internal, 200},
		"unclassified":    {func() error { return errors.New(secret) }, api.Internal, 200},
		"full":            {func() error { return fmt.Errorf("%w: %s", store.ErrFull, secret) }, api.StorageFull, 503},
		"stopped":         {func() error { return fmt.Errorf("%w: %s", store.ErrStopped, secret) }, api.StorageFailed, 503},
		"busy":            {func() error { return fmt.Errorf("%w: %s", store.ErrBusy, secret) }, api.Overloaded, 503},
		"outcome unknown": {func() error { return fmt.Errorf("%w: %s", store.ErrUnknown, secret) }, api.OutcomeUnknown, 503},
		"conflict":        {func() error { return fmt.Errorf("%w: %s", store.ErrConflict, secret) }, api.Conflict, 200},
		"too late":        {func() error { return fmt.Errorf("%w: %s", context.DeadlineExceeded, secret) }, api.Overloaded, 503},
		"refusal":         {func() error { return api.Errorf(api.NotFound, "not here").Because(errors.New(secret)) }, api.NotFound, 200},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			d := serving(t, &log, dispatch.Public(dispatch.Spec{Name: "fail", APIs: []string{api.Admin}, Doc: "Fails.", Allow: dispatch.Anyone()},
				func(context.Context, *dispatch.Call, named) (none, error) { return none{}, test.fail() }))
			a := d.Serve(t.Context(), &api.Request{Body: []byte(`{"api":"admin","action":"FAIL","params":{"name":"x"},"requestId":7}`)}, nil)
			if want := fmt.Sprintf(`"errorCode":%d,`, test.code); !bytes.Contains(a.Body, []byte(want)) || !bytes.Contains(a.Body, []byte(`"requestId":7`)) {
				t.Errorf("answer %s, want %s", a.Body, want)
			}
			if a.Status != test.status {
				t.Errorf("status %d, want %d", a.Status, test.status)
			}
			if got, want := a.RetryAfterSeconds > 0, test.status == 503 && test.code != api.OutcomeUnknown; got != want {
				t.Errorf("Retry-After %d", a.RetryAfterSeconds)
			}
			if name == "busy" && !bytes.Contains(a.Body, []byte(`"errorData":{"retryAfterSeconds":1}`)) {
				t.Errorf("nothing in the body says when to come back: %s", a.Body)
			}
			if bytes.Contains(a.Body, []byte(secret)) {
				t.Errorf("the answer tells what only the log may know: %s", a.Body)
			}
			told := secret
			if name == "panic" { // not its text, which may hold anything, but where it was
				told = "TestHandlersFailSafely"
			}
			if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, told) {
				t.Errorf("the log has %q", got)
			}
		})
	}
}

// No request makes the server hold more than a few megabytes of answer.
func TestAnswersAreBounded(t *testing.T) {
	d := serving(t, &bytes.Buffer{}, dispatch.Public(dispatch.Spec{Name: "fill", APIs: []string{api.Admin}, Doc: "Fills.", Allow: dispatch.Anyone()},
		func(_ context.Context, _ *dispatch.Call, p named) (named, error) {
			return named{strings.Repeat("x", len(p.Name)<<20)}, nil
		}))
	envelope := func(megabytes int) string {
		return `{"api":"admin","action":"fill","params":{"name":"` + strings.Repeat("n", megabytes) + `"}}`
	}
	a := d.Serve(t.Context(), &api.Request{Body: []byte(envelope(9))}, nil)
	if a.Status != 413 || !bytes.Contains(a.Body, []byte(`"errorCode":21008`)) || len(a.Body) > 1000 {
		t.Errorf("9 MiB: status %d, %d bytes: %.200s", a.Status, len(a.Body), a.Body)
	}
	a = d.Serve(t.Context(), &api.Request{Body: []byte("[" + strings.Repeat(envelope(5)+",", 9) + envelope(5) + "]")}, nil)
	if done, refused := bytes.Count(a.Body, []byte(`"errorCode":0`)), bytes.Count(a.Body, []byte(`"errorCode":21008`)); done != 2 || refused != 8 {
		t.Errorf("ten of 5 MiB: %d done, %d refused", done, refused)
	}
}

// A batch has the time of one request.
func TestABatchHasOneTimeLimit(t *testing.T) {
	ran := 0
	d := serving(t, &bytes.Buffer{}, dispatch.Public(dispatch.Spec{Name: "wait", APIs: []string{api.Admin}, Doc: "Waits.", Allow: dispatch.Anyone()},
		func(ctx context.Context, _ *dispatch.Call, _ none) (none, error) {
			ran++
			<-ctx.Done()
			return none{}, ctx.Err()
		}))
	const envelope = `{"api":"admin","action":"wait"}`
	a := d.Serve(t.Context(), &api.Request{Body: []byte("[" + envelope + "," + envelope + "," + envelope + "]")}, nil)
	if late := bytes.Count(a.Body, []byte(`"errorCode":21901`)); ran != 1 || late != 3 {
		t.Errorf("%d ran, %d were too late: %s", ran, late, a.Body)
	}
}

func serving(t testing.TB, log io.Writer, table ...dispatch.Action) *dispatch.Dispatcher {
	t.Helper()
	now := clock.NewFake(time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC))
	cfg := config.Default()
	cfg.RequestTimeout = 1
	holder, st := config.NewHolder(cfg), mem.New()
	hasher := account.NewHasherCost(1, 1, account.Cost{MemoryKiB: 8, Iterations: 1, Parallelism: 1})
	t.Cleanup(hasher.Close)
	keeper, err := session.Open(t.Context(), session.Deps{Store: st, Clock: now, Config: holder, Accounts: account.New(account.Deps{Store: st, Clock: now, Hasher: hasher})}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := dispatch.New(dispatch.Deps{Sessions: keeper, Config: holder, Clock: now, Log: logging.New(log, "info", "json", now.Now)}, table)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
