package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flakeship/flakeship/internal/action/actionyml"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/testenv/stories"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"push-images": main,
		"push-images-impatient": func() {
			interval = 20 * time.Millisecond
			main()
		},
	})
}

func TestActionYAML(t *testing.T) { actionyml.Check(t, spec) }

// TestStories runs testdata/*.txtar, with registries that listen on loopback.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", filepath.Join(env.WorkDir, ".home"))
			env.Setenv("RUNNER_TEMP", filepath.Join(env.WorkDir, "runner-temp"))
			return os.MkdirAll(filepath.Join(env.WorkDir, "runner-temp"), 0o755)
		},
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"registry": startRegistry,
			"archive":  makeArchive,
			"built":    built,
			"pull":     pull,
			"replace":  stories.Replace,
			"result":   checkResult,
			"code":     code,
			"digests":  sameDigests,
			"noise":    makeNoise,
			"key":      makeKey,
			"deniedby": deniedBy,
			"website":  startWebsite,
			"untrusty": startUntrusty,
		},
	})
}

// registry NAME [plain|tls|http2|token|slow|immutable|401|403|500|html]: an empty registry; its host and port are in the variable NAME. With
// tls or http2 its certificate is in the file NAME.pem.
func startRegistry(ts *testscript.TestScript, neg bool, args []string) {
	kind := "plain"
	if len(args) > 1 {
		kind = args[1]
	}
	var handler http.Handler = registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	switch kind {
	case "plain", "tls":
	case "http2":
		inner := handler
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				w.WriteHeader(http.StatusHTTPVersionNotSupported)
				return
			}
			inner.ServeHTTP(w, r)
		})
	case "token":
		handler = wantsToken(handler)
	case "immutable":
		handler = keepsTags(handler)
	case "slow":
		quick := handler
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			quick.ServeHTTP(w, r)
		})
	case "html":
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "<html>Welcome</html>", http.StatusNotFound)
		})
	default:
		status, err := strconv.Atoi(kind)
		ts.Check(err)
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" && status == http.StatusForbidden {
				return // it lets everybody in, but not write
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`, status)
		})
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if server.EnableHTTP2 = kind == "http2"; kind == "tls" || kind == "http2" {
		server.StartTLS()
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pem"), block, 0o644))
	} else {
		server.Start()
	}
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.Listener.Addr().String())
}

// wantsToken is a registry that takes tokens of its own only, and gives them to the user ci with the password s3cret.
func wantsToken(inner http.Handler) http.Handler {
	const good = "t0ken-of-ci"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			if user, password, _ := r.BasicAuth(); user != "ci" || password != "s3cret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			json.NewEncoder(w).Encode(map[string]string{"token": good})
			return
		}
		if r.Header.Get("Authorization") != "Bearer "+good {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

// archive [ARCH:]FILE LAYER...: a docker-archive; each layer has one file with that text.
func makeArchive(ts *testscript.TestScript, neg bool, args []string) {
	arch, file, ok := strings.Cut(args[0], ":")
	if !ok {
		arch, file = "amd64", args[0]
	}
	file = ts.MkAbs(file)
	ts.Check(os.MkdirAll(filepath.Dir(file), 0o755))
	ts.Check(os.WriteFile(file, archive(arch, args[1:]...), 0o644))
}

// noise FILE SIZE: a docker-archive with a layer that does not shrink.
func makeNoise(ts *testscript.TestScript, neg bool, args []string) {
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), archive("amd64", noise(size)), 0o644))
}

// noise is text that does not shrink, the same each time.
func noise(size int) string {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return string(b)
}

func archive(arch string, layers ...string) []byte {
	var all bytes.Buffer
	w := tar.NewWriter(&all)
	add := func(w *tar.Writer, name string, content []byte) {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg})
		w.Write(content)
	}
	var names, ids []string
	for i, text := range layers {
		var layer bytes.Buffer
		lw := tar.NewWriter(&layer)
		add(lw, "file", []byte(text))
		lw.Close()
		names = append(names, fmt.Sprintf("%d/layer.tar", i))
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes())))
		add(w, names[i], layer.Bytes())
	}
	config, _ := json.Marshal(map[string]any{"architecture": arch, "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	manifest, _ := json.Marshal([]map[string]any{{"Config": "c.json", "Layers": names}})
	add(w, "c.json", config)
	add(w, "manifest.json", manifest)
	w.Close()
	return all.Bytes()
}

// built FILE COMMIT [I/N] NAME=PATH|NAME=file:FILE|NAME=skipped|NAME=failed...: a BuildResult, of part I of a plan in N. The images' hashes are made
// of their names.
func built(ts *testscript.TestScript, neg bool, args []string) {
	r := &handoff.BuildResult{Header: handoff.Header{Commit: strings.Repeat(args[1], 40)}, Store: handoff.Store{Dir: "/nix/store", Root: ts.Getenv("WORK") + "/root"}}
	for _, arg := range args[2:] {
		if n, _ := fmt.Sscanf(arg, "%d/%d", &r.Shard, &r.Shards); n == 2 {
			r.Previous = []string{"sha256:plan"}
			continue
		}
		name, path, _ := strings.Cut(arg, "=")
		name, system, _ := strings.Cut(name, "@")
		if system == "" {
			system = "x86_64-linux"
		}
		b := handoff.BuiltImage{Name: name, Tag: hashOf(name), System: system, State: handoff.BuildBuilt, OutPath: path, Family: handoff.DockerArchive}
		if file, ok := strings.CutPrefix(path, "file:"); ok {
			b.File = ts.MkAbs(file)
		}
		switch path {
		case "skipped":
			b.State, b.OutPath = handoff.BuildSkipped, ""
		case "failed":
			b.State, b.OutPath = handoff.BuildFailed, ""
			b.Failure = &handoff.Failure{Derivation: "/nix/store/x.drv", Reason: "builder failed"}
		}
		r.Images = append(r.Images, b)
	}
	_, err := handoff.WriteFile(ts.MkAbs(args[0]), r)
	ts.Check(err)
}

// hashOf stands for a Nix hash.
func hashOf(name string) string { return fmt.Sprintf("%032x", name)[:32] }

// code N ARGUMENT...: push-images ends with exit code N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("push-images", args[1:]...)
	failed := new(exec.ExitError)
	if !errors.As(err, &failed) || failed.ExitCode() != want {
		ts.Fatalf("push-images ended with %v, want exit code %d", err, want)
	}
}

// pull REFERENCE: pulls the image and checks every digest. "! pull" wants it absent.
func pull(ts *testscript.TestScript, neg bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	img, err := remote.Image(ref)
	if err == nil {
		err = validate.Image(img)
	}
	if neg != (err != nil) {
		ts.Fatalf("pull %s: %v", args[0], err)
	}
}

// digests FILE FILE NAME: two PushResults have the same digest for an image. "! digests" wants two.
func sameDigests(ts *testscript.TestScript, neg bool, args []string) {
	var found []string
	for _, file := range args[:2] {
		var r handoff.PushResult
		ts.Check(handoff.Load(ts.MkAbs(file), &r))
		for _, p := range r.Images {
			if p.Name == args[2] {
				found = append(found, p.Digest)
			}
		}
	}
	if len(found) != 2 || (found[0] == found[1]) == neg {
		ts.Fatalf("digests %v", found)
	}
}

// result FILE NAME=STATE... COMPLETE: what a PushResult says.
func checkResult(ts *testscript.TestScript, neg bool, args []string) {
	var r handoff.PushResult
	ts.Check(handoff.Load(ts.MkAbs(args[0]), &r))
	var got []string
	for _, p := range r.Images {
		got = append(got, p.Name+"="+string(p.State))
	}
	got = append(got, map[bool]string{true: "complete", false: "incomplete"}[r.Complete])
	if want := strings.Join(args[1:], " "); strings.Join(got, " ") != want {
		ts.Fatalf("%s says %s, want %s", args[0], got, want)
	}
}
