package registry

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"
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
	r.mu.Lock()
	m := manifest{req.Header.Get("Content-Type"), data}
	r.manifests[key], r.manifests[repository+"@"+d.String()] = m, m
	r.mu.Unlock()
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}

// upload serves POST, PATCH and PUT of blobs.
func (r *Registry) upload(w http.ResponseWriter, req *http.Request, repository, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Method == http.MethodPost {
		id = strconv.Itoa(len(r.uploads) + 1)
		r.uploads[id] = &bytes.Buffer{}
	}
	buf := r.uploads[id]
	if buf == nil {
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		return
	}
	if _, err := io.Copy(buf, req.Body); err != nil {
		fail(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID")
		return
	}
	w.Header().Set("Location", "/v2/"+repository+"/blobs/uploads/"+id)
	want := digest.Digest(req.URL.Query().Get("digest"))
	if want == "" {
		w.Header().Set("Range", "0-"+strconv.Itoa(max(buf.Len()-1, 0)))
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if digest.FromBytes(buf.Bytes()) != want {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID")
		return
	}
	r.blobs[want] = buf.Bytes()
	delete(r.uploads, id)
	w.Header().Set("Docker-Content-Digest", want.String())
	w.WriteHeader(http.StatusCreated)
}
