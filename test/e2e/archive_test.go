package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
)

// marked is busybox with a file that no other image has, to be written as an
// archive.
func marked(t *testing.T, mark string) images.Image {
	t.Helper()
	i, err := images.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "mark", Data: []byte(mark)}}})
	return i
}

// archive writes a file by f and returns its path.
func archive(t *testing.T, f func(io.Writer) error) string {
	t.Helper()
	var buf bytes.Buffer
	if err := f(&buf); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func gzipped(f func(io.Writer) error) func(io.Writer) error {
	return func(w io.Writer) error {
		z := gzip.NewWriter(w)
		if err := f(z); err != nil {
			return err
		}
		return z.Close()
	}
}

// says is what the mark of an image says, in a container of it.
func says(t *testing.T, ref string) string {
	t.Helper()
	config := sh("cat /mark")
	config.Image.Image = ref
	return runPod(t).start(config).output()
}

func TestArchivesOfEveryKindAreLoaded(t *testing.T) {
	const name = "e2e.local/archive:1"
	other := marked(t, "other")
	other.Platform.OS, other.Platform.Architecture = "linux", "s390x"
	index, err := images.BuildIndex(other, marked(t, "of the index"))
	if err != nil {
		t.Fatal(err)
	}
	oci := func(w io.Writer) error { return images.Archive(w, name, marked(t, "oci")) }
	docker := func(w io.Writer) error {
		return images.DockerArchive(w, marked(t, "docker"), name, "e2e.local/second:1")
	}
	for kind, c := range map[string]struct {
		write func(io.Writer) error
		want  string
		names []string
	}{
		"OCI":            {oci, "oci", []string{name}},
		"OCI, gzip":      {gzipped(oci), "oci", []string{name}},
		"docker":         {docker, "docker", []string{name, "e2e.local/second:1"}},
		"docker, gzip":   {gzipped(docker), "docker", []string{name, "e2e.local/second:1"}},
		"OCI, an index":  {func(w io.Writer) error { return index.OCIArchive(w, name) }, "of the index", []string{name}},
		"docker's types": {func(w io.Writer) error { i := marked(t, "types"); i.Docker = true; return images.Archive(w, name, i) }, "types", []string{name}},
	} {
		out := command(t, "load", "-i", archive(t, c.write))
		for _, n := range c.names {
			if !strings.Contains(out, "Loaded "+n+"\n") {
				t.Errorf("%s: %q does not tell of %s", kind, out, n)
			}
		}
		i := imageStatus(t, name)
		if !slices.Equal(i.GetRepoTags(), c.names) {
			t.Errorf("%s: names %v", kind, i.GetRepoTags())
		}
		if got := says(t, i.GetId()); got != c.want {
			t.Errorf("%s: got %q, want %q", kind, got, c.want)
		}
		removeImage(t, i.GetId())
	}
}

func TestAnArchiveWithoutAProperNameIsKnownByItsID(t *testing.T) {
	i := marked(t, "nameless")
	b, err := i.Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "e2e.local/../../x:1", "E2E.local/UPPER:1"} {
		out := command(t, "load", "-i", archive(t, func(w io.Writer) error { return b.OCIArchive(w, name) }))
		if out != "Loaded "+b.Config.String()+"\n" {
			t.Errorf("name %q: got %q", name, out)
		}
		if got := says(t, b.Config.String()); got != "nameless" {
			t.Errorf("name %q: got %q", name, got)
		}
		if s := imageStatus(t, b.Config.String()); len(s.RepoTags) != 0 {
			t.Errorf("name %q: status %v", name, s)
		}
		removeImage(t, b.Config.String())
	}
}

