"""The RPC pipeline: what happens around every call, driven by the options of the contract."""
