"""smoothapi."""
