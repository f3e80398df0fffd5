package api

import (
	"errors"
	"fmt"
	"time"
)

// Error is a refusal that the caller can act on. Message is the only text that a
// client sees: it says what to do and never repeats a value from the request.
// What only the log may know is the cause.
type Error struct {
	Code    Code
	Message string
	Data    ErrorData
	cause   error
}

// ErrorData is the errorData of a response: what a program needs to react.
type ErrorData struct {
	Pointer           string `json:"pointer,omitzero"`           // JSON Pointer (RFC 6901) from the envelope's root, cut to 200 characters
	Limit             string `json:"limit,omitzero"`             // name of the limit that was reached
	Max               int64  `json:"max,omitzero"`               // its value
	Current           int64  `json:"current,omitzero"`           // what counts against it now
	RetryAfterSeconds int64  `json:"retryAfterSeconds,omitzero"` // when to try again
	Done              int64  `json:"done,omitzero"`              // of a job over many: how many were done
	Left              int64  `json:"left,omitzero"`              // and how many were not

	*Choice // where the caller may choose what makes room
}

// Choice is what a log-in needs to go on that was refused for a limit.
type Choice struct {
	Ticket                    string          `json:"ticket"` // a secret, good once
	TicketExpirationTimestamp time.Time       `json:"ticketExpirationTimestamp"`
	Sessions                  []ChoiceSession `json:"sessions"` // of which one can make room
}

// ChoiceSession is a session that can make room, as its owner recognizes it.
type ChoiceSession struct {
	SessionHandle                string    `json:"sessionHandle"`
	Description                  string    `json:"description,omitzero"`
	ClientIPAddress              string    `json:"clientIpAddress,omitzero"`
	Browser                      string    `json:"browser,omitzero"`
	OS                           string    `json:"os,omitzero"`
	SessionStartTimestamp        time.Time `json:"sessionStartTimestamp"`
	SessionLastAccessedTimestamp time.Time `json:"sessionLastAccessedTimestamp"`
}

// Errorf returns an error with a message for the client.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Because returns a copy that remembers its cause, for the log.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// At returns a copy that points at a member of the envelope, such as
// "/params/username".
func (e *Error) At(pointer string) *Error {
	c := *e
	if len(pointer) > MaxPointer {
		pointer = pointer[:MaxPointer]
	}
	c.Data.Pointer = pointer
	return &c
}

// MaxPointer is the length at which a JSON Pointer is cut, in bytes.
const MaxPointer = 200

// Error tells the log everything, the cause included.
func (e *Error) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("%d %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%d %s: %v", e.Code, e.Message, e.cause)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// FromError returns the Error in err's chain. Whatever nobody classified becomes
// Internal, with its text withheld from the client.
func FromError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return Errorf(Internal, "the server failed; its log says why").Because(err)
}
