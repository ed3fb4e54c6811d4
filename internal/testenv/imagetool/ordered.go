package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// object is a JSON object that keeps the order of its fields, as Python's dict and jq do; with it a configuration is
// printed as those tools print it, to the byte. Other values are []any, string, json.Number, bool and nil.
type object []field

type field struct {
	key   string
	value any
}

func (o object) get(key string) any {
	for _, f := range o {
		if f.key == key {
			return f.value
		}
	}
	return nil
}

// with returns o with key set: in its place when it is there, else at the end.
func (o object) with(key string, value any) object {
	c := append(object(nil), o...)
	for i := range c {
		if c[i].key == key {
			c[i].value = value
			return c
		}
	}
	return append(c, field{key, value})
}

func parseJSON(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := parseValue(dec)
	if err != nil {
		return nil, fmt.Errorf("JSON, byte %d: %w", dec.InputOffset(), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("JSON, byte %d: text follows the value", dec.InputOffset())
	}
	return v, nil
}

func parseValue(dec *json.Decoder) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := parseValue(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, err
	case json.Delim('{'):
		o := object{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := parseValue(dec)
			if err != nil {
				return nil, err
			}
			o = o.with(key.(string), v)
		}
		_, err = dec.Token()
		return o, err
	}
	return t, nil
}

// style is how a tool prints JSON.
type style struct {
	indent int
	ascii  bool // everything else as \u escapes
	floats bool // numbers with a point or exponent as Python prints a float
}

var (
	pythonStyle = style{indent: 4, ascii: true, floats: true} // json.dumps(indent=4)
	jqStyle     = style{indent: 2}
	jshonStyle  = style{indent: 1}
)

func (s style) print(v any) []byte {
	var b bytes.Buffer
	s.value(&b, v, 0)
	return b.Bytes()
}

func (s style) value(b *bytes.Buffer, v any, depth int) {
	switch v := v.(type) {
	case object:
		s.list(b, '{', '}', len(v), depth, func(i int) {
			s.text(b, v[i].key)
			b.WriteString(": ")
			s.value(b, v[i].value, depth+1)
		})
	case []any:
		s.list(b, '[', ']', len(v), depth, func(i int) { s.value(b, v[i], depth+1) })
	case []string:
		s.list(b, '[', ']', len(v), depth, func(i int) { s.text(b, v[i]) })
	case string:
		s.text(b, v)
	case json.Number:
		b.WriteString(s.number(v.String()))
	case int:
		b.WriteString(strconv.Itoa(v))
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case nil:
		b.WriteString("null")
	default:
		panic(fmt.Sprintf("imagetool: no JSON value: %T", v))
	}
}

func (s style) list(b *bytes.Buffer, open, end byte, n, depth int, item func(int)) {
	b.WriteByte(open)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n" + strings.Repeat(" ", s.indent*(depth+1)))
		item(i)
	}
	if n > 0 {
		b.WriteString("\n" + strings.Repeat(" ", s.indent*depth))
	}
	b.WriteByte(end)
}

func (s style) text(b *bytes.Buffer, text string) {
	b.WriteByte('"')
	for _, r := range text {
		switch r {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		case '\b':
			b.WriteString(`\b`)
		case '\f':
			b.WriteString(`\f`)
		default:
			switch {
			case r < ' ' || r == 0x7f || s.ascii && r > 0x7f && r <= 0xffff:
				fmt.Fprintf(b, `\u%04x`, r)
			case s.ascii && r >= utf8.RuneSelf:
				hi, lo := utf16.EncodeRune(r)
				fmt.Fprintf(b, `\u%04x\u%04x`, hi, lo)
			default:
				b.WriteRune(r)
			}
		}
	}
	b.WriteByte('"')
}

// number prints a number; Python prints a float's shortest form, with an exponent below 1e-4 and from 1e16 on.
func (s style) number(text string) string {
	if !s.floats || !strings.ContainsAny(text, ".eE") {
		return text
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	short := strconv.FormatFloat(f, 'e', -1, 64)
	_, exponent, _ := strings.Cut(short, "e")
	if n, _ := strconv.Atoi(exponent); n < -4 || n >= 16 {
		return short
	}
	if short = strconv.FormatFloat(f, 'f', -1, 64); !strings.Contains(short, ".") {
		short += ".0"
	}
	return short
}
