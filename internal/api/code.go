package api

// A Code names an outcome. Codes are append-only: one may be added, none may
// change its meaning or disappear.
type Code int

// The codes. What each means stands in the table below.
const (
	OK Code = 0

	InvalidAuthToken Code = 12031

	BadEnvelope        Code = 21001
	UnknownAPI         Code = 21002
	UnknownAction      Code = 21003
	UnknownParam       Code = 21004
	MissingParam       Code = 21005
	BadParam           Code = 21006
	DuplicateMember    Code = 21007
	TooLarge           Code = 21008
	UnsupportedVersion Code = 21009

	LoginFailed      Code = 21101
	LoginThrottled   Code = 21102
	PasswordExpired  Code = 21103
	PasswordPolicy   Code = 21104
	RealmUnavailable Code = 21105

	PermissionDenied         Code = 21201
	AddressNotAllowed        Code = 21202
	ReauthenticationRequired Code = 21203
	KindNotAllowed           Code = 21204

	SessionLimitReached       Code = 21301
	SessionLimitPerIPAddress  Code = 21302
	SessionLimitPerUsername   Code = 21303
	PermanentSessionsDisabled Code = 21304
	SessionLimitPerClient     Code = 21305

	NotFound           Code = 21401
	AlreadyExists      Code = 21402
	Conflict           Code = 21403
	PropertyNotAllowed Code = 21404

	RateLimited   Code = 21501
	UsesExhausted Code = 21502

	Overloaded     Code = 21901
	StorageFull    Code = 21902
	StorageFailed  Code = 21903
	ShuttingDown   Code = 21904
	OutcomeUnknown Code = 21905
	Stale          Code = 21906
	Internal       Code = 21999
)

// CodeInfo is a row of the table of codes.
type CodeInfo struct {
	Code   Code
	Name   string // as in the reference
	Status int    // HTTP status where httpStatusFromErrorCode is on
	Doc    string // what it means and what to do
}

// Codes returns the table of codes, in ascending order. The reference prints it.
func Codes() []CodeInfo {
	return []CodeInfo{
		{OK, "ok", 200, "The request was done."},
		{InvalidAuthToken, "invalidAuthToken", 401, "The caller's authToken belongs to no live session: unknown, ended, expired, malformed and missing look the same. Call createSession."},
		{BadEnvelope, "badEnvelope", 400, "The request is no well-formed JSON envelope, or the transport around it is wrong."},
		{UnknownAPI, "unknownApi", 404, "There is no such api, or it is switched off."},
		{UnknownAction, "unknownAction", 404, "The api has no such action; listActions lists them."},
		{UnknownParam, "unknownParam", 400, "The action takes no such member; errorData.pointer names it."},
		{MissingParam, "missingParam", 400, "A required member is absent; errorData.pointer names it."},
		{BadParam, "badParam", 400, "A member has a wrong type or a value out of range; errorData.pointer names it."},
		{DuplicateMember, "duplicateMember", 400, "An object names a member twice; errorData.pointer names it."},
		{TooLarge, "tooLarge", 413, "The request exceeds a limit on size, depth or count."},
		{UnsupportedVersion, "unsupportedVersion", 400, "apiVersion asks for another major version."},
		{LoginFailed, "loginFailed", 401, "The log-in was refused; unknown user, wrong password and disabled account look the same."},
		{LoginThrottled, "loginThrottled", 429, "Too many failed log-ins; wait errorData.retryAfterSeconds."},
		{PasswordExpired, "passwordExpired", 401, "The password must be changed before it can be used."},
		{PasswordPolicy, "passwordPolicy", 422, "The new password does not meet the policy that errorMessage states."},
		{RealmUnavailable, "realmUnavailable", 422, "The realm does not exist or cannot be asked now."},
		{PermissionDenied, "permissionDenied", 403, "The caller lacks the permission that the action needs."},
		{AddressNotAllowed, "addressNotAllowed", 403, "The caller's address may not do this."},
		{ReauthenticationRequired, "reauthenticationRequired", 401, "The action wants a recent log-in."},
		{KindNotAllowed, "kindNotAllowed", 403, "An API key was shown where a log-in session is needed."},
		{SessionLimitReached, "sessionLimitReached", 429, "The server has as many sessions as maxJsonApiSessions allows."},
		{SessionLimitPerIPAddress, "sessionLimitPerIpAddress", 429, "The address has as many sessions as maxJsonApiSessionsPerIpAddress allows."},
		{SessionLimitPerUsername, "sessionLimitPerUsername", 429, "The account has as many sessions as maxJsonApiSessionsPerUsername allows."},
		{PermanentSessionsDisabled, "permanentSessionsDisabled", 422, "services.json does not allow permanent sessions: set enablePermanentJsonApiSessions."},
		{SessionLimitPerClient, "sessionLimitPerClient", 429, "The client has as many sessions as maxJsonApiSessionsPerClient allows."},
		{NotFound, "notFound", 404, "There is no such object within the caller's reach."},
		{AlreadyExists, "alreadyExists", 409, "An object of that name exists."},
		{Conflict, "conflict", 409, "The object changed meanwhile; read it again and repeat."},
		{PropertyNotAllowed, "propertyNotAllowed", 403, "The property may not be read or written."},
		{RateLimited, "rateLimited", 429, "Too many requests; wait errorData.retryAfterSeconds."},
		{UsesExhausted, "usesExhausted", 429, "The key has no uses left."},
		{Overloaded, "overloaded", 503, "The server has too much work of this kind; nothing was done. Repeat after Retry-After."},
		{StorageFull, "storageFull", 503, "The storage is full; nothing was written. A refused end holds until a restart: repeat it."},
		{StorageFailed, "storageFailed", 503, "The storage has failed and writing has stopped; nothing was written. The operator must act."},
		{ShuttingDown, "shuttingDown", 503, "The server is stopping, or an operator has paused the api or the listener; nothing was done. Repeat elsewhere or later."},
		{OutcomeUnknown, "outcomeUnknown", 503, "The change may or may not have been made; read before repeating."},
		{Stale, "stale", 503, "This node cannot know the present state."},
		{Internal, "internal", 500, "The server failed; the change may or may not have been made. Its log says why."},
	}
}

// Info returns the row of c, or that of Internal for a number that is no code.
func (c Code) Info() CodeInfo {
	table := Codes()
	for _, row := range table {
		if row.Code == c {
			return row
		}
	}
	return table[len(table)-1]
}

// Retryable reports whether an envelope of this outcome is answered with HTTP
// status 503, by itself: 21901 to 21906.
func (c Code) Retryable() bool { return c >= Overloaded && c <= Stale }
