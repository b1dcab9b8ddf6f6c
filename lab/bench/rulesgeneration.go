package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/netns"
)

// generationPace is the time between two questions for the generation.
const generationPace = time.Millisecond

// generationWatch notes when the rules of a node last had a new generation, which each
// transaction brings. It asks again and again: while anybody listens the kernel makes a
// message of every element that changes, which takes longer than the change, and whoever
// measures must not be the one for whom it does.
type generationWatch struct {
	cancel context.CancelFunc
	ended  chan error
	last   time.Time // zero: there was none
}

// watchGeneration starts to watch n1 of a lab.
func watchGeneration(ctx context.Context, l *lab.Lab) (*generationWatch, error) {
	path, err := l.Netns("n1")
	if err != nil {
		return nil, err
	}
	w := &generationWatch{ended: make(chan error, 1)}
	ctx, w.cancel = context.WithCancel(ctx)
	asking := make(chan error, 1)
	go func() {
		w.ended <- netns.Do(path, func() error {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
			if err != nil {
				asking <- err
				return err
			}
			defer unix.Close(fd)
			known, err := askGeneration(fd)
			asking <- err
			if err != nil {
				return err
			}
			return w.follow(ctx, fd, known)
		})
	}()
	return w, <-asking
}

func (w *generationWatch) follow(ctx context.Context, fd int, known uint32) error {
	tick := time.NewTicker(generationPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := askGeneration(fd)
		if err != nil {
			return err
		}
		if now != known {
			w.last, known = time.Now(), now
		}
	}
}

// end ends the watch and returns when the last generation came.
func (w *generationWatch) end() (time.Time, error) {
	w.cancel()
	err := <-w.ended
	if err == nil && w.last.IsZero() {
		err = errors.New("the agent is ready without rules")
	}
	return w.last, err
}

// askGeneration asks the kernel for the number of the rules' generation.
func askGeneration(fd int) (uint32, error) {
	const size = unix.SizeofNlMsghdr + 4 // with struct nfgenmsg, all zero
	b := make([]byte, size, 4096)
	binary.NativeEndian.PutUint32(b, size)
	binary.NativeEndian.PutUint16(b[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("ask for the generation: %w", err)
	}
	b = b[:cap(b)]
	n, err := read(fd, b)
	if err != nil {
		return 0, fmt.Errorf("ask for the generation: %w", err)
	}
	// The number is the first attribute (NFTA_GEN_ID).
	if n < size+unix.SizeofNlAttr+4 || binary.NativeEndian.Uint16(b[size+2:size+4]) != unix.NFTA_GEN_ID {
		return 0, errors.New("ask for the generation: there is none in the answer")
	}
	return binary.BigEndian.Uint32(b[size+unix.SizeofNlAttr : size+unix.SizeofNlAttr+4]), nil
}
