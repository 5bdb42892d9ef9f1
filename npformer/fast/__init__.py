"""The fast path: threads and scratch memory, kernels, and the fused blocks that `npformer.fuse` builds from them."""
