"""The path: one file per milestone, each a question, an idea and claims that it measures. They never import another."""
