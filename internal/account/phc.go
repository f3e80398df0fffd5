package account

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/alexedwards/argon2id"
)

// What a stored hash may ask for. A record that was tampered with or imported
// must not make one log-in cost minutes or gigabytes.
const (
	maxPHC         = 256       // bytes of the string
	maxMemory      = 128 << 10 // KiB
	maxIterations  = 10
	maxParallelism = 4
	minSalt        = 8
	maxSalt        = 64
	minKey         = 16
	maxKey         = 64
)

var errPHC = errors.New("account: a stored password hash is malformed or beyond its bounds")

// checkPHC returns nil for a PHC string of argon2id that is within bounds and
// written in the one way that this program writes it. It does none of the
// hash's work.
func checkPHC(phc string) error {
	if len(phc) > maxPHC {
		return errPHC
	}
	p, salt, key, err := argon2id.DecodeHash(phc)
	if err != nil {
		return errPHC // the cause may show parts of the hash
	}
	within := p.Memory <= maxMemory && p.Memory >= 8*uint32(p.Parallelism) &&
		p.Iterations >= 1 && p.Iterations <= maxIterations &&
		p.Parallelism >= 1 && p.Parallelism <= maxParallelism &&
		len(salt) >= minSalt && len(salt) <= maxSalt &&
		len(key) >= minKey && len(key) <= maxKey
	if !within || phc != formatPHC(p, salt, key) {
		return errPHC
	}
	return nil
}

func formatPHC(p *argon2id.Params, salt, key []byte) string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", p.Memory, p.Iterations, p.Parallelism, b64(salt), b64(key))
}
