package actions

import (
	"context"
	"strings"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

func (s *services) replaying() dispatch.Action {
	return dispatch.Protected(dispatch.Spec{
		Name: "replayWebhook", APIs: admin(), Allow: dispatch.Holders(account.ServicesManage).Recent(), Work: dispatch.Writing,
		Errors: []api.Code{api.NotFound},
		Doc: "Sends a webhook all events after a cursor again, or skips those before it, and goes on from there. " +
			"An event that was sent before has the same webhook-id.",
	}, s.replay)
}

type replayWebhookParams struct {
	Name   string `json:"name" max:"64" doc:"The webhook, as services.json names it; compared without case."`
	Cursor string `json:"cursor,omitzero" max:"32" doc:"One of watchSessions, of listServices, or of listEvents with oldestFirst; absent: from the oldest event that is kept."`
}

type replayWebhookResult struct {
	Webhook webhookView `json:"webhook" doc:"Where it stands now."`
}

type webhookView struct {
	Name         string           `json:"name" doc:"Its name."`
	URL          string           `json:"url" doc:"As in services.json, without its query."`
	Enabled      bool             `json:"enabled" doc:"Whether services.json has it enabled."`
	State        api.ServiceState `json:"state" doc:"running or stopped."`
	Cursor       string           `json:"cursor,omitzero" doc:"Up to where it has taken all; absent: not known yet."`
	Behind       uint64           `json:"behind" doc:"How many events of the log come after that, those that it does not want among them."`
	LastError    string           `json:"lastError,omitzero" doc:"Why the message that is next was not taken; absent: it was not refused."`
	NextAttempt  time.Time        `json:"nextAttemptTimestamp,omitzero" doc:"When it is sent again."`
	LastDelivery time.Time        `json:"lastDeliveryTimestamp,omitzero" doc:"When a message was taken last, since the server began."`
}

func viewOfWebhook(w api.Webhook) webhookView {
	return webhookView{
		Name: w.Name, URL: w.URL, Enabled: w.Enabled, State: w.State, Cursor: w.Cursor, Behind: w.Behind,
		LastError: w.LastError, NextAttempt: w.NextAttempt.UTC().Truncate(time.Second), LastDelivery: w.LastDelivery.UTC().Truncate(time.Second),
	}
}

func (s *services) replay(ctx context.Context, c *dispatch.Call, who *session.Caller, p replayWebhookParams) (replayWebhookResult, error) {
	for _, w := range s.Services.Webhooks() {
		if strings.EqualFold(w.Name, p.Name) {
			p.Name = w.Name // as it stands in services.json, for the log of changes
		}
	}
	w, err := s.Services.ReplayWebhook(ctx, p.Name, p.Cursor, func() error {
		e := event.Event{Time: s.Clock.Now(), Kind: event.WebhookReplayed, Service: p.Name, By: s.Sessions.Actor(who)}
		if c.Address.IsValid() {
			e.ClientIPAddress = c.Address.String()
		}
		return s.Record(ctx, e)
	})
	return replayWebhookResult{viewOfWebhook(w)}, about(err, map[api.Code]string{api.NotFound: "/params/name", api.BadParam: "/params/cursor"})
}
