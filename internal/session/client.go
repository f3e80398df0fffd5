package session

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
)

// A client is a browser or device. It is named after the first session that it held,
// and holds that one alone until another one joins it: only then is it stored.
const clientKeys = "client/" // id → Client

func clientKey(id api.ID) string { return clientKeys + string(id[:]) }

// Bounds of a client's list.
const (
	maxMembers = 256 // sessions, those that have ended included
	manyEnded  = 64  // from which on it is looked through for those that are gone
)

// Client is a browser or device with several sessions.
type Client struct {
	Members []api.ID // in the order in which they joined; some may have ended, or be gone
	Active  api.ID   // the one that is in use
}

const (
	fMember protowire.Number = 1 + iota
	fActive
)

func (c *Client) encode() []byte {
	var e encoder
	for i := range c.Members {
		e.bytes(fMember, c.Members[i][:])
	}
	e.bytes(fActive, c.Active[:])
	return e
}

func decodeClient(data []byte) (*Client, error) {
	c := &Client{}
	err := fields(data, func(f protowire.Number, _ uint64, b []byte) (err error) {
		var id api.ID
		switch f {
		case fMember:
			id, err = decodeID(b)
			c.Members = append(c.Members, id)
		case fActive:
			c.Active, err = decodeID(b)
		default:
			err = unknown(f)
		}
		return err
	})
	return c, err
}

