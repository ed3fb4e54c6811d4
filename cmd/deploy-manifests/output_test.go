package main

import (
	"strings"
	"testing"
	"time"

	"github.com/flakeship/flakeship/internal/handoff"
)

func TestSummary(t *testing.T) {
	result := &handoff.DeployResult{Server: "https://c.test", Set: "shop", URLs: []string{"https://shop.example.org/"},
		Rollback: &handoff.Rollback{Done: true, History: 3, Seconds: 2}, Objects: []handoff.DeployedObject{
			{Kind: "Deployment", Namespace: "n", Name: "web", Action: handoff.ActionConfigured, Rollout: handoff.RolloutFailed, Seconds: 1.5, Message: "a | b"},
			{Kind: "ConfigMap", Namespace: "n", Name: "same", Action: handoff.ActionUnchanged, Rollout: handoff.RolloutNone},
			{Kind: "ConfigMap", Namespace: "n", Name: "left", Action: handoff.ActionPruned, Rollout: handoff.RolloutNone},
		}}
	text := summary(result, 4*time.Second)
	for _, want := range []string{"1 configured, 1 unchanged, 1 pruned; rollouts: 1 failed in 4.0 s", "Rolled back to version 3, in 2.0 s.", "- https://shop.example.org/",
		`| Deployment/n/web | configured | failed | 1.5 | a \| b |`, "| ConfigMap/n/left | pruned |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the summary lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "same") {
		t.Errorf("the summary tells of what is unchanged:\n%s", text)
	}
	result.Rollback, result.History, result.URLs = &handoff.Rollback{Message: "no way"}, 4, nil
	if text := summary(result, 0); !strings.Contains(text, "**The rollback to what was there before the first deploy failed:** no way") || !strings.Contains(text, "Kept as version 4 of the set shop.") {
		t.Errorf("the summary is\n%s", text)
	}
}
