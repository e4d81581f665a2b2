from lmx_kernel.testing.conformance.source import SourceConformance


class TestKept(SourceConformance):
    module = "lmx_kept"

    def config(self, folder):
        return f'[kept]\nfolder = "{self.root(folder)}"'
