"""Adapters that come with smoothapi, one provider a file."""
