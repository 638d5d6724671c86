"""The path as a whole: topics, routes, search, results, the runner of milestones, and the pages."""
