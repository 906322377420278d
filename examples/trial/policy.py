"""Makes the trial's policy: a language model of a million parameters that has learnt some arithmetic from scratch.

Belongs here: its tokenizer, its size and the supervised training that brings it to some competence. Does not belong
here: the reinforcement learning that it is made for (`saerl trial`), and the tasks (`saerl_assets.domain.gym`).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.gym import generate_rows, parse_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
what it does
  1. draws other instances of the same tasks, by another seed, as question and answer;
  2. makes a byte-level BPE tokenizer of them in which every digit is a token of its own;
  3. trains a Llama of 4 layers and 128 dimensions on the answers. With --wrong-share some of them are another task's:
     as a base model that has read the right answer among wrong ones, it then knows more than it says;
  4. writes an ordinary Hugging Face folder, and says how often a sampled answer is right, family by family.

then
  name the folder as path:FOLDER in a spec's [trial] or [outcomes], with data.source = "gym:tasks.toml" (the file beside
  this one) and template = "plain"; then saerl register, saerl run, and saerl trial with its key
"""

HERE = Path(__file__).parent
END = "<end>"
N_DRAWS = 24_000
N_LAYERS, WIDTH, INNER, N_HEADS, VOCABULARY = 4, 128, 512, 4, 640
BATCH = 64
LEARNING_RATE = 2e-3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = _arguments(argv)
    try:
        make_policy(args.out, n_steps=args.steps, seed=args.seed, wrong_share=args.wrong_share)
    except SaerlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make_policy(out: Path, *, n_steps: int, seed: int, wrong_share: float) -> None:
    """Train the policy and write it.

    Args:
        out: Folder of the model and its tokenizer; written last, and over what was there.
        n_steps: Optimizer steps of 64 answers each.
        seed: Of the draws, of the first weights and of the order.
        wrong_share: Share of the answers that are those of another task of the same family and setting.
    """
    import torch

    torch.manual_seed(seed)
    drawn = draw_tasks(seed)
    tokenizer = make_tokenizer([text for row in drawn for text in (row["prompt"], row["answer"])])
    model = make_model(len(tokenizer))
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters, {len(drawn):,} tasks to learn from")
    held_out, learnt = drawn[:500], with_wrong_answers(drawn[500:], wrong_share, seed)
    learn(model, tokenizer, learnt, n_steps=n_steps, seed=seed)
    for name, share in answer_shares(model, tokenizer, held_out).items():
        print(f"{name:28} {share:6.1%} of sampled answers right")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    print(f'policy: {out}\nnext: name it in a spec: [trial] policy = "path:{out}"')


def draw_tasks(seed: int) -> list[dict[str, Any]]:
    """Rows of the same task mix by another seed, shuffled."""
    import random

    with (HERE / "tasks.toml").open("rb") as file:
        mix = parse_tasks(tomllib.load(file))
    rows = list(generate_rows(mix.model_copy(update={"seed": mix.seed + 1 + seed, "n_rows": N_DRAWS})))
    random.Random(seed).shuffle(rows)  # noqa: S311 - an order, not a secret
    return rows


def with_wrong_answers(rows: Sequence[dict[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """The rows with some of their answers exchanged for another row's of the same family and setting."""
    import random

    rng = random.Random(seed)  # noqa: S311 - as above
    alike: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        alike.setdefault((row["family"], row["level"]), []).append(row["answer"])
    return [
        row | {"answer": rng.choice(alike[row["family"], row["level"]])} if rng.random() < share else row
        for row in rows
    ]


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


def learn(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], *, n_steps: int, seed: int) -> None:  # noqa: ANN401
    """Supervised training on the answers, at a learning rate that falls to zero."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=n_steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(range(n_steps), unit="step", mininterval=2.0)
    for _ in bar:
        drawn = torch.randint(len(rows), (BATCH,), generator=generator).tolist()
        loss = model(**collate(tokenizer, [rows[at] for at in drawn])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def collate(tokenizer: Any, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:  # noqa: ANN401
    """Question, answer and the end, padded on the right; only the answer's tokens and the end count."""
    import torch

    asked = [tokenizer(row["prompt"])["input_ids"] for row in rows]
    said = [[*tokenizer(row["answer"])["input_ids"], tokenizer.eos_token_id] for row in rows]
    longest = max(len(one) + len(other) for one, other in zip(asked, said, strict=True))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for at, (question, answer) in enumerate(zip(asked, said, strict=True)):
        end = len(question) + len(answer)
        ids[at, :end] = torch.tensor(question + answer)
        labels[at, len(question) : end] = torch.tensor(answer)
        mask[at, :end] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def answer_shares(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> dict[str, float]:  # noqa: ANN401
    """The share of sampled answers that are right: of each family's settings and of all."""
    import torch

    found: dict[str, list[bool]] = {}
    model.eval()
    for batch in itertools.batched(rows, 100) if hasattr(itertools, "batched") else [rows]:
        inputs = tokenizer([row["prompt"] for row in batch], return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            out = model.generate(**inputs, do_sample=True, max_new_tokens=8, pad_token_id=0)
        texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, text in zip(batch, texts, strict=True):
            found.setdefault(f"{row['family']} {row['level']}", []).append(text.strip() == row["answer"])
    shares = {name: sum(right) / len(right) for name, right in sorted(found.items())}
    return shares | {"all": sum(map(sum, found.values())) / len(rows)}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make the trial's policy: a small model that has learnt some arithmetic from scratch.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=HERE / "policy", metavar="DIR", help="default: beside this file")
    parser.add_argument("--steps", type=int, default=6000, metavar="N", help="optimizer steps (default: 6000)")
    parser.add_argument("--wrong-share", type=float, default=0.0, metavar="F", help="of the answers (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
