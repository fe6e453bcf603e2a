"""What adapters of several providers share."""
