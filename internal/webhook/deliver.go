package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/logging"
)

// batch is how many events are read from the log at once.
const batch = 100

// saveEvery and saveAfter bound how much is sent twice after a crash: after a message
// was taken the position is written when it is so old, or so far behind. One that
// moved over what the receiver does not want is written after saveIdle.
const (
	saveEvery = time.Second
	saveAfter = batch
	saveIdle  = time.Minute
)

// stopGrace is left to an attempt that is under way when its receiver is taken away or
// the server stops.
const stopGrace = 300 * time.Millisecond

// A deliverer sends to one receiver. at, acked, saved and savedAt belong to its
// goroutine while there is one.
type deliverer struct {
	sender *Sender
	hook   config.Webhook
	secret api.Secret
	cancel context.CancelFunc // nil: it does not run
	done   chan struct{}

	at      uint64 // up to here the receiver has all
	known   bool   // at is known
	unsaved int    // messages taken since at was written
	saved   uint64
	savedAt time.Time

	mu    sync.Mutex // guards what follows, which view shows
	shown api.Webhook
}

// is reports whether nothing has changed.
func (d *deliverer) is(other *deliverer) bool {
	return reflect.DeepEqual(d.hook, other.hook) && d.secret == other.secret
}

// begin sets the position to go on from, and forgets what went wrong.
func (d *deliverer) begin(at uint64) {
	d.at, d.saved, d.known, d.unsaved = at, at, true, 0
	d.show(func(w *api.Webhook) { w.LastError, w.NextAttempt = "", time.Time{} })
}

func (d *deliverer) start(ctx context.Context) {
	if d.cancel != nil || !d.hook.Enabled {
		return
	}
	present := d.sender.deps.Tail.Head() // where a new receiver begins
	ctx, d.cancel = context.WithCancel(ctx)
	d.done = make(chan struct{})
	go d.run(ctx, present)
}

func (d *deliverer) stop() {
	if d.cancel != nil {
		d.cancel()
		<-d.done
		d.cancel = nil
	}
}

func (d *deliverer) run(ctx context.Context, present uint64) {
	defer close(d.done)
	for !d.known {
		if err := d.load(ctx, present); err != nil && !d.rest(ctx, 0, 0, err) {
			return
		}
	}
	defer d.save(context.WithoutCancel(ctx))
	q := event.Query{Limit: batch, Only: d.wants}
	for _, kind := range d.hook.Kinds {
		q.Kinds = append(q.Kinds, event.Kind(kind))
	}
	for failures := 0; ctx.Err() == nil; {
		b, err := d.sender.deps.Tail.Next(ctx, d.at, q, saveEvery, nil)
		if err != nil {
			d.rest(ctx, failures, 0, err)
			failures++
			continue
		}
		failures = 0
		if !d.deliver(ctx, &b) {
			return
		}
		if len(b.Events) == 0 && (d.unsaved > 0 || d.sender.deps.Clock.Now().Sub(d.savedAt) >= saveIdle) {
			d.save(ctx)
		}
	}
}

// load finds out how far the receiver is.
func (d *deliverer) load(ctx context.Context, present uint64) error {
	at, ok, err := d.sender.load(ctx, d.hook.Name)
	if err != nil {
		return err
	}
	if !ok {
		if err := d.sender.save(ctx, d.hook.Name, present); err != nil {
			return err
		}
		at = present
	}
	d.begin(min(at, present)) // a log that was restored may be shorter
	return nil
}

func (d *deliverer) wants(e *event.Event) bool {
	return len(d.hook.Realms) == 0 || slices.Contains(d.hook.Realms, e.Realm)
}

// deliver sends a batch, and reports whether all of it was taken: false when ctx
// ended first.
func (d *deliverer) deliver(ctx context.Context, b *event.Batch) bool {
	server := d.sender.deps.Server
	if b.Gap {
		m := gapAfter(server, d.hook.Name, d.at, d.sender.deps.Clock.Now())
		if !d.send(ctx, &m) {
			return false
		}
	}
	for i := range b.Events {
		m := messageOf(server, d.hook.Name, &b.Events[i])
		if !d.send(ctx, &m) {
			return false
		}
		d.at = b.Events[i].Seq
		d.unsaved++
		if d.unsaved >= saveAfter || d.sender.deps.Clock.Now().Sub(d.savedAt) >= saveEvery {
			d.save(ctx)
		}
	}
	d.at = b.At
	d.show(func(*api.Webhook) {})
	return true
}

