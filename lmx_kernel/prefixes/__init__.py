"""Prefixes on disk: the states of engines for runs of tokens, which outlive the worker.

The store knows bytes, tokens and keys, and no engine. :mod:`lmx_kernel.worker.prefix_keeper` moves
states between an engine and the store; see :class:`lmx_kernel.engine.PortableStates`.
"""
