"""The benchmark behind `npformer bench`: latency and its breakdown, compared with PyTorch and ONNX Runtime.

Every contestant runs in a process of its own, in alternation with the others, on the same weights and pictures.
Nothing here is imported before it is needed.
"""
