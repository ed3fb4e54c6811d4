package resolve

import (
	"fmt"
	"testing"
)

// How each way to write an image is understood. The push result holds api, worker and tools/migrate.
func TestReferences(t *testing.T) {
	api := "reg:5000/team/api:" + hash + "@" + digest("1")
	tools := "reg:5000/team/tools/migrate:" + hash + "@" + digest("3")
	const asIs, refused = "as it is", "refused"
	tests := []struct{ from, want string }{
		// by repository
		{"reg:5000/team/api", api},
		{"reg:5000/team/api:v1", api},
		{"REG:5000/team/api:v1", api},
		{"reg:5000/team/api:v1@" + digest("9"), api},
		{"reg:5000/team/api@" + digest("9"), api},
		{"reg:5000/team/tools/migrate", tools},
		{api, api},
		// by bare name
		{"api", api},
		{"api:latest", api},
		{"api:v1@" + digest("9"), api},
		{"tools/migrate:v1", tools},
		// somebody else's
		{"docker.io/library/api", asIs},
		{"docker.io/api", asIs},
		{"localhost/api", asIs},
		{"other:5000/team/api:v1", asIs},
		{"reg:5001/team/api", asIs},
		{"reg/team/api", asIs}, // Docker Hub, user reg
		{"team/api", asIs},
		{"migrate", asIs},
		{"apis", asIs},
		{"redis:7", asIs},
		{"reg:5000", asIs}, // Docker Hub's library/reg with tag 5000
		// of our registry, but not in the push result
		{"reg:5000/team/web:v1", refused},
		{"reg:5000/team/api/sub", refused},
		{"reg:5000/team/web:v1@" + digest("9"), asIs}, // pinned already
		{"reg:5000/team-b/api", asIs},                 // another prefix
		// no reference
		{"${IMAGE}", refused},
		{"ko://x", refused},
		{"api:", refused},
		{"reg:5000/Team/api", refused},
		{"api@sha256:abc", refused},
		{" api", refused},
	}
	for _, tt := range tests {
		objects := decode(t, fmt.Sprintf(pod, tt.from))
		result := table(t, push("reg:5000/team", "api", "worker", "tools/migrate")).Objects(objects, strict)
		got := image(t, objects)
		switch {
		case len(result.Problems) > 0:
			if got != tt.from {
				t.Errorf("%q was refused, yet written as %q", tt.from, got)
			}
			got = refused
		case got == tt.from && len(result.Pinned) == 0:
			got = asIs
		}
		if got != tt.want {
			t.Errorf("%q becomes %q, want %q (%v)", tt.from, got, tt.want, result.Problems)
		}
	}
}

func TestRegistries(t *testing.T) {
	for _, tt := range []struct {
		registry, from string
		match          bool
	}{
		{"registry.example.org:443/team", "registry.example.org/team/api", true},
		{"registry.example.org/team", "Registry.Example.org:443/team/api:v1", true},
		{"registry.example.org", "registry.example.org/api", true},
		{"docker.io/team", "team/api", true},
		{"team", "docker.io/team/api", true},
		{"docker.io/team", "index.docker.io/team/api", true},
		{"docker.io", "docker.io/library/api", true},
		{"localhost:5000", "localhost:5000/api", true},
		{"[::1]:5000/team", "[::1]:5000/team/api", true},
		{"reg:443/team", "reg/team/api", false},
	} {
		objects := decode(t, fmt.Sprintf(pod, tt.from))
		result := table(t, push(tt.registry, "api")).Objects(objects, strict)
		if got := len(result.Pinned) == 1; got != tt.match {
			t.Errorf("registry %s, image %s: pinned %v, want %v", tt.registry, tt.from, got, tt.match)
		}
	}
	// Docker Hub's library belongs to everybody.
	if result := table(t, push("docker.io", "api")).Objects(decode(t, fmt.Sprintf(pod, "redis")), strict); len(result.Problems) > 0 {
		t.Errorf("redis: %v", result.Problems)
	}
}
