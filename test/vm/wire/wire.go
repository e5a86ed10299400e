// Package wire is what package vm and its agent say to each other: one JSON
// object a line, a Command to the machine, its Reply back. The first Reply, with
// ID 0, says that the machine is up.
package wire

// MaxLine bounds a line.
const MaxLine = 16 << 20

// Command is a shell script to run.
type Command struct {
	ID     int    `json:"id"`
	Script string `json:"script"`
}

// Reply is how a command ended.
type Reply struct {
	ID     int    `json:"id"`
	Output []byte `json:"output,omitempty"` // stdout and stderr
	Error  string `json:"error,omitempty"`  // "" where it exited with 0
}
