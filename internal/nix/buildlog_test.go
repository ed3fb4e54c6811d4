package nix

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// replay gives a build log a recording.
func replay(t *testing.T, name string) *buildLog {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	l := newBuildLog(40, nil)
	l.activity.Write(text)
	l.activity.Close()
	return l
}

// drvName is the name in a derivation's path, without hash.
func drvName(drv string) string {
	return strings.TrimSuffix(path.Base(drv)[33:], ".drv")
}

// The same seven derivations, realised by three versions of Nix: one is fine, dep2 depends on dep on bad, the others fail each
// in its own way.
func TestReasonsOfEveryVersion(t *testing.T) {
	const mismatch = "hash mismatch in fixed-output derivation: specified sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=, got sha256-c8s4WKaHqElMozIwUwFigvPa051Cz2LKTnndoqrH2aw="
	for _, version := range []string{"2.8.0", "2.26.3", "2.34.8"} {
		t.Run(version, func(t *testing.T) {
			want := map[string]string{
				"bad":   "builder failed with exit code 3",
				"hash":  mismatch,
				"noout": "builder failed to produce output path for output 'out'",
				"kill":  "builder failed to produce output path for output 'out'",
				"slow":  "timed out after 3 seconds",
			}
			stray := ""
			if version == "2.34.8" { // it does not say what timed out
				stray = want["slow"]
				delete(want, "slow")
			}
			l := replay(t, "realise-"+version+".log")
			got := map[string]string{}
			for drv, reason := range l.reasons {
				got[drvName(drv)] = reason
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			if l.stray() != stray {
				t.Errorf("stray error is %q, want %q", l.stray(), stray)
			}
			if l.gaveUp() {
				t.Error("Nix went through all its work, but the log says it gave up")
			}
			var built []string
			for drv, b := range l.builds {
				built = append(built, drvName(drv))
				if b.end.IsZero() {
					t.Errorf("the builder of %s did not end", drv)
				}
				if drvName(drv) == "bad" {
					if diff := cmp.Diff([]string{"about to fail", "line2"}, l.tail(drv)); diff != "" {
						t.Errorf("last lines of bad (-want +got):\n%s", diff)
					}
				}
			}
			if len(built) != 6 {
				t.Errorf("builders of %q were started, want six", built)
			}
		})
	}
}

// A derivation for another system, and one that needs a feature nobody has: old versions end there, whatever there is to do.
func TestUnbuildableInEveryVersion(t *testing.T) {
	for version, want := range map[string]struct {
		reasons map[string]string
		gaveUp  bool
	}{
		"2.8.0": {map[string]string{
			"features": "a 'x86_64-linux' with features {big-parallel, nixos-test-x} is required, but I am a 'x86_64-linux' with features {benchmark, big-parallel, kvm, nixos-test}"}, true},
		"2.26.3": {map[string]string{
			"features": "a 'x86_64-linux' with features {big-parallel, nixos-test-x} is required, but I am a 'x86_64-linux' with features {benchmark, big-parallel, kvm, nixos-test, uid-range}"}, true},
		"2.34.8": {map[string]string{
			"features": "missing system features; Required features: {big-parallel, nixos-test-x}; Available features: {benchmark, big-parallel, kvm, nixos-test, uid-range}",
			"foreign":  "platform mismatch; Required system: 'aarch64-linux'; Current system: 'x86_64-linux'"}, false},
	} {
		l := replay(t, "foreign-"+version+".log")
		got := map[string]string{}
		for drv, reason := range l.reasons {
			got[drvName(drv)] = reason
		}
		if diff := cmp.Diff(want.reasons, got); diff != "" {
			t.Errorf("%s: reasons (-want +got):\n%s", version, diff)
		}
		if l.gaveUp() != want.gaveUp {
			t.Errorf("%s: gaveUp() = %v", version, l.gaveUp())
		}
	}
}

func TestParseFailure(t *testing.T) {
	const drv = "/nix/store/g4323lx3nydf8hb4w6zgz2zgbvp3nyln-bad.drv"
	for message, want := range map[string]failure{
		"error: builder for '" + drv + "' failed with exit code 2;\n       last 10 log lines:\n       > a\n       For full logs, run 'nix log " + drv + "'.":                     {drv: drv, reason: "builder failed with exit code 2"},
		"error: Cannot build '" + drv + "'.\n       Reason: builder failed with exit code 1.\n       Output paths:\n         /nix/store/x\n       Last 2 log lines:\n       > a": {drv: drv, reason: "builder failed with exit code 1"},
		"error: 1 dependencies of derivation '" + drv + "' failed to build":                                                                                                      {drv: drv, reason: "1 dependencies of derivation '" + drv + "' failed to build", dependency: true},
		"error: build of '" + drv + "', '" + drv + "' failed":                                                                                                                    {drv: drv, reason: "build of '" + drv + "', '" + drv + "' failed", summary: true},
		"error: writing to file: No space left on device":                                                                                                                        {reason: "writing to file: No space left on device"},
		"error:\n       … while doing this\n\n       error: cannot open connection to remote store 'daemon': refused":                                                            {reason: "cannot open connection to remote store 'daemon': refused"},
		"error: build of '" + drv + "^*' on 'ssh://builder' failed: builder failed with exit code 1":                                                                             {drv: drv, reason: "build of '" + drv + "^*' on 'ssh://builder' failed: builder failed with exit code 1"},
		"error:": {},
	} {
		got := parseFailure(message)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(failure{})); diff != "" {
			t.Errorf("parseFailure(%q) (-want +got):\n%s", message, diff)
		}
	}
	if got := parseFailure("error: " + strings.Repeat("é", 1000)).reason; len(got) > maxReason+4 {
		t.Errorf("a reason of %d bytes", len(got))
	}
}

