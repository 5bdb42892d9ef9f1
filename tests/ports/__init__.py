"""A second implementation of the three networks, made to be compared with npformer: see `tests.ports.nhwc`."""
