from lmx_kernel.testing.conformance.surface import Ask, SurfaceConformance
from lmx_kernel.testing.stub_kernel import MODEL


class TestKept(SurfaceConformance):
    module = "lmx_kept"

    def asks(self, text):
        body = {"model": MODEL, "text": text}
        return [Ask("/kept", body), Ask("/kept", body | {"stream": True}, streams=True)]

    async def test_the_models_are_listed(self, http):
        assert (await http.get("/kept")).json() == {"models": [MODEL]}

    async def test_tokens_are_bounded(self, http, kernel):
        body = {"model": MODEL, "text": "hi", "max_tokens": 7}
        assert (await http.post("/kept", json=body)).json()["text"] == "Hello"
        assert kernel.request.max_tokens == 7
        assert (await http.post("/kept", json=body | {"max_tokens": 0})).status_code == 400
