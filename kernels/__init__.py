"""Pure functions on arrays: the numerical heart of astri_gpu.

Every kernel takes arrays of one namespace (NumPy, JAX, CuPy: anything array-api-compat knows) with
the batch axis first, keyword-only static scalars, and boolean masks in which True means "use this
element". Kernels never raise on values and never look at files, units or configuration.

`astri_gpu.kernels.image_chain` strings them into DL0 -> DL1b, `astri_gpu.kernels.loops` holds the
second, compiled text of that chain for the CPU and CUDA.
"""

if __name__ != "astri_gpu.kernels":
    raise ImportError("import this package as `astri_gpu.kernels`, not as `kernels`")
