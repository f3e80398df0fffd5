package dispatch

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/logging"
	"sessiond/internal/session"
	"sessiond/internal/wire"
	"sessiond/store"
)

// call is all that one envelope needs on its way; calls are reused.
type call struct {
	Call
	envelope wire.Envelope
	caller   session.Caller
	who      *session.Caller // nil: nobody
	action   *Action
	api      string
	debug    bool
	options  *api.ResponseOptions // nil: nothing is asked for
	result   []byte
}

// Serve answers the body of a request: one envelope, or a batch of them. The
// answer's body is dst, grown.
func (d *Dispatcher) Serve(ctx context.Context, r *api.Request, dst []byte) api.Answer {
	cfg := d.deps.Config.Get()
	var room [1][]byte
	items, batch, err := wire.Split(room[:0], r.Body, wire.Limits{Members: cfg.MaxRequestMembers})
	switch {
	case err != nil:
		return d.refuse(cfg, r, err, dst)
	case !batch:
		body, failure := d.one(ctx, cfg, r, items[0], false, dst)
		return answer(cfg, body, failure)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.RequestTimeout.Duration())
	defer cancel()
	dst = append(dst, '[')
	for i, item := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		if len(dst) > maxAnswer {
			dst = appendFailure(dst, api.Errorf(api.TooLarge, "the answers before this one fill a response: nothing was done, send it again"))
			continue
		}
		dst, _ = d.one(ctx, cfg, r, item, true, dst)
	}
	return api.Answer{Status: 200, Body: append(dst, ']')}
}

// maxAnswer bounds what one request can make the server hold, in bytes.
const maxAnswer = 8 << 20

// fits reports whether the answer to a request may take so many bytes, for somebody
// who is known or for a stranger.
func fits(r *api.Request, bytes int, known bool) bool {
	return r.Room == nil || r.Room.Grow(bytes, known)
}

func noRoom() *api.Error { return tooMany("large answers wait to be read") }

// keptResult is the largest memory that is kept for the next request.
const keptResult = 1 << 20

// answer adds the status to a single envelope's answer.
func answer(cfg *config.Config, body []byte, failure *api.Error) api.Answer {
	a := api.Answer{Status: 200, Body: body}
	if failure == nil {
		return a
	}
	switch code := failure.Code; {
	case code.Retryable():
		a.Status = 503
		if code != api.OutcomeUnknown {
			a.RetryAfterSeconds = max(1, failure.Data.RetryAfterSeconds)
		}
	case code == api.BadEnvelope, code == api.TooLarge, cfg.HTTPStatusFromErrorCode:
		a.Status = code.Info().Status
		a.RetryAfterSeconds = failure.Data.RetryAfterSeconds
	}
	return a
}

// refuse answers a body that is no envelope and no batch.
func (d *Dispatcher) refuse(cfg *config.Config, r *api.Request, err error, dst []byte) api.Answer {
	failure := api.FromError(err)
	d.deps.Log.Request(logging.Line{Code: failure.Code, Address: r.Address, Err: err})
	return answer(cfg, appendFailure(dst, failure), failure)
}

// one answers one envelope: it runs it, writes the answer and the line in the
// log. The failure is nil on success.
func (d *Dispatcher) one(ctx context.Context, cfg *config.Config, r *api.Request, item []byte, batch bool, dst []byte) ([]byte, *api.Error) {
	begun := d.deps.Clock.Now()
	c, ok := d.calls.Get().(*call)
	if !ok {
		c = new(call)
	}
	defer func() {
		if cap(c.result) <= keptResult {
			*c = call{result: c.result[:0], Call: Call{Scratch: c.Scratch[:0], Known: c.Known[:0]}}
			d.calls.Put(c)
		}
	}()
	c.Config, c.Settings, c.Address, c.UserAgent, c.Now, c.InBatch = cfg, &cfg.Defaults.Settings, r.Address, r.UserAgent, begun.Unix(), batch

	err := d.serve(ctx, c, r, item)
	failure := Classify(err)
	begin := len(dst)
	size := begin
	if failure == nil {
		size += len(c.result)
	}
	refused := !fits(r, size, c.who != nil) && c.canWait(failure) // before it is copied
	if !refused {
		dst = d.appendAnswer(dst, c, item, failure)
		refused = !fits(r, len(dst), c.who != nil) && c.canWait(failure)
	}
	if refused {
		c.debug, err = false, noRoom()
		failure = Classify(err)
		dst = d.appendAnswer(dst[:begin], c, item, failure)
	}
	d.log(c, failure, err, begun)
	return dst, failure
}

