//go:build linux

package main

import (
	"fmt"
	"math"

	"github.com/anishathalye/porcupine"
)

// What is done to a session.
const (
	doCreate   = "createSession"
	doValidate = "validate" // by the administrator
	doUse      = "validate, by its own token"
	doRefresh  = "refresh"
	doLook     = "getSessionInfo"
	doList     = "listClientSessions"
	doAlter    = "alterSession"
	doRotate   = "rotateSession"
	doLogout   = "deleteSession"
	doRevoke   = "revokeSessions"
	doEnd      = "endSession"
	doRemove   = "removeSession"
	doEndAll   = "revokeSessions of its account"
	doSettle   = "the answer to that"
	doKill     = "the end of the server"
	doRest     = "nothing more"
)

// An end is in force before it is written. Of several that are under way the first
// puts it in force, and whichever is written first says that it was done.
type claim uint8

const (
	nobodys  claim = iota
	anybodys       // the account's sessions are being ended: another end may be written first
	somebody       // who put it in force was not the one: another end has to say that it was
)

// goodTokens is how many tokens of a session are good before their grace period is
// over, the present one included.
const goodTokens = 4

// A deed is what is done to a session, an outcome what came back.
type deed struct {
	what  string
	token int // which of the session's: 0 is the first, and each the successor of the one before
	text  int // the description that it is to have
}

type outcome struct {
	lost     bool // nothing came back
	ok       bool // it was done, or the session lives
	text     int
	revision int
}

// A seen session is what can be told of it from outside.
type seen struct {
	born, dead     bool
	sure           bool // an end was answered: it outlasts the server
	claim          claim
	newest         int // token
	text, revision int
}

func (s seen) takes(token int) bool { return s.born && !s.dead && s.knows(token) }

func (s seen) knows(token int) bool { return token <= s.newest && token > s.newest-goodTokens }

// after returns what a session can be when something was done to it: one of two
// where no answer came back, nothing where the answer is wrong.
func (s seen) after(in deed, out outcome) []seen {
	done := s // if it is done
	lives := s.born && !s.dead
	switch in.what {
	case doCreate:
		lives, done = !s.born, seen{born: true, text: in.text, revision: 1}
	case doValidate, doUse, doRefresh:
		lives = s.takes(in.token)
	case doLook, doList:
		if lives && out.ok && (out.text != s.text || out.revision != s.revision) {
			return nil
		}
	case doAlter:
		done.text, done.revision = in.text, s.revision+1
	case doRotate:
		if lives = s.takes(in.token); in.token == s.newest {
			done.newest, done.revision = s.newest+1, s.revision+1
		}
	case doLogout, doRevoke, doEnd:
		return s.ended(in, out)
	case doRemove: // its answer does not say whether it was the one
		if out.lost {
			return s.ended(in, out)
		}
		return append(s.ended(in, outcome{}), s.ended(in, outcome{ok: true})...)
	case doEndAll: // its answer is about all of them, and is no one's before doSettle
		if done.dead, done.claim, done.sure = true, anybodys, !out.lost; lives || s.claim == somebody {
			done.sure = done.sure || s.sure
			return s.perhaps(done, out)
		}
		s.sure = s.sure || s.dead && !out.lost
		return []seen{s}
	case doSettle:
		if done.claim = nobodys; lives {
			return nil
		}
		return []seen{done}
	case doKill: // an end that was in force, and not written, is undone
		if s.claim == somebody {
			return nil
		}
		if s.claim, done.claim = nobodys, nobodys; s.dead && !s.sure {
			s.dead, done.sure = false, true
			return []seen{s, done}
		}
		return []seen{s}
	case doRest:
		if s.claim == somebody {
			return nil
		}
		return []seen{s}
	}
	switch {
	case out.lost && lives && done != s:
		return []seen{s, done}
	case out.lost || !out.ok && !lives:
		return []seen{s}
	case out.ok != lives || (in.what == doAlter || in.what == doRotate) && out.revision != done.revision:
		return nil
	}
	return []seen{done}
}

// perhaps is done, or, where no answer came back, one of two.
func (s seen) perhaps(done seen, out outcome) []seen {
	if out.lost {
		return []seen{s, done}
	}
	return []seen{done}
}

// ended is after for the end of this session alone. Whatever its answer says, if it
// is about this session then an end was written before.
func (s seen) ended(in deed, out outcome) []seen {
	shown := in.what != doLogout || s.knows(in.token)
	lives := s.born && !s.dead && shown
	done, open := s, s
	done.dead, done.claim, done.sure = true, nobodys, s.sure || !out.lost
	open.dead, open.claim, open.sure = true, somebody, s.sure || !out.lost
	switch {
	case out.lost && lives:
		return []seen{s, done, open}
	case out.ok && (lives || s.claim != nobodys), out.lost && s.claim != nobodys:
		return s.perhaps(done, out)
	case out.ok:
		return nil
	case lives:
		return []seen{open}
	}
	s.sure = s.sure || s.dead && shown && !out.lost
	return []seen{s}
}

func seenModel() porcupine.Model {
	return (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{seen{}} },
		Step: func(state, in, out any) (next []any) {
			for _, s := range state.(seen).after(in.(deed), out.(outcome)) {
				next = append(next, s)
			}
			return next
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %+v", in, out) },
	}).ToModel()
}

// never is when an operation returns of which no answer came back.
const never = math.MaxInt64
