"""A node's life: outside any cluster, joining, member as worker or manager, leaving."""
