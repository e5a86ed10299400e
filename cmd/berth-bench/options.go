package main

import "time"

// The values of --network.
const (
	networkHost = "host"
	networkPod  = "pod"
)

// options are the flags of all suites; each suite uses those that it has.
type options struct {
	Endpoint, Image, Network, Handler string
	CgroupParent, LogDir              string
	Labels                            map[string]string
	N, Warmup                         int
	JSON                              bool

	// At is how many calls run at once (parallel, exec).
	At int
	// Pods is how many pods are up while the suite measures (lists).
	Pods int
	// Bytes is how much a container logs (logs).
	Bytes int64
	// Processes are the names or pids that make the runtime (density).
	Processes []string
	// Poll is for how long lists and stats are polled (density).
	Poll time.Duration
	// Ref is the image to pull (pull).
	Ref string
	// Auth is user:password for Ref (pull).
	Auth string
}
