package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
)

// pyObject is a JSON object whose keys keep their order, as Python's dict does.
type pyObject []pyField

type pyField struct {
	key   string
	value any // pyObject, []any, string, json.Number, bool or nil
}

func (o pyObject) get(key string) any {
	for _, f := range o {
		if f.key == key {
			return f.value
		}
	}
	return nil
}

// set replaces a field where it is, or adds it at the end.
func (o *pyObject) set(key string, value any) {
	for i, f := range *o {
		if f.key == key {
			(*o)[i].value = value
			return
		}
	}
	*o = append(*o, pyField{key, value})
}

// maxDepth bounds the recursion; image configs are four levels deep.
const maxDepth = 64

// parseOrdered reads one JSON value.
func parseOrdered(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := parseValue(dec, maxDepth)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("text follows the JSON value")
	}
	return v, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	if depth == 0 {
		return nil, fmt.Errorf("JSON is nested more than %d levels deep", maxDepth)
	}
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := pyObject{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			value, err := parseValue(dec, depth-1)
			if err != nil {
				return nil, err
			}
			object.set(key.(string), value) // the decoder takes nothing else for a key
		}
		_, err = dec.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			value, err := parseValue(dec, depth-1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = dec.Token()
		return list, err
	}
	return token, nil
}

// pyDumps writes a value as Python's json.dumps(indent=4) does; the digest of a stream image's config is made of these bytes.
func pyDumps(v any) []byte {
	var b bytes.Buffer
	pyWrite(&b, v, "\n")
	return b.Bytes()
}

func pyWrite(b *bytes.Buffer, v any, newline string) {
	switch v := v.(type) {
	case pyObject:
		if len(v) == 0 {
			b.WriteString("{}")
			return
		}
		for i, f := range v {
			b.WriteString([]string{"{", ","}[min(i, 1)] + newline + "    ")
			pyString(b, f.key)
			b.WriteString(": ")
			pyWrite(b, f.value, newline+"    ")
		}
		b.WriteString(newline + "}")
	case []any:
		if len(v) == 0 {
			b.WriteString("[]")
			return
		}
		for i, item := range v {
			b.WriteString([]string{"[", ","}[min(i, 1)] + newline + "    ")
			pyWrite(b, item, newline+"    ")
		}
		b.WriteString(newline + "]")
	case string:
		pyString(b, v)
	case json.Number:
		b.WriteString(pyNumber(v.String()))
	case bool:
		b.WriteString(strconv.FormatBool(v))
	default:
		b.WriteString("null")
	}
}

func pyString(b *bytes.Buffer, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\f':
			b.WriteString(`\f`)
		case r == '\b':
			b.WriteString(`\b`)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		case r < ' ' || r > '~':
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// pyNumber writes a JSON number the way it comes out of Python's int or float.
func pyNumber(text string) string {
	if !strings.ContainsAny(text, ".eE") {
		if text == "-0" {
			return "0"
		}
		return text
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return map[bool]string{true: "-Infinity", false: "Infinity"}[strings.HasPrefix(text, "-")]
	}
	short := strconv.FormatFloat(f, 'e', -1, 64)
	exponent, _ := strconv.Atoi(short[strings.IndexByte(short, 'e')+1:])
	if exponent < -4 || exponent >= 16 {
		return short
	}
	short = strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(short, ".") {
		short += ".0"
	}
	return short
}

// pyRepr writes a list of strings as Python's str() does.
func pyRepr(list []string) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		quote := "'"
		if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
			quote = `"`
		}
		s = strings.ReplaceAll(s, `\`, `\\`)
		if quote == "'" {
			s = strings.ReplaceAll(s, "'", `\'`)
		}
		b.WriteString(quote + s + quote)
	}
	return "[" + b.String() + "]"
}
