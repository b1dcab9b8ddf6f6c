package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cairn.network/cairn/lab"
)

func (s *settings) pod() *cobra.Command {
	cmd := &cobra.Command{Use: "pod", Short: "Add and remove pods", RunE: help}
	cmd.AddCommand(s.podAdd(), s.podRemove(), s.podEager())
	return cmd
}

func (s *settings) podAdd() *cobra.Command {
	p := lab.Pod{}
	var ports []string
	cmd := &cobra.Command{
		Use:   "add NAME --node NODE",
		Short: "Add a pod to a node, by the CNI plug-in, and print its addresses",
		Long: `Add a pod: a network namespace, attached to the node by the CNI plug-in as a container
runtime would, with a server that answers with the client's address: on port 8080 by TCP, UDP
and SCTP, and on each port that --port names.

With --eager a process in it tries to reach an address, as fast as it can, from before the
plug-in is called: pod eager shows what became of that.`,
		Example: `  cairn-lab pod add web --node n1 --labels app=web --port http=80 --port dns=53/udp
  cairn-lab pod add first --node n1 --eager tcp:10.244.0.1:8080`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			p.Name = args[0]
			for _, text := range ports {
				port, err := lab.ParsePort(text)
				if err != nil {
					return fmt.Errorf("pod add: %w", err)
				}
				p.Ports = append(p.Ports, port)
			}
			p, err := l.AddPod(cmd.Context(), p)
			if err != nil {
				return err
			}
			texts := make([]string, len(p.Addrs))
			for i, a := range p.Addrs {
				texts[i] = a.String()
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pod %s on %s: %s\n", p, p.Node, strings.Join(texts, " "))
			return nil
		},
	}
	cmd.Flags().StringVar(&p.Node, "node", "", "the node to attach it to")
	cmd.Flags().StringVar(&p.Namespace, "namespace", "default", "the pod's namespace")
	cmd.Flags().StringToStringVar(&p.Labels, "labels", nil, "labels, as key=value,…")
	cmd.Flags().StringVar(&p.ServiceAccount, "service-account", "", "name of its service account")
	cmd.Flags().StringArrayVar(&ports, "port", nil, "a port with its name, as http=80 or dns=53/udp; may be repeated")
	cmd.Flags().StringArrayVar(&p.Eager, "eager", nil, "try to reach this from before it is attached, as tcp:10.244.0.1:8080; may be repeated")
	cmd.Flags().StringSliceVar(&p.Pools, "pools", nil, "take addresses from these pools, one for each family that they have")
	if err := cmd.MarkFlagRequired("node"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func (s *settings) podRemove() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove a pod",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := s.open()
			if err != nil {
				return err
			}
			return l.RemovePod(cmd.Context(), namespace, args[0])
		},
	}
	cmd.Flags().StringVar(&namespace, "namespace", "default", "the pod's namespace")
	return cmd
}
