package account

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	"sessiond/internal/api"
)

// MaxUsername is the length of a user name in bytes, as typed and in its
// canonical form.
const MaxUsername = 64

// Canonical returns the one form under which a user name is compared and stored:
// RFC 8265 UsernameCaseMapped (width and case folded, NFC; no spaces, control or
// direction characters), and not ending with a dot, which people take for the end of
// a sentence. A name that a second pass would change is refused, so that
// Canonical(Canonical(x)) is Canonical(x). The error is an *api.Error of
// code BadParam that does not quote the name.
func Canonical(username string) (string, error) {
	canonical, err := CanonicalPrefix(username)
	if err == nil && strings.HasSuffix(canonical, ".") {
		return "", api.Errorf(api.BadParam, "a user name does not end with a dot")
	}
	return canonical, err
}

// CanonicalPrefix is Canonical for what a name begins with.
func CanonicalPrefix(username string) (string, error) {
	if username == "" || len(username) > MaxUsername {
		return "", api.Errorf(api.BadParam, "a user name has 1 to %d bytes", MaxUsername)
	}
	if isPlain(username) {
		return username, nil
	}
	if !utf8.ValidString(username) {
		return "", badName()
	}
	once, err := precis.UsernameCaseMapped.String(username)
	if err != nil {
		return "", badName().Because(err)
	}
	if len(once) > MaxUsername {
		return "", api.Errorf(api.BadParam, "the canonical form of a user name has at most %d bytes", MaxUsername)
	}
	twice, err := precis.UsernameCaseMapped.String(once)
	if err != nil {
		return "", badName().Because(err)
	}
	if once == "" || twice != once {
		return "", badName()
	}
	return once, nil
}

// isPlain reports whether a name consists of printable ASCII without capitals, as
// nearly all do once they are canonical, so that nothing about it would change:
// listings ask that of a million.
func isPlain(name string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

func badName() *api.Error {
	return api.Errorf(api.BadParam, "a user name consists of letters, digits and symbols without spaces, control characters or mixed directions of writing (RFC 8265)")
}
