package actions

import (
	"slices"

	"sessiond/internal/api"
	"sessiond/internal/config"
)

// realmOf finds the realm that a member of params names, native for none.
func realmOf(cfg *config.Config, name, member string) (*config.Realm, error) {
	realm, ok := cfg.Realm(name)
	if !ok {
		return nil, api.Errorf(api.RealmUnavailable, "there is no such realm: listRealms shows which there are").At("/params/" + member)
	}
	return realm, nil
}

// managed finds the realm of accounts that are there: one that services.json names
// no more may have some.
func (a *accounts) managed(cfg *config.Config, name, member string) (*config.Realm, error) {
	realm, err := realmOf(cfg, name, member)
	if err != nil && slices.Contains(a.Sessions.Realms(), name) {
		return &config.Realm{Name: name, Type: config.Trusted}, nil
	}
	return realm, err
}

// fits refuses a password where a realm takes none, and its lack elsewhere.
func fits(realm *config.Realm, password api.Secret, member string) error {
	switch trusted := realm.Type == config.Trusted; {
	case trusted && !password.IsZero():
		return bad(member, "must be absent: the realm trusts the word of holders of sessiond.sessions.issue")
	case !trusted && password.IsZero():
		return missing(member)
	}
	return nil
}
