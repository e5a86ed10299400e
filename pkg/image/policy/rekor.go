package policy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/berth-run/berth/pkg/image/signature"
)

// maxEntry bounds the bundle of a signature, which holds certificates.
const maxEntry = 256 << 10

// entry is the promise of a Rekor log to hold a record. What the log signs is
// this in canonical JSON: keys in order, no spaces, which json.Marshal makes of
// it, since none of its strings needs escapes.
type entry struct {
	Body           string `json:"body"` // a record, in base64
	IntegratedTime int64  `json:"integratedTime"`
	LogID          string `json:"logID"`
	LogIndex       int64  `json:"logIndex"`
}

// record is what of a hashedrekord says who signed what.
type record struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Data struct {
			Hash struct {
				Algorithm string `json:"algorithm"`
				Value     string `json:"value"`
			} `json:"hash"`
		} `json:"data"`
		Signature struct {
			Content   []byte `json:"content"`
			PublicKey struct {
				Content []byte `json:"content"`
			} `json:"publicKey"`
		} `json:"signature"`
	} `json:"spec"`
}

// verifyEntry checks that a log of one of the keys holds this signature of this
// payload by the key or certificate der, and returns since when.
func verifyEntry(keys []*ecdsa.PublicKey, sig signature.Signature, raw, der []byte) (time.Time, error) {
	e, err := openBundle(keys, sig.Notes[cosignBundle])
	if err != nil {
		return time.Time{}, err
	}
	body, err := base64.StdEncoding.DecodeString(e.Body)
	if err != nil {
		return time.Time{}, errors.New("its log entry is not base64")
	}
	var r record
	if err := json.Unmarshal(body, &r); err != nil {
		return time.Time{}, fmt.Errorf("its log entry: %w", err)
	}
	hash := r.Spec.Data.Hash
	if r.Kind != "hashedrekord" || r.APIVersion != "0.0.1" || hash.Algorithm != "sha256" {
		return time.Time{}, fmt.Errorf("its log entry is a %.50q %.50q with %.50q, not a hashedrekord 0.0.1 with sha256", r.Kind, r.APIVersion, hash.Algorithm)
	}
	block, rest := pem.Decode(r.Spec.Signature.PublicKey.Content)
	sum := sha256.Sum256(sig.Payload)
	switch {
	case hash.Value != hex.EncodeToString(sum[:]):
		return time.Time{}, errors.New("its log entry is for another payload")
	case !bytes.Equal(r.Spec.Signature.Content, raw):
		return time.Time{}, errors.New("its log entry is for another signature")
	case block == nil || len(rest) > 0 || !bytes.Equal(block.Bytes, der):
		return time.Time{}, errors.New("its log entry is for another key")
	}
	return time.Unix(e.IntegratedTime, 0), nil
}

// openBundle verifies the log's promise.
func openBundle(keys []*ecdsa.PublicKey, bundle string) (entry, error) {
	var e entry
	if bundle == "" {
		return e, fmt.Errorf("it has no annotation %s: it is not known to be in the transparency log", cosignBundle)
	}
	if len(bundle) > maxEntry {
		return e, fmt.Errorf("its log entry has more than %d bytes", maxEntry)
	}
	n, err := parseTree([]byte(bundle))
	if err != nil {
		return e, fmt.Errorf("its log entry: %w", err)
	}
	top := of(n)
	promise := top.decoded("SignedEntryTimestamp", top.texts1("SignedEntryTimestamp"))
	inner := of(top.must("Payload"))
	if err := top.end(); err != nil {
		return e, fmt.Errorf("its log entry: %w", err)
	}
	e.Body, e.LogID = inner.string(inner.must("body")), inner.string(inner.must("logID"))
	e.IntegratedTime, e.LogIndex = inner.number("integratedTime"), inner.number("logIndex")
	if err := inner.end(); err != nil {
		return e, fmt.Errorf("its log entry: %w", err)
	}
	signed, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	sum := sha256.Sum256(signed)
	for _, key := range keys {
		if ecdsa.VerifyASN1(key, sum[:], promise[0]) {
			return e, nil
		}
	}
	return e, errors.New("its log entry is not signed by a Rekor key of the policy")
}

// texts1 is a required string, as a list.
func (f *fields) texts1(key string) []string { return []string{f.string(f.must(key))} }

func (f *fields) number(key string) int64 {
	n := f.must(key)
	number, ok := n.value.(json.Number)
	v, err := number.Int64()
	if !ok || err != nil {
		f.fail(n.fault("a whole number is wanted"))
	}
	return v
}
