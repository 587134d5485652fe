"""Kernels that measure the compiler: each in C, the reference, and in the language, with one C signature for both."""
