// Package shard cuts work into parts that machines do side by side without doing anything twice.
package shard

import (
	"cmp"
	"slices"
)

// Divide says for each job which of n parts it is in, from 1. needs are what each job has to build: any names, for jobs of the same
// thing the same one.
//
// Jobs that need a thing in common are in one part, so nothing is built twice; a part may be empty for that. Otherwise the parts have
// about as much to build each, and of jobs that build nothing about as many. The same jobs in the same order are always divided alike.
func Divide(needs [][]string, n int) []int {
	groups := together(needs)
	slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(b.builds, a.builds) })
	load := make([]group, n)
	part := make([]int, len(needs))
	for _, g := range groups {
		least := 0
		for i := range load {
			if cmp.Or(cmp.Compare(load[i].builds, load[least].builds), cmp.Compare(len(load[i].jobs), len(load[least].jobs))) < 0 {
				least = i
			}
		}
		load[least].builds += g.builds
		load[least].jobs = append(load[least].jobs, g.jobs...)
		for _, job := range g.jobs {
			part[job] = least + 1
		}
	}
	return part
}

// group is jobs, by number, that have something in common, and how many different things they need.
type group struct {
	jobs   []int
	builds int
}

// together returns the groups in the order of their first jobs.
func together(needs [][]string) []group {
	leader := make([]int, len(needs)) // of the group that a job is in: its first job, or one on the way there
	find := func(job int) int {
		for leader[job] != job {
			leader[job] = leader[leader[job]]
			job = leader[job]
		}
		return job
	}
	first := map[string]int{} // the first job that needs a thing
	for job, things := range needs {
		leader[job] = job
		for _, thing := range things {
			other, known := first[thing]
			if !known {
				first[thing] = job
				continue
			}
			a, b := find(job), find(other)
			leader[max(a, b)] = min(a, b)
		}
	}
	builds := map[int]int{}
	for _, job := range first {
		builds[find(job)]++
	}
	members := map[int][]int{}
	for job := range needs {
		members[find(job)] = append(members[find(job)], job)
	}
	var groups []group
	for job := range needs {
		if find(job) == job {
			groups = append(groups, group{members[job], builds[job]})
		}
	}
	return groups
}
