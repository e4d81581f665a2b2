from lmx_kernel.testing.conformance.command import CommandConformance


class TestKept(CommandConformance):
    module = "lmx_kept"
    arguments = ("kept",)
    says = "0 files take"