// send sends a message until it is taken; false when ctx ended first.
func (d *deliverer) send(ctx context.Context, m *message) bool {
	for failures := 0; ctx.Err() == nil; failures++ {
		after, err := d.attempt(ctx, m)
		if err == nil {
			now := d.sender.deps.Clock.Now()
			d.show(func(w *api.Webhook) {
				if w.LastError != "" {
					d.sender.deps.Log.Info("a webhook is taken again", logging.Str("webhook", d.hook.Name))
				}
				w.LastError, w.NextAttempt, w.LastDelivery = "", time.Time{}, now
			})
			return true
		}
		if !d.rest(ctx, failures, after, err) {
			break
		}
	}
	return false
}

// attempt sends a message once; when ctx ends it is given a moment, so that what was
// taken is not sent again after a restart. On a refusal, after is how long the receiver wants
// to be left alone; 0 if it does not say. An error quotes no header and no body, and of
// the URL at most the host.
func (d *deliverer) attempt(ctx context.Context, m *message) (after time.Duration, err error) {
	request, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.hook.TimeoutSeconds.Duration())
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, cancel) })()
	r, err := http.NewRequestWithContext(request, http.MethodPost, d.hook.URL, bytes.NewReader(m.body))
	if err != nil {
		return 0, errors.New("the url cannot be asked")
	}
	seconds := strconv.FormatInt(d.sender.deps.Clock.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "sessiond")
	r.Header.Set("webhook-id", m.id)
	r.Header.Set("webhook-timestamp", seconds)
	r.Header.Set("webhook-signature", m.sign(d.secret, seconds))
	response, err := d.sender.client.Do(r)
	if err != nil {
		return 0, notAnswered(err)
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // so that the connection can be used again
		_ = response.Body.Close()
	}()
	if response.StatusCode/100 == 2 {
		return 0, nil
	}
	return d.retryAfter(response.Header.Get("Retry-After")), fmt.Errorf("it answered with status %d", response.StatusCode)
}

// notAnswered is what may be shown of the failure of a request: what the network, the
// time limit or the certificate was the cause of. Others quote what came, whatever that
// is, or the environment.
func notAnswered(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	_, network := errors.AsType[net.Error](err)
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	text := err.Error()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text = "it closed the connection without an answer"
	case errors.Is(err, http.ErrSchemeMismatch):
		text = "it speaks http, and the url is of https"
	case !network && !certificate:
		text = "what it answered is not HTTP, or the proxy is at fault"
	}
	const most = 300 // a certificate may have many names
	return errors.New(strings.ToValidUTF8(text[:min(len(text), most)], ""))
}

// retryAfter reads a header: seconds, or a date (RFC 9110, section 10.2.3).
func (d *deliverer) retryAfter(text string) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, date.Sub(d.sender.deps.Clock.Now()))
	}
	return 0
}

// rest waits after a failure: longer each time, or as long as the receiver asks for,
// up to a bound. It reports whether ctx goes on.
func (d *deliverer) rest(ctx context.Context, failures int, after time.Duration, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	deps := &d.sender.deps
	wait := jitter(min(deps.MostRetry, deps.FirstRetry<<min(failures, 30)))
	if after > 0 {
		wait = min(deps.MostRetry, after)
	}
	d.show(func(w *api.Webhook) {
		if w.LastError == "" {
			deps.Log.Warn("a webhook is not taken: it is sent again until it is", logging.Str("webhook", d.hook.Name), logging.Err(err))
		}
		w.LastError, w.NextAttempt = err.Error(), deps.Clock.Now().Add(wait)
	})
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// save writes how far the receiver is. What fails is written later, or sent twice.
func (d *deliverer) save(ctx context.Context) {
	if d.at == d.saved {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	d.unsaved, d.savedAt = 0, d.sender.deps.Clock.Now()
	if err := d.sender.save(ctx, d.hook.Name, d.at); err != nil {
		d.sender.deps.Log.Warn("how far a webhook is could not be written", logging.Str("webhook", d.hook.Name), logging.Err(err))
		return
	}
	d.saved = d.at
}

// show changes what view shows.
func (d *deliverer) show(change func(*api.Webhook)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shown.Position = d.at
	change(&d.shown)
}

// view returns where the receiver stands.
func (d *deliverer) view() api.Webhook {
	d.mu.Lock()
	w := d.shown
	d.mu.Unlock()
	w.Name, w.Enabled, w.State = d.hook.Name, d.hook.Enabled, api.Stopped
	if u, err := url.Parse(d.hook.URL); err == nil { // what follows it may be a secret
		u.RawQuery = ""
		w.URL = u.String()
	}
	if d.hook.Enabled {
		w.State = api.Running
	}
	if head := d.sender.deps.Tail.Head(); d.hook.Enabled && w.Position > 0 && head > w.Position {
		w.Behind = head - w.Position
	}
	b := event.Batch{At: w.Position}
	if w.Position > 0 {
		w.Cursor = b.Cursor()
	}
	return w
}
