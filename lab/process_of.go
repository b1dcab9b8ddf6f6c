package lab

import "cairn.network/cairn/lab/process"

// Process returns the process of a host's daemon, which may have ended.
func (l *Lab) Process(host string) (process.Process, error) { return l.daemon(host) }
