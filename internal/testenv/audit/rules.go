package audit

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// rules are all rules, in the order of their findings.
var rules = []rule{
	{"template-injection", templateInjection},
	{"github-env", githubEnv},
	{"insecure-commands", insecureCommands},
	{"unpinned-uses", unpinnedUses},
	{"unpinned-images", unpinnedImages},
	{"ref-version-mismatch", refVersionMismatch},
	{"misfeature", misfeature},
	{"anonymous-definition", anonymousDefinition},
	{"excessive-permissions", excessivePermissions},
	{"dangerous-triggers", dangerousTriggers},
	{"artipacked", artipacked},
	{"cache-poisoning", cachePoisoning},
	{"unsound-condition", unsoundCondition},
	{"unsound-contains", unsoundContains},
	{"secrets-inherit", secretsInherit},
	{"overprovisioned-secrets", overprovisionedSecrets},
	{"unredacted-secrets", unredactedSecrets},
	{"self-repository", selfRepository},
	{"hardcoded-credentials", hardcodedCredentials},
}

// templateInjection: an expression inside a script becomes part of the script, whatever it holds.
func templateInjection(f *file) {
	for _, step := range f.steps {
		for _, script := range []*yaml.Node{get(step, "run"), get(step, "with", "script")} {
			if strings.Contains(text(script), "${{") {
				f.found(script, "an expression inside a script; hand it over in env")
			}
		}
	}
}

var environmentFile = regexp.MustCompile(`GITHUB_(ENV|PATH)\b|::(set-env|add-path)\b`)

// githubEnv: what a step puts there changes every later step.
func githubEnv(f *file) {
	for _, step := range f.steps {
		if run := get(step, "run"); environmentFile.MatchString(text(run)) {
			f.found(run, "writes the environment of later steps")
		}
	}
}

// insecureCommands: with it a printed line is a command that sets variables.
func insecureCommands(f *file) {
	const variable = "ACTIONS_ALLOW_UNSECURE_COMMANDS"
	for _, value := range f.all(variable) {
		f.found(value, "%s is set", variable)
	}
	for _, step := range f.steps {
		if run := get(step, "run"); strings.Contains(text(run), variable) {
			f.found(run, "%s is set", variable)
		}
	}
}

var (
	hash       = regexp.MustCompile(`^[0-9a-f]{40}$`)
	release    = regexp.MustCompile(`^v\d+(\.\d+){0,2}$`)
	ownActions = "flakeship/flakeship"
)

// remote takes a reference to somebody's repository apart; ok is false for a folder or an image.
func remote(uses string) (repository, ref string, ok bool) {
	if uses == "" || strings.HasPrefix(uses, "./") || strings.HasPrefix(uses, "$/") || strings.HasPrefix(uses, "docker://") {
		return "", "", false
	}
	path, ref, _ := strings.Cut(uses, "@")
	owner, rest, _ := strings.Cut(path, "/")
	name, _, _ := strings.Cut(rest, "/")
	return owner + "/" + name, ref, true
}

// unpinnedUses: a tag or branch can be moved to other code.
func unpinnedUses(f *file) {
	for _, uses := range f.all("uses") {
		repository, ref, ok := remote(text(uses))
		mayBeTag := f.Example && (repository == ownActions || strings.HasPrefix(repository, "actions/"))
		if ok && !hash.MatchString(ref) && !(mayBeTag && release.MatchString(ref)) {
			f.found(uses, "%s is not pinned by the full hash of a commit", uses.Value)
		}
	}
}

// unpinnedImages: a tag can be moved to another image.
func unpinnedImages(f *file) {
	check := func(image *yaml.Node) {
		if name := text(image); name != "" && !strings.Contains(name, "@sha256:") {
			f.found(image, "image %s is not pinned by digest", name)
		}
	}
	for _, job := range f.jobs {
		check(get(job, "container"))
		check(get(job, "container", "image"))
		for _, service := range pairs(get(job, "services")) {
			check(get(service.value, "image"))
		}
	}
	for _, uses := range f.all("uses") {
		if strings.HasPrefix(text(uses), "docker://") {
			check(uses)
		}
	}
}

// refVersionMismatch: nobody can read a hash; the comment says what it is, and bots keep it right. That a hash is the version it is
// said to be cannot be seen offline.
func refVersionMismatch(f *file) {
	for _, uses := range f.all("uses") {
		_, ref, ok := remote(text(uses))
		comment := strings.TrimSpace(strings.TrimPrefix(uses.LineComment, "#"))
		if ok && hash.MatchString(ref) && !release.MatchString(comment) {
			f.found(uses, "%.60s is of which version? the comment says %q", uses.Value, comment)
		}
	}
}

// misfeature: other shells go on after an error, or drop variables with hyphens.
func misfeature(f *file) {
	for _, shell := range f.all("shell") {
		if text(shell) != "bash" {
			f.found(shell, "shell %s", text(shell))
		}
	}
	for _, step := range f.steps {
		if f.action && get(step, "run") != nil && get(step, "shell") == nil {
			f.found(step, "a step without shell")
		}
	}
}

// anonymousDefinition: the forge shows a file's path instead.
func anonymousDefinition(f *file) {
	if (f.workflow || f.action) && text(get(f.root, "name")) == "" {
		f.found(f.root, "it has no name")
	}
}

