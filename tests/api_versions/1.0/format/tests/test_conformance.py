import json

from lmx_kernel.testing.conformance.format import FormatConformance


class TestKept(FormatConformance):
    entry = "kept"
    template = "{# CALL <think> #}"
    thought = "<think>I think.</think>"

    def write(self, name, arguments):
        return f"CALL {name}: {json.dumps(arguments, ensure_ascii=False)}"
