package api

import "time"

// ServiceState says whether an api or a listener takes requests.
type ServiceState string

// The states of a service.
const (
	Running ServiceState = "running"
	Paused  ServiceState = "paused"  // there, and turns away whoever comes
	Stopped ServiceState = "stopped" // as if it were not in services.json
)

// ServiceCommand is what an operator does to a service.
type ServiceCommand string

// The commands.
const (
	Pause    ServiceCommand = "pause"
	Resume   ServiceCommand = "resume"
	Restart  ServiceCommand = "restart"
	Shutdown ServiceCommand = "shutdown"
	Startup  ServiceCommand = "startup"
	Reload   ServiceCommand = "reload" // of services.json, and of no single service
)

// From returns the state that the command leads to; it may be the one that the
// service has. The error is a Conflict: the command does not fit the state.
func (c ServiceCommand) From(state ServiceState) (ServiceState, error) {
	switch {
	case c == Pause && state != Stopped:
		return Paused, nil
	case c == Resume && state != Stopped, c == Startup && state != Paused, c == Restart:
		return Running, nil
	case c == Shutdown:
		return Stopped, nil
	case c == Startup:
		return state, Errorf(Conflict, "the service is paused: resume it")
	}
	return state, Errorf(Conflict, "the service is stopped: startup comes first")
}

// Listener is a listener as it is at run time.
type Listener struct {
	ServiceName     string
	Description     string
	Address         string // as in services.json
	Port            int    // the one that is open, where services.json leaves it to the system
	Protocol        string
	Enabled         bool // in services.json
	State           ServiceState
	Connections     int
	CertificateFile string
	KeyFile         string
	Certificate     *Certificate // that new connections get; nil without TLS, and while the port is closed
}

// Webhook is a receiver of events as it is at run time.
type Webhook struct {
	Name         string
	URL          string // without its query
	Enabled      bool
	State        ServiceState
	Position     uint64 // in the log, up to which the receiver has taken all; 0: not known
	Cursor       string // for Position; empty: not known
	Behind       uint64 // events after Position, those that it does not want among them
	LastError    string // since the last delivery; empty: none
	NextAttempt  time.Time
	LastDelivery time.Time // since the server began
}

// Certificate is what a certificate says of itself.
type Certificate struct {
	Subject   string // RFC 2253
	NotBefore time.Time
	NotAfter  time.Time
	SHA256    string // of its DER form, in hex
}
