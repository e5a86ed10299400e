// Package stream serves CRI's streaming sessions (exec, attach, port-forward)
// over HTTP: a call of CRI leaves its request here and is answered with a URL,
// and whoever opens that URL, kubelet as a rule, has the session.
//
//	Exec RPC ──▶ URL ──▶ token ──▶ request           once, within half a minute
//	client ──SPDY/3.1, WebSocket v1 to v5, SPDY in WebSocket──▶ session ──▶ Runtime
//
// SPDY and the older WebSockets are k8s.io/cri-streaming's. What it lacks is
// added: v5, whose clients end their input; port-forward through WebSockets as
// kubectl does it; tokens that cannot be guessed; a session's context, which ends
// when its client has gone, even one that sends more than is read (conn.go);
// connections that are closed only after the client has had all (conn.go).
//
// Goroutines: one that accepts, those of net/http, one that watches each
// session's connection, and one for each connection that is being closed. Close
// ends all.
package stream
