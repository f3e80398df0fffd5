package account

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	"sessiond/internal/api"
)

// The bounds of a password.
const (
	MinPassword = 15   // characters (code points) after preparation
	MaxPassword = 1024 // bytes, as typed and after preparation
)

// PasswordPolicy says which passwords an account may have. There are no
// composition rules (NIST SP 800-63B-4, 3.1.1.2). The zero value is ready to use.
type PasswordPolicy struct {
	Words []string // what passwords must not be made of, beside what is built in
}

// Check says whether password may become the password of the account called
// username in realm, and returns its prepared form. The refusal has code
// PasswordPolicy and states the rule; it never quotes the password.
func (p PasswordPolicy) Check(realm, username string, password api.Secret) (prepared api.Secret, refusal *api.Error) {
	if len(password.Reveal()) > MaxPassword {
		return api.Secret{}, api.Errorf(api.PasswordPolicy, "a password has at most %d bytes", MaxPassword)
	}
	prepared, err := prepare(password)
	if utf8.RuneCountInString(password.Reveal()) < MinPassword || err == nil && utf8.RuneCountInString(prepared.Reveal()) < MinPassword {
		return api.Secret{}, api.Errorf(api.PasswordPolicy, "a password has at least %d characters", MinPassword)
	}
	if err != nil {
		return api.Secret{}, api.Errorf(api.PasswordPolicy, "a password consists of printable characters and spaces (RFC 8265), at most %d bytes", MaxPassword)
	}
	if sameName(username, prepared.Reveal()) {
		return api.Secret{}, api.Errorf(api.PasswordPolicy, "a password is not the user name")
	}
	if reason := weakness(prepared.Reveal(), p.words(realm, username)); reason != "" {
		return api.Secret{}, api.Errorf(api.PasswordPolicy, "%s", reason)
	}
	return prepared, nil
}

// words are those that are expected in a password of this user, the built-in ones
// aside.
func (p PasswordPolicy) words(realm, username string) []string {
	words := make([]string, 0, len(p.Words)+8)
	for _, word := range p.Words {
		words = append(words, plain(word))
	}
	for _, name := range []string{plain(realm), plain(username)} {
		words = append(words, name)
		for part := range strings.FieldsFuncSeq(name, mark) {
			if utf8.RuneCountInString(part) >= leastPart {
				words = append(words, part)
			}
		}
	}
	return words
}

func sameName(username, password string) bool {
	if strings.EqualFold(username, password) {
		return true
	}
	name, err := Canonical(username)
	if err != nil {
		return false
	}
	other, err := Canonical(password)
	return err == nil && other == name
}

// SamePassword reports whether two texts are one password.
func SamePassword(a, b api.Secret) bool {
	one, err := prepare(a)
	if err != nil {
		return false
	}
	other, err := prepare(b)
	return err == nil && one == other
}

// PresentPassword refuses a new password that is the present one.
func PresentPassword() *api.Error {
	return api.Errorf(api.PasswordPolicy, "the new password is the present one")
}

var errPassword = errors.New("account: no possible password")

// prepare gives a password the one form that is hashed: RFC 8265 OpaqueString
// (other spaces become spaces, NFC). What a second pass would change is refused,
// so preparing twice does no harm. The error says nothing of the password.
func prepare(password api.Secret) (api.Secret, error) {
	typed := password.Reveal()
	if len(typed) > MaxPassword || !utf8.ValidString(typed) { // precis lets bad UTF-8 through
		return api.Secret{}, errPassword
	}
	once, err := precis.OpaqueString.String(typed)
	if err != nil || len(once) > MaxPassword {
		return api.Secret{}, errPassword
	}
	twice, err := precis.OpaqueString.String(once)
	if err != nil || twice != once {
		return api.Secret{}, errPassword
	}
	return api.NewSecret(once), nil
}
