"""Records a model's own answers to a task mix: the rollouts that the demo's labels are made of.

Belongs here: sampling completions and writing them with their scores. Does not belong here: the tasks, and
how an answer is taken from a completion and scored. Both are in `saerl_assets.domain.gym`, so that a training
run can reward in the same way.

The file beside this one, `rollouts.parquet`, was recorded by this command on one GPU; the demo needs none.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.gym import CORRECT_SCORE, extract_answer, generate_rows, parse_tasks, score_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EPILOG = """\
what it does
  1. draws the first --limit rows of the task mix; the mix's settings take turns, so they are balanced;
  2. puts each prompt through the model's chat template and samples --rollouts completions of it;
  3. takes an answer from each: the last \\boxed{}, else what follows the last 'answer is' or 'answer:', else
     the whole; of that the last number, the first yes or no, or the last line, whichever the reference is;
  4. scores it by the scorer of its reasoning-gym family.

the file
  One row per rollout: prompt, task_id, family, level, rollout, completion, answer_extracted, score (0 to 1),
  correct. A prompt's pass rate is the mean of `correct` over its rollouts. The file's metadata tell under
  'rollouts' which model, sampling settings and versions it was recorded with.

examples
  python examples/demo/rollouts.py --model SmolLM2-135M-Instruct.Q4_1.gguf --out rollouts.parquet
  python examples/demo/rollouts.py --model my-policy/ --tasks my-tasks.toml --limit 40 --out try.parquet

