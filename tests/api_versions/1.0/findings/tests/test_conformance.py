from lmx_kernel.testing.conformance.findings import GOOD, BROKEN, FindingsConformance


class TestKept(FindingsConformance):
    module = "lmx_kept"

    def bad_config(self, folder):
        return "[kept]\nfree_bytes = 1_000_000_000_000_000_000"

    def test_it_counts_the_models(self, plugins, settings):
        [_, finding] = plugins.findings(settings, [*GOOD, *BROKEN])
        assert finding.text == f"{len(GOOD)} of {len(GOOD) + len(BROKEN)} can be loaded"
