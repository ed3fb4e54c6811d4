package handoff

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

// packMark is what every packed document starts with: the head that gzip writes, in base64. No path of ours does.
const packMark = "H4sIAAAAAA"

// Pack is a document's compact form as one line of printable text, about a sixth as long: gzip, in base64. Load takes it in
// place of the JSON. The same document is always the same text.
func Pack(compact []byte) string {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // a level it has
	w.Write(compact)                                      // into memory
	w.Close()
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

// unpack undoes Pack. What it gives is bounded by maxDocument, however small the text.
func unpack(text string) ([]byte, error) {
	packed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	document, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err == nil && len(document) > maxDocument {
		err = fmt.Errorf("more than %d MiB", maxDocument>>20)
	}
	return document, err
}

// inline returns the document in an input's value, and what errors call it; no name: the value is a path.
func inline(text string) (document []byte, source string, err error) {
	text = strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(text, "{"):
		return []byte(text), "given as JSON", nil
	case strings.HasPrefix(text, packMark):
		document, err = unpack(text)
		return document, "given packed", err
	}
	return nil, "", nil
}
