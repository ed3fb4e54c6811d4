package push

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// strict is a small registry that keeps blobs by repository and notes when a manifest names one that is not there.
type strict struct {
	mu        sync.Mutex
	blobs     map[string][]byte // repository@digest
	manifests map[string][]byte // repository@digest or repository:tag
	types     map[string]string
	uploads   int
	complaint string
}

func strictRegistry(t testing.TB) (host string, s *strict) {
	s = &strict{blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), s
}

func (s *strict) broken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.complaint
}

func (s *strict) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(body))
	if repo, rest, ok := strings.Cut(path, "/blobs/uploads/"); ok {
		s.upload(w, r, repo, rest, digest, body)
		return
	}
	if repo, at, ok := strings.Cut(path, "/blobs/"); ok {
		s.serve(w, r, s.blobs[repo+"@"+at], "application/octet-stream")
		return
	}
	if repo, at, ok := strings.Cut(path, "/manifests/"); ok {
		key := repo + ":" + at
		if strings.Contains(at, ":") {
			key = repo + "@" + at
		}
		if r.Method != http.MethodPut {
			s.serve(w, r, s.manifests[key], s.types[key])
			return
		}
		s.check(repo, body)
		for _, k := range []string{key, repo + "@" + digest} {
			s.manifests[k], s.types[k] = body, r.Header.Get("Content-Type")
		}
		w.WriteHeader(http.StatusCreated)
		return
	}
	if repo, ok := strings.CutSuffix(path, "/tags/list"); ok {
		list := map[string][]string{"tags": {}}
		for key := range s.manifests {
			if tag, ok := strings.CutPrefix(key, repo+":"); ok {
				list["tags"] = append(list["tags"], tag)
			}
		}
		json.NewEncoder(w).Encode(list)
		return
	}
	if path != "" {
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *strict) upload(w http.ResponseWriter, r *http.Request, repo, session, digest string, body []byte) {
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && s.blobs[query.Get("from")+"@"+query.Get("mount")] != nil:
		s.blobs[repo+"@"+query.Get("mount")] = s.blobs[query.Get("from")+"@"+query.Get("mount")]
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPost:
		s.uploads++
		w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/uploads/%d?state=x", repo, s.uploads))
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPut && query.Get("state") == "x" && query.Get("digest") == digest && session != "":
		s.blobs[repo+"@"+digest] = body
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
}

func (s *strict) serve(w http.ResponseWriter, r *http.Request, content []byte, mediaType string) {
	if content == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", fmt.Sprintf("sha256:%x", sha256.Sum256(content)))
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	if r.Method != http.MethodHead {
		w.Write(content)
	}
}

// check complains when a manifest names what is not there.
func (s *strict) check(repo string, manifest []byte) {
	var m struct {
		Config    struct{ Digest string }
		Layers    []struct{ Digest string }
		Manifests []struct{ Digest string } // of an index
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		s.complaint = "a manifest is no JSON"
		return
	}
	for _, child := range m.Manifests {
		if s.manifests[repo+"@"+child.Digest] == nil {
			s.complaint = repo + ": an index names " + child.Digest + ", which is not there"
		}
	}
	if m.Manifests == nil && s.blobs[repo+"@"+m.Config.Digest] == nil {
		s.complaint = repo + ": a manifest names a config that is not there"
	}
	for _, l := range m.Layers {
		if s.blobs[repo+"@"+l.Digest] == nil {
			s.complaint = repo + ": a manifest names layer " + l.Digest + ", which is not there"
		}
	}
}
