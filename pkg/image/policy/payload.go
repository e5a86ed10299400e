package policy

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/blob"
)

// The types of payloads that simple signing and cosign sign.
const (
	simpleType = "atomic container signature"
	cosignType = "cosign container image signature"
)

// maxPayload bounds what is parsed: a payload is a few hundred bytes.
const maxPayload = 64 << 10

// payload is what a signature says once it has been verified.
type payload struct {
	digest digest.Digest
	name   string
}

// parsePayload reads the JSON that both kinds of signatures sign:
//
//	{"critical": {"type": …, "image": {"docker-manifest-digest": …},
//	  "identity": {"docker-reference": …}}, "optional": {…}}
//
// Under "critical" each key must be understood.
func parsePayload(data []byte, want string) (payload, error) {
	var p payload
	if len(data) > maxPayload {
		return p, fmt.Errorf("its payload has %d bytes, more than %d", len(data), maxPayload)
	}
	n, err := parseTree(data)
	if err != nil {
		return p, fmt.Errorf("its payload: %w", err)
	}
	top := of(n)
	critical, optional := of(top.must("critical")), top.must("optional")
	if top.err == nil && optional.value != nil {
		checkOptional(top, optional)
	}
	if err := top.end(); err != nil {
		return p, fmt.Errorf("its payload: %w", err)
	}
	kind := critical.string(critical.must("type"))
	image, id := of(critical.must("image")), of(critical.must("identity"))
	if err := critical.end(); err != nil {
		return p, fmt.Errorf("its payload: %w", err)
	}
	if kind != want {
		return p, fmt.Errorf("its payload has type %.100q, not %q", kind, want)
	}
	p.digest, p.name = digest.Digest(image.string(image.must("docker-manifest-digest"))), id.string(id.must("docker-reference"))
	for _, f := range []*fields{image, id} {
		if err := f.end(); err != nil {
			return p, fmt.Errorf("its payload: %w", err)
		}
	}
	return p, blob.Validate(p.digest)
}

// checkOptional looks at the types of what is known among the optional fields;
// others may be anything.
func checkOptional(top *fields, n *node) {
	f := of(n)
	if f.err != nil {
		top.fail(f.err)
		return
	}
	if c := f.get("creator"); c != nil {
		if _, ok := c.value.(string); !ok {
			top.fail(c.fault("it is %s, a string is wanted", c.kind()))
		}
	}
	if t := f.get("timestamp"); t != nil {
		number, ok := t.value.(json.Number)
		if _, err := number.Int64(); !ok || err != nil {
			top.fail(t.fault("a whole number is wanted"))
		}
	}
}

// checkPayload compares what was signed with the image.
func checkPayload(data []byte, want string, id identity, s Subject) error {
	p, err := parsePayload(data, want)
	if err != nil {
		return err
	}
	if !slices.Contains(s.Digests, p.digest) {
		return fmt.Errorf("it is for the manifest %s", p.digest)
	}
	return checkIdentity(id, s, p.name)
}
