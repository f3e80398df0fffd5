package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/wire"
)

// A message is what a receiver gets in one request. Its id is the same each time
// that it is sent.
type message struct {
	id   string
	body []byte
}

// messageOf returns the message of an event: its type, its time, and the event as
// listEvents shows it.
func messageOf(server, hook string, l *event.Logged) message {
	data := append([]byte(`{"eventId":"`), strconv.FormatUint(l.Seq, 10)...)
	data = append(append(data, `",`...), l.AppendJSON(nil)[1:]...)
	return messageFrom(server, hook, string(l.Kind), l.Time, l.Seq, data)
}

// gapAfter returns the message that events after a position have been purged before
// they were sent.
func gapAfter(server, hook string, at uint64, now time.Time) message {
	data := fmt.Appendf(nil, `{"afterEventId":"%d"}`, at)
	m := messageFrom(server, hook, "gap", now, at, data)
	m.id = idOf(server, hook, "gap", at, time.Time{})
	return m
}

func messageFrom(server, hook, kind string, at time.Time, seq uint64, data []byte) message {
	body := wire.AppendString([]byte(`{"type":`), kind)
	body = at.UTC().AppendFormat(append(body, `,"timestamp":"`...), time.RFC3339Nano)
	body = append(append(append(body, `","data":`...), data...), '}')
	return message{id: idOf(server, hook, kind, seq, at), body: body}
}

// idOf identifies a message. That of another server, or of an event that took the
// place of one in a log that was restored, is another one.
func idOf(server, hook, kind string, seq uint64, at time.Time) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d\n%d", server, hook, kind, seq, at.UnixMilli()))
	return "msg_" + hex.EncodeToString(sum[:16])
}

const secretPrefix = "whsec_"

// A secret has so many bytes, by the specification.
const leastSecret, mostSecret = 24, 64

// parseSecret returns the bytes of a secret.
func parseSecret(text string) (api.Secret, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < leastSecret || len(key) > mostSecret {
		return api.Secret{}, errors.New("the file must hold whsec_ and the base64 of 24 to 64 random bytes: " +
			`printf 'whsec_%s' "$(openssl rand -base64 32)" makes one`)
	}
	return api.NewSecret(string(key)), nil
}

// sign returns the signature of a message that is sent at a moment: HMAC-SHA256 over
// its id, the moment in Unix seconds and its body, with full stops between them.
func (m *message) sign(secret api.Secret, seconds string) string {
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write([]byte(m.id + "." + seconds + "."))
	mac.Write(m.body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
