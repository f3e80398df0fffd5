// Package actions is what the server can do: a table of actions per file, and
// under each table the handlers that it names. Handlers say in domain words what
// they want; they see no JSON, no HTTP and no backend.
package actions

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
)

// Host is the server as its sessions describe it.
type Host struct {
	Name           string
	UUID           string
	Addresses      []netip.Addr
	ServerNamePort string
}

// Deps are what the handlers work with.
type Deps struct {
	Sessions *session.Keeper
	Accounts *account.Directory
	Events   EventReader
	Tail     *event.Tail
	Clock    clock.Clock
	Host     Host
	APIs     *dispatch.Switches // those that the dispatcher asks
	Services Services
	Upkeep   Upkeep
	Record   EventWriter

	// PasswordChanged is told of each account whose password was changed; nil:
	// nobody is.
	PasswordChanged func(realm, username string)
}

// EventReader reads the log of changes.
type EventReader func(ctx context.Context, q event.Query) (page []event.Logged, next string, err error)

// ReadEvents returns the reader of a store's log.
func ReadEvents(s store.Store) EventReader {
	return func(ctx context.Context, q event.Query) ([]event.Logged, string, error) { return event.Read(ctx, s, q) }
}

// EventWriter adds to the log of changes what goes with no other change of the
// store.
type EventWriter func(ctx context.Context, e event.Event) error

// WriteEvents returns the writer of a store's log.
func WriteEvents(s store.Store) EventWriter {
	return func(ctx context.Context, e event.Event) error {
		tx := store.Tx{Urgent: true}
		event.Append(&tx, e)
		return store.Retry(func() error {
			_, err := s.Commit(ctx, tx)
			return err
		})
	}
}

// Table returns every action.
func Table(d Deps) []dispatch.Action {
	s, a := &sessions{d}, &accounts{d}
	var table []dispatch.Action
	table = append(table, s.login()...)
	table = append(table, s.alterations()...)
	table = append(table, s.views()...)
	table = append(table, s.explanations()...)
	table = append(table, s.validation()...)
	table = append(table, s.properties()...)
	table = append(table, s.refreshes()...)
	table = append(table, s.ends()...)
	table = append(table, s.clients()...)
	table = append(table, s.massEnds()...)
	table = append(table, s.rotation()...)
	table = append(table, s.statistics()...)
	table = append(table, a.table()...)
	table = append(table, a.roles()...)
	table = append(table, (&events{d}).table()...)
	table = append(table, (&events{d}).watching()...)
	table = append(table, (&services{d}).table()...)
	table = append(table, (&upkeep{d}).table()...)
	c := &catalogue{}
	table = append(table, c.table()...)
	c.actions = sync.OnceValues(func() (dispatch.Catalogue, error) { return dispatch.NewCatalogue(dispatch.Describe(table)) })
	return table
}

// both are the apis of whatever concerns sessions.
func both() []string { return []string{api.Admin, api.Session} }

// admin is the api of management.
func admin() []string { return []string{api.Admin} }

// empty is what takes or answers nothing.
type empty struct{}

func missing(name string) error {
	return api.Errorf(api.MissingParam, "%s is missing", name).At("/params/" + name)
}

func bad(name, format string, args ...any) *api.Error {
	return api.Errorf(api.BadParam, name+" "+format, args...).At("/params/" + name)
}

// about lets an error of one of these codes point at the member that it is about.
func about(err error, pointers map[api.Code]string) error {
	if e, ok := errors.AsType[*api.Error](err); ok && e.Data.Pointer == "" {
		return e.At(pointers[e.Code])
	}
	return err
}

func notFound(what string) *api.Error {
	return api.Errorf(api.NotFound, "there is no such %s within the caller's reach", what)
}

func denied(p account.Permissions) *api.Error {
	return api.Errorf(api.PermissionDenied, "the caller needs the permission %s", account.PermissionName(p))
}
