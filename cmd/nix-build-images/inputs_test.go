package main

import (
	"testing"

	"github.com/flakeship/flakeship/internal/handoff"
)

func TestTakeShard(t *testing.T) {
	plan := func(build bool) handoff.Plan {
		return handoff.Plan{Shards: 2, Images: []handoff.PlannedImage{{Name: "a", Build: build, Shard: 1}, {Name: "b", Build: build, Shard: 2}, {Name: "c"}}}
	}
	for _, c := range []struct {
		shard  string
		work   bool
		images int // 0: it is refused
	}{
		{"1/2", true, 2}, {"2/2", true, 1}, {"1/3", true, 0}, {"3/2", true, 0}, {"one", true, 0},
		{"1/1", true, 0}, // a part would be forgotten
		{"1/1", false, 3}, {"2/2", false, 1},
	} {
		in := &inputs{plan: plan(c.work)}
		if err := in.takeShard(c.shard); (err != nil) != (c.images == 0) || err == nil && len(in.plan.Images) != c.images {
			t.Errorf("part %s of a plan, with work %v: %d images, %v; want %d", c.shard, c.work, len(in.plan.Images), err, c.images)
		}
	}
}
