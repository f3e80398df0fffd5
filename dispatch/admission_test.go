package dispatch_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/api"
)

// Each class has its own bounds: so many run, so many wait, and the next one is
// told at once when to come back.
func TestAdmission(t *testing.T) {
	const many = 2000
	for _, tt := range []struct {
		work          dispatch.Work
		runs, waits   int
		whatIsRefused string
	}{
		{dispatch.Listing, max(1, runtime.GOMAXPROCS(0)-1), 64, "listings"},
		{dispatch.Writing, 1024, 0, "changes"},
		{dispatch.Reading, many, 0, ""},
		{dispatch.Ending, many, 0, ""},
		{dispatch.Watching, many, 0, ""},
		{dispatch.Quick, many, 0, ""},
	} {
		t.Run(tt.work.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(t)
				for range many {
					r.send("hold", tt.work)
				}
				synctest.Wait()
				refused := max(0, many-tt.runs-tt.waits)
				if in, out := r.inside.Load(), len(r.answers); in != int64(tt.runs) || out != refused {
					t.Fatalf("%d run and %d are refused, want %d and %d", in, out, tt.runs, refused)
				}
				for range refused {
					a := <-r.answers
					want := fmt.Sprintf(`{"result":{},"errorCode":21901,"errorMessage":"too many %s are under way: nothing was done, repeat after retryAfterSeconds","errorData":{"retryAfterSeconds":1}}`, tt.whatIsRefused)
					if a.Status != 503 || a.RetryAfterSeconds != 1 || string(a.Body) != want {
						t.Fatalf("refused with %d, Retry-After %d: %s", a.Status, a.RetryAfterSeconds, a.Body)
					}
				}
				for _, other := range []dispatch.Work{dispatch.Quick, dispatch.Reading, dispatch.Ending, dispatch.Writing, dispatch.Listing, dispatch.Watching} {
					if other != tt.work {
						if a := r.ask("pass", other); a.Status != 200 {
							t.Errorf("what %s suffers from it: %s", other, a.Body)
						}
					}
				}
				close(r.next)
				for range many - refused {
					if a := <-r.answers; a.Status != 200 {
						t.Fatalf("who was let in, or waited, gets %s", a.Body)
					}
				}
			})
		})
	}
}

// Who comes first is served first.
func TestAdmissionKeepsTheOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		r.fill()
		for i := range 64 {
			r.sendNamed("pass", dispatch.Listing, fmt.Sprintf("%02d", i))
			synctest.Wait()
		}
		r.next <- struct{}{} // one place is free, through which all go
		synctest.Wait()
		r.release(r.places - 1)
		var want strings.Builder
		for i := range 64 {
			fmt.Fprintf(&want, "%02d ", i)
		}
		if got := r.passed.String(); got != want.String() {
			t.Errorf("served %s, want %s", got, want.String())
		}
	})
}

// A place is free again however the work ended, and whoever stops waiting leaves
// the line.
func TestAdmissionGivesPlacesBack(t *testing.T) {
	for _, tt := range []struct {
		how  string
		work func(r *room)
	}{
		{"done", func(r *room) { r.want("pass", 0) }},
		{"refused", func(r *room) { r.want("fail", api.NotFound) }},
		{"bad params", func(r *room) { r.wantBody(`{"api":"admin","action":"pass0","params":{"x":1}}`, api.UnknownParam) }},
		{"panic", func(r *room) { r.want("panic", api.Internal) }},
		{"out of time", func(r *room) { r.want("block", api.Overloaded) }},
		{"out of time in the line", func(r *room) {
			r.fill()
			for range 64 {
				r.want("pass", api.Overloaded)
			}
			r.release(r.places)
		}},
		{"gone from the line", func(r *room) {
			r.fill()
			ctx, cancel := context.WithCancel(r.t.Context())
			for range 64 {
				go func() { r.answers <- r.d.Serve(ctx, r.request("pass", dispatch.Listing), nil) }()
			}
			synctest.Wait()
			cancel()
			synctest.Wait()
			if n := len(r.answers); n != 64 {
				r.t.Errorf("%d of 64 have left the line", n)
			}
			r.pending += 64
			r.release(r.places)
		}},
		{"a batch", func(r *room) {
			one := `{"api":"admin","action":"pass0"}`
			a := r.d.Serve(r.t.Context(), &api.Request{Body: []byte("[" + strings.Repeat(one+",", 99) + one + "]")}, nil)
			if n := bytes.Count(a.Body, []byte(`"errorCode":0`)); n != 100 {
				r.t.Errorf("%d of 100 were done: %s", n, a.Body)
			}
		}},
	} {
		t.Run(tt.how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(t)
				for range 3 * r.places {
					tt.work(r)
				}
				r.fill() // finds all its places
				for range 64 {
					r.send("pass", dispatch.Listing)
				}
				synctest.Wait()
				if n := len(r.answers); n != 0 {
					t.Errorf("%d of 64 find no room to wait: %s", n, (<-r.answers).Body)
				}
				r.release(r.places)
			})
		})
	}
}

