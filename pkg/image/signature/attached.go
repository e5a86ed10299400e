package signature

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
)

// cosignPayload is the media type of what cosign signs.
const cosignPayload = "application/vnd.dev.cosign.simplesigning.v1+json"

// attached fetches the signatures that cosign has put beside a manifest, as an
// image under a tag that is made from the manifest's digest: each layer is a
// payload, with its signature in the annotations.
func attached(ctx context.Context, d digest.Digest, r Repository) ([]Signature, error) {
	tag := strings.Replace(d.String(), ":", "-", 1) + ".sig"
	_, data, err := r.Manifest(ctx, tag, maxManifest)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m ispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("manifest %s: %w: %w", tag, err, errs.Invalid)
	}
	var out []Signature
	for _, l := range m.Layers {
		if l.MediaType != cosignPayload {
			continue // attestations and others
		}
		if len(out) == maxSignatures {
			return nil, tooMany()
		}
		payload, err := payloadOf(ctx, l, r)
		if err != nil {
			return nil, err
		}
		out = append(out, Signature{Payload: payload, Notes: l.Annotations})
	}
	return out, nil
}

func payloadOf(ctx context.Context, l ispec.Descriptor, r Repository) ([]byte, error) {
	size := l.Size
	for key, value := range l.Annotations {
		size += int64(len(key) + len(value))
	}
	if l.Size < 0 || size > maxSize {
		return nil, fmt.Errorf("payload %.200q: a signature of %d bytes, more than %d: %w", string(l.Digest), size, maxSize, errs.Invalid)
	}
	if err := blob.Validate(l.Digest); err != nil {
		return nil, err
	}
	body, err := r.Blob(ctx, l, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := readBounded(body)
	if err != nil {
		return nil, err
	}
	if l.Digest.Algorithm().FromBytes(data) != l.Digest || int64(len(data)) != l.Size {
		return nil, fmt.Errorf("payload %s: its bytes are others than promised: %w", l.Digest, errs.Invalid)
	}
	return data, nil
}
