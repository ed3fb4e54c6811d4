package streamconf

import (
	"testing"
	"time"
)

func TestDatesArePythons(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, test := range []struct {
		in, iso string
		unix    int64
	}{
		{"1970-01-01T00:00:01+00:00", "1970-01-01T00:00:01+00:00", 1},
		{"1970-01-01T00:00:01Z", "1970-01-01T00:00:01+00:00", 1},
		{"1970-01-01T02:00:00.25+02:00", "1970-01-01T02:00:00.250000+02:00", 0},
		{"1970-01-02", "1970-01-02T00:00:00", 86400},
		{"now", "2026-01-02T03:04:05.000006+00:00", now.Unix()},
	} {
		at, iso, err := parsePythonTime(test.in, now)
		if err != nil || iso != test.iso || at.Unix() != test.unix {
			t.Errorf("parsePythonTime(%q) = %d, %q, %v, want %d, %q", test.in, at.Unix(), iso, err, test.unix, test.iso)
		}
	}
	if _, _, err := parsePythonTime("yesterday", now); err == nil {
		t.Error(`"yesterday" is a date`)
	}
}
