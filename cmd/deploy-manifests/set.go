package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/apply"
	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/deployset"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/manifest"
)

// setName is the input name, else the repository's.
func setName(env *action.Env) (string, error) {
	name := env.Text("name")
	if name == "" {
		name = deployset.Name(env.Getenv("GITHUB_REPOSITORY"))
	}
	if name == "" {
		return "", action.Fail(action.BadInput, errors.New("the set has no name: outside of a runner there is no repository to name it after"),
			"give the input name: objects deployed by one name belong together, and what leaves them is deleted")
	}
	if err := deployset.CheckName(name); err != nil {
		return "", action.Fail(action.BadInput, fmt.Errorf("input name: %w", err), "choose such a name")
	}
	return name, nil
}

// record says who deploys what.
func record(ctx context.Context, env *action.Env, in inputs) deployset.Record {
	r := deployset.Record{Commit: env.Getenv("GITHUB_SHA"), Workflow: env.Getenv("GITHUB_WORKFLOW"), Run: runURL(env), At: time.Now().UTC().Truncate(time.Second)}
	if in.push != nil && in.push.Commit != "" {
		r.Commit = in.push.Commit
	}
	r.RunNumber, _ = strconv.ParseInt(env.Getenv("GITHUB_RUN_NUMBER"), 10, 64) // 0 when there is none
	if r.Commit != "" && r.RunNumber == 0 {
		r.CommitTime = commitTime(ctx, r.Commit)
	}
	return r
}

// runURL is where the run can be seen; without a runner it is the machine and the process.
func runURL(env *action.Env) string {
	server, repository, id := env.Getenv("GITHUB_SERVER_URL"), env.Getenv("GITHUB_REPOSITORY"), env.Getenv("GITHUB_RUN_ID")
	if env.Getenv("GITEA_ACTIONS") == "true" { // whose pages count the runs of a repository
		id = env.Getenv("GITHUB_RUN_NUMBER")
	}
	if server != "" && repository != "" && id != "" {
		return server + "/" + repository + "/actions/runs/" + id
	}
	host, _ := os.Hostname()
	return fmt.Sprintf("process %d on %s", os.Getpid(), host)
}

