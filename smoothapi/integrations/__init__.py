"""Where other tools keep what smoothapi found; each needs an extra of its own."""
