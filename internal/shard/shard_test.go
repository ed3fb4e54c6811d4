package shard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDivide(t *testing.T) {
	for name, test := range map[string]struct {
		needs [][]string
		parts int
		want  []int
	}{
		"nothing":                    {nil, 3, []int{}},
		"one part":                   {[][]string{{"a"}, {"b"}}, 1, []int{1, 1}},
		"each its own":               {[][]string{{"a"}, {"b"}, {"c"}}, 3, []int{1, 2, 3}},
		"more parts than jobs":       {[][]string{{"a"}, {"b"}}, 4, []int{1, 2}},
		"shared things stay":         {[][]string{{"a", "lib"}, {"b"}, {"c", "lib"}, {"d"}}, 2, []int{1, 2, 1, 2}},
		"shared through another":     {[][]string{{"a", "x"}, {"b", "y"}, {"c", "x", "y"}, {"d"}}, 2, []int{1, 1, 1, 2}},
		"the heavy one alone":        {[][]string{{"a"}, {"b"}, {"c", "c1", "c2", "c3"}, {"d"}}, 2, []int{2, 2, 1, 2}},
		"nothing to build is shared": {[][]string{{}, {}, {}, {}, {"a"}}, 2, []int{2, 2, 2, 2, 1}},
		"only fetches":               {[][]string{{}, {}, {}, {}}, 2, []int{1, 2, 1, 2}},
	} {
		if diff := cmp.Diff(test.want, Divide(test.needs, test.parts)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Whatever the graph, no thing is in two parts, every job is in one, and no part could give a group away to the benefit of both.
func TestDivideAnything(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		needs := make([][]string, random.IntN(40))
		for job := range needs {
			for range random.IntN(6) {
				needs[job] = append(needs[job], fmt.Sprint(random.IntN(120)))
			}
		}
		parts := 1 + random.IntN(6)
		got := Divide(needs, parts)
		if again := Divide(needs, parts); !slices.Equal(got, again) {
			t.Fatalf("round %d: %v, then %v", round, got, again)
		}
		where := map[string]int{}
		builds := make([]int, parts+1)
		for job, part := range got {
			if part < 1 || part > parts {
				t.Fatalf("round %d: job %d is in part %d of %d", round, job, part, parts)
			}
			for _, thing := range needs[job] {
				if other := where[thing]; other == 0 {
					where[thing] = part
					builds[part]++
				} else if other != part {
					t.Fatalf("round %d: %s is built in parts %d and %d", round, thing, other, part)
				}
			}
		}
		heaviest := slices.Max(builds[1:])
		for _, g := range together(needs) {
			if builds[got[g.jobs[0]]] == heaviest && slices.Min(builds[1:])+g.builds < heaviest {
				t.Errorf("round %d: the heaviest part has %d to build and the lightest %v; a group of %d could move", round, heaviest, builds[1:], g.builds)
			}
		}
	}
}
