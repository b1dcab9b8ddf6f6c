package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/lab/probe"
	"cairn.network/cairn/lab/topology"
	"cairn.network/cairn/lab/wire"
)

// captureWait is how long what was answered may take to show in the capture.
const captureWait = 300 * time.Millisecond

// CheckEncap sends packets between all pods on different nodes, captures them on
// the way and compares how they travel with what the resources say, again and again
// until all is well or ctx is done. It returns the last outcome.
func (l *Lab) CheckEncap(ctx context.Context) (*wire.Report, error) {
	for {
		report, err := l.tryEncap(ctx)
		if err != nil {
			return nil, fmt.Errorf("check encapsulation: %w", err)
		}
		if len(report.Failed()) == 0 || ctx.Err() != nil {
			return report, nil
		}
	}
}

func (l *Lab) tryEncap(ctx context.Context) (report *wire.Report, err error) {
	// What is read, sent and captured when the time is over already counts too.
	objects, err := l.objects(context.WithoutCancel(ctx), "ippools", "nodes", "agentconfigurations")
	if err != nil {
		return nil, err
	}
	cluster := wire.Of(objects)
	questions, flows, err := l.flows()
	if err != nil {
		return nil, err
	}
	if len(flows) == 0 {
		return nil, errors.New("there are no pods on different nodes")
	}
	log := &wire.Log{}
	stop, err := l.capture(cluster, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	var group errgroup.Group
	for _, q := range questions {
		// What is not answered was not seen, or will be seen otherwise.
		group.Go(func() error {
			_ = probe.AskUntil(asking, q.Netns, probe.UDP, q.Addr, q.Own)
			return nil
		})
	}
	_ = group.Wait()
	for start := time.Now(); ; {
		report, err = wire.Judge(cluster, flows, log)
		if err != nil || len(report.Failed()) == 0 || time.Since(start) > captureWait {
			return report, err
		}
		time.Sleep(captureWait / 30) // between two looks
	}
}

// flows returns the packets to look for and what to ask so that they come.
func (l *Lab) flows() ([]probe.Question, []wire.Flow, error) {
	pods, err := l.Pods()
	if err != nil {
		return nil, nil, err
	}
	var questions []probe.Question
	var flows []wire.Flow
	for _, p := range pods {
		for _, o := range pods {
			a, _ := l.Topology.Node(p.Node)
			b, _ := l.Topology.Node(o.Node)
			if a.Name == b.Name {
				continue
			}
			for _, src := range p.Addrs {
				for _, dst := range o.Addrs {
					if src.Is4() != dst.Is4() {
						continue
					}
					flows = append(flows, wire.Flow{From: a.Name, To: b.Name, Src: src, Dst: dst, Apart: a.Segment != b.Segment})
					questions = append(questions, probe.Question{Netns: p.Netns, Addr: dst, Own: func() []netip.Addr { return []netip.Addr{src} }})
				}
			}
		}
	}
	return questions, flows, nil
}

// capture notes what passes the fabric and the routers until stop is called.
func (l *Lab) capture(c wire.Cluster, log *wire.Log) (stop func() error, err error) {
	ports := wire.Ports{}
	for _, n := range l.Topology.Nodes {
		s := v1.Effective(c.Configurations[v1.DefaultName], c.Configurations[v1.NodeConfigurationPrefix+n.Name])
		ports[uint16(s.VXLANPort)], ports[uint16(s.WireGuardListeningPort)] = wire.VXLAN, wire.WireGuard
	}
	places := map[string]wire.Place{topology.Fabric: wire.Fabric}
	for _, r := range l.Topology.Routers {
		places[r.Name] = wire.Router
	}
	var captures []*wire.Capture
	stop = func() error {
		var errs []error
		for _, c := range captures {
			errs = append(errs, c.Stop())
		}
		return errors.Join(errs...)
	}
	for host, place := range places {
		path, err := l.Netns(host)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		c, err := wire.StartCapture(path, ports, func(p wire.Packet) { log.Add(place, p) })
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		captures = append(captures, c)
	}
	return stop, nil
}
