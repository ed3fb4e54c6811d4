package push

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flakeship/flakeship/internal/image"
)

// task is one layer, for every image that has it.
type task struct {
	layer *image.Layer
	users []user
}

// user is one place of a layer in an image.
type user struct {
	member *member
	index  int
}

// sendLayers brings the layers of all members to their repositories. A member is completed as soon as its last layer is
// there; the others need not wait for it.
func (r *run) sendLayers(ctx context.Context, members []*member) {
	var todo []*member
	for _, m := range members {
		if !m.same && m.failed() == nil && m.image != nil {
			todo = append(todo, m)
		}
	}
	if len(todo) == 0 {
		return
	}
	r.learnFromOthers(ctx, members, todo)
	r.identify(ctx, todo)
	tasks := makeTasks(todo)
	for _, m := range todo {
		m.waiting.Add(1) // so that no member is completed before all tasks are counted
	}
	for _, t := range tasks {
		for _, m := range t.members() {
			m.waiting.Add(1)
		}
	}
	each(ctx, todo, func(m *member) { r.taskDone(ctx, m) })
	// More than there are processors: while some compress, the others send or wait for an answer.
	work := make(chan *task)
	var wait sync.WaitGroup
	for range r.Workers + sending {
		wait.Go(func() {
			for t := range work {
				r.place(ctx, t)
				for _, m := range t.members() {
					r.taskDone(ctx, m)
				}
			}
		})
	}
	for _, t := range tasks {
		work <- t
	}
	close(work)
	wait.Wait()
}

// sending is how many layers may be on their way to the registry while others are compressed. Small ones take longer to send than
// to compress, most of it waiting: with few of them the processors would wait too.
const sending = 12

// taskDone completes a member after its last task.
func (r *run) taskDone(ctx context.Context, m *member) {
	if m.waiting.Add(-1) > 0 {
		return
	}
	if m.failed() == nil {
		m.fail(r.complete(ctx, m))
	}
	r.leave(ctx, m)
}

// identify finds the diffIDs that nobody knows before a layer is written, as images in the registry have them for the
// layers' keys. Where no image has keys, because another tool pushed it, the layers are written once to see; and where
// nothing was learned, nor can be, there is nothing to compare them with: then they are compressed at once.
func (r *run) identify(ctx context.Context, todo []*member) {
	annotated := false
	for _, m := range todo {
		annotated = r.known.name(m.image.Layers)
	}
	if annotated || r.known.empty() {
		return
	}
	byKey := map[string][]user{}
	for _, m := range todo {
		for i, l := range m.image.Layers {
			if l.DiffID == (v1.Hash{}) {
				byKey[l.Key] = append(byKey[l.Key], user{m, i})
			}
		}
	}
	var keys [][]user
	for _, users := range byKey {
		keys = append(keys, users)
	}
	each(ctx, keys, func(users []user) {
		release, err := r.slot(ctx)
		if err != nil {
			return
		}
		defer release()
		first := users[0].layer()
		err = first.WriteTar(ctxWriter{ctx, io.Discard})
		for _, u := range users {
			if err != nil {
				u.member.fail(err)
				continue
			}
			u.layer().DiffID, u.layer().Size = first.DiffID, first.Size
		}
	})
}

func (u user) layer() *image.Layer { return u.member.image.Layers[u.index] }

// learnFromOthers reads the images that were there before, when a layer is known nowhere yet: one of them may have it.
func (r *run) learnFromOthers(ctx context.Context, members, todo []*member) {
	if r.NoLearn || !slices.ContainsFunc(todo, func(m *member) bool {
		return slices.ContainsFunc(m.image.Layers, func(l *image.Layer) bool {
			_, _, ok := r.known.elsewhere(l.DiffID)
			return !ok
		})
	}) {
		return
	}
	each(ctx, members, func(m *member) {
		if m.Present && m.failed() == nil {
			if _, err := r.learn(ctx, m.repo, m.manifest.Digest, v1.Platform{}); err != nil {
				r.Debugf("%s: nothing learned: %v", m.repo, err)
			}
		}
	})
}

// makeTasks collects the layers of all members, each once, the biggest first: a big one that starts last keeps one
// processor busy and the others waiting.
func makeTasks(todo []*member) []*task {
	byKey := map[string]*task{}
	var tasks []*task
	for _, m := range todo {
		for i, l := range m.image.Layers {
			key := l.Key
			if l.DiffID != (v1.Hash{}) {
				key = l.DiffID.String()
			}
			t := byKey[key]
			if t == nil {
				t = &task{layer: l}
				byKey[key] = t
				tasks = append(tasks, t)
			}
			t.users = append(t.users, user{m, i})
		}
	}
	slices.SortStableFunc(tasks, func(a, b *task) int { return int(min(max(b.layer.Size-a.layer.Size, -1), 1)) })
	return tasks
}

// members are those that wait for the task, each once.
func (t *task) members() []*member {
	var all []*member
	for _, u := range t.users {
		if !slices.Contains(all, u.member) {
			all = append(all, u.member)
		}
	}
	return all
}

// how a layer got into a repository.
type how int

