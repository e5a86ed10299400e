package native

import (
	"bytes"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

func decodeResult(version string, data []byte) (*current.Result, error) {
	res, err := create.Create(version, data)
	if err != nil {
		return nil, err
	}
	return current.NewResultFromResult(res)
}

// encodeResult writes a result in the configuration's version.
func encodeResult(res types.Result, version string) ([]byte, error) {
	out, err := res.GetAsVersion(version)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := out.PrintTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
