from lmx_kept import KeptSpec

from lmx_kernel.testing.conformance.job import JobConformance


class TestKept(JobConformance):
    module = "lmx_kept"
    steps = True  # each run reports the same figures

    def spec(self, folder):
        return KeptSpec(to=12)

    def other_spec(self, folder):
        return KeptSpec(to=5)

    def result(self, folder):
        return {"counted": 12}
