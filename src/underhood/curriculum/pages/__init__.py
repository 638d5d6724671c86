"""The path as pages: the map as a graph, one page per milestone, and the same as Markdown."""
