"""Guests: a folder each. They import vmm.abi and dsl alone."""
