package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/process"
)

// Mark returns the environment variable that marks the lab's processes.
func (l *Lab) Mark() string { return process.MarkVariable + "=" + l.dir }

// Where returns the path of the file that holds the namespace of a host, or of a
// pod given as namespace/name.
func (l *Lab) Where(name string) (string, error) {
	if strings.Contains(name, "/") {
		namespace, pod, _ := strings.Cut(name, "/")
		p, err := l.Pod(namespace, pod)
		return p.Netns, err
	}
	return l.Netns(name)
}

// Exec replaces the calling process by a program in the namespace of a host or a
// pod (namespace/name): terminal, signals and exit code are the program's own. It
// has a mount namespace of its own too, in which /sys shows the network it is in.
// It returns only if that fails.
func (l *Lab) Exec(where string, argv ...string) error {
	path, err := l.Where(where)
	if err != nil {
		return err
	}
	program, err := l.lookup(argv[0])
	if err != nil {
		return fmt.Errorf("exec in %s: %w", where, err)
	}
	env := append(l.environ(where), l.Mark())
	runtime.LockOSThread() // what follows changes this thread, which then becomes the process
	if err := netns.Enter(path); err != nil {
		return err
	}
	if err := freshSys(); err != nil {
		return fmt.Errorf("exec in %s: %w", where, err)
	}
	return fmt.Errorf("exec %s: %w", program, unix.Exec(program, argv, env))
}

// lookup returns the path of a program: Cairn's own of this lab, or as the PATH
// has it.
func (l *Lab) lookup(name string) (string, error) {
	if own := l.program(name); !strings.Contains(name, "/") {
		if _, err := os.Stat(own); err == nil {
			return own, nil
		}
	}
	return exec.LookPath(name)
}

// freshSys gives the calling thread a mount namespace of its own, with /sys as
// the thread's network namespace has it.
func freshSys() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare mount namespace", err)
	}
	// Nothing that is mounted from now on shows outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return os.NewSyscallError("make mounts private", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return os.NewSyscallError("mount /sys", err)
	}
	return nil
}
