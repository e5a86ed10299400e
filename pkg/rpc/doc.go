// Package rpc carries calls over a unix socket: one call is one connection.
//
// The client connects, sends one request frame and reads reply frames until
// the last one. Closing the connection cancels the call: the server ends the
// context of the handler. File descriptors travel beside the request.
//
//	client                                server
//	  ── request: verb '\n' JSON (+fds) ──▶
//	  ◀── item: JSON | tag and bytes  ──     any number, from Call.Send and SendBytes
//	  ◀── stages: JSON                ──     before the last, if the client asks: see package stage
//	  ◀── result: JSON | failure: JSON ──     exactly one
//
// A frame is one byte of kind, four bytes of length (big endian) and the
// payload. Lengths are bounded, and memory is taken as data arrives, not as a
// header claims. Only path sockets are used, mode 0600, and a peer must have
// the server's user id or be root. Errors keep their errs.Kind.
//
// Goroutines: Server has one per connection, and one that waits for the peer
// to close; Serve returns after all of them have ended.
package rpc
