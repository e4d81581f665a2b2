"""Routes requests by rules: names, what a request shows, who asks, when, and what models do."""
