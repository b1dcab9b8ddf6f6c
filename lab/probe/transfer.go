package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"

	"cairn.network/cairn/lab/netns"
)

// Transfer sends size bytes by TCP to the server at dst, from the namespace held at
// path, as fast as they go, and has them back: packets of full size both ways. It
// is an error if they do not come back as they were until ctx is done.
func Transfer(ctx context.Context, path string, dst netip.Addr, size int) error {
	var c net.Conn
	err := netns.Do(path, func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(dst, Port).String())
		return err
	})
	if err != nil {
		return fmt.Errorf("transfer: %w", err)
	}
	defer c.Close()
	defer closeWhenDone(ctx, c)()
	sent := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent) // never fails
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		written <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(<-written, err); err != nil {
		return fmt.Errorf("transfer of %d bytes: %d came back: %w", size, len(got), noAnswer(err))
	}
	if _, echo, _ := bytes.Cut(got, []byte("\n")); !bytes.Equal(echo, sent) {
		return fmt.Errorf("transfer of %d bytes: %d came back, or others", size, len(echo))
	}
	return nil
}
