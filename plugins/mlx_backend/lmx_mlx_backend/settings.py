"""The ``[mlx]`` section of the config file."""

from __future__ import annotations

from attrs import field, frozen, validators

DEVICES = ("auto", "cpu", "gpu")


@frozen(kw_only=True)
class MlxSettings:
    """How MLX runs models.

    :param device: gpu is Metal or CUDA; auto takes it where MLX finds one.
    :param threads: of the matrix library on a Linux CPU; 0 takes one for each physical core.
    :param reserve_bytes: what conversions leave free on the disk.
    """

    device: str = field(default="auto", validator=validators.in_(DEVICES))
    threads: int = field(default=0, validator=validators.ge(0))
    reserve_bytes: int = field(default=1 << 30, validator=validators.ge(0))
