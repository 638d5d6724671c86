"""Theme, charts and number formats that the reports, the web pages, the path and the terminal share."""
