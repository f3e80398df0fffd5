package session

import (
	"strings"

	"github.com/mileusna/useragent"
)

// Device is what a user agent says it is.
type Device struct{ Browser, OS, Kind string }

// ParseUserAgent reads a user agent's text, whatever it is.
func ParseUserAgent(text string) Device {
	ua := useragent.Parse(text)
	d := Device{Browser: strings.TrimSpace(ua.Name + " " + ua.Version), OS: strings.TrimSpace(ua.OS + " " + ua.OSVersion), Kind: "other"}
	switch {
	case ua.Bot:
		d.Kind = "bot"
	case ua.Tablet:
		d.Kind = "tablet"
	case ua.Mobile:
		d.Kind = "mobile"
	case ua.Desktop:
		d.Kind = "desktop"
	}
	return d
}