// commitTime asks git, in the folder the run is in, when a commit was made; zero when that is not to be had.
func commitTime(ctx context.Context, commit string) time.Time {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	out, err := exec.CommandContext(ctx, "git", "show", "--no-patch", "--format=%ct", commit, "--").Output()
	if err != nil {
		return time.Time{}
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// begin takes the lock and reads the set. Both are put off until the first write when the namespace they are kept in comes with
// the manifests.
func (d *deploy) begin(ctx context.Context) error {
	err := d.acquire(ctx)
	if errors.Is(err, deployset.ErrNoNamespace) && d.ownNamespace() != nil {
		return nil
	}
	return explainSet(err, d.cluster.Server)
}

func (d *deploy) acquire(ctx context.Context) (err error) {
	d.lock, err = deployset.Acquire(ctx, d.cluster, d.name, deployset.LockOptions{
		Holder:   d.record.Run,
		Patience: d.env.Duration("lock-timeout"),
		Waiting:  func(e *deployset.HeldError) { d.env.Infof("waiting: %s", waitingFor(e, time.Now())) },
		Died:     func(e *deployset.HeldError) { d.env.Infof("took over the lock of a run that has died: %s", e.Holder) },
		Lost:     func(err error) { d.lost(err) },
	})
	if err != nil {
		return err
	}
	d.cluster.Fence(func(ctx context.Context) error {
		err := d.lock.Held(ctx)
		if errors.Is(err, deployset.ErrLost) {
			d.lost(err)
		}
		return err
	})
	if err := d.set.Open(ctx); err != nil {
		return err
	}
	if d.env.Bool("allow-older") {
		return nil
	}
	return d.set.CheckOrder(d.record)
}

// release lets the next run in, whatever became of this one.
func (d *deploy) release(ctx context.Context) {
	if d.lock == nil {
		return
	}
	if err := d.lock.Release(ctx); err != nil {
		d.env.Warnf("the set's lock could not be released, the next run waits until it has run out: %s", cluster.Diagnose(err).Text)
	}
}

// waitingFor says who has the lock, and how long that is believed of a run that is silent.
func waitingFor(e *deployset.HeldError, now time.Time) string {
	switch left := e.Until.Sub(now).Round(time.Second).Seconds(); {
	case e.Gone:
		return fmt.Sprintf("%v; its process, on this machine, is gone: this run goes on in %.0f s", e, left)
	case e.Until.IsZero():
		return e.Error()
	default:
		return fmt.Sprintf("%v; if it is silent for %.0f s, until %s, it has died and this run goes on", e, left, e.Until.UTC().Format("15:04:05"))
	}
}

// ownNamespace is the Namespace object of the manifests that the set is kept in; nil: there is none.
func (d *deploy) ownNamespace() *manifest.Object {
	i := slices.IndexFunc(d.objects, func(o manifest.Object) bool {
		return o.GroupVersionKind().GroupKind() == schema.GroupKind{Kind: "Namespace"} && o.GetName() == d.cluster.Namespace
	})
	if i < 0 {
		return nil
	}
	return &d.objects[i]
}

// beforeWriting is called when every object was found right and before the first is written.
func (d *deploy) beforeWriting(ctx context.Context) error {
	if d.lock == nil {
		o := d.ownNamespace()
		namespaces := d.cluster.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
		if _, err := namespaces.Apply(ctx, o.GetName(), o.Unstructured, metav1.ApplyOptions{FieldManager: apply.FieldManager}); err != nil {
			return explainRequest(err, d.cluster.Server)
		}
		if err := d.acquire(ctx); err != nil {
			return explainSet(err, d.cluster.Server)
		}
	}
	if err := d.look(ctx); err != nil {
		return err
	}
	return explainSet(d.set.Begin(ctx, d.objects, d.record), d.cluster.Server)
}

// look finds what has left the manifests, and refuses to go on when that is too much. It looks once.
func (d *deploy) look(ctx context.Context) (err error) {
	if d.looked || !d.env.Bool("prune") {
		return nil
	}
	d.looked = true
	if d.former, err = d.set.Former(ctx, d.kinds, d.objects, apply.FieldManager); err != nil {
		return explainSet(err, d.cluster.Server)
	}
	var names []string
	for _, m := range d.former {
		if m.Kept == "" {
			names = append(names, m.ID())
		}
	}
	if limit := d.env.Int("prune-limit"); len(names) > limit {
		f := action.Fail(action.BadInput, fmt.Errorf("%d objects of the set %s are not in the manifests and would be deleted, prune-limit is %d: %s", len(names), d.name, limit, action.Names(names)),
			"if they are to go, raise prune-limit; if not, give all manifests of the set, or another name; nothing was applied")
		f.Detail = strings.Join(names, "\n")
		return f
	}
	return d.mayPrune(ctx)
}

// mayPrune refuses to begin what could not be finished: a prune that is not allowed.
func (d *deploy) mayPrune(ctx context.Context) error {
	known := map[string]cluster.Rules{} // by namespace
	var refused apply.Error
	for _, m := range d.former {
		if m.Kept != "" {
			continue
		}
		namespace := cmp.Or(m.Namespace, d.cluster.Namespace) // rules for the whole cluster are among those of any
		if _, asked := known[namespace]; !asked {
			rules, err := d.cluster.Rules(ctx, namespace)
			if err != nil {
				return explainSet(err, d.cluster.Server)
			}
			known[namespace] = rules
		}
		for _, verb := range []string{"get", "delete"} {
			if !known[namespace].Allow(verb, m.Kind, m.Name) {
				missing := cluster.Right{Verb: verb, Resource: m.Kind.Resource, Group: m.Kind.Group, Namespace: m.Namespace}
				refused.Problems = append(refused.Problems, apply.Problem{ID: m.ID(), At: "to be pruned",
					Reason: cluster.Diagnosis{Class: cluster.Denied, Text: missing.String(), Missing: &missing}})
				break
			}
		}
	}
	if len(refused.Problems) == 0 {
		return nil
	}
	return explainRefused(&refused)
}

// settle keeps what runs now as the set's next version and deletes what has left it.
func (d *deploy) settle(ctx context.Context) error {
	objects := applied(d.changes)
	last := d.set.Deployed()
	record, err := d.set.Save(ctx, objects, d.record)
	if err != nil {
		return explainSet(err, d.cluster.Server)
	}
	d.result.History = record.Version
	var pruneErr error
	var survivors []deployset.Member
	if d.looked {
		survivors, pruneErr = d.prune(ctx)
	}
	// It runs, and that is noted even when the time is over by now.
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer stop()
	if d.looked {
		err = d.set.Finish(ctx, objects, survivors, record)
	} else {
		err = d.set.FinishWithoutPrune(ctx, objects, record)
	}
	if err == nil && (last == nil || last.Version != record.Version) {
		err = d.set.Trim(ctx)
	}
	return errors.Join(explainPrune(pruneErr, d.cluster.Server), explainSet(err, d.cluster.Server))
}

// noteTimeout bounds what is noted in the cluster once everything runs: two or three requests.
const noteTimeout = 15 * time.Second

// prune deletes what has left the manifests, and returns what of that is still there.
func (d *deploy) prune(ctx context.Context) (survivors []deployset.Member, err error) {
	fates, err := d.set.Prune(ctx, d.former, deployset.PruneOptions{Order: apply.Order,
		Report: func(f deployset.Fate) { d.env.Infof("%-10s  %s", handoff.ActionPruned, f.ID()) }})
	for _, f := range fates {
		o := handoff.DeployedObject{APIVersion: f.Kind.GroupVersion().String(), Kind: f.Kind.Kind, Namespace: f.Namespace, Name: f.Name,
			Action: handoff.ActionPruned, Rollout: handoff.RolloutNone}
		if !f.Gone {
			o.Action, o.Message = handoff.ActionKept, f.Message
			survivors = append(survivors, f.Member)
			d.env.Infof("%-10s  %s: %s", handoff.ActionKept, f.ID(), f.Message)
		}
		d.result.Objects = append(d.result.Objects, o)
	}
	return survivors, err
}

// explainPrune explains what Set.Prune returns.
func explainPrune(err error, server string) error {
	var stuck *deployset.StuckError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &stuck):
		return action.Fail(action.Failed, fmt.Errorf("everything runs, but not all is gone that has left the manifests: %w", err),
			"whoever put the finalizer there has to remove it: look for that controller; the next deploy looks again")
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("everything runs; what has left the manifests was still being deleted: %w", err)
	}
	return explainRequest(err, server)
}

// explainSet explains what the other methods of a set return.
func explainSet(err error, server string) error {
	var held *deployset.HeldError
	var stale *deployset.StaleError
	var owned *deployset.OwnedError
	var failure *action.Failure
	switch {
	case err == nil || errors.As(err, &failure):
		return err
	case errors.As(err, &held):
		return action.Fail(action.Conflict, err, "wait until that run is over, or cancel it; a longer lock-timeout waits longer; nothing was applied")
	case errors.As(err, &stale):
		return action.Fail(action.Conflict, err, "to go back on purpose, set allow-older: true; nothing was applied")
	case errors.As(err, &owned):
		return action.Fail(action.Conflict, err, "give another name, or another namespace; nothing was applied")
	case errors.Is(err, deployset.ErrLost):
		return action.Fail(action.Conflict, err, "run it again once that run is over: what was applied is not applied twice")
	case errors.Is(err, deployset.ErrNoNamespace):
		return action.Fail(action.BadInput, fmt.Errorf("the namespace the set is to be kept in: %w", err),
			"create it, add its Namespace object to the manifests, or give another in the input namespace")
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the set was still being looked up: %w", err)
	}
	return explainRequest(err, server)
}
