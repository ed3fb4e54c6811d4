package storepath

import "fmt"

// alphabet of Nix's base 32: without e, o, u and t, so that no hash spells a word.
const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

const invalid = 0xff

// digit is the value of each character of the alphabet, and invalid for all others.
var digit = func() (d [256]byte) {
	for i := range d {
		d[i] = invalid
	}
	for i := range len(alphabet) {
		d[alphabet[i]] = byte(i)
	}
	return d
}()

// EncodedLen returns the number of characters n bytes have in base 32.
func EncodedLen(n int) int { return (n*8 + 4) / 5 }

// Encode returns b in Nix's base 32, whose first character holds the last byte's highest bits.
func Encode(b []byte) string {
	text := make([]byte, EncodedLen(len(b)))
	for i := range text {
		bit := (len(text) - 1 - i) * 5
		at, shift := bit/8, bit%8
		v := uint16(b[at])
		if at+1 < len(b) {
			v |= uint16(b[at+1]) << 8
		}
		text[i] = alphabet[v>>shift&31]
	}
	return string(text)
}

// Decode reads what Encode writes. Each sequence of bytes has one text only: a text that Encode would not write, with bits
// set beyond the last byte or of a length no number of bytes has, is an error.
func Decode(text string) ([]byte, error) {
	b := make([]byte, len(text)*5/8)
	if EncodedLen(len(b)) != len(text) {
		return nil, fmt.Errorf("%.100q is no base 32 text: no bytes have %d characters", text, len(text))
	}
	for i := range len(text) {
		v := digit[text[i]]
		if v == invalid {
			return nil, fmt.Errorf("%.100q is no base 32 text: %q is not one of its characters", text, text[i])
		}
		bit := (len(text) - 1 - i) * 5
		at, shift := bit/8, bit%8
		wide := uint16(v) << shift
		b[at] |= byte(wide)
		switch high := byte(wide >> 8); {
		case at+1 < len(b):
			b[at+1] |= high
		case high != 0:
			return nil, fmt.Errorf("%.100q is no base 32 text: bits are set beyond the last byte", text)
		}
	}
	return b, nil
}
