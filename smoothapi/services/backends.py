"""What stands behind a local service, by name."""
