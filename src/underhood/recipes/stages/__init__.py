"""The training stages, one file each; `registry` finds them and says what a stage is."""
