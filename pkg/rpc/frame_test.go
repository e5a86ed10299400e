package rpc

import (
	"bytes"
	"testing"
)

func FuzzReadFrame(f *testing.F) {
	good, err := encode(kindRequest, "Start\n", map[string]string{"id": "c"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(good.Bytes()))
	f.Add([]byte{'q', 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{'r', 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var b bytes.Buffer
		if _, err := readFrame(bytes.NewReader(data), &b); err != nil {
			return
		}
		if b.Len()+headerSize > len(data) {
			t.Errorf("%d bytes out of %d", b.Len(), len(data))
		}
		verb, body, err := splitRequest(b.Bytes())
		if err == nil && len(verb)+1+len(body) != b.Len() {
			t.Errorf("verb %q and %d bytes out of %d", verb, len(body), b.Len())
		}
	})
}
