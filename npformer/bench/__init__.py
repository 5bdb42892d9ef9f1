"""`npformer bench`: how long models take, where the time goes, and how that compares with PyTorch and ONNX Runtime.

Every contestant runs in a process of its own, in turn with the others, on the same weights and pictures. Nothing here
is loaded unless it is asked for.
"""
