"""The store of one machine: answers in diskcache, all else in SQLite."""
