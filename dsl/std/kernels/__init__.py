"""Hand-written kernels: PeachPy functions, which the compiler asks for when a program reaches `@machine(kernel=...)`. README: dsl/std."""
