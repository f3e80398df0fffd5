package logging

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
)

// Panicked describes what was recovered, for the log: what kind of thing it was,
// and through which functions it came, the innermost first. It is called by the
// deferred function that recovers. The text of a value that is no error of the
// runtime stays out, for it may hold anything.
func Panicked(v any) error {
	what := fmt.Sprintf("%T", v)
	if err, ok := v.(runtime.Error); ok {
		what = err.Error()
	}
	return errors.New("panic: " + what + " at " + whence())
}

func whence() string {
	const skipped, most = 4, 5 // Callers, whence, Panicked and who recovers; as many as a line of the log holds
	var callers [16]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(skipped, callers[:])])
	var path []string
	for {
		frame, more := frames.Next()
		if frame.Function != "" && !strings.HasPrefix(frame.Function, "runtime.") {
			path = append(path, fmt.Sprintf("%s:%d", frame.Function[strings.LastIndexByte(frame.Function, '/')+1:], frame.Line))
		}
		if !more || len(path) == most {
			return strings.Join(path, " < ")
		}
	}
}
