package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
)

// repository is a flakeship in small: programs that print the version they were built with, for two platforms.
func repository(t *testing.T) string {
	t.Helper()
	tools, platforms = []string{"nix-cache-check", "push-images"}, []string{"linux-amd64", "linux-arm64"}
	dir := t.TempDir()
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(dir, "gitconfig"))
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	files := map[string]string{
		"gitconfig":                     "[user]\n\tname = a\n\temail = a@example.org\n[init]\n\tdefaultBranch = main\n",
		"src/go.mod":                    "module github.com/flakeship/flakeship\n\ngo 1.26.0\n",
		"src/.gitignore":                "/dist/\n",
		"src/CHANGELOG.md":              "# Changelog\n\n## Unreleased\n\n## v0.1.0\n\n- First.\n\n## v0.0.9\n\n- Older.\n",
		"src/internal/action/action.go": "package action\n\nvar Version, Commit string\n",
	}
	for _, tool := range tools {
		files["src/cmd/"+tool+"/main.go"] = "package main\n\nimport \"github.com/flakeship/flakeship/internal/action\"\n\nfunc main() { println(\"" + tool + "\", action.Version, action.Commit) }\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src := filepath.Join(dir, "src")
	must(t, src, "init", "--quiet")
	must(t, src, "add", ".")
	must(t, src, "commit", "--quiet", "--message", "first")
	return src
}

func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := git(t.Context(), dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A release in one clone is the same bytes in another; the branch and the work tree stay as they were.
func TestTagAndVerify(t *testing.T) {
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := minisign.EncryptKey("pass", private)
	if err != nil {
		t.Fatal(err)
	}
	src := repository(t)
	head := must(t, src, "rev-parse", "HEAD")
	other := filepath.Join(t.TempDir(), "another", "clone")
	must(t, src, "clone", "--quiet", src, other)

	t.Setenv("FLAKESHIP_MINISIGN_KEY", string(locked))
	t.Setenv("FLAKESHIP_MINISIGN_PASSWORD", "pass")
	for _, dir := range []string{src, other} {
		if err := tag(t.Context(), dir, "v0.1.0"); err != nil {
			t.Fatal(err)
		}
		if got := must(t, dir, "rev-parse", "main", "HEAD"); got != head+"\n"+head {
			t.Errorf("the branch moved to %s", got)
		}
		if got := must(t, dir, "status", "--porcelain", "--ignored"); got != "" {
			t.Errorf("left behind: %s", got)
		}
		if got := must(t, dir, "worktree", "list"); strings.Count(got, "\n") != 0 {
			t.Errorf("left behind: %s", got)
		}
	}
	sums := must(t, src, "show", "v0.1.0:dist/SHA256SUMS")
	if again := must(t, other, "show", "v0.1.0:dist/SHA256SUMS"); again != sums || strings.Count(sums, "\n") != 3 {
		t.Errorf("two builds differ:\n%s\n%s", sums, again)
	}
	if got := must(t, src, "tag", "--list", "--format=%(contents)", "v0.1.0"); strings.TrimSpace(got) != "v0.1.0\n\n- First." {
		t.Errorf("the tag says %q", got)
	}

	t.Setenv("FLAKESHIP_MINISIGN_KEY", "")
	t.Setenv("FLAKESHIP_MINISIGN_PUBLIC_KEY", public.String())
	if err := verify(t.Context(), src, "v0.1.0"); err != nil {
		t.Error(err)
	}
	if err := tag(t.Context(), src, "v0.1.0"); err == nil || !strings.Contains(err.Error(), "a tag never moves") {
		t.Errorf("tagged again: %v", err)
	}
	if err := tag(t.Context(), src, "v0.2.0"); err == nil || !strings.Contains(err.Error(), `no section "## v0.2.0"`) {
		t.Errorf("tagged without notes: %v", err)
	}

	// sha256sum is what a user without Go checks with.
	published := filepath.Join(t.TempDir(), "published")
	must(t, src, "clone", "--quiet", "--branch", "v0.1.0", src, published)
	check := exec.Command("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
	check.Dir = filepath.Join(published, "dist")
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	out, err := exec.Command(filepath.Join(published, "dist", "linux-amd64", "push-images")).CombinedOutput()
	if want := "push-images v0.1.0 " + head + "\n"; err != nil || string(out) != want {
		t.Errorf("printed %q, %v", out, err)
	}
}

// Whoever can push a tag can put anything into it.
func TestVerifyFindsWhatIsNotOfTheSource(t *testing.T) {
	src := repository(t)
	if err := tag(t.Context(), src, "v0.1.0"); err != nil {
		t.Fatal(err)
	}
	evil := func(change string) error {
		t.Helper()
		clone := filepath.Join(t.TempDir(), "clone")
		must(t, src, "clone", "--quiet", "--branch", "v0.1.0", src, clone)
		if out, err := exec.Command("sh", "-c", "cd '"+clone+"' && "+change).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		must(t, clone, "add", "--force", ".")
		tree := must(t, clone, "write-tree")
		commit := must(t, clone, "commit-tree", tree, "-p", "v0.1.0^", "-m", "evil")
		must(t, clone, "tag", "--force", "v0.1.0", commit)
		return verify(t.Context(), clone, "v0.1.0")
	}
	for change, want := range map[string]string{
		"echo x >>CHANGELOG.md":                 "changes CHANGELOG.md of its source commit",
		"echo x >>dist/linux-amd64/push-images": "dist/SHA256SUMS is not of the files beside it",
		"echo x >dist/linux-amd64/one-more":     "dist/SHA256SUMS is not of the files beside it",
		"rm -r dist/linux-arm64":                "dist/SHA256SUMS is not of the files beside it",
		"cd dist && echo x >>linux-amd64/push-images && find . -type f ! -name 'SHA256*' | sed 's,./,,' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS": "these differ:\n- ",
	} {
		if err := evil(change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", change, err)
		}
	}
	if err := evil("true"); err != nil {
		t.Error(err)
	}

	public, _, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("FLAKESHIP_MINISIGN_PUBLIC_KEY", public.String())
	if err := evil("true"); err == nil || !strings.Contains(err.Error(), "SHA256SUMS is not signed") {
		t.Errorf("without a signature: %v", err)
	}
	_, stranger, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(write(t, must(t, src, "show", "v0.1.0:dist/SHA256SUMS")+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	signed := write(t, string(minisign.Sign(stranger, sums)))
	if err := evil("cp " + signed + " dist/SHA256SUMS.minisig"); err == nil || !strings.Contains(err.Error(), "the signature is not by key") {
		t.Errorf("signed by a stranger: %v", err)
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
