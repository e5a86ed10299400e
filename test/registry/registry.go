// Package registry is an OCI registry in memory, for tests and benchmarks:
// manifests, blobs with ranges, uploads, basic and token authentication. Blobs may
// also lie in files, which go out by sendfile.
//
// A Registry is an http.Handler; Start serves it on loopback, the command in serve
// does so for other processes. Line and Faults make it slow or bad with blobs; Hook
// lets a test break any answer.
package registry

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/test/images"
)

// Registry holds repositories in memory. Its fields are set before it serves;
// its methods are safe for concurrent use.
type Registry struct {
	// Username and Password, if set, are demanded by basic authentication, or by
	// the token server where Token is set.
	Username, Password string
	// Token demands a bearer token, which /token gives.
	Token bool
	// TokenUses is how many requests a token is good for; 0 means all.
	TokenUses int
	// RefreshToken, if set, is an identity token that /token exchanges.
	RefreshToken string
	// Line is what answers go over. Faults, of which the first that fits a request
	// counts, are those of blobs.
	Line   Line
	Faults []Fault
	// UploadFaults are those of requests that bring a part of a blob: Status,
	// DropAfter, StallAfter and Forget.
	UploadFaults []Fault
	// Strict says that a repository has only the blobs that were put into it, pushed
	// or mounted.
	Strict bool
	// Redirect, if set, is the scheme and host of a Registry that requests for blobs
	// are sent to, with a link that is signed. A registry with LinkUses honours each
	// link for so many requests.
	Redirect string
	LinkUses int
	// UploadHost, if set, is the scheme and host that uploads are sent to.
	UploadHost string
	// Hook, if not nil, is asked before each request; true means that it has
	// answered.
	Hook func(w http.ResponseWriter, r *http.Request) bool

	mu        sync.Mutex
	manifests map[string]manifest // repository@digest and repository:tag
	blobs     map[digest.Digest][]byte
	files     map[digest.Digest]string          // blobs, too
	noise     map[digest.Digest]images.Noise    // likewise
	places    map[digest.Digest]map[string]bool // repositories that have a blob, none for all
	uploads   map[string]*bytes.Buffer
	begun     int            // uploads
	requests  map[string]int // by method and path
	uses      map[string]int // of tokens and links
	served    int            // requests for blobs
	received  int            // requests that brought a part of one
	links     atomic.Int64
	tokens    atomic.Int64
}

type manifest struct {
	mediaType string
	data      []byte
}

const bearer = "in-memory-token"

var route = regexp.MustCompile(`^/v2/([a-z0-9._/-]+)/(manifests|blobs|blobs/uploads)/([^/]*)$`)

// Server is a registry that serves.
type Server struct {
	*Registry
	Host string // 127.0.0.1:port
	http *httptest.Server
}

// Start serves r on a port of loopback; nil means an empty registry. The caller
// closes it.
func Start(r *Registry) *Server {
	if r == nil {
		r = &Registry{}
	}
	s := &Server{Registry: r, http: httptest.NewServer(r)}
	s.Host = strings.TrimPrefix(s.http.URL, "http://")
	return s
}

// Close ends the server.
func (s *Server) Close() { s.http.CloseClientConnections(); s.http.Close() }

// Put puts an image into a repository under a tag, and returns the name by which
// it is pulled.
func (s *Server) Put(repository, tag string, b *images.Built) string {
	s.Add(repository, tag, b)
	return s.Host + "/" + repository + ":" + tag
}

// Add puts an image into a repository under a tag.
func (r *Registry) Add(repository, tag string, b *images.Built) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.initLocked()
	for d, n := range b.Noise {
		r.noise[d] = n
		r.placeLocked(repository, d)
	}
	for d, data := range b.Blobs {
		r.blobs[d] = data
		r.placeLocked(repository, d)
		if t := mediaType(data); t != "" {
			r.manifests[repository+"@"+d.String()] = manifest{t, data}
		}
	}
	root := manifest{b.Root.MediaType, b.Blobs[b.Root.Digest]}
	r.manifests[repository+"@"+b.Root.Digest.String()] = root
	r.manifests[repository+":"+tag] = root
}

// SetBlob replaces the bytes that the registry gives for a digest.
func (r *Registry) SetBlob(d digest.Digest, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.initLocked()
	r.blobs[d] = data
}

// SetFile makes a file the bytes that the registry gives for a digest.
func (r *Registry) SetFile(d digest.Digest, path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files == nil {
		r.files = map[digest.Digest]string{}
	}
	r.files[d] = path
}

// Requests returns how often a method was used on a path.
func (r *Registry) Requests(method, path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests[method+" "+path]
}

func (r *Registry) initLocked() {
	if r.blobs == nil {
		r.manifests, r.blobs = map[string]manifest{}, map[digest.Digest][]byte{}
		r.noise, r.places = map[digest.Digest]images.Noise{}, map[digest.Digest]map[string]bool{}
		r.uploads, r.requests = map[string]*bytes.Buffer{}, map[string]int{}
	}
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.initLocked()
	r.requests[req.Method+" "+req.URL.Path]++
	r.mu.Unlock()
	if !wait(req.Context(), r.Line.Latency) || r.Hook != nil && r.Hook(w, req) {
		return
	}
	if req.URL.Path == "/token" {
		r.token(w, req)
		return
	}
	if !r.allowed(req) {
		r.challenge(w, req)
		return
	}
	m := route.FindStringSubmatch(req.URL.Path)
	switch {
	case req.URL.Path == "/v2/":
		w.WriteHeader(http.StatusOK)
	case m == nil:
		fail(w, http.StatusNotFound, "NAME_UNKNOWN")
	case m[2] == "manifests":
		r.manifest(w, req, m[1], m[3])
	case m[2] == "blobs/uploads":
		r.upload(w, req, m[1], m[3])
	default:
		r.blob(w, req, m[1], m[3])
	}
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, strings.ToLower(code))
}

func (r *Registry) manifest(w http.ResponseWriter, req *http.Request, repository, ref string) {
	key := repository + ":" + ref
	if strings.Contains(ref, ":") {
		key = repository + "@" + ref
	}
	if req.Method == http.MethodPut {
		r.putManifest(w, req, repository, key)
		return
	}
	r.mu.Lock()
	m, ok := r.manifests[key]
	r.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.data).String())
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(m.data))
}

func (r *Registry) blob(w http.ResponseWriter, req *http.Request, repository, ref string) {
	d := digest.Digest(ref)
	r.mu.Lock()
	data, ok := r.blobs[d]
	path, inFile := r.files[d]
	noise, isNoise := r.noise[d]
	here := r.hasLocked(repository, d)
	r.mu.Unlock()
	switch {
	case !here:
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN")
	case ok:
		r.serve(w, req, d, bytes.NewReader(data), int64(len(data)))
	case isNoise:
		r.serve(w, req, d, noise.Open(), noise.Size)
	case inFile:
		f, err := os.Open(path)
		if err != nil {
			fail(w, http.StatusInternalServerError, "UNKNOWN")
			return
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			fail(w, http.StatusInternalServerError, "UNKNOWN")
			return
		}
		r.serve(w, req, d, f, info.Size())
	default:
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN")
	}
}
