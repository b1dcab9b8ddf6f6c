//go:build linux

package linux

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// CheckCapabilities returns an error that names, in one line, every capability
// that the agent lacks: CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE when one of the
// ports that it listens on needs it. It is kernel.ErrPermission.
func CheckCapabilities(ports ...int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	return missing(uint64(data[1].Effective)<<32|uint64(data[0].Effective), firstFreePort(), ports)
}

// firstFreePort returns the lowest port that needs no capability (ip(7)).
func firstFreePort() int {
	const usual = 1024
	b, err := os.ReadFile(procSys + "net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return usual
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return usual
	}
	return port
}

func missing(effective uint64, firstFree int, ports []int) error {
	var lacks []string
	has := func(c int) bool { return effective&(1<<c) != 0 }
	if !has(unix.CAP_NET_ADMIN) {
		lacks = append(lacks, "CAP_NET_ADMIN (to set links and routes)")
	}
	for _, p := range ports {
		if p > 0 && p < firstFree && !has(unix.CAP_NET_BIND_SERVICE) {
			lacks = append(lacks, fmt.Sprintf("CAP_NET_BIND_SERVICE (to listen on port %d)", p))
			break
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return fmt.Errorf("%w: the process lacks %s", kernel.ErrPermission, strings.Join(lacks, " and "))
}
