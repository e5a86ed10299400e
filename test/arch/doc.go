// Package arch holds the tests that keep the tree's shape: who imports whom
// (rules.txt), what berth-runtime links, a comment on each package, and how
// large files, functions, packages, types and interfaces may grow
// (exceptions.txt). It has no code of its own.
package arch
