// Package filter is the language in which sessions are looked for: the query
// filter of ForgeRock's and Ping's REST interfaces (CREST), whose operators are
// those of SCIM (RFC 7644, section 3.4.2.2).
//
//	filter     = and { "or" and } .
//	and        = not { "and" not } .
//	not        = { "!" | "not" } primary .
//	primary    = "(" filter ")" | comparison | "true" | "false" .
//	comparison = field operator value
//	           | field "in" "[" value { "," value } "]"
//	           | field "pr" .
//	operator   = "eq" | "co" | "sw" | "lt" | "le" | "gt" | "ge" .
//	field      = [ "/" ] name { "/" name } .
//	value      = text | whole number | "true" | "false" .
//	text       = a JSON string, or the same between single quotes .
//
// Operators and keywords are compared without case, fields with it. In a field
// "~1" is a slash and "~0" a tilde, as in a JSON Pointer (RFC 6901).
//
// A comparison with what a session does not have is false, and its negation is
// therefore true: there are two truth values, not the three of SQL. So
// !properties/plan eq "free" also finds the sessions that have no plan.
//
// The package knows no session: its user names the fields, and answers for
// their values. Whatever the text, Parse ends soon: it has bounds.
package filter