// The time in the line is part of the request's.
func TestWaitingCountsAgainstTheTimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		r.fill()
		begun := time.Now()
		r.want("pass", api.Overloaded)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("given up after %v, want the time limit of 1s", took)
		}
		r.release(r.places)
	})
}

// What is quick is spared the cost of a time limit, and who watches has one of his
// own; nothing else does without.
func TestWhatHasNoTimeLimit(t *testing.T) {
	r := newRoom(t)
	for work := dispatch.Listing; work <= dispatch.Quick; work++ {
		limited := bytes.Contains(r.ask("timed", work).Body, []byte(`"errorCode":0`))
		if limited == (work == dispatch.Quick || work == dispatch.Watching) {
			t.Errorf("%d has a time limit: %v", work, limited)
		}
	}
}

// BenchmarkAdmission shows what admission costs: nothing what is quick; the others
// pay for their time limit, and Writing and Listing beside Reading for their place.
func BenchmarkAdmission(b *testing.B) {
	r := newRoom(b)
	for _, bb := range []struct {
		name string
		work dispatch.Work
	}{{"Quick", dispatch.Quick}, {"Reading", dispatch.Reading}, {"Writing", dispatch.Writing}, {"Listing", dispatch.Listing}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			request, dst := r.request("pass", bb.work), make([]byte, 0, 1024)
			for b.Loop() {
				r.d.Serve(b.Context(), request, dst[:0])
			}
		})
	}
}

// room is a dispatcher with actions of each class: pass, fail and panic do so,
// timed fails unless it has a time limit, block stays until that is over, hold until
// it may go, whatever the time.
type room struct {
	t       testing.TB
	d       *dispatch.Dispatcher
	places  int
	next    chan struct{} // lets one go that holds a place
	inside  atomic.Int64
	pending int
	answers chan api.Answer
	passed  strings.Builder
}

func newRoom(t testing.TB) *room {
	r := &room{t: t, places: max(1, runtime.GOMAXPROCS(0)-1), next: make(chan struct{}), answers: make(chan api.Answer, 16_384)}
	var table []dispatch.Action
	for work := dispatch.Listing; work <= dispatch.Quick; work++ {
		for name, do := range map[string]func(context.Context) error{
			"pass":  func(context.Context) error { return nil },
			"fail":  func(context.Context) error { return api.Errorf(api.NotFound, "not here") },
			"panic": func(context.Context) error { panic("on purpose") },
			"timed": func(ctx context.Context) error {
				if _, limited := ctx.Deadline(); !limited {
					return api.Errorf(api.NotFound, "no time limit")
				}
				return nil
			},
			"block": func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			},
			"hold": func(context.Context) error {
				r.inside.Add(1)
				defer r.inside.Add(-1)
				<-r.next
				return nil
			},
		} {
			table = append(table, dispatch.Public(dispatch.Spec{
				Name: fmt.Sprint(name, uint8(work)), APIs: []string{api.Admin}, Work: work, Doc: "Does it.", Allow: dispatch.Anyone(),
			}, func(ctx context.Context, c *dispatch.Call, _ none) (none, error) {
				if c.UserAgent != "" {
					r.passed.WriteString(c.UserAgent + " ")
				}
				return none{}, do(ctx)
			}))
		}
	}
	r.d = serving(t, io.Discard, table...)
	return r
}

func (r *room) request(name string, work dispatch.Work) *api.Request {
	return &api.Request{Body: fmt.Appendf(nil, `{"api":"admin","action":"%s%d"}`, name, work)}
}

// send sends a request whose answer comes through answers.
func (r *room) send(name string, work dispatch.Work) { r.sendNamed(name, work, "") }

func (r *room) sendNamed(name string, work dispatch.Work, agent string) {
	request := r.request(name, work)
	request.UserAgent = agent
	r.pending++
	go func() { r.answers <- r.d.Serve(r.t.Context(), request, nil) }()
}

// fill takes all places of the listings.
func (r *room) fill() {
	r.t.Helper()
	for range r.places {
		r.send("hold", dispatch.Listing)
	}
	synctest.Wait()
	if n := r.inside.Load(); n != int64(r.places) {
		r.t.Fatalf("%d of %d places are free", n, r.places)
	}
}

// release lets so many go that hold places, and waits until every request is
// answered.
func (r *room) release(n int) {
	for range n {
		r.next <- struct{}{}
	}
	for ; r.pending > 0; r.pending-- {
		<-r.answers
	}
}

func (r *room) ask(name string, work dispatch.Work) api.Answer {
	return r.d.Serve(r.t.Context(), r.request(name, work), nil)
}

// want sends a listing and looks at its code.
func (r *room) want(name string, code api.Code) {
	r.t.Helper()
	r.wantBody(string(r.request(name, dispatch.Listing).Body), code)
}

func (r *room) wantBody(body string, code api.Code) {
	r.t.Helper()
	a := r.d.Serve(r.t.Context(), &api.Request{Body: []byte(body)}, nil)
	if !bytes.Contains(a.Body, fmt.Appendf(nil, `"errorCode":%d,`, code)) {
		r.t.Errorf("%s is answered %s, want %d", body, a.Body, code)
	}
}
