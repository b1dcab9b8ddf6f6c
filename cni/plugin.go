package cni

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/ns"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/kernel"
)

// delTime is how long a DEL waits for the agent before it leaves a note. The
// pod's link is gone by then, so nobody waits for the answer.
const delTime = 2 * time.Second

// undoTime bounds what is done after a failed ADD, whose own time may be over.
const undoTime = 5 * time.Second

// Plugin carries out the verbs of the CNI specification.
type Plugin struct {
	attacher kernel.Attacher
	out      io.Writer // for results
}

// New returns the plug-in that makes links with this attacher and prints its
// results to out.
func New(attacher kernel.Attacher, out io.Writer) *Plugin {
	return &Plugin{attacher: attacher, out: out}
}

// Versions returns the versions of the specification that the plug-in speaks.
func Versions() version.PluginInfo {
	return version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")
}

// Funcs returns the verbs in the form in which skel.PluginMainFuncs takes them.
// They end early when ctx is done; an ADD is undone then.
func (p *Plugin) Funcs(ctx context.Context) skel.CNIFuncs {
	verb := func(do func(context.Context, *call) error, name string, unavailable uint) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error {
			c, err := p.call(args)
			if err != nil {
				return err
			}
			if err := do(ctx, c); err != nil {
				return wrap(name+" "+c.subject(), err, unavailable)
			}
			return nil
		}
	}
	return skel.CNIFuncs{
		Add:    verb(p.add, "add", types.ErrTryAgainLater),
		Del:    verb(p.del, "delete", types.ErrTryAgainLater),
		Check:  verb(p.check, "check", types.ErrTryAgainLater),
		GC:     verb(p.gc, "collect garbage of", types.ErrTryAgainLater),
		Status: verb(p.status, "ask for the state of", types.ErrPluginNotAvailable),
	}
}

// call is one call of the plug-in.
type call struct {
	config
	pod   pod
	agent agent
	spool spool
}

// call reads what the runtime hands over.
func (p *Plugin) call(args *skel.CmdArgs) (*call, error) {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return nil, err
	}
	pod, err := parsePod(args)
	if err != nil {
		return nil, err
	}
	return &call{
		config: conf, pod: pod,
		agent: agent{client: protocol.Client{Socket: conf.socket}},
		spool: spool{dir: conf.spool},
	}, nil
}

// subject returns what errors say that the call is about.
func (c *call) subject() string {
	if c.pod.containerID == "" {
		return "network " + c.network
	}
	return c.pod.String()
}

// request returns a request about the container.
func (c *call) request(verb string) protocol.Request {
	return protocol.Request{
		Verb: verb, ContainerID: c.pod.containerID, Interface: c.pod.ifName, Netns: c.pod.netns,
		Namespace: c.pod.namespace, Pod: c.pod.name, Network: c.network,
	}
}

func (p *Plugin) add(ctx context.Context, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if c.prev != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "prevResult: Cairn makes the pod's link, so it must be the first plug-in of the list", "")
	}
	if err := checkNetns(c.pod.netns); err != nil {
		return err
	}
	req := c.request(protocol.VerbAdd)
	req.Labels, req.ServiceAccount, req.Ports = c.labels, c.serviceAccount, c.ports
	req.IPv4, req.IPv6, req.Pools = c.ipv4, c.ipv6, c.pools
	// A note of an earlier DEL of the same container would undo this ADD later.
	if err := c.spool.take(req); err != nil {
		return err
	}
	got, err := c.agent.ask(ctx, req, c.connectTimeout)
	if err != nil {
		if c.agent.touched {
			if undo := c.giveBack(ctx); undo != nil {
				err = fmt.Errorf("%w (and undoing it failed: %w)", err, undo)
			}
		}
		return fmt.Errorf("get addresses: %w", err)
	}
	a := c.attachment(got)
	mac, err := p.attach(ctx, c, a)
	if err != nil {
		return p.undo(ctx, c, a, err)
	}
	result, err := resultOf(a, mac, c.dns).GetAsVersion(c.cniVersion)
	if err == nil {
		err = result.PrintTo(p.out)
	}
	if err != nil {
		return p.undo(ctx, c, a, fmt.Errorf("print the result: %w", err))
	}
	return nil
}

// attach makes the link, and returns the pod's MAC address when the pod's routes
// are in the kernel. An agent that restarts meanwhile is waited for.
func (p *Plugin) attach(ctx context.Context, c *call, a kernel.Attachment) (string, error) {
	mac, err := p.attacher.Attach(ctx, a)
	if err != nil {
		return "", fmt.Errorf("make the link: %w", err)
	}
	if _, err := c.agent.ask(ctx, c.request(protocol.VerbReady), c.timeout); err != nil {
		return "", fmt.Errorf("wait for the routes: %w", err)
	}
	return mac, nil
}

