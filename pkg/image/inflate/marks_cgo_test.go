//go:build cgo

package inflate

const marksInside = true
