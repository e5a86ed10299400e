//go:build !cgo

package inflate

func newGzip(in *input, from *State) (decoder, error) { return newGoGzip(in, from) }
