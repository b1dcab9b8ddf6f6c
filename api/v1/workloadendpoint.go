package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// WorkloadEndpoint is a pod's interface. Agents write those of their node; its
// labels are the pod's.
//
// +kubebuilder:object:root=true
type WorkloadEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              WorkloadEndpointSpec `json:"spec"`
}

// WorkloadEndpointSpec is where a pod's interface is and how it is reached.
type WorkloadEndpointSpec struct {
	// Node is the node that the pod runs on.
	Node string `json:"node"`
	// Pod is the pod's name.
	Pod string `json:"pod"`
	// ContainerID is the sandbox's ID as the container runtime gave it.
	ContainerID string `json:"containerID"`
	// Endpoint is the interface's name inside the pod, by custom eth0.
	Endpoint string `json:"endpoint"`
	// InterfaceName is the name of the host's side.
	InterfaceName string `json:"interfaceName"`
	// IPNetworks are the pod's addresses with full prefix length.
	IPNetworks []string `json:"ipNetworks"`
}
