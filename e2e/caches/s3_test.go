package caches_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	access, password = "runner", "the runner's secret"
	region           = "eu-test-1"
)

// An S3 server that checks signatures, and a bucket that `nix copy` could have filled.
func TestS3(t *testing.T) {
	w := newWorld(t)
	data := filepath.Join(w.dir, "data")
	bucket := filepath.Join(data, "cache")
	if err := os.MkdirAll(bucket, 0o755); err != nil {
		t.Fatal(err)
	}
	w.builder.Nix(t, "copy", "--to", "file://"+bucket+"?secret-key="+w.secret, w.flake+"#api")
	port := freePort(t)
	start(t, port, exec.Command(gatewayPath, "--access", access, "--secret", password, "--region", region, "--port", "127.0.0.1:"+port, "--quiet", "posix", data))
	endpoint := "127.0.0.1:" + port
	cache := "s3://cache?region=" + region + "&scheme=http&endpoint=" + endpoint
	cached := []string{`^api +cached +s3://cache\?endpoint=.* has it, closure of 2 paths, signed by ours-1$`, `^web +missing`}
	keys := []string{"AWS_ACCESS_KEY_ID=" + access, "AWS_SECRET_ACCESS_KEY=" + password}

	code, said := w.check(cache, keys...)
	w.expect("keys in the environment", code, said, 0, cached...)

	file := filepath.Join(w.dir, "credentials")
	text := "[ci]\naws_access_key_id = " + access + "\naws_secret_access_key = " + password + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, said = w.check(cache+"&profile=ci", "AWS_SHARED_CREDENTIALS_FILE="+file)
	w.expect("a profile", code, said, 0, cached...)
	code, said = w.check(cache+"&profile=nobody", "AWS_SHARED_CREDENTIALS_FILE="+file)
	w.expect("a profile that is not there", code, said, 1, `error: .*profile.*nobody`)

	code, said = w.check(cache, keys[0], "AWS_SECRET_ACCESS_KEY=another")
	w.expect("a wrong key", code, said, 3, `error: 2 images not decided .*403 Forbidden, the credentials sent are refused`)
	code, said = w.check(cache)
	w.expect("no key", code, said, 3, `error: 2 images not decided .*403 Forbidden, no credentials were found`)
	code, said = w.check("s3://other?region="+region+"&scheme=http&endpoint="+endpoint, keys...)
	w.expect("no bucket", code, said, 0, `^api +missing`, `warning: s3://other.* has no nix-cache-info`)

	// Everybody may read, nobody but its owner list: what is not there is forbidden.
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::cache/*"}]}`
	put(t, "http://"+endpoint+"/cache?policy=", []byte(policy))
	code, said = w.check(cache)
	w.expect("a public bucket", code, said, 0, cached...)

	// What is missing is built and copied there, signed; the next run finds it.
	code, said = w.check(cache, keys...)
	w.expect("before the copy", code, said, 0, cached...)
	code, said = w.run(nil, buildPath, "--plan", w.plan(), "--copy-to", cache, "--signing-key-file", w.secret)
	w.expect("a copy without keys", code, said, 3, `error: .*403 Forbidden`)
	code, said = w.run(keys, buildPath, "--plan", w.plan(), "--copy-to", cache, "--signing-key-file", w.secret)
	w.expect("a copy", code, said, 0)
	code, said = w.check(cache, keys...)
	w.expect("after the copy", code, said, 0, `^api +cached`, `^web +cached +s3://cache`)
}

// put writes to the server as its owner.
func put(t *testing.T, url string, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	owner := aws.Credentials{AccessKeyID: access, SecretAccessKey: password}
	if err := v4.NewSigner().SignHTTP(t.Context(), owner, req, hash, "s3", region, time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("PUT %s: %s", url, resp.Status)
	}
}
