"""Allocation of bits to layers: the smallest predicted loss increase within a budget, and for every budget."""
