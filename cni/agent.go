package cni

import (
	"context"
	"errors"
	"time"

	"cairn.network/cairn/cni/protocol"
)

// Pauses between two questions to an agent that is not there.
const (
	firstPause = 5 * time.Millisecond
	maxPause   = 250 * time.Millisecond
)

// agent is the plug-in's conversation with the agent about one container.
type agent struct {
	client protocol.Client
	// touched says that a request may have had an effect whose answer is not
	// known, or was carried out in part.
	touched bool
}

// ask asks the agent, and asks again for as long as patience while it is not
// there or not ready. An agent that restarts is a case of that: every verb may be
// repeated.
func (a *agent) ask(ctx context.Context, req protocol.Request, patience time.Duration) (protocol.Response, error) {
	end := time.Now().Add(patience)
	var last error // why it is asked again
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		resp, err := a.client.Call(ctx, req)
		if err == nil {
			return resp, nil
		}
		a.touched = a.touched || mayHaveDone(err)
		if last != nil && ctx.Err() != nil && code(err) == "" {
			return protocol.Response{}, last // says more than that time is over
		}
		last = err
		if !passing(err) || time.Now().Add(pause).After(end) {
			return protocol.Response{}, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return protocol.Response{}, err
		case <-timer.C:
		}
	}
}

// code returns the code of a failure that the agent reports, "" for any other.
func code(err error) protocol.Code {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e.Code
	}
	return ""
}

// passing says whether the same question may be answered a moment later.
func passing(err error) bool {
	return errors.Is(err, protocol.ErrAbsent) || errors.Is(err, protocol.ErrLost) || code(err) == protocol.CodeUnavailable
}

// mayHaveDone says whether a request that failed may have had an effect.
func mayHaveDone(err error) bool {
	switch code(err) {
	case protocol.CodeInvalid, protocol.CodeUnavailable, protocol.CodeExhausted, protocol.CodeUnknown:
		return false
	}
	return !errors.Is(err, protocol.ErrAbsent)
}
