"""The monitor: everything between the loader's hand-over and the boxes."""
