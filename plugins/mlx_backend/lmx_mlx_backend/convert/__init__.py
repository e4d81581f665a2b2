"""GGUF files to MLX folders: ``convert.convert`` does it, ``command.app`` is ``lmx convert``.

Nothing is imported here: the command line loads ``command`` alone, and numpy, gguf and tokenizers
only when a file is converted. The daemon never comes here.
"""