// canWait reports whether an answer may be taken back and asked for again: whatever it
// tells of, nothing was changed. What gateways and browsers ask all the time is small,
// and is not put off.
func (c *call) canWait(failure *api.Error) bool {
	switch {
	case c.action == nil:
		return true
	case failure != nil && failure.Code == api.OutcomeUnknown:
		return false
	}
	switch c.action.Work {
	case Listing, Reading, Watching:
		return true
	case Quick:
		return c.who == nil
	case Writing:
		return failure != nil
	case Ending:
	}
	return false
}

// serve is the path of every request. It leaves the result in c.
func (d *Dispatcher) serve(ctx context.Context, c *call, r *api.Request, item []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = logging.Panicked(p)
		}
	}()
	e := &c.envelope
	if err := e.Decode(item); err != nil {
		if api.FromError(err).Code != api.BadEnvelope {
			c.settle()
		}
		return err
	}
	err = d.authenticate(c, r)
	c.settle()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // the requests before it in the batch took all the time
		return err
	}
	if major, _, _ := strings.Cut(e.APIVersion, "."); e.APIVersion != "" && major != "1" {
		return api.Errorf(api.UnsupportedVersion, "apiVersion must be %s", api.Version).At("/apiVersion")
	}
	if c.api, c.action, err = d.find(c.Config, c.apiName(), e.Action); err != nil {
		return err
	}
	a := c.action
	if !c.DeadToken.IsZero() && !a.AnyToken {
		return InvalidToken()
	}
	if err := a.Allow.check(&c.Call, c.who); err != nil {
		return err
	}
	c.Reach = a.Allow.reach(&c.Call, c.who)
	if c.who != nil && !a.KeepsIdle {
		d.deps.Sessions.TouchAt(c.Now, c.who.Handle)
		d.deps.Sessions.UsedFrom(c.who.Handle, c.Address, c.UserAgent)
	}
	switch a.Work {
	case Quick:
	case Watching:
		var account api.ID
		if c.who != nil {
			account = c.who.AccountID
		}
		if err := d.watches.enter(account, c.Config.MaxConnections); err != nil {
			return err
		}
		defer d.watches.leave(account)
	case Listing, Reading, Writing, Ending:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Config.RequestTimeout.Duration())
		defer cancel()
		gate := &d.gates[a.Work]
		if err := gate.enter(ctx); err != nil {
			return err
		}
		defer gate.leave()
	}
	if c.result, err = a.run(ctx, &c.Call, c.who, e.Params, c.result[:0]); err != nil {
		return err
	}
	if len(c.result) > maxAnswer {
		return api.Errorf(api.TooLarge, "the answer would be larger than %d MiB: ask for less", maxAnswer>>20)
	}
	if c.options != nil {
		c.result, err = wire.Reshape(nil, c.result, *c.options, a.result)
	}
	return err
}

// authenticate finds out who sent the request. Nobody did if it shows no token;
// one that is dead is noted.
func (d *Dispatcher) authenticate(c *call, r *api.Request) error {
	token := c.envelope.AuthToken
	if !r.Bearer.IsZero() {
		if !token.IsZero() && token != r.Bearer {
			return api.Errorf(api.BadEnvelope, "authToken and the Authorization header hold different tokens: send one").At("/authToken")
		}
		token = r.Bearer
	}
	if token.IsZero() {
		return nil
	}
	var ok bool
	if c.caller.Live, c.Known, ok = d.deps.Sessions.Check(c.Now, token.Reveal(), false, c.Known[:0]); !ok {
		c.DeadToken = token
		return nil
	}
	c.who, c.Settings, c.Token = &c.caller, c.caller.Settings, token
	if !d.deps.Sessions.AllowsFrom(c.who, c.Address) {
		c.who = nil
		return api.Errorf(api.AddressNotAllowed, "the account of this authToken may not be used from the client's address")
	}
	return nil
}

