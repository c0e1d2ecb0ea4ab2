package supervisor

import (
	"cmp"
	"slices"
)

// Node is one supervisor or service of the tree, as GET /api/tree shows it.
type Node struct {
	Name string `json:"name"`
	// Kind is "supervisor" or "service".
	Kind string `json:"kind"`
	// Restarts is how often the service failed and was to be served again;
	// for a supervisor, how often all services below it were, those that
	// are gone included.
	Restarts uint64 `json:"restarts"`
	// Workers is the number of sessions; partitions have it in place of
	// Children.
	Workers  *int64 `json:"workers,omitempty"`
	Children []Node `json:"children,omitzero"`
}

// Snapshot returns the tree as it stands. Partitions say how many workers
// they have, not which. Listeners and control services are listed while the
// tree runs.
func (t *Tree) Snapshot() Node {
	sessions := Node{Name: t.sessions.Name, Kind: "supervisor", Children: []Node{}}
	for _, p := range t.partitions {
		workers := p.workers.Load()
		sessions.adopt(Node{Name: p.Name, Kind: "supervisor", Restarts: p.restarts.Load(), Workers: &workers})
	}
	root := Node{Name: t.root.Name, Kind: "supervisor", Children: []Node{}}
	root.adopt(t.listeners.node())
	root.adopt(t.control.node())
	root.adopt(sessions)
	return root
}

// node lists a branch of named services in the order of their names.
func (b *branch) node() Node {
	n := Node{Name: b.Name, Kind: "supervisor", Restarts: b.restarts.Load(), Children: []Node{}}
	for _, child := range b.Services() {
		if s, ok := child.(*service); ok {
			n.Children = append(n.Children, Node{Name: s.name, Kind: "service", Restarts: s.restarts.Load()})
		}
	}
	slices.SortStableFunc(n.Children, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return n
}

func (n *Node) adopt(child Node) {
	n.Children = append(n.Children, child)
	n.Restarts += child.Restarts
}
