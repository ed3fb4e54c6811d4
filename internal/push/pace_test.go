package push

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/testenv/distribution"
)

// The wait a registry asks for is waited.
func TestRetryAfterIsWaitedFor(t *testing.T) {
	server := distribution.Start(t)
	var refused, again time.Time
	var once sync.Once
	host := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && isUpload(r) {
			first := false
			once.Do(func() { first = true })
			if first {
				refused = time.Now()
				w.Header().Set("Retry-After", "2")
				refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "slow down")
				return
			}
			if again.IsZero() {
				again = time.Now()
			}
		}
		next.ServeHTTP(w, r)
	})
	images := []Image{{Name: "a", Tag: nixHash(1), Path: archive(t, "amd64", layer(t, 1, 1000))}}
	if _, err := Images(t.Context(), images, Options{Client: faultClient(), Registry: host}); err != nil {
		t.Fatal(err)
	}
	if waited := again.Sub(refused); waited < 2*time.Second {
		t.Errorf("came back after %s, was told 2 s", waited)
	}
}

// Gitea makes a package with the first blob that is finished, and fails the others that are at that moment; so it does with
// two manifests. Nothing else is written meanwhile.
func TestFirstBlobOfARepositoryIsAlone(t *testing.T) {
	server := distribution.Start(t)
	var mu sync.Mutex
	busy, made, manifests := map[string]int{}, map[string]bool{}, map[string]int{}
	host := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		repo := repoOf(r)
		switch {
		case isManifest(r) && r.Method == http.MethodPut:
			repo, _, _ = strings.Cut(r.URL.Path, "/manifests/")
			mu.Lock()
			if manifests[repo]++; manifests[repo] > 1 {
				t.Errorf("%s: two manifests at once", repo)
			}
			mu.Unlock()
			defer func() { mu.Lock(); manifests[repo]--; mu.Unlock() }()
		case isUpload(r) && (r.Method == http.MethodPut || isMount(r)):
			mu.Lock()
			if busy[repo]++; busy[repo] > 1 && !made[repo] {
				t.Errorf("%s: two at once and nothing there", repo)
			}
			mu.Unlock()
			time.Sleep(20 * time.Millisecond)
			defer func() { mu.Lock(); busy[repo]--; made[repo] = made[repo] || r.Method == http.MethodPut; mu.Unlock() }()
		}
		next.ServeHTTP(w, r)
	})
	var images []Image
	for i, arch := range []string{"amd64", "arm64"} {
		var layers [][]byte
		for n := range 6 {
			layers = append(layers, layer(t, uint64(10*i+n), 2000))
		}
		images = append(images, Image{Name: "a", Tag: nixHash(i), Path: archive(t, arch, layers...)})
	}
	pushed, err := Images(t.Context(), images, Options{Client: faultClient(), Registry: host, Tags: []string{"main"}})
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, pushed)
}

// Where the network is slow, layers do not pile up on the disk: with room for one, one at a time is compressed and sent.
func TestSpoolIsBounded(t *testing.T) {
	defer func(max int64) { maxSpool = max }(maxSpool)
	maxSpool = mib / 10
	server := distribution.Start(t)
	var mu sync.Mutex
	sending, most := 0, 0
	host := front(t, server, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && isUpload(r) {
			mu.Lock()
			sending++
			most = max(most, sending)
			mu.Unlock()
			time.Sleep(20 * time.Millisecond)
			defer func() { mu.Lock(); sending--; mu.Unlock() }()
		}
		next.ServeHTTP(w, r)
	})
	var layers [][]byte
	for i := range 8 {
		layers = append(layers, layer(t, uint64(i), 60_000+20_000*i)) // the last ones are larger than all the room
	}
	images := []Image{{Name: "a", Tag: nixHash(1), Path: archive(t, "amd64", layers...)}}
	pushed, err := Images(t.Context(), images, Options{Client: faultClient(), Registry: host})
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, pushed)
	if most != 1 {
		t.Errorf("%d layers were sent at a time", most)
	}
}
