package registry

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mediaType returns what a manifest or index says it is, "" for other blobs.
func mediaType(data []byte) string {
	var m struct {
		MediaType     string `json:"mediaType"`
		SchemaVersion int    `json:"schemaVersion"`
	}
	if json.Unmarshal(data, &m) != nil || m.SchemaVersion != 2 {
		return ""
	}
	return m.MediaType
}

func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, repository, key string) {
	data, err := io.ReadAll(req.Body)
	if err != nil {
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID")
		return
	}
	d := digest.FromBytes(data)
	if !r.complete(repository, data) {
		fail(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
		return
	}
	r.mu.Lock()
	m := manifest{req.Header.Get("Content-Type"), data}
	r.manifests[key], r.manifests[repository+"@"+d.String()] = m, m
	r.mu.Unlock()
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}

// complete reports whether a repository has what a manifest names.
func (r *Registry) complete(repository string, data []byte) bool {
	var m struct {
		Config *ispec.Descriptor  `json:"config"`
		Layers []ispec.Descriptor `json:"layers"`
	}
	if json.Unmarshal(data, &m) != nil {
		return false
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range m.Layers {
		if !r.hasLocked(repository, d.Digest) {
			return false
		}
	}
	return true
}

// upload serves what begins, goes on with, asks for and ends uploads of blobs.
func (r *Registry) upload(w http.ResponseWriter, req *http.Request, repository, id string) {
	if req.Method == http.MethodPost {
		r.begin(w, req, repository)
		return
	}
	r.mu.Lock()
	buf := r.uploads[id]
	r.mu.Unlock()
	if buf == nil {
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		return
	}
	place := "/v2/" + repository + "/blobs/uploads/" + id
	if r.UploadHost != "" {
		place = r.UploadHost + place
	}
	w.Header().Set("Location", place)
	switch {
	case req.Method == http.MethodGet:
		r.mu.Lock()
		answerRange(w, buf)
		r.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case r.receive(w, req, id, buf):
		r.end(w, req, repository, id, buf)
	}
}

// begin begins an upload, or mounts what another repository has.
func (r *Registry) begin(w http.ResponseWriter, req *http.Request, repository string) {
	q := req.URL.Query()
	d, from := digest.Digest(q.Get("mount")), q.Get("from")
	r.mu.Lock()
	defer r.mu.Unlock()
	if from != "" && r.hasLocked(from, d) {
		r.placeLocked(repository, d)
		w.Header().Set("Location", "/v2/"+repository+"/blobs/"+d.String())
		w.Header().Set("Docker-Content-Digest", d.String())
		w.WriteHeader(http.StatusCreated)
		return
	}
	r.begun++
	id := strconv.Itoa(r.begun)
	r.uploads[id] = &bytes.Buffer{}
	w.Header().Set("Location", r.UploadHost+"/v2/"+repository+"/blobs/uploads/"+id)
	w.Header().Set("Range", "0-0")
	w.WriteHeader(http.StatusAccepted)
}

// receive adds what a request brings, and reports whether that was right. What a
// connection that ends too early has brought stays.
func (r *Registry) receive(w http.ResponseWriter, req *http.Request, id string, buf *bytes.Buffer) bool {
	f := r.fault(r.UploadFaults, &r.received)
	var body io.Reader = req.Body
	if n := max(f.DropAfter, f.StallAfter); n > 0 {
		body = io.LimitReader(body, n)
	}
	data, err := io.ReadAll(body)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch first, _, ranged := strings.Cut(req.Header.Get("Content-Range"), "-"); {
	case f.Forget:
		delete(r.uploads, id)
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		return false
	case f.Status != 0:
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		fail(w, f.Status, "TOOMANYREQUESTS")
		return false
	case ranged && first != strconv.Itoa(buf.Len()):
		answerRange(w, buf)
		fail(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
		return false
	}
	buf.Write(data)
	switch {
	case f.DropAfter > 0:
		panic(http.ErrAbortHandler)
	case f.StallAfter > 0:
		r.mu.Unlock()
		_, _ = io.Copy(io.Discard, req.Body) // else nobody notices that the client goes
		<-req.Context().Done()
		r.mu.Lock()
		return false
	case err != nil:
		fail(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID")
		return false
	}
	return true
}

func answerRange(w http.ResponseWriter, buf *bytes.Buffer) {
	w.Header().Set("Range", "0-"+strconv.Itoa(max(buf.Len()-1, 0)))
}

// end ends an upload where the request has the digest.
func (r *Registry) end(w http.ResponseWriter, req *http.Request, repository, id string, buf *bytes.Buffer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	want := digest.Digest(req.URL.Query().Get("digest"))
	if want == "" {
		answerRange(w, buf)
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if digest.FromBytes(buf.Bytes()) != want {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID")
		return
	}
	r.blobs[want] = buf.Bytes()
	r.placeLocked(repository, want)
	delete(r.uploads, id)
	w.Header().Set("Docker-Content-Digest", want.String())
	w.WriteHeader(http.StatusCreated)
}

// placeLocked makes a blob be in a repository.
func (r *Registry) placeLocked(repository string, d digest.Digest) {
	if r.places[d] == nil {
		r.places[d] = map[string]bool{}
	}
	r.places[d][repository] = true
}

// hasLocked reports whether a repository has a blob.
func (r *Registry) hasLocked(repository string, d digest.Digest) bool {
	_, ok := r.blobs[d]
	_, inFile := r.files[d]
	if _, isNoise := r.noise[d]; !ok && !inFile && !isNoise {
		return false
	}
	return !r.Strict || r.places[d][repository]
}
