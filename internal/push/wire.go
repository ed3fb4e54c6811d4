package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flakeship/flakeship/internal/registry"
)

// uploadTries is how often a blob's upload is begun. The client's transport repeats what can be repeated; an upload that
// broke off cannot, the registry may have kept a part of it: it starts over.
const uploadTries = 4

// repository is one that is written to.
type repository struct {
	*registry.Repository

	// Gitea makes a package when the first blob of a repository is finished, and answers 500 to another one at that moment:
	// until something is known to be there, who holds this writes alone.
	first  chan struct{}
	exists atomic.Bool

	manifests sync.Mutex // held for each manifest that is written: Gitea answers 500 to two versions of a package at once
}

func newRepository(r *registry.Repository) *repository {
	return &repository{Repository: r, first: make(chan struct{}, 1)}
}

// alone runs write, on its own as long as the repository is not known to exist. write says whether there is a blob then.
func (p *repository) alone(ctx context.Context, write func() (bool, error)) error {
	if !p.exists.Load() {
		select {
		case p.first <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.exists.Load() {
			<-p.first
		} else {
			defer func() { <-p.first }()
		}
	}
	there, err := write()
	if there {
		p.exists.Store(true)
	}
	return err
}

// mount asks repo to take a blob over from another repository. When it does not, session is the upload it opened instead,
// or nil. A registry may answer nearly anything to this question: only a lost connection is an error.
//
// From the repository itself it asks whether the blob is there, and opens the upload when it is not: one request where there
// would be two.
func mount(ctx context.Context, repo, from *repository, digest string) (mounted bool, session *url.URL, err error) {
	u := repo.URL("blobs/uploads/")
	u.RawQuery = url.Values{"mount": {digest}, "from": {from.Path()}}.Encode()
	var sources []*registry.Repository
	if from != repo {
		sources = append(sources, from.Repository)
	}
	var resp *http.Response
	err = repo.alone(ctx, func() (there bool, err error) {
		resp, err = post(ctx, repo, u, []int{http.StatusCreated, http.StatusAccepted}, sources...)
		return err == nil && resp.StatusCode == http.StatusCreated, err
	})
	if gone := new(registry.UnreachableError); errors.As(err, &gone) || ctx.Err() != nil {
		return false, nil, err
	}
	if err != nil {
		return false, nil, nil
	}
	if resp.StatusCode == http.StatusCreated {
		return true, nil, nil
	}
	session, err = location(resp)
	return false, session, err
}

// begin opens an upload and returns where to send the blob.
func begin(ctx context.Context, repo *repository) (*url.URL, error) {
	resp, err := post(ctx, repo, repo.URL("blobs/uploads/"), []int{http.StatusAccepted})
	if err != nil {
		return nil, err
	}
	return location(resp)
}

func post(ctx context.Context, repo *repository, u *url.URL, want []int, from ...*registry.Repository) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := repo.Do(req, want, from...)
	if err == nil {
		resp.Body.Close()
	}
	return resp, err
}

// location is the address of an upload, which registries give as path or in full.
func location(resp *http.Response) (*url.URL, error) {
	text := resp.Header.Get("Location")
	if text == "" {
		return nil, errors.New("the registry opened an upload without saying where")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the registry opened an upload at %.200q", text)
	}
	return resp.Request.URL.ResolveReference(u), nil
}

// cancel gives up an upload; a registry that does not know how forgets it in its own time.
func cancel(ctx context.Context, repo *repository, session *url.URL) {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, session.String(), http.NoBody)
	if err != nil {
		return
	}
	if resp, err := repo.Do(req, []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted}); err == nil {
		resp.Body.Close()
	}
}

// probe returns an error when nothing may be written to the member's repository.
func (r *run) probe(ctx context.Context, m *member) error {
	session, err := begin(ctx, m.repo)
	if err != nil {
		return err
	}
	cancel(ctx, m.repo, session)
	return nil
}

// exists asks for a blob. An answer that is none counts as no: then it is sent.
func exists(ctx context.Context, repo *repository, digest string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, repo.URL("blobs/"+digest).String(), http.NoBody)
	if err != nil {
		return false, err
	}
	resp, err := repo.Do(req, []int{http.StatusOK})
	if gone := new(registry.UnreachableError); errors.As(err, &gone) || ctx.Err() != nil {
		return false, err
	}
	if err != nil {
		return false, nil
	}
	resp.Body.Close()
	return true, nil
}

