package nix

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/flakeship/flakeship/internal/narinfo"
	"github.com/flakeship/flakeship/internal/storepath"
)

// RemoteError is a store on another machine that cannot be used.
type RemoteError struct {
	Store string
	Err   error // the *CommandError
}

func (e *RemoteError) Error() string {
	cause := e.Err.Error()
	if c, ok := e.Err.(*CommandError); ok {
		cause = c.Cause()
	}
	return fmt.Sprintf("%s: %s", e.Store, cause)
}

func (e *RemoteError) Unwrap() error { return e.Err }

// at runs nix on another machine's store.
func (n *Nix) at(ctx context.Context, store string, args ...string) error {
	_, err := n.run(ctx, command{args: args, env: n.unasked()})
	if isCommandError(err) {
		return &RemoteError{store, err}
	}
	return err
}

// unasked keeps ssh from asking anybody for anything: nobody is there to answer.
func (n *Nix) unasked() []string {
	return []string{"NIX_SSHOPTS=" + strings.TrimSpace(n.getenv("NIX_SSHOPTS")+" -o BatchMode=yes -o ConnectTimeout=15")}
}

// send gives a store derivations with all that they are made with.
func (n *Nix) send(ctx context.Context, store string, drvs []string) error {
	for part := range n.parts(drvs) {
		if err := n.at(ctx, store, append([]string{"copy", "--derivation", "--to", store}, part...)...); err != nil {
			return err
		}
	}
	return nil
}

// bring copies here what a store has of paths, each with its closure, and says how many these are. A builder that one trusts to
// build is trusted without signatures; a Nix daemon wants its client to be one of its trusted users for that.
func (n *Nix) bring(ctx context.Context, store string, paths []string) (int, error) {
	var missing []storepath.Path
	for _, path := range paths {
		if p, err := storepath.Dir(n.Settings.StoreDir).Parse(path); err == nil && !n.Exists(path) {
			missing = append(missing, p)
		}
	}
	infos, err := n.PathInfo(ctx, store, missing, false)
	if err != nil {
		if isCommandError(err) {
			err = &RemoteError{store, err}
		}
		return 0, err
	}
	for part := range n.parts(texts(infos, n.Settings.StoreDir)) {
		if err := n.at(ctx, store, append([]string{"copy", "--no-check-sigs", "--from", store}, part...)...); err != nil {
			return 0, err
		}
	}
	return len(infos), nil
}

func texts(infos []*narinfo.NarInfo, dir string) []string {
	var all []string
	for _, info := range infos {
		all = append(all, dir+"/"+info.StorePath.String())
	}
	return all
}

// bringEvery is how often a build on another machine is asked for what is done: each time takes a connection.
const bringEvery = 2 * time.Second

// bringing copies outputs here as they are done on the other machine, until the returned function is called, which copies the rest.
func (b *build) bringing(ctx context.Context) (end func() error) {
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(bringEvery)
		defer tick.Stop()
		for seen := int64(0); ; {
			select {
			case <-running.Done():
				return
			case <-tick.C:
			}
			if now := b.log.ended(); now != seen {
				seen = now
				n, _ := b.nix.bring(running, b.o.Store, b.outPaths()) // the last time tells
				b.brought.Add(int64(n))
			}
		}
	}()
	return func() error {
		stop()
		<-ended
		return b.patiently(ctx, func() error {
			_, err := b.nix.bring(ctx, b.o.Store, b.outPaths())
			return err
		})
	}
}

// patiently does what needs another machine, and does it again, as a build is tried again, while the line to that is cut.
func (b *build) patiently(ctx context.Context, do func() error) error {
	for _, pause := range retries {
		err := do()
		if err == nil || !transient.MatchString(err.Error()) || ctx.Err() != nil {
			return err
		}
		b.log.say(fmt.Sprintf("warning: tried again in %s: %v", pause, err))
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	return do()
}

func sleep(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}

// goingOn is the URL of a store that goes on with the other builds when one fails. Nix does not tell a store behind ssh-ng that it
// is to, as it tells a daemon; but it starts what it speaks to.
func goingOn(store string) string {
	uri, query, _ := strings.Cut(store, "?")
	params, err := url.ParseQuery(query)
	if err != nil || !strings.HasPrefix(uri, "ssh-ng://") || params.Has("remote-program") {
		return store
	}
	params.Set("remote-program", "nix-daemon --option keep-going true")
	return uri + "?" + strings.ReplaceAll(params.Encode(), "+", "%20") // Nix reads no + as a blank
}