func TestWhatIsSavedIsLoadedAsTheSame(t *testing.T) {
	const one, two = "e2e.local/save:one", "e2e.local/save:two"
	for _, name := range []string{one, two} {
		if err := load(name, marked(t, name)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeImage(t, name) })
	}
	ids := map[string]string{one: imageStatus(t, one).Id, two: imageStatus(t, two).Id}
	for _, format := range []string{"oci", "docker"} {
		path := filepath.Join(t.TempDir(), "saved.tar")
		command(t, "save", "-o", path, "--format", format, one, two)
		removeImage(t, one)
		removeImage(t, two)
		command(t, "load", "-i", path)
		for name, id := range ids {
			if i := imageStatus(t, name); i.GetId() != id {
				t.Errorf("%s: %s is %v, was %s", format, name, i, id)
			}
			if got := says(t, name); got != name {
				t.Errorf("%s: %s says %q", format, name, got)
			}
		}
	}
	piped := berth.Command(t.Context(), "load")
	saved, err := berth.Command(t.Context(), "save", one).Output()
	if err != nil {
		t.Fatal(err)
	}
	piped.Stdin = bytes.NewReader(saved)
	if out, err := piped.CombinedOutput(); err != nil || string(out) != "Loaded "+one+"\n" {
		t.Errorf("through a pipe: %q, %v", out, err)
	}
	path := filepath.Join(t.TempDir(), "none.tar")
	if out, err := berth.Berth(t.Context(), "save", "-o", path, "e2e.local/none:1"); err == nil {
		t.Errorf("an image that is not there: %q", out)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("the failed save leaves %v, %v", left, err)
	}
}

// rewrite copies an archive, with each file changed by f.
func rewrite(t *testing.T, from []byte, f func(name string, data []byte) []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	in, out := tar.NewReader(bytes.NewReader(from)), tar.NewWriter(&buf)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		data = f(h.Name, data)
		h.Size = int64(len(data))
		if err := out.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// in changes, for rewrite, the files whose names hold part.
func in(part string, change func([]byte) []byte) func(string, []byte) []byte {
	return func(name string, data []byte) []byte {
		if strings.Contains(name, part) {
			return change(data)
		}
		return data
	}
}

// flip changes one bit in the middle.
func flip(data []byte) []byte {
	data = slices.Clone(data)
	data[len(data)/2] ^= 1
	return data
}

// text changes words.
func text(from, to string) func([]byte) []byte {
	return func(data []byte) []byte { return bytes.ReplaceAll(data, []byte(from), []byte(to)) }
}

func TestADamagedArchiveIsRefusedAsAWhole(t *testing.T) {
	const name = "e2e.local/damaged:1"
	b, err := marked(t, "to be damaged").Build()
	if err != nil {
		t.Fatal(err)
	}
	var whole bytes.Buffer
	if err := b.OCIArchive(&whole, name); err != nil {
		t.Fatal(err)
	}
	var docker bytes.Buffer
	if err := images.DockerArchive(&docker, marked(t, "to be damaged"), name); err != nil {
		t.Fatal(err)
	}
	for kind, data := range map[string][]byte{
		"a layer":             rewrite(t, whole.Bytes(), in(b.Layers[1].Digest.Encoded(), flip)),
		"the config":          rewrite(t, whole.Bytes(), in(b.Config.Encoded(), text("linux", "lynux"))),
		"the manifest":        rewrite(t, whole.Bytes(), in(b.Root.Digest.Encoded(), text("sha256", "sha512"))),
		"no JSON":             rewrite(t, whole.Bytes(), in("index.json", text("{", "["))),
		"a digest for a path": rewrite(t, whole.Bytes(), in("index.json", text("sha256:"+b.Root.Digest.Encoded(), "sha256:../../../../etc/passwd"))),
		"cut":                 whole.Bytes()[:whole.Len()/2],
		"docker's layer":      rewrite(t, docker.Bytes(), in("layer.tar", flip)),
		"docker's path":       rewrite(t, docker.Bytes(), in("manifest.json", text("/layer.tar", "/../../../../../../etc/passwd"))),
		"docker's manifest":   rewrite(t, docker.Bytes(), in("manifest.json", func([]byte) []byte { return []byte(`{"x":`) })),
		"no archive":          []byte("this is no archive\n"),
		"nothing":             {},
	} {
		path := filepath.Join(t.TempDir(), "damaged.tar")
		write(t, path, string(data))
		if out, err := berth.Berth(t.Context(), "load", "-i", path); err == nil {
			t.Errorf("%s: loaded, %q", kind, out)
		}
		if i := imageStatus(t, name); i != nil {
			t.Errorf("%s: visible is %v", kind, i)
			removeImage(t, name)
		}
	}
	r, err := berth.Images.ListImages(t.Context(), &cri.ListImagesRequest{})
	if err != nil || slices.ContainsFunc(r.Images, func(i *cri.Image) bool { return i.Id == b.Config.String() }) {
		t.Errorf("listed: %v, %v", r, err)
	}
	var problems []struct{ What string }
	if err := json.Unmarshal([]byte(command(t, "check", "-o", "json")), &problems); err != nil || len(problems) > 0 {
		t.Errorf("check finds %v, %v", problems, err)
	}
}
