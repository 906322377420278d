"""One training of a trial: the policy through TRL's `GRPOTrainer` in one arm's order, evaluated on the way.

Belongs here: the policy, the reward, the evaluation. Does not belong here: which trainings there are (runs), the order
and what holds the training to it (trainers.trl, trainers.trl_callback).

Written against TRL 1.16 and transformers 5.23.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import TrialSpec
from saerl_assets.domain.verifiers import asked, load_verifier, verifier_fields

if TYPE_CHECKING:
    import torch

    from saerl_assets.models.sources import ModelFiles

OnEvaluation: TypeAlias = "Callable[[int, float, float], None]"
"""Called with the step, the share answered right (0 to 1) and the seconds of training up to there."""

EVALUATED_AT_ONCE = {"cpu": 64, "cuda": 256, "mps": 64}
"""Prompts that are answered at once in an evaluation."""
COMPLETIONS_AT_ONCE = {"cpu": 64, "cuda": 64, "mps": 16}
"""Completions of one pass of the trainer; a step's are accumulated over as many as it takes."""
RIGHT_SCORE = 0.999
"""Score from which an answer is right; some verifiers give less for a near miss."""


@dataclass(frozen=True)
class Question:
    """A held-out prompt."""

    messages: list[dict[str, str]]
    is_chat: bool
    answer: str | None
    extra: str
    """Further fields of the source row, a JSON object."""
    topic: str | None


@dataclass(frozen=True)
class Training:
    """One training: what is trained on what, and how."""

    export: Path
    """Folder of the arm's export for TRL."""
    files: ModelFiles
    """The policy's."""
    questions: Sequence[Question]
    """Held-out prompts."""
    spec: TrialSpec
    seed: int
    """Of what is sampled."""
    n_steps: int
    """Optimizer steps."""
    device: str
    """`cpu`, `cuda`, `cuda:N` or `mps`."""
    out: Path
    """Folder for the trainer's own files and its log of rewards."""


def train_once(training: Training, on_evaluation: OnEvaluation) -> None:
    """Trains the policy from its own weights in the order of an arm's export.

    Evaluations come before the first step, after every `evaluate_every` steps and after the last, and their time is not
    counted.

    Args:
        training: What to train.
        on_evaluation: Told of every evaluation.

    Raises:
        SaerlError: `trl_missing`; what is wrong with the export, the policy or the verifier; `out_of_order` if the
            trainer left the order.
    """
    trl = _trl()
    from transformers import PrinterCallback, TrainerCallback

    from saerl_assets.trainers.trl import OrderCallback, load

    export, spec, n_steps = training.export, training.spec, training.n_steps
    model, tokenizer = _load_policy(training.files, training.device)
    as_chat = _as_chat(spec, training.questions)
    if as_chat and tokenizer.chat_template is None:
        remedy = "Set trial.template to 'plain', with prompts that are texts and no messages."
        problem = f"The policy {training.files.source} has no chat template."
        raise SaerlError("no_chat_template", problem, where="trial.template", remedy=remedy)
    kind = training.device.partition(":")[0]
    per_device = _largest_divisor(_batch_size(export) * spec.n_generations, COMPLETIONS_AT_ONCE.get(kind, 16))
    dataset, settings = load(
        export, num_generations=spec.n_generations, per_device_batch_size=per_device, as_chat=as_chat
    )
    score = load_verifier(spec.verifier)
    order = OrderCallback(export)
    seconds = 0.0
    started = time.perf_counter()

    class Evaluating(TrainerCallback):
        """Evaluates on the way, with the clock of the training stopped."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
            self._evaluate(0)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
            if state.global_step % spec.evaluate_every == 0 or state.global_step == n_steps:
                self._evaluate(state.global_step)

        def _evaluate(self, step: int) -> None:
            nonlocal seconds, started
            seconds += time.perf_counter() - started if step else 0.0
            accuracy = evaluate(
                trainer.model, tokenizer, training.questions, spec, at_once=EVALUATED_AT_ONCE.get(kind, 64)
            )
            on_evaluation(step, accuracy, seconds)
            started = time.perf_counter()

    config = trl.GRPOConfig(
        output_dir=str(training.out),
        max_steps=n_steps,
        max_completion_length=spec.max_new_tokens,
        temperature=spec.temperature,
        learning_rate=spec.learning_rate,
        beta=spec.kl_weight,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=min(spec.warmup_steps, n_steps),
        seed=training.seed,
        bf16=spec.dtype == "bfloat16" and kind == "cuda",
        use_cpu=kind == "cpu",
        **_without_recomputing(trl.GRPOConfig),
        dataloader_pin_memory=kind == "cuda",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        **settings,
    )
    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=order.watch(_reward_of(score)),
        args=config,
        train_dataset=dataset,
        callbacks=[order, Evaluating()],
    )
    trainer.remove_callback(PrinterCallback)  # what it prints is not the result
    with warnings.catch_warnings():
        # TRL 1.16 asks models by a name that transformers 5.23 has deprecated, at every step.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        trainer.train()


def evaluate(
    model: Any,  # noqa: ANN401 - any architecture
    tokenizer: Any,  # noqa: ANN401 - transformers' own types are loose
    questions: Sequence[Question],
    spec: TrialSpec,
    *,
    at_once: int,
) -> float:
    """The share of answers to held-out prompts that are right, 0 to 1.

    One answer to each, of the likeliest token each time, or `evaluation_samples` sampled ones: with the same random
    numbers at every step and in every training, so that equal models answer alike. The model is left in the mode that
    it was in, and torch's random numbers as they were.
    """
    import torch
    from transformers import GenerationConfig

    score = load_verifier(spec.verifier)
    was_training, n_right = model.training, 0
    model.eval()
    settings: Any = GenerationConfig  # its own types leave the arguments open
    n_samples = max(spec.evaluation_samples, 1)
    sampling = {"do_sample": True, "temperature": spec.temperature, "top_k": 0, "num_return_sequences": n_samples}
    config = settings(
        **(sampling if spec.evaluation_samples else {"do_sample": False}),
        max_new_tokens=spec.max_new_tokens,
        eos_token_id=_ends_of(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    ordered = sorted(questions, key=lambda question: len(asked(question.messages)))
    each_time, as_chat = max(at_once // n_samples, 1), _as_chat(spec, questions)
    for at in range(0, len(ordered), each_time):
        batch = ordered[at : at + each_time]
        texts = [_prompt_of(question, tokenizer, as_chat=as_chat) for question in batch]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not as_chat)
        inputs = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
        with torch.no_grad(), _own_randomness(model.device, at):
            out = model.generate(**inputs, generation_config=config)
        said = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answered = [question for question in batch for _ in range(n_samples)]
        for question, completion in zip(answered, said, strict=True):
            fields = verifier_fields(question.extra, prompt=asked(question.messages), topic=question.topic)
            n_right += score(completion, question.answer, fields) >= RIGHT_SCORE
    model.train(was_training)
    return n_right / (len(questions) * n_samples)


@contextlib.contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers from a seed inside; those outside go on as if nothing had been."""
    import torch

    kind = device.type if device.type != "cpu" else "cuda"
    with torch.random.fork_rng(devices=[device] if device.type != "cpu" else [], device_type=kind):
        torch.manual_seed(seed)
        yield


