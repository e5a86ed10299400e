// Package arch holds the tests that keep the tree's shape: who imports whom
// (rules.txt), what berth-runtime links, a comment on each package, how large
// files, functions, packages, types and interfaces may grow (exceptions.txt), and
// that the tests exist that SECURITY.md names. It has no code of its own.
package arch
