"""The path: one folder per milestone, each a question, an idea and claims that it measures."""
