"""The witness: a closed box that proves what it is, and notices when something leaks into it."""
