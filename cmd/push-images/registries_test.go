package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// key FILE: a private key.
func makeKey(ts *testscript.TestScript, neg bool, args []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// keepsTags is a registry whose tags stay where they are. Like some, it refuses to put a tag where it is already.
func keepsTags(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, tag, ok := strings.Cut(r.URL.Path, "/manifests/"); ok && r.Method == http.MethodPut && !strings.Contains(tag, ":") {
			head, there := r.Clone(r.Context()), httptest.NewRecorder()
			head.Method, head.Body = http.MethodHead, http.NoBody
			if inner.ServeHTTP(there, head); there.Code == http.StatusOK {
				http.Error(w, `{"errors":[{"code":"TAG_INVALID","message":"the tag already exists and the repository is immutable"}]}`, http.StatusBadRequest)
				return
			}
		}
		inner.ServeHTTP(w, r)
	})
}

// deniedBy NAME HOST: a proxy, at the address in the variable NAME, to a registry of the name HOST that refuses the user ci. Its
// certificate is in the file NAME.pem.
func deniedBy(ts *testscript.TestScript, neg bool, args []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	about := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: args[1:2], NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	registry := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); r.URL.Path == "/token" && ok {
			http.Error(w, `{"errors":[{"code":"DENIED","message":"permission_denied: The token provided does not match expected scopes."}]}`, http.StatusUnauthorized)
			return
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service=%q`, args[1], args[1]))
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
	}))
	registry.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	registry.Config.ErrorLog = log.New(io.Discard, "", 0)
	registry.StartTLS()
	ts.Defer(registry.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		far, err := net.Dial("tcp", registry.Listener.Addr().String())
		if err != nil || r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		near, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			far.Close()
			return
		}
		go func() {
			io.Copy(far, near)
			far.Close()
		}()
		io.Copy(near, far)
		near.Close()
	}))
	ts.Defer(proxy.Close)
	ts.Setenv(args[0], proxy.URL)
}
