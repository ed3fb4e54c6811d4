package main

import (
	"net/http/httptest"
	"testing"
)

func TestHandler(t *testing.T) {
	for _, test := range []struct {
		greeting, path, want string
		code                 int
	}{
		{"", "/healthz", "ok\n", 200},
		{"", "/ada", "Hello, ada!\n", 200},
		{"Good day", "/ada", "Good day, ada!\n", 200},
		{"", "/", "404 page not found\n", 404},
	} {
		rec := httptest.NewRecorder()
		handler(test.greeting).ServeHTTP(rec, httptest.NewRequest("GET", test.path, nil))
		if rec.Code != test.code || rec.Body.String() != test.want {
			t.Errorf("GET %s = %d %q, want %d %q", test.path, rec.Code, rec.Body, test.code, test.want)
		}
	}
}
