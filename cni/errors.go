package cni

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"cairn.network/cairn/cni/protocol"
)

// errDiffers is the code of a CHECK that finds something else than ADD made. The
// specification leaves codes from 100 on to plug-ins.
const errDiffers = 101

// wrap returns a failure as the specification wants it: what was being done, for
// which pod, why it failed, and the code. unavailable is the code for an agent
// that is not there or not ready.
func wrap(what string, err error, unavailable uint) error {
	if e, ok := errors.AsType[*types.Error](err); ok {
		return types.NewError(e.Code, what+": "+e.Msg, e.Details)
	}
	return types.NewError(codeOf(err, unavailable), what+": "+err.Error(), advice(err))
}

func codeOf(err error, unavailable uint) uint {
	switch code(err) {
	case protocol.CodeInvalid:
		return types.ErrInvalidNetworkConfig
	case protocol.CodeUnknown:
		return types.ErrUnknownContainer
	case protocol.CodeUnavailable:
		return unavailable
	case protocol.CodeExhausted, protocol.CodeTimeout:
		return types.ErrTryAgainLater
	case protocol.CodeInternal:
		return types.ErrInternal
	}
	switch {
	case errors.Is(err, protocol.ErrAbsent), errors.Is(err, protocol.ErrLost),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable
	}
	return types.ErrInternal
}

// advice says what to look at.
func advice(err error) string {
	switch {
	case errors.Is(err, protocol.ErrAbsent), errors.Is(err, protocol.ErrLost):
		return "is the Cairn agent running on this node? Look at its log"
	case code(err) == protocol.CodeUnavailable:
		return "look at the Cairn agent's log on this node, and at: cairn ctl node status"
	case code(err) == protocol.CodeExhausted:
		return "look at: cairn ctl ipam show --blocks"
	}
	return ""
}

// differs returns the failure of a CHECK.
func differs(format string, args ...any) error {
	return types.NewError(errDiffers, fmt.Sprintf(format, args...), "")
}