// undo removes what a failed ADD made, and returns why it failed.
func (p *Plugin) undo(ctx context.Context, c *call, a kernel.Attachment, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if err := p.remove(ctx, c, a); err != nil {
		return fmt.Errorf("%w (and undoing it failed: %w)", why, err)
	}
	return why
}

// remove takes the link away and then gives the addresses back: an address that
// a link still carries must not go to another pod.
func (p *Plugin) remove(ctx context.Context, c *call, a kernel.Attachment) error {
	if err := p.attacher.Detach(ctx, a); err != nil {
		return fmt.Errorf("remove the link: %w", err)
	}
	return c.giveBack(ctx)
}

// giveBack returns the container's addresses to the agent, or leaves a note for
// it. Whatever the agent answers but success, the note makes good.
func (c *call) giveBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), delTime)
	defer cancel()
	req := c.request(protocol.VerbDel)
	if _, err := c.agent.client.Call(ctx, req); err == nil {
		return nil
	}
	return c.spool.leave(req)
}

func (p *Plugin) del(ctx context.Context, c *call) error {
	a := kernel.Attachment{}
	if c.prev != nil {
		a = attachmentOf(c.prev, c.pod)
	}
	if a.HostLink == "" {
		a = c.attachment(protocol.Response{HostLink: kernel.PodLink(c.pod.namespace, c.pod.name, c.pod.ifName)})
	}
	return p.remove(ctx, c, a)
}

// attachment returns the link that the agent's answer asks for.
func (c *call) attachment(r protocol.Response) kernel.Attachment {
	a := kernel.Attachment{
		Netns: c.pod.netns, PodLink: c.pod.ifName, HostLink: r.HostLink, ContainerID: c.pod.containerID,
		Namespace: c.pod.namespace, Pod: c.pod.name, IPv4: r.IPv4, IPv6: r.IPv6, MTU: r.MTU,
	}
	if c.mtu != 0 {
		a.MTU = c.mtu
	}
	return a
}

func (p *Plugin) check(ctx context.Context, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if c.prev == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "prevResult: required for CHECK", "")
	}
	if err := checkNetns(c.pod.netns); err != nil {
		return err
	}
	was := attachmentOf(c.prev, c.pod)
	got, err := c.agent.ask(ctx, c.request(protocol.VerbCheck), c.connectTimeout)
	if err != nil {
		return err
	}
	now := c.attachment(got)
	if was.MTU != 0 { // results have it since 1.0.0
		now.MTU = was.MTU // what a new pod would get may have changed since
	}
	switch {
	case was.IPv4 != now.IPv4 || was.IPv6 != now.IPv6:
		return differs("the pod was given %s, and the agent has %s for it", addresses(was), addresses(now))
	case was.HostLink != now.HostLink:
		return differs("the pod's link was %q, and the agent knows it as %q", was.HostLink, now.HostLink)
	}
	if err := p.attacher.Check(ctx, now); err != nil {
		return differs("%v", err)
	}
	return nil
}

func addresses(a kernel.Attachment) string {
	switch {
	case !a.IPv4.IsValid() && !a.IPv6.IsValid():
		return "no address"
	case !a.IPv6.IsValid():
		return a.IPv4.String()
	case !a.IPv4.IsValid():
		return a.IPv6.String()
	}
	return a.IPv4.String() + " and " + a.IPv6.String()
}

func (p *Plugin) status(ctx context.Context, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, c.connectTimeout)
	defer cancel()
	_, err := c.agent.client.Call(ctx, c.request(protocol.VerbStatus))
	return err
}

func (p *Plugin) gc(ctx context.Context, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if !c.hasValid {
		return nil // nobody said who is gone
	}
	req := c.request(protocol.VerbGC)
	req.Valid = c.valid
	_, err := c.agent.ask(ctx, req, c.connectTimeout)
	return err
}

// checkNetns refuses a network namespace that isn't there, or is the host's.
func checkNetns(path string) error {
	if _, err := os.Stat(path); err != nil {
		return types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("network namespace of the pod: %v", err), "")
	}
	own, err := ns.CheckNetNS(path)
	if err != nil {
		return err
	}
	if own {
		return types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("network namespace of the pod: %s is the host's own", path), "")
	}
	return nil
}