func TestActivityLogTakesWhatProgramsPrint(t *testing.T) {
	var got []string
	log := newActivityLog(func(e Event) {
		got = append(got, fmt.Sprint(e.Kind, " ", e.Path, " ", strings.TrimSpace(e.Text), " ", e.Err))
	})
	for _, part := range []string{
		"plain li", "ne\n@nix {\"action\":\"st", "art\",\"type\":105,\"id\":7,\"fields\":[\"/x.drv\",\"\",1,1]}\n",
		"@nix {\"action\":\"result\",\"type\":101,\"id\":7,\"fields\":[\"\\u001b[1mhello\\u001b[0m\"]}\r\n",
		"@nix {\"action\":\"result\",\"type\":101,\"id\":8,\"fields\":[\"of nobody\"]}\n",
		"@nix {broken\n", "\n", "error: ssh: \xff refused\n",
		"@nix {\"action\":\"stop\",\"id\":7}\n@nix {\"action\":\"stop\",\"id\":7}\n",
		"@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"\\u001b[31;1merror:\\u001b[0m boom\"}\n",
		"@nix {\"action\":\"msg\",\"level\":1,\"msg\":\"warning: error: is only quoted\"}\n",
		"the last without line feed",
	} {
		log.Write([]byte(part))
	}
	log.Close()
	want := []string{
		"5  plain line false", "0 /x.drv  false", "1 /x.drv hello false", "5  @nix {broken false", "5  error: ssh: \ufffd refused true",
		"2 /x.drv  false", "5  error: boom true", "5  warning: error: is only quoted false", "5  the last without line feed false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestActivityLogOfEndlessLines(t *testing.T) {
	lines, left := 0, 0
	log := newActivityLog(func(e Event) {
		if strings.Contains(e.Text, "left out") {
			left++
		} else {
			lines++
		}
	})
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	for range 40 {
		log.Write(chunk)
	}
	log.Write([]byte("\nshort\n"))
	if cap(log.line) > 2*maxActivityLine {
		t.Errorf("%d bytes are kept", cap(log.line))
	}
	if left != 1 || lines != 1 {
		t.Errorf("%d lines left out and %d read, want one of each", left, lines)
	}
}

func TestTailKeepsTheLastLines(t *testing.T) {
	b := &builderLog{}
	for i := range 10 {
		b.add(fmt.Sprint(i), 3)
	}
	b.add(strings.Repeat("y", maxLogLine+1), 3)
	l := &buildLog{builds: map[string]*builderLog{"d": b}}
	if diff := cmp.Diff([]string{"8", "9", strings.Repeat("y", maxLogLine) + "…"}, l.tail("d")); diff != "" {
		t.Errorf("tail (-want +got):\n%s", diff)
	}
	none := &builderLog{}
	none.add("x", 0)
	if len(none.tail) != 0 {
		t.Error("lines are kept although none were asked for")
	}
}

// However the log is cut into writes and whatever is in it, the same events come out and nothing breaks.
func FuzzActivityLog(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.log")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, 7)
	}
	f.Add([]byte("@nix {\"action\":\"stop\",\"id\":-1}\n@nix []\n@nix null\nerror: '/nix/store/x.drv"), 1)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		all := func(write func(*activityLog)) []Event {
			var events []Event
			l := newBuildLog(3, func(e Event) { events = append(events, e) })
			write(l.activity)
			l.activity.Close()
			for drv := range l.builds {
				l.tail(drv)
				l.reason(drv)
			}
			return events
		}
		whole := all(func(a *activityLog) { a.Write(text) })
		cut = max(1, cut%100)
		parts := all(func(a *activityLog) {
			for rest := text; len(rest) > 0; {
				n := min(cut, len(rest))
				a.Write(rest[:n])
				rest = rest[n:]
			}
		})
		if diff := cmp.Diff(whole, parts); diff != "" {
			t.Errorf("in parts of %d (-whole +parts):\n%s", cut, diff)
		}
		for _, e := range whole {
			if f := parseFailure(e.Text); len(f.reason) > maxReason+8 || strings.Contains(f.reason, "\n") {
				t.Errorf("reason %q", f.reason)
			}
		}
	})
}
