"""LMX without a human: what a window would do, over HTTP and on the command line."""
