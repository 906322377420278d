"""How much faster an SAE's training step is that computes only with active latents, and whether it learns the same.

    python benchmarks/sae_training.py [--latents 4096] [--k 32] [--d-in 576] [--tokens 1024] [--steps 10]

For every architecture two SAEs start from the same weights and see the same made-up activations: one takes the step of
`sae_lens`'s own class, the other ours. Both go through `sae_lens.SAETrainer` with the same settings, dead latents,
clipping and Adam included, in turns, in this process. Prints the median milliseconds of a step on either side, their
ratio, and the loss after the last step, which must agree: it ends with status 1 if any two are more than 1% apart.

The last line is one JSON object; `ours_over_saelens` is how many times as many tokens a second ours trains on with
TopK, `by_architecture` has the same for each. Takes about a minute on two cores; the ratio grows with the number of
latents.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import torch

from saerl_assets.domain.spec import SaeSpec
from saerl_assets.models.sparse_training import DENSE_KINDS, SPARSE_KINDS
from saerl_assets.models.token_stream import TokenOrder, measure_spread
from saerl_assets.models.training_setup import initial_sae, make_trainer

TOLERANCE = 0.01
"""Rounding lets the two sides choose another latent now and then, so that losses agree and weights drift apart."""
N_WARM_UP_STEPS = 2


def made_up_activations(n_tokens: int, d_in: int, n_atoms: int) -> torch.Tensor:
    """Sums of 24 of many directions with exponential weights around a mean, and some noise."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(n_atoms, d_in, generator=generator), dim=-1)
    chosen = torch.randint(n_atoms, (n_tokens, 24), generator=generator)
    weights = torch.empty(n_tokens, 24).exponential_(generator=generator)
    sums = torch.nn.functional.embedding_bag(chosen, atoms, per_sample_weights=weights, mode="sum")
    return sums + 0.01 * torch.randn(n_tokens, d_in, generator=generator) + torch.randn(d_in, generator=generator)


def compare(spec: SaeSpec, activations: torch.Tensor, n_steps: int) -> dict[str, Any]:
    """Median seconds of a step and final loss, with `sae_lens`'s class and with ours."""
    spread = measure_spread(activations, where="the benchmark")
    sides: dict[str, Any] = {}
    for name, kinds in (("saelens", DENSE_KINDS), ("ours", SPARSE_KINDS)):
        sae = initial_sae(activations, spread, spec, seed=0, device="cpu", kinds=kinds)
        trainer = make_trainer(sae, spec, spread, n_steps=100, batch_tokens=spec.batch_tokens, device="cpu")
        sides[name] = trainer, TokenOrder(activations, spec.batch_tokens, seed=0)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, float] = {}
    for _ in range(N_WARM_UP_STEPS + n_steps):
        for name, (trainer, order) in sides.items():
            batch = next(order)
            start = time.perf_counter()
            output = trainer.step(batch)
            seconds[name].append(time.perf_counter() - start)
            trainer.n_training_steps += 1
            losses[name] = float(output.loss.detach())
    medians = {name: statistics.median(taken[N_WARM_UP_STEPS:]) for name, taken in seconds.items()}
    return {
        "ours_over_saelens": medians["saelens"] / medians["ours"],
        **{f"seconds_{name}": median for name, median in medians.items()},
        **{f"loss_{name}": loss for name, loss in losses.items()},
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=4096, help="width of the SAE (default: %(default)s)")
    parser.add_argument("--k", type=int, default=32, help="active latents a token (default: %(default)s)")
    parser.add_argument("--d-in", type=int, default=576, help="width of the activations (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens in a step (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed (default: %(default)s)")
    arguments = parser.parse_args()
    activations = made_up_activations(8 * arguments.tokens, arguments.d_in, 2 * arguments.latents)
    print(
        f"{arguments.latents:,} latents, k = {arguments.k}, d_in = {arguments.d_in}, "
        f"{arguments.tokens:,} tokens a step, {torch.get_num_threads()} threads\n"
    )
    print(f"{'milliseconds a step':20}{'sae_lens':>10}{'ours':>8}{'ratio':>8}   final loss: sae_lens, ours")
    found = {}
    for architecture in SPARSE_KINDS:
        spec = SaeSpec.model_validate(
            {
                "architecture": architecture,
                "n_latents": arguments.latents,
                "k": arguments.k,
                "batch_tokens": arguments.tokens,
            }
        )
        row = found[architecture] = compare(spec, activations, arguments.steps)
        print(
            f"{architecture:20}{1e3 * row['seconds_saelens']:10.0f}{1e3 * row['seconds_ours']:8.0f}"
            f"{row['ours_over_saelens']:8.2f}   {row['loss_saelens']:.3f}, {row['loss_ours']:.3f}",
            flush=True,
        )
    print()
    rounded = {name: {key: round(value, 4) for key, value in row.items()} for name, row in found.items()}
    print(json.dumps({**rounded["topk"], "by_architecture": rounded}))
    apart = [name for name, row in found.items() if abs(row["loss_ours"] / row["loss_saelens"] - 1) > TOLERANCE]
    if apart:
        sys.exit(f"The losses of {', '.join(apart)} do not agree.")


if __name__ == "__main__":
    main()
