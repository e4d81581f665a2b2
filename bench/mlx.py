"""Samplers of the MLX backend through the whole server; see `peers.py` for its speed.

usage: python bench/mlx.py      (the demo model, converted to float32)
"""

from __future__ import annotations

import asyncio

from common import head, row
from peers import STORY, lmx, mlx_model, rate

from lmx_kernel.engine.cores import usable_cores

TOKENS = 128
SAMPLERS = [
    {"temperature": 0.5 + 0.1 * n, "top_p": 0.99 - 0.02 * n, "top_k": 20 + 5 * n} for n in range(8)
]


async def main() -> None:
    async with lmx(mlx_model().parent, usable_cores()) as server:
        await server.stream("warm", 4)
        rates = []
        for samplers in ([SAMPLERS[3]] * 8, SAMPLERS):
            asks = (server.stream(f"{n} {STORY}", TOKENS, **one) for n, one in enumerate(samplers))
            rates.append(rate(await asyncio.gather(*asks)))
    equal, differing = rates
    head("Samplers with MLX on this CPU (SmolLM2-135M, float32)")
    row("8 equal samplers", f"{equal:.0f} tokens/s")
    row("8 differing ones", f"{differing:.0f} tokens/s = {differing / equal:.2f} x", ">= 0.9 x")


if __name__ == "__main__":
    asyncio.run(main())
