"""The atlas of the path: its rows, routes and results, the runner, and the pages."""
