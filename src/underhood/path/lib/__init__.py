"""Code that only milestones share; they import it and never each other."""
