package nix

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
)

// CopyOptions say where to copy to and who signs.
type CopyOptions struct {
	To        string // URL of a cache: http, https, file, or what else the installed Nix can write to
	SecretKey string // name:base64 with which each path is signed that is written; empty: paths keep the signatures they have
}

// CopyError is a copy that failed.
type CopyError struct {
	To     string // without credentials
	Denied bool   // the cache refuses the credentials, or wants some
	Err    error  // the *CommandError
}

func (e *CopyError) Error() string {
	cause := e.Err.Error()
	var c *CommandError
	if errors.As(e.Err, &c) {
		cause = c.Cause()
	}
	return fmt.Sprintf("copy to %s: %s", e.To, cause)
}

func (e *CopyError) Unwrap() error { return e.Err }

// Copy writes the closures of paths to a cache, without what it has already. A path that the cache has is left as it is, even
// when it has no signature: see to it that you look.
//
// Neither the key nor credentials in the URL are in an argument or in a file with a name: nobody can read them, and nothing is
// left of them when the process is killed.
//
// Errors: *CopyError, ctx.Err().
func (n *Nix) Copy(ctx context.Context, paths []string, o CopyOptions) error {
	if len(paths) == 0 {
		return nil
	}
	to, err := url.Parse(o.To)
	if err != nil {
		return fmt.Errorf("cache URL: %w", errors.Unwrap(err)) // without the URL, which may hold a password
	}
	// What an earlier run knew of the cache is not to be believed: Nix keeps for weeks that a path is there.
	cache, err := os.MkdirTemp(n.getenv("RUNNER_TEMP"), "flakeship-copy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	c := command{args: []string{"copy"}, env: []string{"XDG_CACHE_HOME=" + cache}}
	defer c.close()

	params := to.Query()
	if o.SecretKey != "" {
		file, err := c.secret(o.SecretKey)
		if err != nil {
			return err
		}
		params.Set("secret-key", file)
	}
	if to.User == nil && n.netrc != "" {
		c.args = append(c.args, "--option", "netrc-file", n.netrc)
	}
	if to.User != nil {
		file, err := c.secret(n.netrcWith(to))
		if err != nil {
			return err
		}
		c.args = append(c.args, "--option", "netrc-file", file)
		to.User = nil
	}
	name := Redacted(to)
	if !params.Has("compression") && isBinaryCache(to.Scheme) {
		params.Set("compression", "zstd") // several times as fast as xz, which is Nix's default; read since 2.4
	}
	to.RawQuery = strings.ReplaceAll(params.Encode(), "%2F", "/")
	c.args = append(append(c.args, "--to", to.String()), paths...)
	_, err = n.run(ctx, c)
	if isCommandError(err) {
		return &CopyError{To: name, Denied: refused.MatchString(err.(*CommandError).Stderr), Err: err}
	}
	return err
}

// Redacted is a cache's URL for people: without user, password and settings.
func Redacted(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func isBinaryCache(scheme string) bool {
	return scheme == "http" || scheme == "https" || scheme == "file" || scheme == "s3"
}

var refused = regexp.MustCompile(`HTTP error 40[137]|AccessDenied|Access Denied`)

// netrcWith is the text of Nix's netrc file, with the credentials of a URL before it.
func (n *Nix) netrcWith(u *url.URL) string {
	password, _ := u.User.Password()
	text := fmt.Sprintf("machine %s login %s password %s\n", u.Hostname(), netrcWord(u.User.Username()), netrcWord(password))
	more, _ := os.ReadFile(n.Settings.NetrcFile) // by default a file that need not exist
	return text + string(more)
}

// netrcWord quotes a word where it needs that; only curl since 7.84 reads quotes.
func netrcWord(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\"\\#") {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
}

// secret makes text readable for the command, and for nobody else, under the returned path: an open file that has no name.
func (c *command) secret(text string) (path string, err error) {
	f, err := os.CreateTemp("", "flakeship-*") // mode 0600
	if err != nil {
		return "", err
	}
	c.files = append(c.files, f)
	if err := os.Remove(f.Name()); err != nil { // before there is anything in it
		return "", err
	}
	if _, err := f.WriteString(text); err != nil {
		return "", err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return "", err
	}
	return fmt.Sprintf("/dev/fd/%d", 2+len(c.files)), nil
}

func (c *command) close() {
	for _, f := range c.files {
		f.Close()
	}
}
