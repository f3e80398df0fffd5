package main

// The credentials of the matrix, in the order of its columns: none at all, a token
// whose session has ended, alice's session and key, and one for each role, admin's
// key being the last.
var credentials = []string{"none", "dead", "alice", "robot", "gateway", "issuer", "operator", "auditor", "admin", "keeper"}

// matrix says, for each action, what becomes of it with each credential, about
// what is the caller's own and about what is bob's: a code, 0 for success, and -
// for a success that finds nothing. In params, HANDLE, TOKEN and NAME are those of
// the session and the account that it is about; nobody's own is alice's.
var matrix = []struct {
	action, params string
	//      none  dead  alice robot gatew issue opera audit admin keeper
	own, other string
}{
	{
		"createSession", `{"username":"NAME","password":"${password}"}`,
		"0     0     0     0     0     0     0     0     0     0",
		"0     0     0     0     0     0     0     0     0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","permanentSession":true}`,
		"0     0     0     21204 0     0     0     0     0     21204",
		"0     0     0     21204 0     0     0     0     0     21204",
	},
	{
		"createSession", `{"username":"NAME","realm":"customers"}`,
		"12031 12031 21201 21201 21201 0     21201 21201 0     0",
		"12031 12031 21201 21201 21201 0     21201 21201 0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","clientIpAddress":"192.0.2.1"}`,
		"12031 12031 21201 21201 21201 0     21201 21201 0     0",
		"12031 12031 21201 21201 21201 0     21201 21201 0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","reauthenticate":true}`,
		"12031 12031 0     21204 0     0     0     0     0     21204",
		"12031 12031 21006 21204 21006 21006 21006 21006 21006 21204",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","newPassword":"another horse, another staple"}`,
		"0     0     0     0     0     0     0     0     0     0",
		"0     0     0     0     0     0     0     0     0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","idempotencyKey":"k","properties":{"theme":"dark"}}`,
		"0     0     0     0     0     0     0     0     0     0",
		"0     0     0     0     0     0     0     0     0     0",
	},
	{
		"getSessionProperties", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     0     0     0",
	},
	{
		"getSessionProperties", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     0     0     0",
	},
	{
		"updateSessionProperties", `{"sessionHandle":"HANDLE","properties":{"theme":"dark"}}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"updateSessionProperties", `{"tokenId":"TOKEN","properties":{"theme":"dark"}}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"alterSession", `{"sessionHandle":"HANDLE","description":"x"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"alterSession", `{"tokenId":"TOKEN","description":"x"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"alterSession", `{"filter":"username eq 'NAME'","description":"x"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     -     0     0",
	},
	{
		"rotateSession", `{}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"rotateSession", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 21401 21401 0     0",
	},
	{
		"createSession", `{"username":"NAME","password":"${password}","joinClient":true}`,
		"12031 12031 0     21204 0     0     0     0     0     21204",
		"12031 12031 0     21204 0     0     0     0     0     21204",
	},
	{
		"listClientSessions", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     0     0     0",
	},
	{
		"listClientSessions", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"activateSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 21401 21401 21401 21401",
	},
	{
		"endSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"endSession", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"removeSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"removeSession", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"pingSession", `{}`,
		"0     12031 0     0     0     0     0     0     0     0",
		"0     12031 0     0     0     0     0     0     0     0",
	},
	{
		"describeSessions", `{"sessionHandles":["HANDLE"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"describeSessions", `{"authTokens":["TOKEN"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     0     -     0     0     0     0",
	},
	{
		"describeSessions", `{"usernameFilter":["NAME"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"listSessions", `{"sessionHandles":["HANDLE"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"listSessions", `{"usernameFilter":["NAME"],"countOnly":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"getSessionInfo", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     0     0     0",
	},
	{
		"getSessionInfo", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     0     0     0",
	},
	{
		"describeSessions", `{"filter":"username eq 'NAME' and status eq 'active'"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"listSessions", `{"filter":"sessionHandle eq 'HANDLE'"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"listSessions", `{"filter":"username sw 'NAME' and (endReason pr or current pr)","sort":"-username","countOnly":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"getSessionInfoAndResetIdleTime", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"getSessionInfoAndResetIdleTime", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     21401 0     0",
	},
	{
		"refresh", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"refresh", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     21401 0     0",
	},
	{
		"explainSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     0     0     0",
	},
	{
		"explainSession", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 0     21401 0     0     0     0",
	},
	{
		"validate", `{"tokenId":"TOKEN"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21201 21201 0     21201 21201 21201 0     0",
	},
	{
		"validate", `{"tokenIds":["TOKEN","x"],"refresh":false}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21201 21201 0     21201 21201 21201 0     0",
	},
	{
		"validate", `{"tokenId":"TOKEN","includeProperties":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21201 21201 0     21201 21201 21201 0     0",
	},
	{
		"deleteSession", `{}`,
		"12031 0     0     0     0     0     0     0     0     0",
		"12031 0     0     0     0     0     0     0     0     0",
	},
	{
		"deleteSession", `{"sessionHandle":"HANDLE"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"deleteSession", `{"tokenId":"TOKEN"}`,
		"0     0     0     0     0     0     0     0     0     0",
		"0     0     0     0     0     0     0     0     0     0",
	},
	{
		"revokeSessions", `{"sessionHandles":["HANDLE"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     -     0     0",
	},
	{
		"revokeSessions", `{"accounts":[{"username":"NAME"}],"includePermanent":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"revokeSessions", `{"filter":"username eq 'NAME'","includePermanent":true}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     -     0     0",
	},
	{
		"logoutByHandle", `{"sessionHandles":["HANDLE"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     -     0     0",
	},
	{
		"revokeAllSessions", `{"level":"account","username":"NAME"}`,
		"12031 12031 21201 21201 21201 21201 0     21201 0     0",
		"12031 12031 21201 21201 21201 21201 0     21201 0     0",
	},
	{
		"revokeAllSessions", `{"level":"server","includePermanent":true}`,
		"12031 12031 21201 21201 21201 21201 0     21201 0     0",
		"12031 12031 21201 21201 21201 21201 0     21201 0     0",
	},
	{
		"logoutByUser", `{"username":"NAME"}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 21401 21401 21401 21401 0     21401 0     0",
	},
	{
		"logoutByUser", `{}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"createAccount", `{"username":"newcomer","password":"${password}"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"createAccount", `{"username":"newcomer","oneTimePassword":true,"roles":["operator"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
	},
	{
		"cloneAccount", `{"sourceUsername":"NAME","cloneUsername":"newcomer","clonePassword":"${password}"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"alterAccount", `{"username":"NAME","accountDescription":"x"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"alterAccount", `{"username":"NAME","password":"another horse, another staple"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 21006 21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
	},
	{
		"alterAccount", `{"username":"NAME","enabled":false}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 21403 21201",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"dropAccounts", `{"usernames":["NAME"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 21403 21403",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"describeAccounts", `{"usernames":["NAME"]}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 -     -     -     -     0     0     0     0",
	},
	{
		"describeAccounts", `{}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"createRole", `{"roleName":"new","permissions":["orders.read"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"createRole", `{"roleName":"new","permissions":["sessiond.sessions.read"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
	},
	{
		"alterRole", `{"roleName":"clerk","permissions":[]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"dropRoles", `{"roleNames":["clerk"]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"listRoles", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"describeRoles", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"assignRolesToAccounts", `{"add":[{"roleNames":["clerk"],"usernames":["NAME"]}]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"assignRolesToAccounts", `{"add":[{"roleNames":["gateway"],"usernames":["NAME"]}]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     21204",
	},
	{
		"assignRolesToAccounts", `{"remove":[{"roleNames":["auditor"],"usernames":["NAME"]}]}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 -     21204",
		"12031 12031 21201 21201 21201 21201 21201 21201 -     21204",
	},
	{
		"listAccounts", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"changePassword", `{"username":"NAME","currentPassword":"${password}","newPassword":"another horse, another staple"}`,
		"12031 12031 0     21204 0     0     0     0     0     21204",
		"12031 12031 21201 21204 21201 21201 21201 21201 0     21204",
	},
	{
		"listEvents", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"sessionStatistics", `{}`,
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
		"12031 12031 21201 21201 21201 21201 0     0     0     0",
	},
	{
		"watchSessions", `{"waitSeconds":0}`,
		"12031 12031 0     0     0     0     0     0     0     0",
		"12031 12031 0     0     0     0     0     0     0     0",
	},
	{
		"listActions", `{}`,
		"0     12031 0     0     0     0     0     0     0     0",
		"0     12031 0     0     0     0     0     0     0     0",
	},
	{
		"listServices", `{}`,
		"0     12031 0     0     0     0     0     0     0     0",
		"0     12031 0     0     0     0     0     0     0     0",
	},
	{
		"manageService", `{"serviceName":"session","command":"pause"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"manageService", `{"command":"reload"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"replayWebhook", `{"name":"crm"}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"backupStore", `{}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"compactStore", `{}`,
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
		"12031 12031 21201 21201 21201 21201 21201 21201 0     0",
	},
	{
		"listRealms", `{}`,
		"0     12031 0     0     0     0     0     0     0     0",
		"0     12031 0     0     0     0     0     0     0     0",
	},
}
