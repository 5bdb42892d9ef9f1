"""The parity checker: which op of a port is wrong, and why.

`compare` replays our model on a port's dumped values, each op on the port's own inputs, so that an error shows where it
is made and nowhere else. See README.md in this folder.
"""
