// Package unnamed makes files without a name: they live as long as they are open, and nothing of them is left when the process is killed.
package unnamed

import "os"

// removed makes a file and takes its name away. Only a process that is killed between the two leaves an empty file behind.
func removed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "flakeship-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
