"""Which layer gets how many bits: the least predicted damage within a budget, and the whole curve of budgets."""
