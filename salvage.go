package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"sessiond/internal/cli"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/bolt"
)

// storeKinds returns the kinds of values that a server keeps, for files that have lost
// their names.
func storeKinds() []string {
	return []string{"acct", "anchor", "client", "end", "epoch", "gone", "guess", "hook", "log", "past", "role", "server", "sess", "source", "touch"}
}

// salvage makes a new store of what is good in a damaged one.
func salvage(ctx context.Context, o cli.SalvageOptions) (_ *cli.Salvaged, err error) {
	draft := o.Out + ".new-salvaged"
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) { // of one that was cut short
		return nil, fmt.Errorf("salvage: %w", err)
	}
	found, err := bolt.Salvage(ctx, o.File, draft, storeKinds(), o.Report)
	if err != nil {
		return nil, fmt.Errorf("salvage: %w", err)
	}
	defer func() { _ = os.Remove(draft) }() // it has another name, or is of no use
	done := &cli.Salvaged{
		Out: o.Out, Complete: found.Complete, Kept: found.Kinds, Expected: found.Expected, LogWhole: found.LogWhole,
		Doubtful: map[string]uint64{}, Lost: []string{}, Disabled: []string{},
	}
	if found.Broken != nil {
		done.Damage = found.Broken.Error()
	}
	for key := range found.Doubtful {
		done.Doubtful[store.Kind(key)]++
	}
	for _, l := range found.Lost {
		done.Lost = append(done.Lost, l.String())
	}
	if !found.Complete {
		if err := mend(ctx, draft, found, done); err != nil {
			return nil, fmt.Errorf("salvage: %w", err)
		}
	}
	sum, err := bolt.Publish(ctx, draft, o.Out)
	if err != nil {
		return nil, fmt.Errorf("salvage: %w", err)
	}
	done.LogHead = fmt.Sprintf("%d:%x", sum.Head.Seq, sum.Head.Hash)
	return done, nil
}

// mend ends in a draft what cannot be known to live.
func mend(ctx context.Context, draft string, found *bolt.Salvaged, done *cli.Salvaged) (err error) {
	st, err := bolt.Open(ctx, draft, bolt.Options{Beyond: found.Beyond})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	told, err := furthest(ctx, st)
	if err != nil {
		return err
	}
	mended, err := session.Mend(ctx, session.Mending{
		Store: st, Now: told, LogWhole: found.LogWhole,
		Lost: found.IsLost, Touched: found.Touched, Doubtful: func(key string) bool { return found.Doubtful[key] },
	})
	done.Ended, done.Roles = mended.Ended, mended.Roles
	done.Disabled = append(done.Disabled, mended.Disabled...)
	if err == nil {
		err = event.KeepMark(ctx, st, told)
	}
	return err
}
