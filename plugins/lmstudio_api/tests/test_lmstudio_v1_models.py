"""``/api/v1/models`` over a kernel whose models are in a state that the test sets."""

from __future__ import annotations

from attrs import evolve

from lmx_kernel.testing.stub_kernel import MODEL


async def models(api):
    found = (await api.get("/api/v1/models")).json()["models"]
    return {model.pop("key"): model for model in found}


async def test_the_list(api):
    found = await models(api)
    assert found.keys() == {MODEL, "acme/Vectors-0.6B", "acme/apple", "acme/ranker"}
    assert found[MODEL] == {
        "type": "llm",
        "publisher": "acme",
        "display_name": "Tiny-1B",
        "architecture": "stub",
        "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
        "size_bytes": 1,
        "params_string": "1B",
        "loaded_instances": [],
        "max_context_length": 100,
        "format": "gguf",
        "capabilities": {"vision": False, "trained_for_tool_use": True},
        "description": None,
    }
    vectors = found["acme/Vectors-0.6B"]
    assert (vectors["type"], vectors["params_string"]) == ("embedding", "0.6B")
    assert "capabilities" not in vectors
    assert (found["acme/ranker"]["format"], found["acme/apple"]["format"]) == (None, "mlx")
    assert found["acme/apple"]["params_string"] is None


async def test_a_loaded_model_has_an_instance(api, kernel):
    kernel.states = {MODEL: "ready", "acme/apple": "loading"}
    found = await models(api)
    assert found[MODEL]["loaded_instances"] == [
        {"id": MODEL, "config": {"context_length": 64, "parallel": 2}}
    ]
    assert found["acme/apple"]["loaded_instances"] == []


async def test_the_bits_of_a_weight(api, kernel):
    labels = {"BF16": 16, "IQ2_XS": 2, "8bit": 8, "MXFP4": 4, "odd": None, None: None}
    card = kernel.cards[0]
    kernel.cards = [evolve(card, id=str(label), quantization=label) for label in labels]
    found = await models(api)
    assert found.pop("None")["quantization"] is None
    told = {name: model["quantization"]["bits_per_weight"] for name, model in found.items()}
    assert told == {str(label): bits for label, bits in labels.items() if label}