const (
	nowhere how = iota
	reused
	mounted
	uploaded
)

// place brings a task's layer to every repository that needs it: the first gets it sent, the others take it over.
func (r *run) place(ctx context.Context, t *task) {
	b := &lazyBlob{}
	defer b.close()
	placed := 0
	for i, u := range t.users {
		if r.placeFor(ctx, t.layer, u, b) {
			placed = i + 1
			break
		}
	}
	if placed > 0 {
		each(ctx, t.users[placed:], func(u user) { r.placeFor(ctx, t.layer, u, b) })
	}
}

// placeFor brings a layer to where u has it, and says whether that went well.
func (r *run) placeFor(ctx context.Context, l *image.Layer, u user, b *lazyBlob) bool {
	if u.member.failed() != nil {
		return false
	}
	d, h, err := r.placeIn(ctx, l, u.member, b)
	if err != nil {
		u.member.fail(fmt.Errorf("layer %d of %d: %w", u.index+1, len(u.member.image.Layers), err))
		return false
	}
	if own := u.layer(); own != l {
		own.DiffID, own.Size = l.DiffID, l.Size
	}
	u.member.placed[u.index], u.member.how[u.index] = d, h
	return true
}

// lazyBlob is a layer's blob once somebody needed it.
type lazyBlob struct {
	mu sync.Mutex
	*blob
}

func (b *lazyBlob) close() {
	if b.blob != nil {
		b.blob.close()
	}
}

// placeIn brings a layer to a member's repository.
func (r *run) placeIn(ctx context.Context, l *image.Layer, m *member, b *lazyBlob) (v1.Descriptor, how, error) {
	unknown := l.DiffID == (v1.Hash{})
	d, h, session, err := r.takeOver(ctx, l, m)
	if h != nowhere || err != nil {
		return d, h, err
	}
	made, err := r.materialise(ctx, l, b)
	if err != nil {
		return v1.Descriptor{}, nowhere, err
	}
	if unknown { // now it has a name to ask for
		if d, h, session, err = r.takeOver(ctx, l, m); h != nowhere || err != nil {
			return d, h, err
		}
	}
	h, err = r.sendBlob(ctx, m, session, made.Descriptor, made.reader)
	if err != nil {
		return v1.Descriptor{}, nowhere, fmt.Errorf("%s: %w", made.Digest, err)
	}
	r.known.add(l.DiffID, m.repo.Path(), made.Descriptor)
	return made.Descriptor, h, nil
}

// takeOver uses what is known: the layer is in the repository, or comes there from another one. session is an upload that
// the registry opened instead.
func (r *run) takeOver(ctx context.Context, l *image.Layer, m *member) (d v1.Descriptor, h how, session *url.URL, err error) {
	if l.DiffID == (v1.Hash{}) {
		return d, nowhere, nil, nil
	}
	if d, ok := r.known.in(m.repo.Path(), l.DiffID); ok {
		there := true
		if r.Verify {
			if there, err = exists(ctx, m.repo, d.Digest.String()); err != nil {
				return d, nowhere, nil, err
			}
		}
		if there {
			return d, reused, nil, nil
		}
		r.known.forget(l.DiffID, m.repo.Path())
	}
	path, d, ok := r.known.elsewhere(l.DiffID)
	if !ok {
		return d, nowhere, nil, nil
	}
	done, session, err := mount(ctx, m.repo, r.repos[path], d.Digest.String())
	switch {
	case err != nil:
		return d, nowhere, nil, err
	case done:
		r.known.add(l.DiffID, m.repo.Path(), d)
		return d, mounted, nil, nil
	}
	r.Debugf("%s: %s cannot be mounted from %s", m.repo, d.Digest, path)
	return d, nowhere, session, nil
}

// sendBlob sends a blob unless the repository has it: a run that was killed may have sent it.
func (r *run) sendBlob(ctx context.Context, m *member, session *url.URL, d v1.Descriptor, body func() io.Reader) (how, error) {
	digest := d.Digest.String()
	if session == nil {
		there, opened, err := mount(ctx, m.repo, m.repo, digest)
		if err == nil && !there && opened == nil { // a registry that does not know how to mount
			there, err = exists(ctx, m.repo, digest)
		}
		if err != nil {
			return nowhere, err
		}
		if there {
			return reused, nil
		}
		session = opened
	}
	if err := r.upload(ctx, m, session, digest, d.Size, body); err != nil {
		return nowhere, err
	}
	return uploaded, nil
}

// repair looks after a registry that does not have what its own manifests name: each layer that is gone is sent.
func (r *run) repair(ctx context.Context, m *member) error {
	for i, l := range m.image.Layers {
		there, err := exists(ctx, m.repo, m.placed[i].Digest.String())
		if err != nil {
			return err
		}
		if there {
			continue
		}
		r.Debugf("%s: %s is gone", m.repo, m.placed[i].Digest)
		r.known.forget(l.DiffID, m.repo.Path())
		r.place(ctx, &task{layer: l, users: []user{{m, i}}})
		if err := m.failed(); err != nil {
			return err
		}
	}
	return nil
}
