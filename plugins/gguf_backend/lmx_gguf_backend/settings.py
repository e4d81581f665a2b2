"""The ``[gguf]`` section of the config file."""

from __future__ import annotations

from attrs import field, frozen, validators

CACHE_TYPES = ("f16", "q8_0")


@frozen(kw_only=True)
class GgufSettings:
    """How llama.cpp runs models.

    :param threads: of one engine; 0 takes one for each physical core this process may use.
    :param flash_attention: off only to compare: the shared cache is several times slower without.
    :param cache_type: f16, or q8_0 for half the memory at about 40 % slower prompts on a CPU.
    :param gpu_layers: layers put on a GPU where the library was built for one; -1 for all.
    :param mmap: map the weights from the file, so that they can be shared and evicted.
    """

    threads: int = field(default=0, validator=validators.ge(0))
    flash_attention: bool = True
    cache_type: str = field(default="f16", validator=validators.in_(CACHE_TYPES))
    gpu_layers: int = field(default=-1, validator=validators.ge(-1))
    mmap: bool = True

    def __attrs_post_init__(self) -> None:
        """Refuse what llama.cpp cannot do.

        :raises ValueError: a quantised cache needs flash attention.
        """
        if self.cache_type != "f16" and not self.flash_attention:
            raise ValueError("gguf.cache_type q8_0 needs gguf.flash_attention = true")