// upload sends a blob of size bytes for m, at session if there is one. body gives a new reader for each try.
func (r *run) upload(ctx context.Context, m *member, session *url.URL, digest string, size int64, body func() io.Reader) error {
	r.Progress.Send.Add(size)
	for try := 1; ; try++ {
		counted := &countingReader{r: body(), n: &r.Progress.Sent}
		err := m.repo.alone(ctx, func() (there bool, err error) {
			if session == nil {
				if session, err = begin(ctx, m.repo); err != nil {
					return false, err
				}
			}
			if try > 2 {
				err = patch(ctx, m.repo, session, digest, counted, size)
			} else {
				err = put(ctx, m.repo, session, digest, counted, size)
			}
			return err == nil, err
		})
		sent := counted.own.Load()
		m.addSent(sent)
		r.Progress.Send.Add(sent - size)
		wait, again := retryUpload(err, try)
		if !again || ctx.Err() != nil {
			return err
		}
		r.Progress.Send.Add(size)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
		// The answer may have been lost, not the blob.
		if there, err := exists(ctx, m.repo, digest); err != nil || there {
			r.Progress.Send.Add(-size)
			return err
		}
		session = nil
	}
}

// put takes one request for all of it.
func put(ctx context.Context, repo *repository, session *url.URL, digest string, body io.Reader, size int64) error {
	u := *session
	query := u.Query()
	query.Set("digest", digest)
	u.RawQuery = query.Encode()
	_, err := send(ctx, repo, http.MethodPut, &u, body, size, http.StatusCreated, http.StatusOK, http.StatusNoContent)
	return err
}

// patch takes two, as older clients do, for registries that refuse put. The blob is one chunk: no registry can ask for
// longer ones than that.
func patch(ctx context.Context, repo *repository, session *url.URL, digest string, body io.Reader, size int64) error {
	resp, err := send(ctx, repo, http.MethodPatch, session, body, size, http.StatusAccepted, http.StatusNoContent, http.StatusCreated)
	if err != nil {
		return err
	}
	if session, err = location(resp); err != nil {
		return err
	}
	return put(ctx, repo, session, digest, nil, 0)
}

// send sends body once: without GetBody nobody below tries again.
func send(ctx context.Context, repo *repository, method string, u *url.URL, body io.Reader, size int64, want ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := repo.Do(req, want)
	if err != nil {
		return nil, err
	}
	return resp, resp.Body.Close()
}

// retryUpload says whether an upload that ended with err is begun again, and when.
func retryUpload(err error, try int) (time.Duration, bool) {
	if err == nil || try == uploadTries {
		return 0, false
	}
	wait := 250 * time.Millisecond << try
	if answer := new(registry.StatusError); errors.As(err, &answer) {
		// 404: the upload is gone. 416 and 400: the registry has another idea of how far it is; it, 405 or 411: of how a blob
		// is sent. 401 comes as denied.
		again := answer.Status >= 500 || answer.Has(transport.TooManyRequestsErrorCode) || slices.Contains([]int{400, 404, 405, 408, 411, 416, 425, 429}, answer.Status)
		return max(wait, min(answer.RetryAfter, time.Minute)), again
	}
	if denied := new(registry.DeniedError); errors.As(err, &denied) {
		// A token that ran out during a long upload: the answer came after the body, which is gone. Once.
		return 0, denied.Status == http.StatusUnauthorized && !denied.Anonymous && try == 1
	}
	gone := new(registry.UnreachableError)
	return wait, errors.As(err, &gone)
}

// putManifest writes a manifest or index to a tag or digest.
func putManifest(ctx context.Context, repo *repository, reference string, mediaType types.MediaType, manifest []byte) error {
	_, err := sendManifest(ctx, repo, reference, mediaType, manifest)
	return err
}

// sendManifest is putManifest that returns the answer's header.
func sendManifest(ctx context.Context, repo *repository, reference string, mediaType types.MediaType, manifest []byte) (http.Header, error) {
	repo.manifests.Lock()
	defer repo.manifests.Unlock()
	// A bytes.Reader can be sent again, and putting the same manifest twice does no harm.
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, repo.URL("manifests/"+reference).String(), bytes.NewReader(manifest))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", string(mediaType))
	resp, err := repo.Do(req, []int{http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent})
	if err != nil {
		return nil, err
	}
	return resp.Header, resp.Body.Close()
}

// aboutTag finds in a registry's words that a tag is there and stays: each has words of its own.
var aboutTag = regexp.MustCompile(`(?i)immutab|already exists|overwrit|cannot be (moved|modified|changed|updated)`)

// mayBeKept says whether a manifest was refused because its tag must not move.
func mayBeKept(err error) bool {
	if answer := new(registry.StatusError); errors.As(err, &answer) {
		switch answer.Status {
		case http.StatusMethodNotAllowed, http.StatusConflict, http.StatusPreconditionFailed:
			return true
		}
		return answer.Status < 500 && aboutTag.MatchString(answer.Detail)
	}
	denied := new(registry.DeniedError)
	return errors.As(err, &denied) && aboutTag.MatchString(denied.Detail)
}

// countingReader adds what is read of it to n, and keeps its own part of it. That part is asked for while the transport may
// still be reading: Go returns an early answer before it has let go of the body.
type countingReader struct {
	r   io.Reader
	n   *atomic.Int64
	own atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	c.own.Add(int64(n))
	return n, err
}