// settle finds out what the request, the session and services.json together say
// about the form of the answer.
func (c *call) settle() {
	e := &c.envelope
	c.debug = strings.EqualFold(cmp.Or(e.Debug, c.Settings.DefaultDebug), "max")
	if e.ResponseOptions != nil && e.ResponseOptions.SetCookie {
		c.Warn(api.BadParam, "this server sets no cookies: setCookie changes nothing")
	}
	c.options = cascade(e.ResponseOptions, &c.Settings.DefaultResponseOptions)
	for _, name := range e.Unknown {
		c.Warn(api.UnknownParam, "the envelope has no member "+strconv.QuoteToASCII(name)+": it was passed over")
	}
}

// cascade completes options by defaults; nil means that nothing is asked for.
func cascade(asked, defaults *api.ResponseOptions) *api.ResponseOptions {
	if asked == nil {
		if plain(defaults) {
			return nil
		}
		return defaults
	}
	o := *asked
	o.NumberFormat = cmp.Or(o.NumberFormat, defaults.NumberFormat)
	o.DataFormat = cmp.Or(o.DataFormat, defaults.DataFormat)
	o.BinaryFormat = cmp.Or(o.BinaryFormat, defaults.BinaryFormat)
	if o.Omit == nil {
		o.Omit = defaults.Omit
	}
	if o.IncludeFields == nil {
		o.IncludeFields = defaults.IncludeFields
	}
	if o.ExcludeFields == nil {
		o.ExcludeFields = defaults.ExcludeFields
	}
	if plain(&o) {
		return nil
	}
	return &o
}

// plain reports whether options ask for no other form than the built-in one.
func plain(o *api.ResponseOptions) bool {
	return o.NumberFormat != "string" && o.DataFormat != "arrays" && len(o.Omit)+len(o.IncludeFields)+len(o.ExcludeFields) == 0
}

func (c *call) apiName() string {
	if c.envelope.API != "" {
		return c.envelope.API
	}
	return cmp.Or(c.Settings.DefaultAPI, c.Config.Defaults.DefaultAPI)
}

// Classify returns what the client is told of an error: one place where what the
// store says becomes a code.
func Classify(err error) *api.Error {
	if err == nil {
		return nil
	}
	e := classify(err)
	if errors.Is(err, session.ErrNotWritten) && e.Code != api.OutcomeUnknown && e.Code != api.Internal {
		e = api.Errorf(e.Code, "the end was not written: it is in force here until a restart, so repeat the request").Because(err)
	}
	return e
}

func classify(err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, store.ErrConflict):
		return api.Errorf(api.Conflict, "the object was changed by others at this moment: read it and try again").Because(err)
	case errors.Is(err, store.ErrNotFound):
		return api.Errorf(api.NotFound, "the object is not there any more").Because(err)
	case errors.Is(err, store.ErrFull):
		return api.Errorf(api.StorageFull, "the storage is full: nothing was written").Because(err)
	case errors.Is(err, store.ErrBusy):
		return overloaded("too many changes wait to be written: nothing was changed, repeat after retryAfterSeconds").Because(err)
	case errors.Is(err, store.ErrStopped):
		return api.Errorf(api.StorageFailed, "the storage takes no changes any more: nothing was written, the operator must act").Because(err)
	case errors.Is(err, store.ErrUnknown):
		return api.Errorf(api.OutcomeUnknown, "it is not known whether the change was written: read before you repeat it").Because(err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return api.Errorf(api.Overloaded, "the request took too long and was given up").Because(err)
	}
	return api.FromError(err)
}

// log writes the line of a request.
func (d *Dispatcher) log(c *call, failure *api.Error, err error, begun time.Time) {
	if failure == nil && c.action.Uncounted {
		d.counted.Add(1)
		return
	}
	line := logging.Line{API: c.api, Took: d.deps.Clock.Now().Sub(begun), Address: c.Address, Err: err, Warnings: len(c.warnings), Session: c.made}
	if c.action != nil {
		line.Action = c.action.Name
	}
	if failure != nil {
		line.Code = failure.Code
	}
	if c.who != nil && c.made.IsZero() {
		line.Session = c.who.Handle
	}
	d.deps.Log.Request(line)
}
