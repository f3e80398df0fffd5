package event_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/event"
	"sessiond/store"
)

// What is written member by member is what is read: none is forgotten.
func TestAppendWritesEveryMember(t *testing.T) {
	full := event.Event{
		Time: time.Date(2026, 3, 2, 8, 15, 0, 120_000_000, time.UTC), Kind: event.SessionEnded, SessionHandle: "sh_1", AccountID: "2",
		Realm: "native", Username: `a "quoted" name`, ClientIPAddress: "192.0.2.1", Status: "ended", Reason: "logout", Permanent: true, Count: 3, Expires: time.Date(2026, 4, 2, 8, 15, 0, 0, time.UTC), NoticeSeconds: 86_400, Role: "clerk", Service: "http8080", Changed: []string{"roles", "enabled"},
		By: event.Actor{SessionHandle: "sh_4", Realm: "web", Username: "é"},
	}
	for i := range reflect.ValueOf(full).NumField() {
		if reflect.ValueOf(full).Field(i).IsZero() {
			t.Fatalf("the event of this test has no %s", reflect.TypeOf(full).Field(i).Name)
		}
	}
	for _, want := range []event.Event{full, {Time: full.Time, Kind: event.AccountCreated}, {Time: full.Time, Kind: event.LoginFailed, By: event.Actor{Username: "ann"}}} {
		var tx store.Tx
		event.Append(&tx, want)
		got, err := event.Decode(store.Entry{Seq: 1, Data: tx.Append[0]})
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s (-want +got), %v\n%s", tx.Append[0], err, diff)
		}
	}
}
