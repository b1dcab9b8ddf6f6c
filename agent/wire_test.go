package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
)

func TestWireError(t *testing.T) {
	own := &protocol.Error{Code: protocol.CodeUnknown, Message: "who?"}
	for _, test := range []struct {
		name string
		err  error
		code protocol.Code
	}{
		{"one of the protocol", own, protocol.CodeUnknown},
		{"one of the protocol, wrapped", fmt.Errorf("ask: %w", own), protocol.CodeUnknown},
		{"no address", ipam.ErrExhausted, protocol.CodeExhausted},
		{"not now", fmt.Errorf("%w: %w", ipam.ErrUnavailable, datastore.ErrUnavailable), protocol.CodeUnavailable},
		{"out of time for an address", fmt.Errorf("%w: %w", ipam.ErrUnavailable, context.DeadlineExceeded), protocol.CodeUnavailable},
		{"a bad request", ipam.ErrInvalid, protocol.CodeInvalid},
		{"out of time", context.DeadlineExceeded, protocol.CodeTimeout},
		{"nobody asks any more", fmt.Errorf("wait: %w", context.Canceled), protocol.CodeTimeout},
		{"several of a GC", errors.Join(nil, fmt.Errorf("release: %w", io.ErrShortWrite)), protocol.CodeInternal},
		{"the disk", io.ErrShortWrite, protocol.CodeInternal},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := wireError(test.err)
			if got.Code != test.code || got.Message == "" {
				t.Errorf("code %s, message %q", got.Code, got.Message)
			}
		})
	}
}
