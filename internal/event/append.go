package event

import (
	"fmt"
	"strconv"
	"time"

	"sessiond/internal/wire"
	"sessiond/store"
)

// Append adds e to what tx will append to the log, its time to the millisecond.
func Append(tx *store.Tx, e Event) {
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	tx.Append = append(tx.Append, e.AppendJSON(make([]byte, 0, 384)))
}

// AppendJSON writes the event as its members are declared: a create writes one,
// and reflection would be a good part of its cost.
func (e *Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"timestamp":"`...)
	dst = append(e.Time.AppendFormat(dst, time.RFC3339Nano), `","kind":`...)
	dst = wire.AppendString(dst, string(e.Kind))
	dst = appendText(dst, "sessionHandle", e.SessionHandle)
	dst = appendText(dst, "accountId", e.AccountID)
	dst = appendText(dst, "realm", e.Realm)
	dst = appendText(dst, "username", e.Username)
	dst = appendText(dst, "clientIpAddress", e.ClientIPAddress)
	dst = appendText(dst, "status", e.Status)
	dst = appendText(dst, "reason", e.Reason)
	if e.Permanent {
		dst = append(dst, `,"permanentSession":true`...)
	}
	if e.Count != 0 {
		dst = strconv.AppendInt(append(dst, `,"count":`...), e.Count, 10)
	}
	dst = appendText(dst, "role", e.Role)
	dst = appendText(dst, "service", e.Service)
	if !e.Expires.IsZero() {
		dst = append(e.Expires.UTC().AppendFormat(append(dst, `,"expirationTimestamp":"`...), time.RFC3339Nano), '"')
	}
	if e.NoticeSeconds != 0 {
		dst = strconv.AppendInt(append(dst, `,"noticeSeconds":`...), e.NoticeSeconds, 10)
	}
	for i, name := range e.Changed {
		if i == 0 {
			dst = append(dst, `,"changed":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = wire.AppendString(dst, name)
	}
	if len(e.Changed) > 0 {
		dst = append(dst, ']')
	}
	if e.By != (Actor{}) {
		dst = append(dst, `,"by":{`...)
		begin := len(dst)
		dst = appendText(dst, "sessionHandle", e.By.SessionHandle)
		dst = appendText(dst, "realm", e.By.Realm)
		dst = appendText(dst, "username", e.By.Username)
		dst = append(append(dst[:begin], dst[begin+1:]...), '}') // without the comma before the first
	}
	return append(dst, '}')
}

func appendText(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	return wire.AppendString(dst, value)
}

// Decode reads an entry of the log back.
func Decode(entry store.Entry) (Event, error) {
	var e Event
	if err := wire.Unmarshal(entry.Data, &e); err != nil {
		return Event{}, fmt.Errorf("decode event %d: %w", entry.Seq, err)
	}
	return e, nil
}
