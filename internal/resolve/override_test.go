package resolve

import (
	"fmt"
	"strings"
	"testing"
)

func TestOverrides(t *testing.T) {
	pinned := "reg:5000/team/api:old@" + digest("7")
	for _, tt := range []struct{ override, from, want string }{
		{"api=" + pinned, "api:v1", pinned},
		{"api=" + pinned, "reg:5000/team/api:v1", pinned},
		{"reg:5000/team/api=" + pinned, "api:v1", pinned},
		{"redis=mirror.example.org/redis:7@" + digest("8"), "docker.io/library/redis:6", "mirror.example.org/redis:7@" + digest("8")},
		{"docker.io/library/redis = redis:7", "redis:6", "docker.io/library/redis:7"},
	} {
		objects := decode(t, fmt.Sprintf(pod, tt.from))
		result := table(t, push("reg:5000/team", "api"), tt.override).Objects(objects, strict)
		if got := image(t, objects); got != tt.want || len(result.Problems) > 0 {
			t.Errorf("%s: %s becomes %s, want %s (%v)", tt.override, tt.from, got, tt.want, result.Problems)
		}
	}
	// Without a push result, a bare NAME is Docker Hub's, and so is a bare name in an object.
	objects := decode(t, fmt.Sprintf(pod, "api:v1"))
	table(t, nil, "api="+pinned).Objects(objects, strict)
	if got := image(t, objects); got != pinned {
		t.Errorf("without a push result: %s", got)
	}
	result := table(t, push("reg:5000/team", "api"), "api=reg:5000/team/api:v1").Objects(decode(t, fmt.Sprintf(pod, "api")), strict)
	if len(result.Problems) != 1 || !strings.Contains(result.Problems[0].Text, "has no digest") {
		t.Errorf("override without a digest: %v", result.Problems)
	}
}

func TestOverridesRefused(t *testing.T) {
	for _, tt := range []struct {
		overrides []string
		want      string
	}{
		{[]string{"api"}, `"api" is not NAME=reference`},
		{[]string{"=x"}, `"=x" is not NAME=reference`},
		{[]string{"api=UPPER"}, `"api=UPPER": "UPPER" is no image reference: invalid reference format: repository name (library/UPPER) must be lowercase`},
		{[]string{"Über=x"}, `"Über=x": "Über" is neither an image of the push result nor a repository: invalid reference format: repository name (library/Über) must be lowercase`},
		{[]string{"redis:6=redis:7"}, `"redis:6=redis:7": "redis:6" has a tag or digest; an override is for the repository "docker.io/library/redis"`},
		{[]string{"api=x:1", "reg:5000/team/api=x:2"}, `"reg:5000/team/api=x:2": reg:5000/team/api is overridden twice, also by docker.io/library/x:1`},
		{[]string{"redis=reg:5000/team/api:v1"}, "redis becomes reg:5000/team/api:v1, but that repository is itself to become reg:5000/team/api:" + hash + "@" + digest("1")},
	} {
		_, err := New(push("reg:5000/team", "api"), tt.overrides)
		if err == nil || err.Error() != tt.want {
			t.Errorf("New(%q) = %v, want %s", tt.overrides, err, tt.want)
		}
	}
	bad := push("reg:5000/team", "api")
	bad.Images[0].Digest = ""
	if _, err := New(bad, nil); err == nil {
		t.Error("a push result without a digest was taken")
	}
}
