"""Visual-token compression: the interface, the plan, and one module per method."""
