package account

import (
	"iter"
	"slices"
	"strings"

	"sessiond/internal/api"
)

// Permissions is a set of the server's own permissions, one bit each. The zero
// set allows nothing.
type Permissions uint32

// The server's own permissions. Their bits are stored.
const (
	SessionsRead Permissions = 1 << iota
	SessionsWrite
	SessionsRevoke
	SessionsIssue
	SessionsValidate
	KeysRead
	KeysWrite
	AccountsRead
	AccountsWrite
	RolesWrite
	EventsRead
	ServicesRead
	ServicesManage
	StoreBackup
	StoreExport
	StoreImport

	end
)

// AllPermissions is the set of every permission that the server knows.
const AllPermissions = end - 1

// ownPrefix begins the names of the server's own permissions, and every pattern
// that can match one.
const ownPrefix = "sessiond."

// names has the permissions' names in the order of their bits.
func names() [16]string {
	return [...]string{
		"sessiond.sessions.read", "sessiond.sessions.write", "sessiond.sessions.revoke", "sessiond.sessions.issue", "sessiond.sessions.validate",
		"sessiond.keys.read", "sessiond.keys.write",
		"sessiond.accounts.read", "sessiond.accounts.write",
		"sessiond.roles.write",
		"sessiond.events.read",
		"sessiond.services.read", "sessiond.services.manage",
		"sessiond.store.backup", "sessiond.store.export", "sessiond.store.import",
	}
}

func each() iter.Seq2[Permissions, string] {
	return func(yield func(Permissions, string) bool) {
		for i, name := range names() {
			if !yield(1<<i, name) {
				return
			}
		}
	}
}

// PermissionName returns the name of a single permission, such as
// "sessiond.sessions.read", or "" for what is no single permission.
func PermissionName(p Permissions) string {
	for bit, name := range each() {
		if bit == p {
			return name
		}
	}
	return ""
}

// Names returns the names of the permissions in p, in the order of their bits.
func (p Permissions) Names() []string {
	var list []string
	for bit, name := range each() {
		if p&bit != 0 {
			list = append(list, name)
		}
	}
	return list
}

// Has reports whether p holds all of q. No set holds the empty one: a rule
// without a permission denies.
func (p Permissions) Has(q Permissions) bool { return q != 0 && p&q == q }

// Grant returns the server's own permissions that the patterns match. A pattern
// is a permission's name, or "*", or ends in ".*", and the star matches the rest. Only a pattern that itself begins with
// "sessiond." matches: "*", which may stand for everything in an application,
// gives nothing here.
func Grant(patterns []string) Permissions {
	var p Permissions
	for _, pattern := range patterns {
		if !strings.HasPrefix(pattern, ownPrefix) {
			continue
		}
		for bit, name := range each() {
			if matches(pattern, name) {
				p |= bit
			}
		}
	}
	return p
}

// matches is strict about the star: it stands at the end, alone or after a dot,
// so a typing error such as "sessiond.s*" grants nothing.
func matches(pattern, name string) bool {
	stem, star := strings.CutSuffix(pattern, "*")
	if !star {
		return pattern == name
	}
	return (stem == "" || strings.HasSuffix(stem, ".")) && strings.HasPrefix(name, stem)
}

// Covers reports whether who holds the patterns of have holds whatever those of
// want match, now and later.
func Covers(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool {
		return !slices.ContainsFunc(have, func(h string) bool { return covers(h, w) })
	})
}

// covers reports whether pattern h matches all that w does. The star alone means
// everything but what is the server's own.
func covers(h, w string) bool {
	if h == w {
		return true
	}
	if strings.HasPrefix(w, ownPrefix) && !strings.HasPrefix(h, ownPrefix) {
		return false
	}
	return strings.HasSuffix(h, "*") && matches(h, strings.TrimSuffix(w, "*"))
}

// CheckPattern refuses what cannot be the pattern of a permission: words of
// letters, digits, underscores and hyphens with dots between them, of which the
// last may be a star, or a star alone. One of the server's own must match some
// permission. The error has code BadParam.
func CheckPattern(pattern string) *api.Error {
	ok := len(pattern) <= MaxPattern
	words := strings.Split(pattern, ".")
	for i, word := range words {
		if word == "*" && i == len(words)-1 {
			continue
		}
		ok = ok && word != ""
		for j := range len(word) {
			c := word[j]
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-')
		}
	}
	switch {
	case !ok:
		return api.Errorf(api.BadParam, "a permission is written as words with dots between them, such as orders.read, or orders.* for all that begins so, at most %d bytes", MaxPattern)
	case words[0]+"." == ownPrefix && Grant([]string{pattern}) == 0:
		return api.Errorf(api.BadParam, "this permission of the server's own does not exist: the reference lists them")
	}
	return nil
}
