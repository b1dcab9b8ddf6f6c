package ctl

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/ipam"
)

func (e *env) ipam() *cobra.Command {
	cmd := &cobra.Command{Use: "ipam", Short: "See who has which address"}
	cmd.AddCommand(e.ipamShow())
	return cmd
}

func (e *env) ipamShow() *cobra.Command {
	var f format
	var blocks bool
	var ip string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Count the addresses of pools and blocks, or say who has one",
		Long: `Count the addresses of each pool: in use (a pod has them), reserved (a node holds
them for its next pods), free. --blocks adds the blocks that nodes claimed.

--ip says of one address who has it.`,
		Example: `  cairn ctl ipam show
  cairn ctl ipam show --blocks
  cairn ctl ipam show --ip 10.244.1.7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ip != "" && blocks {
				return misuse("--ip and --blocks can't be given together")
			}
			if ip != "" {
				return e.showAddress(cmd, f, ip)
			}
			return e.showUsage(cmd, f, blocks)
		},
	}
	addFormat(cmd, &f)
	cmd.Flags().BoolVar(&blocks, "blocks", false, "each block too")
	cmd.Flags().StringVar(&ip, "ip", "", "only this address: who has it")
	config.CallOnly(cmd.Flags(), "blocks", "ip")
	return cmd
}

// poolCount is a pool's usage as programs read it.
type poolCount struct {
	Name string `json:"name"`
	CIDR string `json:"cidr,omitempty"` // left out if the pool is gone
	count
	Blocks []blockCount `json:"blocks,omitempty"`
}

// blockCount is a block's.
type blockCount struct {
	CIDR  string        `json:"cidr"`
	Node  string        `json:"node"`
	State v1.BlockState `json:"state"`
	count
}

// count counts addresses.
type count struct {
	Total    float64 `json:"total"`
	InUse    int     `json:"inUse"`
	Reserved int     `json:"reserved"`
	Free     float64 `json:"free"`
	Borrowed int     `json:"borrowed"`
}

func countOf(u ipam.Usage) count { return count{u.Size, u.Used, u.Reserved, u.Free, u.Borrowed} }

func (e *env) showUsage(cmd *cobra.Command, f format, blocks bool) error {
	store, err := e.open()
	if err != nil {
		return err
	}
	usage, err := e.poolUsage(cmd.Context(), store)
	if err != nil {
		return err
	}
	if f.machine() {
		return f.write(e.Out, counts(usage, blocks))
	}
	t := &table{head: []string{"GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"}}
	if f.wide() {
		t.head = append(t.head, "IPS BORROWED", "NAME", "NODE", "STATE")
	}
	row := func(grouping, cidr string, u ipam.Usage, more ...string) {
		cells := []string{grouping, cidr, number(u.Size), share(float64(u.Used), u.Size), share(float64(u.Reserved), u.Size), share(u.Free, u.Size)}
		if f.wide() {
			cells = append(append(cells, strconv.Itoa(u.Borrowed)), more...)
		}
		t.add(cells...)
	}
	for _, p := range usage {
		cidr := "(deleted)"
		if p.CIDR.IsValid() {
			cidr = p.CIDR.String()
		}
		row("IP Pool", cidr, p.Usage, p.Name, "", "")
		for _, b := range p.Blocks {
			if blocks {
				row("Block", b.CIDR.String(), b.Usage, v1.BlockName(b.CIDR), b.Node, string(b.State))
			}
		}
	}
	return t.bordered(e.Out)
}

func counts(usage []ipam.PoolUsage, blocks bool) []poolCount {
	all := []poolCount{} // written as [] rather than null
	for _, p := range usage {
		c := poolCount{Name: p.Name, count: countOf(p.Usage)}
		if p.CIDR.IsValid() {
			c.CIDR = p.CIDR.String()
		}
		for _, b := range p.Blocks {
			if blocks {
				c.Blocks = append(c.Blocks, blockCount{b.CIDR.String(), b.Node, b.State, countOf(b.Usage)})
			}
		}
		all = append(all, c)
	}
	return all
}

// number writes a count: in full as far as it is exact.
func number(n float64) string {
	if n < 1<<53 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatFloat(n, 'g', 5, 64)
}

// share writes a part of a whole, with its percentage.
func share(part, whole float64) string {
	if whole == 0 {
		return number(part)
	}
	return fmt.Sprintf("%s (%d%%)", number(part), int(math.Round(100*part/whole)))
}

// holder is what is known of one address, as programs read it.
type holder struct {
	Address string `json:"address"`
	// State is one of the addressState texts.
	State addressState `json:"state"`
	Pool  string       `json:"pool,omitempty"`
	Block string       `json:"block,omitempty"`
	// BlockNode is the node that claimed the block.
	BlockNode string `json:"blockNode,omitempty"`
	// Node holds the address.
	Node       string              `json:"node,omitempty"`
	Owner      *v1.AllocationOwner `json:"owner,omitempty"`
	ReleasedAt *time.Time          `json:"releasedAt,omitempty"`
}

type addressState string

const (
	inUse     addressState = "in use"
	reserved  addressState = "reserved"
	free      addressState = "free"
	notPooled addressState = "in no pool"
)

func (e *env) showAddress(cmd *cobra.Command, f format, ip string) error {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Zone() != "" {
		return misuse("--ip: %q is no address", ip)
	}
	store, err := e.open()
	if err != nil {
		return err
	}
	pools, blocks, err := e.poolsAndBlocks(cmd.Context(), store)
	if err != nil {
		return err
	}
	h := holderOf(a.Unmap(), pools, blocks)
	if f.machine() {
		return f.write(e.Out, h)
	}
	_, err = fmt.Fprint(e.Out, h.text(e.Now()))
	return err
}

// holderOf finds who has an address.
func holderOf(a netip.Addr, pools []*v1.IPPool, blocks []*v1.IPAMBlock) holder {
	h := holder{Address: a.String(), State: notPooled}
	for _, p := range pools {
		if p.Prefix().Contains(a) {
			h.Pool, h.State = p.Name, free
		}
	}
	b, al := ipam.Find(blocks, a)
	if b == nil {
		return h
	}
	h.Pool, h.Block, h.BlockNode, h.State = b.Spec.Pool, b.Spec.CIDR, b.Spec.Node, free
	switch {
	case al != nil && al.Owner != nil:
		h.Node, h.Owner, h.State = al.Node, al.Owner, inUse
	case al != nil:
		h.Node, h.State = al.Node, reserved
	default:
		for _, r := range b.Spec.Released {
			if r.Address == h.Address {
				h.ReleasedAt = &r.At.Time
			}
		}
	}
	return h
}

// text says it in words.
func (h holder) text(now time.Time) string {
	lines := []string{fmt.Sprintf("IP %s is %s", h.Address, h.State)}
	line := func(name, value string) {
		if value != "" {
			lines = append(lines, fmt.Sprintf("  %-10s %s", name+":", value))
		}
	}
	line("Pool", h.Pool)
	block := h.Block
	if block != "" {
		block += " (of node " + h.BlockNode + ")"
	}
	line("Block", block)
	node := h.Node
	if node != "" && node != h.BlockNode {
		node += " (borrows it)"
	}
	line("Node", node)
	switch o := h.Owner; {
	case o == nil:
	case (ipam.Handle{ContainerID: o.ContainerID, Interface: o.Interface}).IsTunnel():
		line("Owner", "tunnel "+o.Interface)
	default:
		line("Pod", strings.Join(slices.DeleteFunc([]string{o.Namespace, o.Pod}, func(s string) bool { return s == "" }), "/"))
		line("Container", o.ContainerID)
		line("Interface", o.Interface)
	}
	if h.ReleasedAt != nil {
		line("Released", fmt.Sprintf("%s (%s ago; it rests for the agent's cool-down before it is used again)",
			h.ReleasedAt.UTC().Format(time.RFC3339), duration(now.Sub(*h.ReleasedAt))))
	}
	return strings.Join(lines, "\n") + "\n"
}
