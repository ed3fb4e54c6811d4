package nix

// meter adds up what Nix counts. Numbers of activities are unique, also among several runs of Nix.
type meter struct {
	kinds   map[uint64]int      // of running activities that count something
	builds  map[uint64][4]int64 // done, expected, running, failed, by activity
	fetches map[uint64]int64    // paths fetched
	bytes   map[uint64]int64    // fetched by running transfers
	moved   [2]int64            // bytes of ended ones: over the network, and unpacked
	expects map[uint64]int64    // bytes
	last    Progress
}

func newMeter() meter {
	return meter{kinds: map[uint64]int{}, builds: map[uint64][4]int64{}, fetches: map[uint64]int64{}, bytes: map[uint64]int64{}, expects: map[uint64]int64{}}
}

func (m *meter) start(id uint64, kind int) {
	switch kind {
	case activityCopyPath, activityTransfer, activityFetches, activityBuilds:
		m.kinds[id] = kind
	}
}

// progress takes one count, done, expected, running and failed, and says whether it changed anything.
func (m *meter) progress(id uint64, count [3]int64, failed int64) bool {
	switch m.kinds[id] {
	case activityBuilds:
		m.builds[id] = [4]int64{count[0], count[1], count[2], failed}
	case activityFetches:
		m.fetches[id] = count[0]
	case activityCopyPath, activityTransfer:
		m.bytes[id] = count[0]
	}
	return m.changed()
}

func (m *meter) expect(id uint64, bytes int64) bool {
	m.expects[id] = bytes
	return m.changed()
}

func (m *meter) stop(id uint64) {
	if c, ok := m.builds[id]; ok { // nothing of it runs any more
		m.builds[id] = [4]int64{c[0], c[0], 0, c[3]}
	}
	if n, ok := m.bytes[id]; ok {
		m.moved[m.class(id)] += n
		delete(m.bytes, id)
	}
	delete(m.kinds, id)
}

func (m *meter) class(id uint64) int {
	if m.kinds[id] == activityTransfer {
		return 0
	}
	return 1
}

func (m *meter) changed() bool {
	before := m.last
	m.last = m.now()
	return m.last != before
}

func (m *meter) now() Progress {
	var p Progress
	for _, c := range m.builds {
		p.Done += int(c[0])
		p.Failed += int(c[3])
		p.Running += int(c[2])
		p.Waiting += int(max(0, c[1]-c[0]-c[2]))
	}
	moved := m.moved
	for id, n := range m.bytes {
		moved[m.class(id)] += n
	}
	// From a folder nothing is transferred, only unpacked.
	p.Fetched = moved[0]
	if p.Fetched == 0 {
		p.Fetched = moved[1]
	}
	for _, n := range m.expects {
		p.ToFetch += n
	}
	return p
}

// ended counts what ended so far, well or not: when it grows, something is there that was not before.
func (m *meter) ended() int64 {
	var n int64
	for _, c := range m.builds {
		n += c[0] + c[3]
	}
	for _, fetched := range m.fetches {
		n += fetched
	}
	return n
}
