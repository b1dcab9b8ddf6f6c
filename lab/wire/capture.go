package wire

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/vishvananda/netlink"

	"cairn.network/cairn/lab/netns"
)

// captureLength is as much of a frame as is looked at: every header that there
// may be.
const captureLength = 256

// Capture watches what passes the links of a network namespace.
type Capture struct {
	handles []*pcapgo.EthernetHandle
	readers sync.WaitGroup
	mu      sync.Mutex
	err     error
}

// StartCapture calls f for each packet that comes or goes by any link, of those that
// are up, of the namespace held at path, until Stop. f is called from several goroutines.
func StartCapture(path string, ports Ports, f func(Packet)) (*Capture, error) {
	c := &Capture{}
	err := netns.Do(path, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			// Some kernels have links in each namespace that nobody set up, such as tunl0.
			if f := l.Attrs().Flags; f&net.FlagUp == 0 || f&net.FlagLoopback != 0 {
				continue
			}
			h, err := pcapgo.NewEthernetHandle(l.Attrs().Name)
			if err != nil {
				return err
			}
			c.handles = append(c.handles, h)
			if err := h.SetCaptureLength(captureLength); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture in %s: %w", path, err), c.Stop())
	}
	for _, h := range c.handles {
		c.readers.Go(func() { c.read(h, ports, f) })
	}
	return c, nil
}

func (c *Capture) read(h *pcapgo.EthernetHandle, ports Ports, f func(Packet)) {
	for {
		frame, _, err := h.ZeroCopyReadPacketData()
		if err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.err = errors.Join(c.err, err)
			return
		}
		if p, ok := Decode(frame, ports); ok {
			f(p)
		}
	}
}

// Stop ends the capture, once: f is called no more when it returns. Its error is
// why it ended before.
func (c *Capture) Stop() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	for _, h := range c.handles {
		err = errors.Join(err, h.Close())
	}
	c.readers.Wait()
	return err
}
