package audit

import (
	"slices"
	"testing"
)

const (
	sha = "08c6903cd8c0fde910a37f88322edcfb5dd907a8"
	// around is a workflow that breaks no rule, to which a case adds jobs.
	around = "name: w\non: push\npermissions: {contents: read}\njobs:\n"
	job    = around + "  a:\n    steps:\n"
)

// cases are for each rule a file that breaks it and a like one that does not.
var cases = []struct {
	rule, bad, good string
}{
	{"template-injection", job + "    - run: echo ${{ github.event.pull_request.title }}\n", job + "    - run: echo \"$TITLE\"\n      env: {TITLE: '${{ github.event.pull_request.title }}'}\n"},
	{"template-injection", "- with: {script: 'f(${{ inputs.x }})'}\n", "- with: {script: f()}\n"},
	{"github-env", job + "    - run: echo \"A=$B\" >> \"$GITHUB_ENV\"\n", job + "    - run: echo \"a=$B\" >> \"$GITHUB_OUTPUT\"\n"},
	{"github-env", "- run: echo ::add-path::/x\n", "- run: echo add-path\n"},
	{"insecure-commands", job + "    - env: {ACTIONS_ALLOW_UNSECURE_COMMANDS: true}\n      run: x\n", job + "    - env: {OTHER: true}\n      run: x\n"},
	{"unpinned-uses", job + "    - uses: acme/tool@v1\n", job + "    - uses: acme/tool@" + sha + " # v1\n"},
	{"unpinned-uses", job + "    - uses: acme/tool\n", job + "    - uses: ./tool\n"},
	{"unpinned-uses", around + "  a: {uses: acme/x/.github/workflows/w.yaml@main}\n", around + "  a:\n    uses: acme/x/.github/workflows/w.yaml@" + sha + " # v2.1\n"},
	{"unpinned-images", around + "  a: {container: 'alpine:3'}\n", around + "  a: {container: 'alpine@sha256:00'}\n"},
	{"unpinned-images", around + "  a: {services: {db: {image: postgres}}}\n", around + "  a: {services: {db: {image: 'postgres@sha256:00'}}}\n"},
	{"unpinned-images", job + "    - uses: docker://alpine:3\n", job + "    - uses: docker://alpine@sha256:00\n"},
	{"ref-version-mismatch", job + "    - uses: acme/tool@" + sha + "\n", job + "    - uses: acme/tool@" + sha + " # v1.2.3\n"},
	{"ref-version-mismatch", job + "    - uses: acme/tool@" + sha + " # main\n", job + "    - uses: acme/tool@" + sha + " # v1\n"},
	{"misfeature", job + "    - {run: x, shell: cmd}\n", job + "    - {run: x, shell: bash}\n"},
	{"misfeature", "name: a\nruns: {steps: [{run: x}]}\n", "name: a\nruns: {steps: [{run: x, shell: bash}]}\n"},
	{"anonymous-definition", "on: push\npermissions: {}\njobs: {a: {steps: [{run: x}]}}\n", "name: w\non: push\npermissions: {}\njobs: {a: {steps: [{run: x}]}}\n"},
	{"anonymous-definition", "runs: {steps: [{run: x, shell: bash}]}\n", "name: a\nruns: {steps: [{run: x, shell: bash}]}\n"},
	{"excessive-permissions", "name: w\non: push\njobs: {a: {steps: [{run: x}]}}\n", "name: w\non: push\njobs: {a: {permissions: {}, steps: [{run: x}]}}\n"},
	{"excessive-permissions", "name: w\non: push\npermissions: write-all\njobs: {a: {steps: [{run: x}]}}\n", "name: w\non: push\npermissions: {}\njobs: {a: {steps: [{run: x}]}}\n"},
	{"excessive-permissions", "name: w\non: push\npermissions: {issues: write}\njobs: {a: {}, b: {}}\n", "name: w\non: push\npermissions: {issues: write}\njobs: {a: {}}\n"},
	{"dangerous-triggers", "name: w\non: {pull_request_target: }\npermissions: {}\njobs: {a: {}}\n", "name: w\non: {pull_request: }\npermissions: {}\njobs: {a: {}}\n"},
	{"dangerous-triggers", "name: w\non: [push, workflow_run]\npermissions: {}\njobs: {a: {}}\n", "name: w\non: [push]\npermissions: {}\njobs: {a: {}}\n"},
	{"artipacked", job + "    - uses: actions/checkout@" + sha + " # v5\n", job + "    - uses: actions/checkout@" + sha + " # v5\n      with: {persist-credentials: false}\n"},
	{"artipacked", "- uses: actions/checkout@" + sha + " # v5\n  with:\n    persist-credentials: true\n", "- uses: actions/checkout@" + sha + " # v5\n  with:\n    persist-credentials: true # pushes a tag\n"},
	{"cache-poisoning", "name: release\non: push\npermissions: {}\njobs:\n  a:\n    steps:\n    - uses: actions/setup-go@" + sha + " # v6\n", "name: test\non: push\npermissions: {}\njobs:\n  a:\n    steps:\n    - uses: actions/setup-go@" + sha + " # v6\n"},
	{"cache-poisoning", "name: w\non: {push: {tags: [v*]}}\npermissions: {}\njobs:\n  a:\n    steps:\n    - uses: actions/setup-go@" + sha + " # v6\n", "name: w\non: {push: {tags: [v*]}}\npermissions: {}\njobs:\n  a:\n    steps:\n    - uses: actions/setup-go@" + sha + " # v6\n      with: {cache: false}\n"},
	{"cache-poisoning", "name: w\non: push\npermissions: {packages: write}\njobs:\n  a:\n    steps:\n    - uses: actions/cache@" + sha + " # v6\n", job + "    - uses: actions/cache@" + sha + " # v6\n"},
	{"unsound-condition", job + "    - run: x\n      if: |\n        ${{ github.ref == 'x' }}\n", job + "    - run: x\n      if: ${{ github.ref == 'x' }}\n"},
	{"unsound-condition", around + "  a:\n    if: ${{ true }} && ${{ false }}\n", around + "  a:\n    if: true && false\n"},
	{"unsound-contains", around + "  a:\n    if: contains('refs/heads/main', github.ref)\n", around + "  a:\n    if: contains(fromJSON('[\"refs/heads/main\"]'), github.ref)\n"},
	{"secrets-inherit", around + "  a:\n    uses: ./w.yaml\n    secrets: inherit\n", around + "  a:\n    uses: ./w.yaml\n    secrets: {A: '${{ secrets.A }}'}\n"},
	{"overprovisioned-secrets", job + "    - env: {ALL: '${{ toJSON(secrets) }}'}\n", job + "    - env: {ONE: '${{ secrets.ONE }}'}\n"},
	{"overprovisioned-secrets", job + "    - env: {ANY: '${{ secrets[matrix.name] }}'}\n", job + "    - env: {ANY: '${{ matrix.name }}'}\n"},
	{"unredacted-secrets", job + "    - env: {USER: '${{ fromJSON(secrets.LOGIN).user }}'}\n", job + "    - env: {USER: '${{ fromJSON(vars.LOGIN).user }}'}\n"},
	{"self-repository", job + "    - uses: flakeship/flakeship/actions/push-images@" + sha + " # v1\n", job + "    - uses: ./actions/push-images\n"},
	{"hardcoded-credentials", job + "    - with: {registry-password: hunter2}\n", job + "    - with: {registry-password: '${{ secrets.P }}'}\n"},
	{"hardcoded-credentials", around + "  a:\n    container: {image: 'a@sha256:0', credentials: {username: u, password: p}}\n", around + "  a:\n    container: {image: 'a@sha256:0', credentials: {username: u, password: '${{ secrets.P }}'}}\n"},
}