// excessivePermissions: without permissions the job's token may do what the forge's settings say, often everything.
func excessivePermissions(f *file) {
	if !f.workflow {
		return
	}
	top := get(f.root, "permissions")
	for _, job := range f.jobs {
		if top == nil && get(job, "permissions") == nil {
			f.found(job, "a job without permissions, in a workflow without")
		}
	}
	for _, permissions := range f.all("permissions") {
		if all := text(permissions); all == "write-all" || all == "read-all" {
			f.found(permissions, "permissions: %s", all)
		}
	}
	for _, scope := range pairs(top) {
		if len(f.jobs) > 1 && scope.value.Value == "write" {
			f.found(scope.value, "%s: write for every job; give it to the one that needs it", scope.key.Value)
		}
	}
}

// dangerousTriggers: a stranger's code or text runs with the repository's secrets.
func dangerousTriggers(f *file) {
	for _, name := range f.triggers() {
		if name == "pull_request_target" || name == "workflow_run" {
			f.found(f.root, "on: %s", name)
		}
	}
}

// artipacked: a checkout leaves the job's token in .git/config, where every later step, and an artifact of the folder, has it.
func artipacked(f *file) {
	for _, step := range f.steps {
		uses := get(step, "uses")
		if repository, _, _ := remote(text(uses)); repository != "actions/checkout" {
			continue
		}
		keep := get(step, "with", "persist-credentials")
		pushes := keep != nil && keep.LineComment != "" // with a reason
		if text(keep) != "false" && !(text(keep) == "true" && pushes) {
			f.found(uses, "the checkout keeps the token: say persist-credentials: false")
		}
	}
}

// cachePoisoning: a job of a pull request may have written what the release's job takes from the cache.
func cachePoisoning(f *file) {
	if !f.workflow || !f.publishes() {
		return
	}
	for _, step := range f.steps {
		uses := get(step, "uses")
		repository, _, _ := remote(text(uses))
		cache := text(get(step, "with", "cache"))
		if repository == "actions/cache" || strings.HasPrefix(repository, "actions/setup-") && cache != "false" {
			f.found(uses, "%s takes files from a cache into what is published", repository)
		}
	}
}

// unsoundCondition: text around an expression, even the newline of a block, makes the condition a text, which is true.
func unsoundCondition(f *file) {
	for _, condition := range f.all("if") {
		value := text(condition)
		if strings.Contains(value, "${{") && (!strings.HasPrefix(value, "${{") || !strings.HasSuffix(value, "}}") || strings.Count(value, "${{") > 1) {
			f.found(condition, "the condition is always true: %q", value)
		}
	}
}

var containsText = regexp.MustCompile(`contains\(\s*'`)

// unsoundContains: of a text, contains looks for a part: 'main release' has the branch rel.
func unsoundContains(f *file) {
	for _, condition := range f.all("if") {
		if containsText.MatchString(text(condition)) {
			f.found(condition, "contains looks for a part of a text; give it a list with fromJSON")
		}
	}
}

// secretsInherit: the called workflow gets secrets it has no use for.
func secretsInherit(f *file) {
	for _, secrets := range f.all("secrets") {
		if text(secrets) == "inherit" {
			f.found(secrets, "secrets: inherit")
		}
	}
}

var (
	allSecrets    = regexp.MustCompile(`(?i)tojson\(\s*secrets\s*\)|\bsecrets\s*\[`)
	partsOfSecret = regexp.MustCompile(`(?i)fromjson\(\s*secrets\.`)
)

// overprovisionedSecrets: a step gets all secrets, or one whose name is only known when it runs.
func overprovisionedSecrets(f *file) {
	f.texts(func(n *yaml.Node) {
		if allSecrets.MatchString(n.Value) {
			f.found(n, "all secrets are handed over")
		}
	})
}

// unredactedSecrets: the log masks a secret, not the parts of one.
func unredactedSecrets(f *file) {
	f.texts(func(n *yaml.Node) {
		if partsOfSecret.MatchString(n.Value) {
			f.found(n, "a part of a secret is not masked")
		}
	})
}

// selfRepository: a file of this repository that names it by tag runs other code than the one beside it.
func selfRepository(f *file) {
	for _, uses := range f.all("uses") {
		if repository, _, _ := remote(text(uses)); repository == ownActions && !f.Example {
			f.found(uses, "%s is this repository at another commit", uses.Value)
		}
	}
}

var secretName = regexp.MustCompile(`(?i)(^|[-_])(password|passwd|token|secret|signing-key|kubeconfig)$`)

// hardcodedCredentials: who can read the file has the secret.
func hardcodedCredentials(f *file) {
	var places []*yaml.Node
	for _, key := range []string{"with", "env", "credentials"} {
		places = append(places, f.all(key)...)
	}
	for _, place := range places {
		for _, p := range pairs(place) {
			literal := text(p.value) != "" && !strings.Contains(p.value.Value, "${{")
			if literal && secretName.MatchString(p.key.Value) && !slices.Contains([]string{"true", "false"}, p.value.Value) {
				f.found(p.value, "%s is written down", p.key.Value)
			}
		}
	}
}
