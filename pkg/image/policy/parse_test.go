package policy

import (
	"crypto/ecdsa"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

// noKeys says of every key file that it is not there.
func noKeys(path string) ([]byte, error) {
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

func TestWhatIsWrongInAPolicyIsNamedWithItsPlace(t *testing.T) {
	const ok = `"default": [{"type": "reject"}]`
	in := func(requirement string) string {
		return "{" + ok + ",\n\"transports\": {\"docker\": {\"quay.io/a\": [\n" + requirement + "]}}}"
	}
	const place = `line 3: transports.docker["quay.io/a"][0]`
	for name, c := range map[string]struct{ text, want string }{
		"empty":                {"", "line 1: it ends too early"},
		"cut":                  {"{" + ok, "line 1: it ends too early"},
		"no object":            {"[]", "line 1: it is a list, an object is wanted"},
		"more after it":        {"{" + ok + "}{}", "more after the end"},
		"no default":           {`{"transports": {}}`, `the key "default" is missing`},
		"no requirement":       {`{"default": []}`, "line 1: default: it is a list, a list with at least one requirement is wanted"},
		"default is an object": {`{"default": {}}`, "default: it is an object, a list"},
		"unknown key":          {"{\n\"defaults\": [],\n" + ok + "}", "line 2: defaults: the key is not known here"},
		"another case":         {"{" + ok + ", \"Default\": []}", "Default: the key is not known"},
		"twice":                {"{" + ok + ",\n" + ok + "}", "line 2: default: the key is there twice"},
		"twice, escaped":       {"{" + ok + `, "def\u0061ult": []}`, "default: the key is there twice"},
		"scope twice":          {"{" + ok + `, "transports": {"docker": {"a": [{"type": "reject"}], "a": [{"type": "insecureAcceptAnything"}]}}}`, "transports.docker.a: the key is there twice"},
		"other transports too": {"{" + ok + `, "transports": {"oci": {"": [{"type": "x"}]}}}`, "transports.oci[0]: requirement of type \"x\""},
		"transports is a list": {"{" + ok + `, "transports": []}`, "transports: it is a list"},
		"docker is a list":     {"{" + ok + `, "transports": {"docker": []}}`, "transports.docker: it is a list"},
		"type":                 {in(`{"type": "accept"}`), place + `: requirement of type "accept" is not known`},
		"no type":              {in(`{}`), place + `: the key "type" is missing`},
		"type is a number":     {in(`{"type": 1}`), place + ".type: it is a number, a string is wanted"},
		"reject with a key":    {in(`{"type": "reject", "keyPath": "/k"}`), place + ".keyPath: the key is not known here"},
		"no key type":          {in(`{"type": "signedBy", "keyPath": "/k"}`), `the key "keyType" is missing`},
		"key type":             {in(`{"type": "signedBy", "keyType": "gpg", "keyPath": "/k"}`), `keyType "gpg" is not known`},
		"no key":               {in(`{"type": "signedBy", "keyType": "GPGKeys"}`), place + ": one of"},
		"two keys":             {in(`{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "keyData": "YWE="}`), "only one of"},
		"key not absolute":     {in(`{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "k"}`), `"k" is not an absolute path`},
		"key empty":            {in(`{"type": "signedBy", "keyType": "GPGKeys", "keyPath": ""}`), place + ".keyPath: it is empty"},
		"keys empty":           {in(`{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []}`), place + ".keyPaths: it is a list"},
		"keys of numbers":      {in(`{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": [1]}`), place + ".keyPaths[0]: it is a number"},
		"key not base64":       {in(`{"type": "signedBy", "keyType": "GPGKeys", "keyData": "%"}`), place + ".keyData: it is not base64"},
		"datas of signedBy":    {in(`{"type": "signedBy", "keyType": "GPGKeys", "keyDatas": ["aa"]}`), "one of"},
		"sigstore: nothing":    {in(`{"type": "sigstoreSigned"}`), "exactly one of keyPath"},
		"sigstore: two":        {in(`{"type": "sigstoreSigned", "keyPath": "/k", "fulcio": {}}`), "exactly one of keyPath"},
		"sigstore: no log":     {in(`{"type": "sigstoreSigned", "fulcio": {"caPath": "/k", "oidcIssuer": "i", "subjectEmail": "e"}}`), "fulcio needs a rekorPublicKey"},
		"fulcio: no issuer":    {in(`{"type": "sigstoreSigned", "rekorPublicKeyPath": "/r", "fulcio": {"caPath": "/k", "subjectEmail": "e"}}`), place + `.fulcio: the key "oidcIssuer" is missing`},
		"fulcio: unknown key":  {in(`{"type": "sigstoreSigned", "rekorPublicKeyPath": "/r", "fulcio": {"caPath": "/k", "oidcIssuer": "i", "subjectEmail": "e", "uri": "u"}}`), place + ".fulcio.uri: the key is not known"},
		"pki with a log":       {in(`{"type": "sigstoreSigned", "rekorPublicKeyPath": "/r", "pki": {"caRootsPath": "/k", "subjectEmail": "e"}}`), "do not go together"},
		"pki: nobody":          {in(`{"type": "sigstoreSigned", "pki": {"caRootsPath": "/k"}}`), "subjectEmail or subjectHostname"},
		"identity":             {in(`{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "any"}}`), place + `.signedIdentity: signedIdentity of type "any"`},
		"identity: bare":       {in(`{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "exactReference", "dockerReference": "quay.io/a"}}`), "needs a tag or a digest"},
		"identity: not a name": {in(`{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "exactRepository", "dockerRepository": "UP"}}`), "must be lower case"},
		"identity: prefix":     {in(`{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "remapIdentity", "prefix": "quay.io/", "signedPrefix": "a.b"}}`), ".prefix: "},
		"base layer":           {in(`{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "x"}}`), `signedIdentity of type "x"`},
		"deep":                 {strings.Repeat(`{"a":`, 100) + strings.Repeat("}", 100), "nested deeper than"},
	} {
		_, err := Parse("policy.json", []byte(c.text), noKeys)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "signature policy policy.json: ") || errs.Of(err) != errs.Invalid {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestTheNarrowestScopeCounts(t *testing.T) {
	p, err := Parse("policy.json", []byte(`{"default": [{"type": "reject"}], "transports": {
		"docker": {
			"docker.io/library/busybox:1": [{"type": "insecureAcceptAnything"}],
			"docker.io/library": [{"type": "reject"}],
			"docker.io": [{"type": "insecureAcceptAnything"}],
			"quay.io/a/b": [{"type": "insecureAcceptAnything"}],
			"quay.io/a": [{"type": "reject"}],
			"*.example.com": [{"type": "insecureAcceptAnything"}],
			"bad.example.com": [{"type": "reject"}],
			"port.test:5000": [{"type": "insecureAcceptAnything"}],
			"quay.io/d@sha256:`+gpgDigest+`": [{"type": "insecureAcceptAnything"}]
		},
		"atomic": {"": [{"type": "insecureAcceptAnything"}]}
	}}`), noKeys)
	if err != nil {
		t.Fatal(err)
	}
	for ref, accepted := range map[string]bool{
		"busybox:1": true, "busybox:2": false, "docker.io/library/other:1": false, "docker.io/team/app:1": true,
		"quay.io/a/b:1": true, "quay.io/a/b/c:1": true, "quay.io/a/bc:1": false, "quay.io/b:1": false, "quay.io/d:1": false,
		"quay.io/d@sha256:" + gpgDigest: true, "quay.io/d:1@sha256:" + gpgDigest: true, "quay.io/d@sha256:" + rekorDigest: false,
		"a.example.com/x:1": true, "a.b.example.com:5000/x:1": true, "bad.example.com/x:1": false, "example.com/x:1": false,
		"port.test:5000/x:1": true, "port.test/x:1": false, "[::1]:5000/x:1": false,
	} {
		if err := p.Check(subject(t, ref), nil); (err == nil) != accepted {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := p.Check(Subject{}, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("an image without a name: %v", err)
	}
	if p.docker[""] = []requirement{acceptAnything{}}; p.Check(subject(t, "quay.io/b:1"), nil) != nil {
		t.Error("the transport's own default does not count")
	}
	if err := (*Policy)(nil).Check(subject(t, "x"), nil); err != nil {
		t.Errorf("no policy: %v", err)
	}
}

func TestEachRequirementMustBeMet(t *testing.T) {
	for text, accepted := range map[string]bool{
		`{"type": "insecureAcceptAnything"}, {"type": "insecureAcceptAnything"}`:        true,
		`{"type": "insecureAcceptAnything"}, {"type": "reject"}`:                        false,
		`{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchRepository"}}`: false,
	} {
		if err := requiring(t, text).Check(subject(t, "x"), nil); (err == nil) != accepted {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAKeyThatIsMissingRefusesOnlyWhatItIsFor(t *testing.T) {
	p, err := Parse("policy.json", []byte(`{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {
		"registry.redhat.io": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"}]}}}`), noKeys)
	if err != nil {
		t.Fatal(err)
	}
	judged(t, "other", p.Check(subject(t, "quay.io/x:1"), nil), "")
	judged(t, "own", p.Check(subject(t, "registry.redhat.io/x:1"), nil), "RPM-GPG-KEY-redhat-release")
}

func TestIdentities(t *testing.T) {
	const d1, d2 = "@sha256:" + gpgDigest, "@sha256:" + rekorDigest
	for _, c := range []struct {
		identity, image, signed string
		want                    bool
	}{
		{`{"type": "matchExact"}`, "quay.io/a:1", "quay.io/a:1", true},
		{`{"type": "matchExact"}`, "quay.io/a:1", "quay.io/a:2", false},
		{`{"type": "matchExact"}`, "quay.io/a:latest", "quay.io/a", false},
		{`{"type": "matchExact"}`, "busybox:1", "docker.io/library/busybox:1", true},
		{`{"type": "matchExact"}`, "quay.io/a" + d1, "quay.io/a" + d1, true},
		{`{"type": "matchExact"}`, "quay.io/a" + d1, "quay.io/a:1", false},
		{`{"type": "matchExact"}`, "quay.io/a:1" + d1, "quay.io/a:1", false},
		{`{"type": "matchExact"}`, "quay.io/a:1", "quay.io/a:1" + d1, false},
		{`{"type": "matchRepoDigestOrExact"}`, "quay.io/a:1", "quay.io/a:1", true},
		{`{"type": "matchRepoDigestOrExact"}`, "quay.io/a:1", "quay.io/a:2", false},
		{`{"type": "matchRepoDigestOrExact"}`, "quay.io/a" + d1, "quay.io/a:2", true},
		{`{"type": "matchRepoDigestOrExact"}`, "quay.io/a:1" + d1, "quay.io/a:2", true},
		{`{"type": "matchRepoDigestOrExact"}`, "quay.io/a" + d1, "quay.io/a" + d2, true},
		{`{"type": "matchRepoDigestOrExact"}`, "quay.io/a" + d1, "quay.io/a", false},
		{`{"type": "matchRepoDigestOrExact"}`, "quay.io/a" + d1, "quay.io/b:1", false},
		{`{"type": "matchRepository"}`, "quay.io/a:1", "quay.io/a", true},
		{`{"type": "matchRepository"}`, "quay.io/a:1", "quay.io/a:2", true},
		{`{"type": "matchRepository"}`, "quay.io/a:1", "quay.io/a/b:1", false},
		{`{"type": "matchRepository"}`, "quay.io/a:1", "not a name", false},
		{`{"type": "exactReference", "dockerReference": "quay.io/x:1"}`, "quay.io/a:1", "quay.io/x:1", true},
		{`{"type": "exactReference", "dockerReference": "quay.io/x:1"}`, "quay.io/x:1", "quay.io/x:2", false},
		{`{"type": "exactRepository", "dockerRepository": "quay.io/x"}`, "quay.io/a:1", "quay.io/x:7", true},
		{`{"type": "exactRepository", "dockerRepository": "quay.io/x"}`, "quay.io/x:1", "quay.io/xy:1", false},
		{`{"type": "remapIdentity", "prefix": "mirror.local:5000", "signedPrefix": "quay.io"}`, "mirror.local:5000/a:1", "quay.io/a:1", true},
		{`{"type": "remapIdentity", "prefix": "mirror.local/m", "signedPrefix": "quay.io/n"}`, "mirror.local/m:1", "quay.io/n:1", true},
		{`{"type": "remapIdentity", "prefix": "mirror.local/m", "signedPrefix": "quay.io/n"}`, "mirror.local/mx:1", "quay.io/nx:1", false},
		{`{"type": "remapIdentity", "prefix": "mirror.local/m", "signedPrefix": "quay.io/n"}`, "mirror.local/m/a" + d1, "quay.io/n/a:3", true},
		{`{"type": "remapIdentity", "prefix": "mirror.local/m", "signedPrefix": "quay.io/n"}`, "other.local/a:1", "other.local/a:1", true},
		{`{"type": "remapIdentity", "prefix": "mirror.local", "signedPrefix": "quay.io"}`, "mirror.local/a:1", "mirror.local/a:1", false},
	} {
		n, err := parseTree([]byte(c.identity))
		if err != nil {
			t.Fatal(err)
		}
		id, err := parseIdentity(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkIdentity(id, subject(t, c.image), c.signed); (err == nil) != c.want {
			t.Errorf("%s: %s signed as %s: %v", c.identity, c.image, c.signed, err)
		}
	}
	if checkIdentity(matchRepository{}, Subject{Name: reference.Name{}}, "x") == nil {
		t.Error("an image without a name matches")
	}
}

func TestTheDigestOfAPolicyCoversItsKeys(t *testing.T) {
	const text = `{"default": [{"type": "sigstoreSigned", "keyPaths": ["/a", "/b"]}]}`
	seen := map[string]string{}
	for name, read := range map[string]func(string) ([]byte, error){
		"none": noKeys,
		"one":  func(string) ([]byte, error) { return []byte("1"), nil },
		"two":  func(string) ([]byte, error) { return []byte("2"), nil },
	} {
		p, err := Parse("p", []byte(text), read)
		if err != nil {
			t.Fatal(err)
		}
		if other := seen[string(p.Digest())]; other != "" {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[string(p.Digest())] = name
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"default": [{"type": "reject"}], "transports": {"docker": {"quay.io": [{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/k"], "signedIdentity": {"type": "remapIdentity", "prefix": "a.b", "signedPrefix": "c.d"}}]}}}`))
	f.Add([]byte(`{"default": [{"type": "sigstoreSigned", "rekorPublicKeyData": "YQ==", "fulcio": {"caData": "YQ==", "oidcIssuer": "i", "subjectEmail": "e"}}]}`))
	f.Add([]byte(`{"default": [{"type": "sigstoreSigned", "pki": {"caRootsData": "YQ==", "caIntermediatesData": "YQ==", "subjectHostname": "e"}}, {"type": "insecureAcceptAnything"}]}`))
	f.Add([]byte(`{"default": [{"type": "sigstoreSigned", "keyDatas": ["YQ=="]}, {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("p", data, noKeys)
		if (p == nil) != (err != nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if err != nil {
			return
		}
		// What asks for signatures is never content without one.
		s := subject(t, "quay.io/a:1", gpgDigest)
		if p.Wants(s.Name).Any() && p.Check(s, nil) == nil {
			t.Fatalf("accepted without a signature: %s", data)
		}
	})
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte(`{"critical":{"identity":{"docker-reference":"quay.io/a"},"image":{"docker-manifest-digest":"sha256:` + gpgDigest + `"},"type":"cosign container image signature"},"optional":null}`))
	f.Add([]byte(`{"critical":{"identity":{"docker-reference":"quay.io/a:1"},"image":{"docker-manifest-digest":"sha256:` + gpgDigest + `"},"type":"atomic container signature"},"optional":{"creator":"x","timestamp":1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePayload(data, cosignType)
		if err == nil && (p.digest.Validate() != nil || p.name == "") {
			t.Fatalf("%+v", p)
		}
	})
}

func FuzzSimple(f *testing.F) {
	for _, name := range []string{"image.signature", "expired.signature", "unsigned-literal.signature", "unsigned-encrypted.signature", "corrupt.signature"} {
		f.Add(fixture(f, name))
	}
	keys, err := parseKeyring(fixture(f, "public-key.gpg"))
	if err != nil {
		f.Fatal(err)
	}
	good, err := (signedBy{keys: keys}).open(fixture(f, "image.signature"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := (signedBy{keys: keys}).open(data); err == nil && string(got) != string(good) {
			t.Fatalf("signed: %q", got)
		}
	})
}

func FuzzBundle(f *testing.F) {
	f.Add(cosigned(f, "cosign-key-rekor-valid.json").Notes[cosignBundle])
	key, err := parsePublicKey(fixture(f, "rekor.pub"))
	if err != nil {
		f.Fatal(err)
	}
	rekor := []*ecdsa.PublicKey{key.(*ecdsa.PublicKey)}
	f.Fuzz(func(t *testing.T, bundle string) {
		if e, err := openBundle(rekor, bundle); err == nil && e.IntegratedTime != 1674251859 {
			t.Fatalf("the log has signed %+v", e)
		}
	})
}
