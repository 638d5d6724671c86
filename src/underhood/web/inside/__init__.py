"""The page that looks into a model: what its panels show, as binary payloads, served or written into one file."""
