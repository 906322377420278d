"""Makes the trial's policy: a language model of a million parameters that has learnt some arithmetic from scratch.

Belongs here: its tokenizer, its size and the supervised training that brings it to some competence. Does not belong
here: the reinforcement learning that it is made for (`saerl trial`), and the tasks (`saerl_assets.domain.gym`).
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from workings import ANNOUNCEMENT, worked

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.gym import generate_rows, parse_tasks
from saerl_assets.domain.verifiers import final_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
what it does
  1. draws instances of policy_tasks.toml, by another seed than the trial's, as question and answer;
  2. makes a byte-level BPE tokenizer of them in which every digit is a token of its own;
  3. trains a Llama of 4 layers and 128 dimensions on the answers: most of them bare, some with the steps that lead
     there (workings.py). As a base model that has read both, it can work an answer out, and seldom does;
  4. writes an ordinary Hugging Face folder in float16, and says how often a sampled answer is right, family by family,
     and how often it is where the steps are written out.

another machine
  may make another policy of much the same competence, because its kernels round otherwise: to compare trials on several
  machines, copy the folder

then
  name it as path:FOLDER in a spec's [trial] or [outcomes], with data.source = "gym:tasks.toml" (the file beside this
  one) and template = "plain"; then saerl register, saerl run, and saerl trial with its key
"""

HERE = Path(__file__).parent
END = "<end>"
N_DRAWS = 24_000
N_LAYERS, WIDTH, INNER, N_HEADS, VOCABULARY = 4, 128, 512, 4, 640
N_HELD_OUT = 1000
LONGEST_ANSWER = 48
BATCH = 64
LEARNING_RATE = 2e-3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = _arguments(argv)
    try:
        make_policy(args.out, n_steps=args.steps, seed=args.seed, worked_share=args.worked_share)
    except SaerlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make_policy(out: Path, *, n_steps: int, seed: int, worked_share: float) -> None:
    """Train the policy and write it.

    Args:
        out: Folder of the model and its tokenizer; written last, and over what was there.
        n_steps: Optimizer steps of 64 answers each.
        seed: Of the draws, of the first weights and of the order.
        worked_share: Share of the answers that are led up to by their steps.
    """
    import torch

    torch.manual_seed(seed)
    drawn = draw_tasks(seed)
    tokenizer = make_tokenizer([text for row in drawn for text in (row["prompt"], row["answer"], worked(row))])
    model = make_model(len(tokenizer))
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters, {len(drawn):,} tasks to learn from")
    learn(model, tokenizer, drawn[N_HELD_OUT:], n_steps=n_steps, seed=seed, worked_share=worked_share)
    model.half().float()  # what is judged is what is written
    print(f"{'sampled answers':28} {'right':>10} {'right with steps':>18} {'with steps':>12}")
    for name, (right, right_with_steps, with_steps) in answer_shares(model, tokenizer, drawn[:N_HELD_OUT]).items():
        told = "none" if right_with_steps is None else f"{right_with_steps:.1%}"
        print(f"{name:28} {right:>10.1%} {told:>18} {with_steps:>12.1%}")
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    print(f'policy: {out}\nnext: name it in a spec: [trial] policy = "path:{out}"')


def draw_tasks(seed: int) -> list[dict[str, Any]]:
    """Rows of the policy's task mix by another seed than the trial's, shuffled."""
    import random

    with (HERE / "policy_tasks.toml").open("rb") as file:
        mix = parse_tasks(tomllib.load(file))
    rows = list(generate_rows(mix.model_copy(update={"seed": mix.seed + 1 + seed, "n_rows": N_DRAWS})))
    random.Random(seed).shuffle(rows)  # noqa: S311 - an order, not a secret
    return rows


def make_tokenizer(texts: Sequence[str]) -> Any:  # noqa: ANN401 - transformers' own types are loose
    """A byte-level BPE tokenizer in which every digit stands alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bare.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    bare.train_from_iterator(texts, trainer)
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=bare, eos_token=END, pad_token=END, padding_side="left")


def make_model(n_tokens: int) -> Any:  # noqa: ANN401 - transformers' own types are loose
    """The untrained model, with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=n_tokens,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=N_HEADS,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def learn(
    model: Any,  # noqa: ANN401 - transformers' own types are loose
    tokenizer: Any,  # noqa: ANN401
    rows: Sequence[dict[str, Any]],
    *,
    n_steps: int,
    seed: int,
    worked_share: float,
) -> None:
    """Supervised training on bare and worked answers, at a learning rate that falls to zero."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=n_steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(range(n_steps), unit="step", mininterval=2.0)
    for _ in bar:
        drawn = [rows[at] for at in torch.randint(len(rows), (BATCH,), generator=generator).tolist()]
        in_steps = (torch.rand(BATCH, generator=generator) < worked_share).tolist()
        answers = [worked(row) if steps else row["answer"] for row, steps in zip(drawn, in_steps, strict=True)]
        loss = model(**collate(tokenizer, [row["prompt"] for row in drawn], answers)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def collate(tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]) -> dict[str, Any]:  # noqa: ANN401
    """Question, answer and the end, padded on the right; only the answer's tokens and the end count."""
    import torch

    asked = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    said = [[*tokenizer(answer)["input_ids"], tokenizer.eos_token_id] for answer in answers]
    longest = max(len(one) + len(other) for one, other in zip(asked, said, strict=True))
    ids = torch.zeros(len(asked), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for at, (question, answer) in enumerate(zip(asked, said, strict=True)):
        end = len(question) + len(answer)
        ids[at, :end] = torch.tensor(question + answer)
        labels[at, len(question) : end] = torch.tensor(answer)
        mask[at, :end] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def answer_shares(
    model: Any,  # noqa: ANN401 - transformers' own types are loose
    tokenizer: Any,  # noqa: ANN401
    rows: Sequence[dict[str, Any]],
) -> dict[str, tuple[float, float | None, float]]:
    """What the sampled answers to some rows are like, by family and setting, and of `all`.

    Returns:
        Three shares from 0 to 1: of the answers those that are right, of the answers with steps those that are right
        (None where there are none), and of the answers those with steps.
    """
    import torch

    found: dict[str, list[tuple[bool, bool]]] = {}
    model.eval()
    for at in range(0, len(rows), BATCH):
        batch = rows[at : at + BATCH]
        inputs = tokenizer([row["prompt"] for row in batch], return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            out = model.generate(**inputs, do_sample=True, max_new_tokens=LONGEST_ANSWER, pad_token_id=0)
        texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, text in zip(batch, texts, strict=True):
            judged = final_answer(text, row["answer"], {}) == 1.0, ANNOUNCEMENT in text
            found.setdefault(f"{row['family']} {row['level']}", []).append(judged)
    shares = {name: _shares(judged) for name, judged in sorted(found.items())}
    return shares | {"all": _shares([judged for some in found.values() for judged in some])}


def _shares(judged: Sequence[tuple[bool, bool]]) -> tuple[float, float | None, float]:
    with_steps = [right for right, in_steps in judged if in_steps]
    right = sum(right for right, _ in judged) / len(judged)
    return right, sum(with_steps) / len(with_steps) if with_steps else None, len(with_steps) / len(judged)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make the trial's policy: a small model that has learnt some arithmetic from scratch.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=HERE / "policy", metavar="DIR", help="default: beside this file")
    parser.add_argument("--steps", type=int, default=6000, metavar="N", help="optimizer steps (default: 6000)")
    parser.add_argument("--worked-share", type=float, default=0.2, metavar="F", help="of the answers (default: 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
