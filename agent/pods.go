package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// readyWait bounds how long an ADD waits for an agent that has just started.
const readyWait = 10 * time.Second

// runPods brings journal, datastore and kernel into agreement, then keeps the
// datastore informed of who uses which address.
func (a *Agent) runPods(ctx context.Context) error {
	for {
		turn := a.loop.turn()
		if a.mirror.Snapshot() != nil && a.loop.currentHost() != nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-turn:
		}
	}
	if err := a.takeOver(ctx); err != nil {
		return err
	}
	return a.pods.Run(ctx)
}

// takeOver recovers what an earlier agent left: its routes tell that there was
// one, its links which addresses are in use.
func (a *Agent) takeOver(ctx context.Context) error {
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		err := a.recoverOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		a.log.Warn("can't take over yet", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

func (a *Agent) recoverOnce(ctx context.Context) error {
	routes, err := a.drv.Routes.Read(ctx)
	if err != nil {
		return fmt.Errorf("read routes: %w", err)
	}
	a.loop.restarting = len(routes) > 0
	a.offerPools(a.mirror.Snapshot()) // or the reserve would be given back
	if err := a.pods.Recover(ctx, live(a.loop.currentHost())); err != nil {
		return fmt.Errorf("recover addresses: %w", err)
	}
	if err := a.drainSpool(ctx); err != nil {
		a.log.Warn("some spooled DELs are left", "error", err)
	}
	a.forget.forget(unused(a.mirror.Snapshot(), a.cfg.Node, a.pods.Assignments())...)
	a.hands.recall(ctx)
	a.loop.recovered.Store(true)
	a.loop.kick()
	return nil
}

// live returns the assignments that links on the host tell of.
func live(h *kernel.Host) []ipam.Assignment {
	var as []ipam.Assignment
	for _, l := range h.Links {
		if p, ok := kernel.ParsePodAlias(l.Alias); ok {
			as = append(as, ipam.Assignment{
				Handle: ipam.Handle{ContainerID: p.ContainerID, Interface: p.PodLink},
				IPv4:   p.IPv4, IPv6: p.IPv6, Namespace: p.Namespace, Pod: p.Pod, HostLink: l.Name,
			})
		}
	}
	for _, name := range kernel.TunnelLinks() {
		if !isTunnel(h.Links[name]) {
			continue
		}
		of := ipam.Assignment{Handle: ipam.TunnelHandle(name)}
		for a := range h.Addrs {
			switch ip := a.Prefix.Addr(); {
			case a.Link != name || ip.IsLinkLocalUnicast():
			case ip.Is4():
				of.IPv4 = ip
			default:
				of.IPv6 = ip
			}
		}
		if len(of.Addrs()) > 0 {
			as = append(as, of)
		}
	}
	return as
}

// attached says whether the host has the link of this assignment.
func attached(h *kernel.Host, as ipam.Assignment) bool {
	p, ok := kernel.ParsePodAlias(h.Links[as.HostLink].Alias)
	return ok && p.ContainerID == as.ContainerID && p.PodLink == as.Interface
}

// CNI answers the plug-in.
func (a *Agent) CNI(ctx context.Context, req protocol.Request) protocol.Response {
	resp, err := a.carryOut(ctx, req)
	if err != nil {
		resp.Error = wireError(err)
		a.log.Warn("CNI request failed", "verb", req.Verb, "container", req.ContainerID,
			"pod", req.Namespace+"/"+req.Pod, "code", resp.Error.Code, "error", err)
	}
	return resp
}

func (a *Agent) carryOut(ctx context.Context, req protocol.Request) (resp protocol.Response, err error) {
	if handleOf(req).IsTunnel() {
		return resp, &protocol.Error{Code: protocol.CodeInvalid, Message: fmt.Sprintf("%q is no container's ID", req.ContainerID)}
	}
	switch req.Verb {
	case protocol.VerbAdd:
		resp, err = a.add(ctx, req)
	case protocol.VerbReady:
		resp, err = a.awaitRoutes(ctx, handleOf(req))
	case protocol.VerbDel:
		err = a.del(ctx, handleOf(req))
	case protocol.VerbCheck:
		resp, err = a.check(ctx, handleOf(req))
	case protocol.VerbStatus:
		err = a.canAdd()
	case protocol.VerbGC:
		err = a.gc(ctx, req)
	default:
		err = &protocol.Error{Code: protocol.CodeInvalid, Message: fmt.Sprintf("unknown verb %q", req.Verb)}
	}
	return resp, err
}

func handleOf(req protocol.Request) ipam.Handle {
	return ipam.Handle{ContainerID: req.ContainerID, Interface: req.Interface}
}

// wireError sorts an error into the protocol's codes.
func wireError(err error) *protocol.Error {
	if pe, ok := errors.AsType[*protocol.Error](err); ok {
		return pe
	}
	code := protocol.CodeInternal
	switch {
	case errors.Is(err, ipam.ErrExhausted):
		code = protocol.CodeExhausted
	case errors.Is(err, ipam.ErrUnavailable):
		code = protocol.CodeUnavailable
	case errors.Is(err, ipam.ErrInvalid):
		code = protocol.CodeInvalid
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		code = protocol.CodeTimeout
	}
	return &protocol.Error{Code: code, Message: err.Error()}
}

// canAdd returns nil if an ADD may succeed now.
func (a *Agent) canAdd() error {
	if !a.loop.ready.Load() {
		reason := "the first pass is not done yet"
		if why := a.loop.waiting.Load(); why != nil {
			reason = *why
		}
		return &protocol.Error{Code: protocol.CodeUnavailable, Message: "the agent is not ready: " + reason}
	}
	return nil
}

// awaitReady waits a little for an agent that is starting. Who asks and has gone
// meanwhile gets an error.
func (a *Agent) awaitReady(ctx context.Context) error {
	timeout := time.NewTimer(readyWait)
	defer timeout.Stop()
	for {
		turn := a.loop.turn()
		err := a.canAdd()
		if err == nil {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return err
		case <-timeout.C:
			return err
		case <-turn:
		}
	}
}

func (a *Agent) add(ctx context.Context, req protocol.Request) (protocol.Response, error) {
	if err := a.awaitReady(ctx); err != nil {
		return protocol.Response{}, err
	}
	pod := req.Pod
	if pod == "" {
		pod = req.ContainerID // a container that is no pod of Kubernetes
	}
	var ports []ipam.NamedPort
	for _, p := range req.Ports {
		ports = append(ports, ipam.NamedPort(p))
	}
	as, err := a.pods.Assign(ctx, ipam.Request{
		Handle: handleOf(req), IPv4: req.IPv4, IPv6: req.IPv6, Pools: req.Pools,
		Namespace: req.Namespace, Pod: pod, HostLink: kernel.PodLink(req.Namespace, pod, req.Interface),
		Netns: req.Netns, Network: req.Network, Labels: req.Labels,
		ServiceAccount: req.ServiceAccount, Ports: ports,
	})
	if err != nil {
		return protocol.Response{}, err
	}
	return a.answer(as), nil
}

// answer returns what the plug-in must know of an assignment.
func (a *Agent) answer(as ipam.Assignment) protocol.Response {
	return protocol.Response{IPv4: as.IPv4, IPv6: as.IPv6, HostLink: as.HostLink, MTU: a.podMTU(a.loop.state.Load())}
}

// known returns the assignment of a handle, or the error that says there is none.
func (a *Agent) known(h ipam.Handle) (ipam.Assignment, error) {
	as, ok := a.pods.Assignments().Get(h)
	if !ok {
		return as, &protocol.Error{Code: protocol.CodeUnknown, Message: fmt.Sprintf("container %s has no addresses of this node", h)}
	}
	return as, nil
}

// applied says whether the routes to all of a pod's addresses are in the kernel,
// its policies too, and its link is set up for them.
func (a *Agent) applied(as ipam.Assignment) bool {
	if !a.protected(as) {
		return false
	}
	for _, ip := range as.Addrs() {
		if !a.loop.routes.Applied(kernel.HostRoute(ip)) {
			return false
		}
	}
	return a.linkFault(as) == ""
}

// protected says whether a pod's policies are in the kernel.
func (a *Agent) protected(as ipam.Assignment) bool {
	state := a.loop.state.Load()
	if state == nil {
		return false
	}
	enforced, ok := state.Locals.Get(calc.EndpointID(as))
	return ok && enforced.Endpoint.Link == as.HostLink && slices.Equal(enforced.Endpoint.Addrs, as.Addrs()) &&
		!slices.ContainsFunc(enforced.Entries, func(key string) bool { return !a.loop.chains.Applied(key) })
}

// linkFault says which parameter of a pod's link is not as it should be, the check
// of the pod's source addresses for one; "" if none that this kernel has and the
// pod needs.
func (a *Agent) linkFault(as ipam.Assignment) string {
	for _, k := range slices.Sorted(maps.Keys(kernel.PodLinkSysctls(as.HostLink))) {
		if a.loop.sysctls.Applied(k) || !as.IPv6.IsValid() && strings.HasPrefix(string(k), "net/ipv6/") {
			continue
		}
		f, failed := a.loop.sysctls.Failures()[k]
		if !failed {
			return fmt.Sprintf("sysctl %s is not set", k)
		}
		if !errors.Is(f.Err, kernel.ErrUnsupported) {
			return f.Err.Error()
		}
	}
	return ""
}

// awaitRoutes returns when the pod's routes are in the kernel.
func (a *Agent) awaitRoutes(ctx context.Context, h ipam.Handle) (protocol.Response, error) {
	for {
		turn := a.loop.turn()
		as, err := a.known(h)
		if err != nil {
			return protocol.Response{}, err
		}
		if a.applied(as) {
			return a.answer(as), nil
		}
		select {
		case <-ctx.Done():
			return protocol.Response{}, fmt.Errorf("routes of %s are not in the kernel: %s: %w", h, a.whyNot(as), ctx.Err())
		case <-turn:
		}
	}
}

// whyNot says what keeps a pod's routes out of the kernel.
func (a *Agent) whyNot(as ipam.Assignment) string {
	if err := a.canAdd(); err != nil {
		return err.Error()
	}
	if h := a.loop.currentHost(); h != nil && !attached(h, as) {
		return "the host has no link " + as.HostLink + " of this container"
	}
	if why := a.loop.waiting.Load(); why != nil {
		return *why
	}
	if err := a.loop.routes.Err(); err != nil {
		return err.Error()
	}
	if !a.protected(as) {
		if all := a.loop.allFailures(); len(all) > 0 {
			return "its policies are not in the kernel: " + all[0].name + ": " + all[0].Err.Error()
		}
		return "its policies are not in the kernel yet"
	}
	failures := a.loop.routes.Failures()
	for _, ip := range as.Addrs() {
		if f, ok := failures[kernel.HostRoute(ip)]; ok {
			return f.Err.Error()
		}
	}
	if fault := a.linkFault(as); fault != "" {
		return fault
	}
	return "the link is down"
}

func (a *Agent) check(ctx context.Context, h ipam.Handle) (protocol.Response, error) {
	if err := a.awaitReady(ctx); err != nil {
		return protocol.Response{}, err
	}
	as, err := a.known(h)
	if err != nil {
		return protocol.Response{}, err
	}
	if !a.applied(as) {
		return protocol.Response{}, &protocol.Error{Code: protocol.CodeInternal,
			Message: fmt.Sprintf("routes of %s are not in the kernel: %s", h, a.whyNot(as))}
	}
	return a.answer(as), nil
}

// del gives a container's addresses back, and has the kernel forget their
// connections.
func (a *Agent) del(ctx context.Context, h ipam.Handle) error {
	as, ok, err := a.pods.Release(ctx, h)
	if err != nil || !ok {
		return err
	}
	a.forget.forget(as.Addrs()...)
	return nil
}
