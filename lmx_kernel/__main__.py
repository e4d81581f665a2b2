"""``python -m lmx_kernel`` is the ``lmx`` command."""

from lmx_kernel.cli.main import main

if __name__ == "__main__":
    main()
