"""The reference beside the tap: it says which token the declared model takes, and nothing else.

`protocol` imports no torch, and is all that the tap takes from here. `docs/enforcement.md` says what is
closed and what is not, `docs/formats/enforcement-protocol.md` the bytes.
"""
