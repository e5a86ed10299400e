// Package crilog reads and writes the log files that kubelet expects from a
// container runtime:
//
//	2026-01-02T15:04:05.000000000Z stdout F a whole line
//	2026-01-02T15:04:05.000000000Z stderr P the beginning of a line
//
// A line longer than MaxLine is written in parts tagged P, its end tagged F.
// Append formats without allocating; Parse takes one record apart; Follow
// reads a file as it grows and is rotated.
//
// The package has no goroutines and keeps nothing on disk.
package crilog
