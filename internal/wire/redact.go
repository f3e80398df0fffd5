package wire

import (
	"strings"

	"sessiond/internal/api"
)

// secretNames are what names of members contain whose values are secret, in lower
// case and without separators. Too many is harmless, one too few is not.
func secretNames() []string {
	return []string{
		"pass", "pasw", "pwd", "token", "secret", "ticket", "credential", "authorization",
		"bearer", "cookie", "apikey", "privatekey", "otp", "recoverycode", "signature", "assertion",
	}
}

// Redact appends a request as debugInfo may show it: the value of every member
// whose name tells of a secret, and every string or name that holds what looks
// like a token of ours, is replaced. A request that is no JSON becomes null.
func Redact(dst, request []byte) []byte {
	root, _ := ParseTree(request)
	if root == nil {
		return append(dst, "null"...)
	}
	root.redact()
	return form{}.append(dst, root)
}

func (n *Node) redact() {
	if text, ok := n.String(); ok && holdsToken(text) {
		n.blank()
	}
	for _, item := range n.Items {
		item.redact()
	}
	for i := range n.Members {
		m := &n.Members[i]
		if isSecretName(m.Name) {
			m.Value.blank()
		}
		if holdsToken(m.Name) {
			m.Name = api.Redacted
		}
		m.Value.redact()
	}
}

// blank puts the redaction in place of a value.
func (n *Node) blank() {
	*n = Node{Kind: String, Raw: AppendString(nil, api.Redacted)}
}

func isSecretName(name string) bool {
	name = strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == '.' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToLower(strings.ToUpper(name))) // both, so that ſ is an s and K a k
	for _, part := range secretNames() {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// tokenTail is what follows a token's prefix, which ends in an underscore: 22
// characters of handle, 30 of secret, 6 of checksum.
const tokenTail = api.IDLen + 30 + 6

// holdsToken reports whether a token of ours stands anywhere in s, whatever its
// prefix.
func holdsToken(s string) bool {
	run, after := 0, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '_':
			run, after = 0, true
		case api.IsBase62(c):
			run++
		default:
			run, after = 0, false
		}
		if after && run >= tokenTail {
			return true
		}
	}
	return false
}

// withoutToken returns the name of a member, unless it holds a token: names are
// shown where values are not.
func withoutToken(name string) string {
	if holdsToken(name) {
		return api.Redacted
	}
	return name
}

// withoutTokens is withoutToken for each part of a JSON Pointer.
func withoutTokens(pointer string) string {
	if !holdsToken(pointer) {
		return pointer
	}
	parts := strings.Split(pointer, "/")
	for i, part := range parts {
		parts[i] = withoutToken(part)
	}
	return strings.Join(parts, "/")
}