func TestEachRule(t *testing.T) {
	var tested []string
	for _, c := range cases {
		tested = append(tested, c.rule)
		got, err := Check([]byte(c.bad), Options{})
		if err != nil || len(got) != 1 || got[0].Rule != c.rule {
			t.Errorf("found %v, %v; want %s in\n%s", got, err, c.rule, c.bad)
		}
		if got, err := Check([]byte(c.good), Options{}); err != nil || len(got) > 0 {
			t.Errorf("found %v, %v in\n%s", got, err, c.good)
		}
	}
	for _, rule := range rules {
		if !slices.Contains(tested, rule.name) {
			t.Errorf("rule %s has no case", rule.name)
		}
	}
}

// An example may name what it cannot know the hash of; nobody else's branch, though.
func TestExamples(t *testing.T) {
	for uses, fine := range map[string]bool{
		"flakeship/flakeship@v0.1.0": true, "flakeship/flakeship/actions/push-images@v1": true, "actions/checkout@v4": true,
		"flakeship/flakeship@main": false, "acme/tool@v1": false,
	} {
		text := "- uses: " + uses + "\n  with: {persist-credentials: false}\n"
		if got, err := Check([]byte(text), Options{Example: true}); err != nil || (len(got) == 0) != fine {
			t.Errorf("%s in an example: %v, %v", uses, got, err)
		}
		if got, _ := Check([]byte(text), Options{}); len(got) == 0 {
			t.Errorf("%s in a workflow that runs: nothing", uses)
		}
	}
}

func TestOtherYAML(t *testing.T) {
	for _, text := range []string{"", "kind: Secret\nenv: {password: x}\n", "- a\n- b\n", "x"} {
		if got, err := Check([]byte(text), Options{}); err != nil || len(got) > 0 {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
