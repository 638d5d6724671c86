"""report.html: one self-contained page that shows what every stage of a run did."""
