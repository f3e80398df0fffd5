package actions

import (
	"context"

	"sessiond/dispatch"
)

// catalogue are the handlers of what tells about the server itself.
type catalogue struct {
	actions func() (dispatch.Catalogue, error)
}

func (k *catalogue) table() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Public(dispatch.Spec{
			Name: "listActions", APIs: both(), Work: dispatch.Listing, Allow: dispatch.Anyone(),
			Doc: "Lists the catalogue: each action with what it does, who may call it, and JSON Schemas of its params and its result.",
		}, k.list),
		dispatch.Public(dispatch.Spec{
			Name: "listRealms", APIs: both(), Allow: dispatch.Anyone(), Work: dispatch.Quick,
			Doc: "Lists the realms, by name and type.",
		}, k.realms),
	}
}

func (k *catalogue) list(context.Context, *dispatch.Call, empty) (dispatch.Catalogue, error) {
	return k.actions()
}

type listRealmsResult struct {
	Realms []realmView `json:"realms" doc:"The realms."`
}

type realmView struct {
	Name string `json:"name" doc:"What createSession takes as realm."`
	Type string `json:"type" doc:"native: by password; trusted: by the word of an issuer."`
}

func (k *catalogue) realms(_ context.Context, c *dispatch.Call, _ empty) (listRealmsResult, error) {
	r := listRealmsResult{Realms: make([]realmView, len(c.Config.Realms))}
	for i := range c.Config.Realms {
		r.Realms[i] = realmView{Name: c.Config.Realms[i].Name, Type: c.Config.Realms[i].Type}
	}
	return r, nil
}
