package event

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"sessiond/internal/wire"
	"sessiond/store"
)

// ErrJournal is wrapped by what is wrong with a journal of revocations.
var ErrJournal = errors.New("the journal of revocations cannot be relied on")

var (
	errTorn    = fmt.Errorf("%w: its last line is cut off", ErrJournal)
	errChanged = fmt.Errorf("%w: a line is not as it was written, or one before it is missing", ErrJournal)
)

// line is a line of a journal. Its sum, which stands last, is over the sum of the line
// before it and all of the line that precedes the sum.
type line struct {
	Seq   uint64   `json:"seq"`            // position in the store's log
	Hash  string   `json:"hash"`           // of the log there
	Begin string   `json:"begin,omitzero"` // identifier of the server: what was before is not known
	Event wire.Raw `json:"event,omitzero"` // as it is in the log
	Left  wire.Raw `json:"left,omitzero"`
}

const (
	sumBytes  = 16
	sumBefore = `,"sum":"`
	sumAfter  = `"}`
	sumText   = len(sumBefore) + 2*sumBytes + len(sumAfter)

	// longestLine bounds what is read as a line: two of the largest values, with room
	// for what their JSON adds.
	longestLine = 4 * store.MaxValueLen
)

// seal returns the text of a line and its sum.
func (l *line) seal(before string) (text []byte, sum string, err error) {
	text, err = wire.Marshal(l)
	if err != nil {
		return nil, "", err
	}
	text = text[:len(text)-1]
	sum = sumOf(before, text)
	return append(text, sumBefore+sum+sumAfter+"\n"...), sum, nil
}

// unseal returns a line without its sum, and that, if it is as it was written.
func unseal(before string, text []byte) (content []byte, sum string, ok bool) {
	if len(text) < sumText {
		return nil, "", false
	}
	content, end := text[:len(text)-sumText], string(text[len(text)-sumText:])
	sum = sumOf(before, content)
	return content, sum, end == sumBefore+sum+sumAfter
}

func sumOf(before string, text []byte) string {
	h := sha256.New()
	h.Write([]byte(before))
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil)[:sumBytes])
}

func hashText(hash [32]byte) string { return hex.EncodeToString(hash[:]) }

// hash returns the hash of the log; readLine has seen that it is one.
func (l *line) hash() (hash [32]byte) {
	_, _ = hex.Decode(hash[:], []byte(l.Hash))
	return hash
}

func readLine(content []byte) (*line, error) {
	l := &line{}
	if err := wire.Unmarshal(append(bytes.Clone(content), '}'), l); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if hash, err := hex.DecodeString(l.Hash); err != nil || len(hash) != 32 {
		return nil, fmt.Errorf("%w: a line without a hash", ErrJournal)
	}
	return l, nil
}

// scan checks the lines of a journal and shows them to each; with nil it reads but the
// first and the last. It returns where the last good one ends, and the first. The error
// is of each, or wraps errTorn, errChanged or ErrJournal.
func scan(r io.Reader, each func(*line) error) (last mark, first *line, err error) {
	lines := bufio.NewReaderSize(r, 1<<16)
	var content []byte // of the last good line
	for {
		text, readErr := readText(lines)
		if readErr != nil && len(text) == 0 && errors.Is(readErr, io.EOF) {
			break
		}
		switch {
		case errors.Is(readErr, io.EOF):
			err = errTorn
		case readErr != nil:
			err = fmt.Errorf("%w: %w", ErrJournal, readErr)
		}
		if err != nil {
			break
		}
		checked, sum, ok := unseal(last.sum, text[:len(text)-1])
		if !ok {
			err = errChanged
			break
		}
		content = append(content[:0], checked...)
		last.size, last.sum = last.size+int64(len(text)), sum
		if each == nil && first != nil {
			continue
		}
		l, bad := readLine(content)
		if bad == nil && first == nil {
			first = l
		}
		if bad == nil && each != nil {
			bad = each(l)
		}
		if bad != nil {
			return last, first, bad
		}
	}
	if len(content) > 0 {
		l, bad := readLine(content)
		if bad != nil {
			return last, first, bad
		}
		last.at = store.Head{Seq: l.Seq, Hash: l.hash()}
	}
	return last, first, err
}

// readText returns the next line with its break. What is too long for a line is
// errChanged.
func readText(r *bufio.Reader) ([]byte, error) {
	var text []byte
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case len(text) > longestLine:
			return text, errChanged
		case !errors.Is(err, bufio.ErrBufferFull):
			return text, err
		}
	}
}
