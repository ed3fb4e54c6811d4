package nix

import (
	"context"
	"fmt"
	"net/url"
	"os"
)

// CopyOptions say how CopyToStore copies.
type CopyOptions struct {
	SecretKey  string // name:base64 with which each path of the closures is signed there; empty: paths keep the signatures they have
	Substitute bool   // the store fetches itself what its own caches serve
}

// CopyToStore copies the closures of paths to a store that is no cache of files, such as one behind ssh-ng, and signs them there, also
// those that it had before. Whoever runs Nix there has to trust the client: what is copied need not be signed before.
//
// The key is in no argument and in no file with a name: nobody can read it, and nothing is left of it when the process is killed.
//
// Errors: *RemoteError, ctx.Err().
func (n *Nix) CopyToStore(ctx context.Context, store string, paths []string, o CopyOptions) error {
	args := []string{"copy", "--no-check-sigs", "--to", store}
	if o.Substitute {
		args = append(args, "--substitute-on-destination")
	}
	for part := range n.parts(paths) {
		if err := n.at(ctx, store, append(args[:len(args):len(args)], part...)...); err != nil {
			return err
		}
		if o.SecretKey == "" {
			continue
		}
		c := command{env: n.unasked()}
		defer c.close()
		file, err := c.secret(o.SecretKey)
		if err != nil {
			return err
		}
		c.args = append([]string{"store", "sign", "--store", store, "--recursive", "--key-file", file}, part...)
		if _, err := n.run(ctx, c); isCommandError(err) {
			return &RemoteError{store, err}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Redacted is a cache's URL for people: without user, password and settings.
func Redacted(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
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