// client returns a client, empty and with the revision 0 where none is stored.
func (k *Keeper) client(ctx context.Context, id api.ID) (*Client, store.Rev, error) {
	item, err := k.store.Get(ctx, clientKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return &Client{}, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	c, err := decodeClient(item.Value)
	return c, item.Rev, err
}

// clientOf returns the client of a living session, with what is stored of it.
func (k *Keeper) clientOf(ctx context.Context, h api.ID) (id api.ID, c *Client, rev store.Rev, err error) {
	r, _, err := k.read(ctx, h)
	if err != nil {
		return id, nil, 0, err
	}
	id = r.ClientID()
	if c, rev, err = k.client(ctx, id); err == nil && rev == 0 {
		c.Members, c.Active = []api.ID{h}, h
	}
	return id, c, rev, err
}

// ClientView is a client with its sessions.
type ClientView struct {
	ID       api.ID
	Active   api.ID // the session in use; zero: none lives
	Sessions []View // in the order in which they joined, without those that were removed

	chosen api.ID // in use, as long as it lives
}

// settle finds the session in use.
func (c *ClientView) settle() {
	c.Active = api.ID{}
	var lastUse int64
	for i := range c.Sessions {
		v := &c.Sessions[i]
		if v.Live && c.Active != c.chosen && (v.Handle == c.chosen || v.LastAccess >= lastUse) {
			c.Active, lastUse = v.Handle, v.LastAccess
		}
	}
}

// End makes the view that of the client once one of its sessions has ended.
func (c *ClientView) End(h api.ID, end End) {
	for i := range c.Sessions {
		if v := &c.Sessions[i]; v.Handle == h {
			v.End = end
			c.Sessions[i] = View{Record: v.Record}
		}
	}
	c.settle()
}

// ClientOf returns the browser or device of a session, which ended ones stay on until
// they are removed or purged. An error wraps store.ErrNotFound for a session that is
// gone.
func (k *Keeper) ClientOf(ctx context.Context, h api.ID) (ClientView, error) {
	v, err := k.Get(ctx, h)
	if err != nil {
		return ClientView{}, err
	}
	view := ClientView{ID: v.ClientID()}
	c, rev, err := k.client(ctx, view.ID)
	if err != nil {
		return ClientView{}, err
	}
	if rev == 0 {
		c.Members, c.Active = []api.ID{h}, h
	}
	view.chosen = c.Active
	for _, member := range c.Members {
		v, err := k.Get(ctx, member)
		if errors.Is(err, store.ErrNotFound) || err == nil && v.Status() == Removed {
			continue
		}
		if err != nil {
			return ClientView{}, err
		}
		view.Sessions = append(view.Sessions, v)
	}
	view.settle()
	return view, nil
}

// Shares reports whether two sessions are on one browser or device. The first lives;
// the second may have ended.
func (k *Keeper) Shares(ctx context.Context, h, other api.ID) (bool, error) {
	if h == other {
		return true, nil
	}
	id, c, _, err := k.clientOf(ctx, h)
	if err != nil || !slices.Contains(c.Members, other) {
		return false, err
	}
	v, err := k.Get(ctx, other)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && v.ClientID() == id && v.Status() != Removed, err
}

// Activate makes a living session the one in use on its browser or device, and
// counts as a use of it.
func (k *Keeper) Activate(ctx context.Context, h api.ID) error {
	k.Touch(h)
	return store.Retry(func() error {
		id, c, rev, err := k.clientOf(ctx, h)
		if err != nil || rev == 0 || c.Active == h {
			return err
		}
		c.Active = h
		_, err = k.store.Commit(ctx, store.Tx{
			If:  []store.Cond{{Key: clientKey(id), Rev: rev}, {Key: endKey(h)}},
			Put: []store.Put{{Key: clientKey(id), Value: c.encode()}},
		})
		return err
	})
}

// Remove takes a session that has ended off its browser or device; one that lives
// still ends with it. An error wraps store.ErrNotFound for a session that is gone.
func (k *Keeper) Remove(ctx context.Context, h api.ID, by *Caller) (v View, err error) {
	err = store.Retry(func() error {
		if _, ok := k.Endable(Reach{All: true}, h); ok {
			r, _, err := k.read(ctx, h) // before, as it may not fail after
			if err == nil {
				r.LastAccess, r.End = max(r.LastAccess, k.table.lastUse(h)), k.NewEnd(Removed, ReasonLogout, by)
				v = k.ended(r)
				var done bool
				if done, err = k.End(ctx, h, r.End, k.Actor(by)); done {
					return nil
				}
			}
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		r, err := k.removeEnded(ctx, h, k.Actor(by))
		if err == nil {
			v = k.ended(r)
		}
		return err
	})
	if err != nil {
		return View{}, err
	}
	return v, nil
}

// removeEnded changes the status of an end that is durable, and returns the session as
// it is then.
func (k *Keeper) removeEnded(ctx context.Context, h api.ID, by event.Actor) (*Record, error) {
	key, tx := pastKey(h), store.Tx{}
	item, err := k.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		// It has an end that was not folded yet, or died without one.
		if err := k.bury(ctx, []api.ID{h}); err != nil {
			return nil, err
		}
		if item, err = k.store.Get(ctx, key); errors.Is(err, store.ErrNotFound) {
			key = endKey(h)
			item, err = k.store.Get(ctx, key)
		}
	}
	if err != nil {
		return nil, err
	}
	var r *Record
	if key == pastKey(h) {
		r, err = decodeRecord(h, item.Value)
	} else if r, _, err = k.read(ctx, h); err == nil {
		r.End, err = decodeEnd(item.Value)
	}
	if err != nil {
		return nil, err
	}
	if r.End.Status != Removed {
		was := r.End.Status
		r.End.Status = Removed
		value := r.End.encode()
		if key == pastKey(h) {
			value = r.encode()
			var change Tally
			change[was]--
			change[Removed]++
			k.countTombstones(&tx, change)
		}
		tx.If, tx.Put = append(tx.If, store.Cond{Key: key, Rev: item.Rev}), append(tx.Put, store.Put{Key: key, Value: value})
		e := k.endEvent(r, r.End, by)
		e.Kind = event.SessionRemoved
		event.Append(&tx, e)
		_, err = k.store.Commit(ctx, tx)
	}
	r.settleEnd()
	return r, err
}

// forgetMembers removes sessions of which nothing is kept from the list of their
// client, and the list with its last.
func (k *Keeper) forgetMembers(ctx context.Context, id api.ID, members []api.ID) error {
	return store.Retry(func() error {
		c, rev, err := k.client(ctx, id)
		if err != nil || rev == 0 {
			return err
		}
		before := len(c.Members)
		c.Members = slices.DeleteFunc(c.Members, func(h api.ID) bool { return slices.Contains(members, h) })
		if len(c.Members) == before {
			return nil
		}
		tx := store.Tx{If: []store.Cond{{Key: clientKey(id), Rev: rev}}, Urgent: true}
		if len(c.Members) == 0 {
			tx.Delete = []string{clientKey(id)}
		} else {
			tx.Put = []store.Put{{Key: clientKey(id), Value: c.encode()}}
		}
		_, err = k.store.Commit(ctx, tx)
		return err
	})
}
