package main

import (
	"net"
	"time"
)

// slow listens on loopback and passes connections on to address with a delay of half a round trip each way. It delays bytes but
// does not limit how many come at a time. It ends with the process.
func slow(address string, roundTrip time.Duration) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				out, err := net.Dial("tcp", address)
				if err != nil {
					in.Close()
					return
				}
				go carry(in, out, roundTrip/2)
				go carry(out, in, roundTrip/2)
			}()
		}
	}()
	return listener.Addr().String(), nil
}

// carry copies from one connection to the other, each piece as much later as it came.
func carry(from, to net.Conn, delay time.Duration) {
	type piece struct {
		due  time.Time
		text []byte
	}
	pieces := make(chan piece, 1<<12)
	go func() {
		defer close(pieces)
		for {
			buffer := make([]byte, 64<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				pieces <- piece{time.Now().Add(delay), buffer[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.text); err != nil {
			break
		}
	}
	to.Close()
	from.Close()
}
