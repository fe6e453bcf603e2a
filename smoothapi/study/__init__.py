"""Many photos: what a query budget buys. Holds nothing yet; see the changelog for what exists."""
