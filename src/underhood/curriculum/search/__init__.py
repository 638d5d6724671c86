"""Search over everything that exists: milestones, documentation, glossary, commands, options and source files."""
