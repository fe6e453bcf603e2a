"""Azure Computer Vision 3.2."""
