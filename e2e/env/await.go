package env

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/flakeship/flakeship/e2e/process"
)

// await asks ready every 50 ms until it returns nil. It gives up when one of
// the processes ends, when ctx ends, or after timeout; the error then says
// what was waited for, what ready said last, and how the logs end.
func await(ctx context.Context, timeout time.Duration, processes []*process.Process, what string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		for _, p := range processes {
			select {
			case <-p.Done():
				return p.Failed()
			default:
			}
		}
		select {
		case <-ctx.Done():
			logs := ""
			for _, p := range processes {
				logs += fmt.Sprintf("\nthe end of %s:\n%s", p.LogFile, p.Tail(10))
			}
			return fmt.Errorf("waited in vain until %s (%w): %w%s", what, context.Cause(ctx), err, logs)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freePorts finds loopback ports nobody listens on. They are taken from below
// the range that the kernel gives to outgoing connections, since one of those
// could take the port before the service does.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer listener.Close() // after all are found, so that none is found twice
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("found only %d of %d free ports on 127.0.0.1", len(ports), n)
}