Same seed, batch size, kind of device and library versions: the same completions. Otherwise others.
"""

SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("task_id", pa.string()),
        ("family", pa.string()),
        ("level", pa.int32()),
        ("rollout", pa.int32()),
        ("completion", pa.string()),
        ("answer_extracted", pa.string()),
        ("score", pa.float64()),
        ("correct", pa.bool_()),
    ]
)
"""One row per rollout. `answer_extracted` is null where the completion holds none; `score` is 0 to 1."""


class Sampling(NamedTuple):
    """How completions are sampled."""

    rollouts: int
    """Completions per prompt."""
    temperature: float
    top_p: float
    max_new_tokens: int
    """Tokens after which a completion is cut off."""
    batch_size: int
    """Completions sampled at the same time."""
    seed: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = _arguments(argv)
    try:
        record(args)
    except SaerlError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def record(args: argparse.Namespace) -> None:
    """Sample, score and write, with the arguments of the command line.

    Raises:
        SaerlError: Where the task file or the model is not there or not right.
    """
    rows = _read_rows(args.tasks, args.limit)
    device = _device(args.device)
    sampling = Sampling(
        rollouts=args.rollouts,
        temperature=args.temperature,
        top_p=args.top_p,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size or (1024 if device == "cuda" else 32),
        seed=args.seed,
    )
    model, tokenizer = _load(args.model, device)
    completions: dict[int, list[str]] = {}
    with tqdm(total=len(rows) * sampling.rollouts, unit="rollout", desc="sampling", smoothing=0.1) as bar:
        for indices, texts in sample(model, tokenizer, [str(row["prompt"]) for row in rows], sampling):
            completions.update(zip(indices, texts, strict=True))
            bar.update(len(indices) * sampling.rollouts)
    records = [
        scored(row, rollout, completion)
        for index, row in enumerate(rows)
        for rollout, completion in enumerate(completions[index])
    ]
    _write(args.out, records, _provenance(args.model, device, sampling))
    n_correct = sum(bool(record["correct"]) for record in records)
    share = n_correct / len(records)
    print(f"{args.out}: {len(records)} rollouts of {len(rows)} prompts, {share:.1%} correct")


def sample(
    model: Any,  # noqa: ANN401 (transformers' models have no common typed interface)
    tokenizer: Any,  # noqa: ANN401
    prompts: Sequence[str],
    sampling: Sampling,
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Sample completions batch by batch, longest prompts first, so that a lack of memory shows at once.

    Args:
        model: A causal language model, on the device that it is to run on.
        tokenizer: Its tokenizer, with a chat template.
        prompts: User messages.
        sampling: How.

    Yields:
        A batch: indices into `prompts`, and for each of them its `sampling.rollouts` completions.
    """
    import torch

    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
        for prompt in prompts
    ]
    token_ids = tokenizer(chats, add_special_tokens=False)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda index: -len(token_ids[index]))
    n_prompts = max(1, sampling.batch_size // sampling.rollouts)
    for number, start in enumerate(range(0, len(order), n_prompts)):
        batch = order[start : start + n_prompts]
        torch.manual_seed(sampling.seed + number)
        padded = tokenizer.pad(
            {"input_ids": [token_ids[index] for index in batch]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(
                **padded,
                do_sample=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=0,
                num_return_sequences=sampling.rollouts,
                max_new_tokens=sampling.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(output[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
        texts = [text.strip() for text in texts]
        yield (
            batch,
            [texts[i : i + sampling.rollouts] for i in range(0, len(texts), sampling.rollouts)],
        )


def scored(row: Mapping[str, object], rollout: int, completion: str) -> dict[str, object]:
    """One row of the file: the completion with the answer taken from it and that answer's score."""
    answer = extract_answer(completion, like=str(row["answer"]))
    score = score_answer(row, answer)
    return {
        **{key: row[key] for key in ("prompt", "task_id", "family", "level")},
        "rollout": rollout,
        "completion": completion,
        "answer_extracted": answer,
        "score": score,
        "correct": score >= CORRECT_SCORE,
    }


def _read_rows(path: Path, limit: int) -> list[dict[str, object]]:
    if not path.is_file():
        raise SaerlError("tasks_missing", "There is no such file.", where=str(path), remedy="Correct --tasks.")
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SaerlError(
            "tasks_unreadable", f"This is not TOML: {error}.", where=str(path), remedy="Correct that line."
        ) from error
    return list(itertools.islice(generate_rows(parse_tasks(document)), limit))


def _device(asked: str) -> str:
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise SaerlError("no_cuda", "torch finds no CUDA device.", remedy="Use --device cpu, or auto.")
    return asked


def _load(path: Path, device: str) -> tuple[Any, Any]:
    """The model in bfloat16 on a GPU and float32 on a CPU, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not path.exists():
        raise SaerlError(
            "model_missing", "There is no such file or folder.", where=str(path), remedy="Correct --model."
        )
    folder, source = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    tokenizer = AutoTokenizer.from_pretrained(folder, **source)
    if tokenizer.chat_template is None:
        raise SaerlError(
            "no_chat_template",
            "The model's tokenizer has no chat template.",
            where=str(path),
            remedy="Use an instruction-tuned model.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **source)
    return model.to(device).eval(), tokenizer


def _provenance(model: Path, device: str, sampling: Sampling) -> dict[str, object]:
    import torch
    import transformers

    weights = [model] if model.is_file() else sorted(model.glob("*.safetensors"))
    return {
        "model": model.name,
        "model_sha256": [hashlib.sha256(file.read_bytes()).hexdigest() for file in weights],
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        **sampling._asdict(),
    }


def _write(path: Path, records: list[dict[str, object]], provenance: dict[str, object]) -> None:
    table = pa.Table.from_pylist(records, schema=SCHEMA)
    table = table.replace_schema_metadata({"rollouts": json.dumps(provenance)})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    pq.write_table(table, unfinished, compression="zstd", compression_level=19)
    unfinished.replace(path)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Record a model's own answers to reasoning-gym tasks, scored, as one Parquet file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = Path(__file__).with_name("tasks.toml")
    parser.add_argument("--model", type=Path, required=True, help="a model's folder, or a GGUF file")
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    parser.add_argument("--tasks", type=Path, default=tasks, help="the task mix (default: the demo's)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    amount = parser.add_argument_group("how many")
    amount.add_argument("--limit", type=_positive, default=1000, help="prompts (default: 1000)")
    amount.add_argument("--rollouts", type=_positive, default=8, help="completions of each (default: 8)")
    amount.add_argument("--batch-size", type=_positive, help="completions at a time (default: 32, on a GPU 1024)")
    how = parser.add_argument_group("how they are sampled")
    how.add_argument("--temperature", type=float, default=0.7, help="default: 0.7")
    how.add_argument("--top-p", type=float, default=0.95, help="nucleus sampling (default: 0.95)")
    how.add_argument("--max-new-tokens", type=_positive, default=96, help="tokens at most (default: 96)")
    how.add_argument("--seed", type=int, default=0, help="default: 0")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