def _prompt_of(question: Question, tokenizer: Any, *, as_chat: bool) -> str:  # noqa: ANN401
    if as_chat:
        return str(tokenizer.apply_chat_template(question.messages, tokenize=False, add_generation_prompt=True))
    return question.messages[0]["content"]


def _reward_of(score: Callable[..., float]) -> Callable[..., list[float]]:
    """The verifier as TRL calls a reward function: with lists, one entry for each completion."""

    def reward(
        prompts: list[Any],
        completions: list[Any],
        answer: list[str | None],
        extra: list[str],
        topic: list[str | None],
        **_: object,
    ) -> list[float]:
        rows = zip(prompts, completions, answer, extra, topic, strict=True)
        return [
            score(_said(said), right, verifier_fields(more, prompt=_said(prompt), topic=about))
            for prompt, said, right, more, about in rows
        ]

    return reward


def _said(text: Any) -> str:  # noqa: ANN401 - text or messages
    return text if isinstance(text, str) else str(text[-1]["content"])


def _as_chat(spec: TrialSpec, questions: Sequence[Question]) -> bool:
    """Whether the policy's chat template renders what is asked: it does wherever prompts are messages."""
    return spec.template == "chat" or any(question.is_chat for question in questions)


def _load_policy(files: ModelFiles, device: str) -> tuple[Any, Any]:
    """The policy with float32 weights, which a training rounds where that is safe, and its tokenizer.

    Of what its files suggest for sampling only the tokens that end an answer are kept: a penalty on repeats, say, is
    not what the trainer samples with.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from saerl_assets.models.gguf import tokeniser_folder
    from saerl_assets.models.reader import check_complete, load_weights

    tokenizer: Any = AutoTokenizer.from_pretrained(tokeniser_folder(files), padding_side="left", local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model, found = load_weights(AutoModelForCausalLM, files, "float32")
    check_complete(found, files)
    settings: Any = GenerationConfig  # its own types leave the arguments open
    model.generation_config = settings(eos_token_id=_ends_of(model, tokenizer), pad_token_id=tokenizer.pad_token_id)
    return model.requires_grad_(requires_grad=True).to(device).train(), tokenizer


def _ends_of(model: Any, tokenizer: Any) -> list[int]:  # noqa: ANN401 - transformers' own types are loose
    """The tokens that end an answer: the model's own, of which there may be several, and the tokenizer's; as in TRL."""
    found = model.generation_config.eos_token_id
    own = [] if found is None else [found] if isinstance(found, int) else list(found)
    return sorted({*own, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})


def _batch_size(export: Path) -> int:
    from saerl_assets.trainers.export import check_export

    return check_export(export).batch_size


def _without_recomputing(config: type) -> dict[str, bool]:
    """The setting that keeps activations for the backward pass; transformers has renamed it since 5.17."""
    known = {field.name for field in dataclasses.fields(config)}
    return {next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in known): False}


def _largest_divisor(number: int, at_most: int) -> int:
    return max(divisor for divisor in range(1, min(number, at_most) + 1) if number % divisor == 0)


def _trl() -> Any:  # noqa: ANN401 - an untyped library
    """TRL, which tells its makers about each run unless it is told not to."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import trl
    except ImportError as error:
        remedy = "pip install 'saerl_assets[trl]'"
        raise SaerlError("trl_missing", f"TRL, which trains, cannot be imported: {error}.", remedy=remedy) from error
    return trl
