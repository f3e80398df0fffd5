package actions

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/session"
	"sessiond/store"
)

// properties holds what applications keep with a session.
func (s *sessions) properties() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "getSessionProperties", APIs: both(), Work: dispatch.Reading, Allow: dispatch.Callers().Others(account.SessionsRead),
			Doc: "Answers the properties that sessionProperties of services.json allows a session, the caller's own unless another one is named, with their values. " +
				"Holders of sessiond.sessions.validate reach the session of a token that they show.",
			Errors: []api.Code{api.NotFound},
		}, s.getProperties),
		dispatch.Protected(dispatch.Spec{
			Name: "updateSessionProperties", APIs: both(), Work: dispatch.Writing, Allow: dispatch.Callers().Others(account.SessionsWrite),
			Doc:    "Sets properties of a session, the caller's own unless another one is named, and answers as getSessionProperties does. What is not named stays as it is.",
			Errors: []api.Code{api.NotFound, api.Conflict, api.PropertyNotAllowed},
		}, s.updateProperties),
	}
}

type propertiesResult struct {
	SessionHandle string         `json:"sessionHandle" doc:"The session's public name."`
	Properties    map[string]any `json:"properties" doc:"Every property that it may have. One that is not set is an empty string, or null where it is no string."`
	Revision      uint64         `json:"revision" doc:"Counts the session's alterations, from 1."`
}

func (s *sessions) getProperties(ctx context.Context, c *dispatch.Call, who *session.Caller, p target) (propertiesResult, error) {
	live, err := s.living(c, who, &p, account.SessionsValidate)
	if err != nil {
		return propertiesResult{}, err
	}
	v, err := s.Sessions.Get(ctx, live.Handle)
	if errors.Is(err, store.ErrNotFound) || (err == nil && !v.Live) {
		return propertiesResult{}, s.gone(who, live.Handle)
	}
	if err != nil {
		return propertiesResult{}, err
	}
	return allowedProperties(c, &v), nil
}

type updatePropertiesParams struct {
	target

	Properties map[string]any `json:"properties" doc:"The new values, by name: strings, integers or booleans, as services.json says. null removes one."`
	Revision   *uint64        `json:"revision" min:"1" doc:"Refuses the change if the session has another revision than this one."`
}

func (s *sessions) updateProperties(ctx context.Context, c *dispatch.Call, who *session.Caller, p updatePropertiesParams) (propertiesResult, error) {
	live, err := s.living(c, who, &p.target, 0)
	if err != nil {
		return propertiesResult{}, err
	}
	v, err := s.Sessions.Alter(ctx, live.Handle, s.Sessions.Actor(who), func(r *session.Record) error {
		if p.Revision != nil && *p.Revision != r.Revision {
			return api.Errorf(api.Conflict, "the session has been changed meanwhile: read it again, and send the revision that it has then").At("/params/revision")
		}
		change, err := propertyChange(c.Config.PropertiesOf(r.Realm), p.Properties, r.Properties)
		if err == nil {
			r.Properties, err = change.On(r.Properties)
		}
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return propertiesResult{}, s.gone(who, live.Handle)
	}
	if err != nil {
		return propertiesResult{}, fmt.Errorf("update session properties: %w", err)
	}
	return allowedProperties(c, &v), nil
}

// mostInteger is the largest integer that every JSON library reads as it stands
// (RFC 7493, section 2.2).
const mostInteger = 1<<53 - 1

// propertyChange checks what params ask for against what is allowed. What a session
// has and may have no longer can be removed.
func propertyChange(allowed []config.Property, asked map[string]any, has map[string]string) (session.PropertyChange, error) {
	change := session.PropertyChange{}
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		at := "/params/properties/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		i := slices.IndexFunc(allowed, func(p config.Property) bool { return p.Name == name })
		_, there := has[name]
		if i < 0 && (!there || asked[name] != nil) {
			return nil, api.Errorf(api.PropertyNotAllowed, "the session may not have this property: getSessionProperties tells those that it may").At(at)
		}
		if asked[name] == nil {
			change[name] = nil
			continue
		}
		text, ok := propertyText(&allowed[i], asked[name])
		if !ok {
			return nil, api.Errorf(api.BadParam, "the value must be of the property's type, which is %s", allowed[i].Type).At(at)
		}
		if allowed[i].Type == config.StringProperty && int64(len(text)) > allowed[i].Max {
			return nil, api.Errorf(api.TooLarge, "the value must be a string of at most %d bytes", allowed[i].Max).At(at)
		}
		change[name] = &text
	}
	return change, nil
}

// propertyText returns a value as it is stored; ok is false for one of another
// type than the property's.
func propertyText(p *config.Property, value any) (text string, ok bool) {
	switch v := value.(type) {
	case string:
		return v, p.Type == config.StringProperty
	case bool:
		return strconv.FormatBool(v), p.Type == config.BooleanProperty
	case float64:
		n := int64(max(-mostInteger-1, min(v, mostInteger+1)))
		return strconv.FormatInt(n, 10), p.Type == config.IntegerProperty && float64(n) == v && -mostInteger <= n && n <= mostInteger
	}
	return "", false
}

// propertyValue returns a stored text as the value that it stands for. What
// services.json has given another type since then is shown as it was stored.
func propertyValue(p *config.Property, text string) any {
	switch p.Type {
	case config.IntegerProperty:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	case config.BooleanProperty:
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	}
	return text
}

// allowedProperties shows what a session may have, whether or not it has it.
func allowedProperties(c *dispatch.Call, v *session.View) propertiesResult {
	result := propertiesResult{SessionHandle: session.HandleText(v.Handle), Properties: map[string]any{}, Revision: v.Revision}
	for _, p := range c.Config.PropertiesOf(v.Realm) {
		text, set := v.Properties[p.Name]
		if set || p.Type == config.StringProperty {
			result.Properties[p.Name] = propertyValue(&p, text)
		} else {
			result.Properties[p.Name] = nil
		}
	}
	return result
}

// shownProperties shows what a session has, allowed or no longer.
func shownProperties(c *dispatch.Call, v *session.View) map[string]any {
	shown := make(map[string]any, len(v.Properties))
	allowed := c.Config.PropertiesOf(v.Realm)
	for name, text := range v.Properties {
		shown[name] = text
		if i := slices.IndexFunc(allowed, func(p config.Property) bool { return p.Name == name }); i >= 0 {
			shown[name] = propertyValue(&allowed[i], text)
		}
	}
	return shown
}
