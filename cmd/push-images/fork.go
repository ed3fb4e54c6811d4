package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flakeship/flakeship/internal/action"
	"github.com/flakeship/flakeship/internal/handoff"
	"github.com/flakeship/flakeship/internal/registry"
)

// unsent says why nothing is sent from a pull request of a fork: no credentials were given. Those that lie on the runner do not
// count there, nor does a registry that lets everybody write: what a stranger's code made is not pushed by accident.
func unsent(env *action.Env) string {
	fork := env.Fork()
	if fork == "" || env.Text("registry-password") != "" || env.Text("registry") == "" && env.Text("oci-layout") != "" {
		return ""
	}
	return "no registry credentials are given, in a pull request from " + fork
}

// leaveOut is the result of a run that sends nothing: what the registry was seen to have, and what would be sent.
func leaveOut(in inputs, why string) *handoff.PushResult {
	result := &handoff.PushResult{
		Header:   handoff.Header{Commit: in.commit, Previous: in.previous},
		Registry: in.options.Registry, Parts: in.parts, Skipped: why, Images: []handoff.PushedImage{},
	}
	at := map[string]int{} // index in the result's images
	for _, i := range in.images {
		n, known := at[i.Name]
		if !known {
			n, at[i.Name] = len(result.Images), len(result.Images)
			p := handoff.PushedImage{Name: i.Name, Repository: i.Name, Tag: i.Tag, Tags: []string{}, Systems: []string{}, State: handoff.PushSkipped}
			if in.options.Registry != "" {
				p.Repository = in.options.Registry + "/" + i.Name
			}
			if i.Present && i.Digest != "" {
				p.State, p.Digest, p.Tags = handoff.PushUnchanged, i.Digest, []string{i.Tag}
			}
			result.Images = append(result.Images, p)
		}
		p := &result.Images[n]
		if i.System != "" {
			p.Systems = append(p.Systems, i.System)
		}
		switch {
		case i.Missing != "":
			p.State, p.Digest, p.Error = handoff.PushFailed, "", i.Missing
		case known && p.State == handoff.PushUnchanged: // an index of several, whose digest is not known here
			p.State, p.Digest, p.Tags = handoff.PushSkipped, "", []string{}
		}
	}
	slices.SortFunc(result.Images, func(a, b handoff.PushedImage) int { return strings.Compare(a.Name, b.Name) })
	return result
}

// denied takes a push that the registry did not let in for one that was left out, when that is all that went wrong with it: the token
// of a fork's run may read, and not write. It returns what else went wrong.
func denied(env *action.Env, result *handoff.PushResult, err error) error {
	fork := env.Fork()
	if fork == "" || err == nil {
		return err
	}
	for _, one := range action.Split(err) {
		if !errors.As(one, new(*registry.DeniedError)) {
			return err
		}
	}
	result.Skipped = fmt.Sprintf("the credentials that are given may not write there, in a pull request from %s", fork)
	for i := range result.Images {
		if p := &result.Images[i]; p.State == handoff.PushFailed {
			p.State, p.Error = handoff.PushSkipped, ""
		}
	}
	return nil
}
