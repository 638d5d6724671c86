"""Neural modules, each built by a spec."""
