package logging

import (
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"sessiond/internal/api"
)

// Line is what is written about one request. Zero members are left out, but for
// Code and Took.
type Line struct {
	API      string // as found in the table of apis
	Action   string // as found in the table of actions
	Session  api.ID // the caller's, or the one that was made
	Code     api.Code
	Took     time.Duration
	Address  netip.Addr
	Err      error // the whole chain; for the log alone
	Warnings int   // how many the answer carried
}

// Request writes one line about one request: at level error when the server
// failed (21999) or its storage did (21902, 21903, 21905), else at info.
func (l *Logger) Request(line Line) {
	level := zerolog.InfoLevel
	switch line.Code { //nolint:exhaustive // all others are refusals, the caller's own affair
	case api.Internal, api.StorageFull, api.StorageFailed, api.OutcomeUnknown:
		level = zerolog.ErrorLevel
	}
	e := l.begin(level)
	if e == nil {
		return
	}
	if line.API != "" {
		e.Str("api", clean(line.API))
	}
	if line.Action != "" {
		e.Str("action", clean(line.Action))
	}
	if !line.Session.IsZero() {
		var handle [3 + api.IDLen]byte
		e.Bytes("session", line.Session.Append(append(handle[:0], "sh_"...)))
	}
	e.Int64("code", int64(line.Code))
	e.Float64("ms", milliseconds(line.Took))
	if line.Address.IsValid() {
		var address [64]byte
		e.Bytes("address", line.Address.WithZone("").AppendTo(address[:0]))
	}
	if line.Warnings != 0 {
		e.Int("warnings", line.Warnings)
	}
	if line.Err != nil {
		e.Str("error", clean(line.Err.Error()))
	}
	e.Msg("request")
}
