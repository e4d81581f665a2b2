"""What differs between the families of models that can be converted. Data only.

Names on the left are GGUF's (``gguf-py/gguf/constants.py`` of ggml-org/llama.cpp), those on the
right the parameters and config keys of mlx-lm (``mlx_lm/models/*.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

ROOT = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
DENSE = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
EXPERTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.switch_mlp.gate_proj",
    "ffn_up_exps": "mlp.switch_mlp.up_proj",
    "ffn_down_exps": "mlp.switch_mlp.down_proj",
}

COMMON_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "max_position_embeddings": "context_length",
}


@frozen(kw_only=True)
class Family:
    """How one architecture of GGUF becomes one of mlx-lm.

    :ivar model_type: mlx-lm's name of it.
    :ivar names: a block's tensors: GGUF's name to mlx-lm's.
    :ivar biases: those of ``names`` that have a bias beside the weight.
    :ivar has_paired_rows: the rows of q and k lie as llama.cpp's "norm" rotary wants them,
        in neighbouring pairs, and have to be brought back into halves.
    :ivar norm_offset: what GGUF added to the weights of the norms.
    :ivar keys: config keys that come from metadata, beside ``COMMON_KEYS``.
    :ivar defaults: those that the file may leave out, with the value that then holds.
    :ivar constants: config keys that are the same for all models of the family.
    """

    model_type: str
    names: Mapping[str, str]
    biases: tuple[str, ...] = ()
    has_paired_rows: bool = False
    norm_offset: float = 0.0
    keys: Mapping[str, str] = field(factory=dict)
    defaults: Mapping[str, tuple[str, object]] = field(factory=dict)
    constants: Mapping[str, object] = field(factory=dict)


FAMILIES: Mapping[str, Family] = {
    "llama": Family(
        model_type="llama",
        names=ATTENTION | DENSE,
        has_paired_rows=True,
    ),
    "qwen2": Family(
        model_type="qwen2",
        names=ATTENTION | DENSE,
        biases=("attn_q", "attn_k", "attn_v"),
    ),
    "qwen3": Family(
        model_type="qwen3",
        names=ATTENTION | QK_NORMS | DENSE,
    ),
    "qwen3moe": Family(
        model_type="qwen3_moe",
        names=ATTENTION | QK_NORMS | EXPERTS,
        keys={
            "num_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
        },
        constants={"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True},
    ),
    "gemma3": Family(
        model_type="gemma3_text",
        names=ATTENTION
        | QK_NORMS
        | DENSE
        | {
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        norm_offset=1.0,
        keys={"sliding_window": "attention.sliding_window"},
        defaults={
            "rope_local_base_freq": ("rope.freq_base_swa", 10_000.0),
            "sliding_window_pattern": ("attention.sliding_window_pattern", 6),
        },
    ),
}
