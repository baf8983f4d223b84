"""Networks as files that other programs run: the graph, what it says of itself, three formats, and their check."""
