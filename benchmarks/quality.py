"""How well correct solutions are told from wrong ones on GSM8K, by SAE features and by what a sceptic would use.

    python benchmarks/quality.py --data FOLDER [--limit N] [--cache FOLDER]

FOLDER (or SAERL_REFERENCE_DATA) holds `gsm8k_model_solutions.jsonl`: the 1,319 questions of GSM8K's test split, each
with the solutions of four models (6 and 175 billion parameters, either finetuned, or the best of 100 by a verifier),
and which of them are correct. The demo's model reads question and solution; its states, SAE features and those of an
SAE of random weights are pooled over the solution alone, or over both.

Every side is tuned in the same way, by the product's own functions. Questions are in five folds, so that no question is
learned from and measured on. Within the four folds that are learned from, and on nothing else: the input of the side is
the one that a ridge regression ranks best with in inner folds; then the kind of probe (logistic, ridge, two-layer
perceptron) is the one that ranks best, both on the solutions of `CHOICE_QUESTIONS` of these questions; then its
strength of regularisation is chosen and it is fitted on all of them. The area under the ROC curve is that within each
held-out fold, averaged. Intervals are percentiles of a paired bootstrap over questions; no probe is fitted anew for it.

Three times: on the solutions of all four models; learned from the two small models and measured on the two large ones,
which is the figure for models that the probe has not seen; and the reverse. There the folds are the same: measured is
on solutions of other models to other questions. `within_question` compares only solutions to the same question, for
which a probe has to know more than that a question is hard.

The first run reads a million tokens: about an hour on two idle cores. What was read is kept below `--cache`. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from reading import Request, Rows, View, read_texts
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from saerl_assets.domain.agreement import mean_over_folds, rank_auroc
from saerl_assets.domain.examples import Examples
from saerl_assets.domain.folds import hash_fractions, held_out_parts, outer_folds
from saerl_assets.domain.probes import NAMES, choose, fit_chosen
from saerl_assets.domain.threads import one_thread
from saerl_assets.storage.home import model_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix
    from saerl_assets.domain.probes import Kind

    Doubles: TypeAlias = NDArray[np.float64]
    Integers: TypeAlias = NDArray[np.int64]

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
LAYER = 15
SCOPES = ("response", "prompt_and_response")
SEED = 0
CHOICE_QUESTIONS = 300
"""Input and kind are chosen on the solutions to so many of the questions that are learned from."""
N_BOOTSTRAP = 400


@dataclass(frozen=True)
class Solutions:
    """A row for each solution: those of the first question, then of the next."""

    questions: list[str]
    solutions: list[str]
    is_correct: Doubles
    models: NDArray[np.str_]

    @property
    def question(self) -> Integers:
        """[n] number of the question."""
        return np.unique(self.questions, return_inverse=True)[1].astype(np.int64)


def load_solutions(folder: Path, limit: int | None) -> Solutions:
    """Solutions of all models to the first so many questions."""
    lines = (folder / "gsm8k_model_solutions.jsonl").read_text().splitlines()[:limit]
    rows = [(found["question"], model, found[model]) for found in map(json.loads, lines) for model in MODELS]
    return Solutions(
        [question for question, _, _ in rows],
        [solved["solution"] for _, _, solved in rows],
        np.array([float(solved["is_correct"]) for _, _, solved in rows]),
        np.array([model for _, model, _ in rows]),
    )


Inputs: TypeAlias = "dict[str, FloatMatrix]"


def feature_inputs(views: dict[View, Rows], *, random: bool) -> Inputs:
    """Features of the SAE, or of the one of random weights."""
    return {
        f"{pooling} over {scope}": views[LAYER, scope].csr(pooling, random=random)
        for scope in SCOPES
        for pooling in ("max", "mean")
    }


def state_inputs(views: dict[View, Rows]) -> Inputs:
    """Dense states; the last token is the same one in both scopes."""
    found = {f"mean over {scope}": sparse.csr_matrix(views[LAYER, scope].mean) for scope in SCOPES}
    last = sparse.csr_matrix(views[LAYER, "response"].last)
    both = sparse.hstack([found["mean over response"], last], format="csr")
    return found | {"last": last, "mean over response, last": both}


def word_inputs(solutions: Solutions) -> Inputs:
    """Words with pairs of words, and letters, of the solution alone or of both."""
    wholes = [f"{question}\n{text}" for question, text in zip(solutions.questions, solutions.solutions, strict=True)]
    found: Inputs = {}
    marks = r"\w+|[^\w\s]"
    for scope, texts in zip(SCOPES, (solutions.solutions, wholes), strict=True):
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=marks)
        letters = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), min_df=3, max_features=30_000, sublinear_tf=True
        )
        found[f"words of {scope}"] = sparse.csr_matrix(words.fit_transform(texts), dtype=np.float32)
        found[f"letters of {scope}"] = sparse.csr_matrix(letters.fit_transform(texts), dtype=np.float32)
    return found


def length_inputs(views: dict[View, Rows]) -> Inputs:
    """Tokens and their logarithm, of the solution alone or of both."""
    lengths = [views[LAYER, scope].features.n_tokens.astype(np.float64) for scope in SCOPES]
    columns = [np.stack([length, np.log1p(length)], axis=1).astype(np.float32) for length in lengths]
    return {"of response": sparse.csr_matrix(columns[0]), "of both": sparse.csr_matrix(np.hstack(columns))}


@dataclass(frozen=True)
class Trial:
    """Who is learned from and who is measured on."""

    solutions: Solutions
    learned: NDArray[np.bool_]
    """[n] rows of models that may be learned from."""
    measured: NDArray[np.bool_]

    def parts(self) -> list[tuple[Integers, Integers]]:
        """For each fold of questions: rows to learn from, rows of the fold to measure on."""
        folds = outer_folds(self.solutions.questions, seed=SEED)
        return [
            (train[self.learned[train]], test[self.measured[test]])
            for train, test in held_out_parts(folds)
            if len(test)
        ]

    def scores(self, inputs: Inputs) -> tuple[Doubles, list[str]]:
        """Score of every measured row by a probe that has not seen its question; what was chosen in each fold."""
        names, is_correct = self.solutions.questions, self.solutions.is_correct
        fractions = hash_fractions(names, seed=SEED, purpose="quality inner fold")
        drawn = hash_fractions(names, seed=SEED, purpose="choice")
        scores, chosen = np.full(len(names), np.nan), []
        for train, test in self.parts():
            few = np.sort(np.unique(drawn[train]))[:CHOICE_QUESTIONS][-1]
            some = train[drawn[train] <= few]

            def examples(name: str, rows: Integers) -> Examples:
                return Examples(inputs[name][rows], is_correct[rows], np.ones(len(rows)), fractions[rows])

            areas = {name: inner_area(examples(name, some)) for name in inputs}
            name = max(areas, key=areas.__getitem__)
            kind = choose("best", examples(name, some)).kind
            known = examples(name, train)
            scores[test] = fit_chosen(choose(kind, known), known).predict(inputs[name][test])
            chosen.append(f"{kind} on {name}")
        return scores, chosen

    def area(self, score: Doubles) -> float:
        """Area under the ROC curve within folds, averaged by size."""
        goal = self.solutions.is_correct
        folds = np.concatenate([np.full(len(test), number) for number, (_, test) in enumerate(self.parts())])
        rows = np.concatenate([test for _, test in self.parts()])
        return mean_over_folds(lambda part: rank_auroc(score[rows[part]], goal[rows[part]]), folds) or np.nan

    def draws(self, score: Doubles) -> Doubles:
        """The same on bootstrap samples of questions, the same ones for every score: float64 [N_BOOTSTRAP]."""
        rng, goal, found = np.random.default_rng(SEED), self.solutions.is_correct, np.zeros(N_BOOTSTRAP)
        total = int(self.measured.sum())
        for _, test in self.parts():
            question = self.solutions.question[test]
            of_question = [test[question == number] for number in np.unique(question)]
            for sample in range(N_BOOTSTRAP):
                rows = np.concatenate([of_question[i] for i in rng.integers(0, len(of_question), len(of_question))])
                found[sample] += (rank_auroc(score[rows], goal[rows]) or np.nan) * len(test) / total
        return found

    def within_question(self, score: Doubles) -> float:
        """Share of pairs of a correct and a wrong solution to one question that the score puts in order, ties half."""
        rows = np.flatnonzero(self.measured)
        question, goal = self.solutions.question[rows], self.solutions.is_correct[rows]
        order = np.argsort(question, kind="stable")
        ends = np.flatnonzero(np.diff(question[order])) + 1
        won = pairs = 0.0
        for group in np.split(order, ends):
            right, wrong = score[rows[group[goal[group] == 1]]], score[rows[group[goal[group] == 0]]]
            difference = right[:, None] - wrong[None, :]
            won += float((difference > 0).sum() + (difference == 0).sum() / 2)
            pairs += difference.size
        return won / pairs if pairs else np.nan


def inner_area(examples: Examples) -> float:
    """How well ridge regression ranks rows of inner folds that it was not fitted to."""
    found = np.zeros(len(examples.shares))
    folds = (examples.fractions * 3).astype(np.int64)
    for train, test in held_out_parts(folds):
        known = examples.take(train)
        found[test] = fit_chosen(choose("ridge", known), known).predict(examples.matrix[test])
    area = mean_over_folds(lambda rows: rank_auroc(found[rows], examples.shares[rows]), folds)
    return area if area is not None else 0.5


def every_probe(trial: Trial, inputs: Inputs) -> dict[str, float]:
    """Area of each kind on each input: what the choice was made from, and no choice in it."""
    found = {}
    fractions = hash_fractions(trial.solutions.questions, seed=SEED, purpose="quality inner fold")
    kinds: Sequence[Kind] = tuple(NAMES)
    for name, matrix in inputs.items():
        everything = Examples(matrix, trial.solutions.is_correct, np.ones(matrix.shape[0]), fractions)
        for kind in kinds:
            score, fitted, started = np.full(matrix.shape[0], np.nan), [], time.process_time()
            for train, test in trial.parts():
                known = everything.take(train)
                model = fit_chosen(choose(kind, known), known)
                score[test] = model.predict(matrix[test])
                fitted.append(rank_auroc(model.predict(known.matrix), known.shares) or np.nan)
            found[f"{kind} on {name}"] = trial.area(score)
            print(
                f"{kind:9} on {name:32} {found[f'{kind} on {name}']:.3f}   on what it was fitted to "
                f"{np.mean(fitted):.3f}   {time.process_time() - started:5.0f} s of processor",
                flush=True,
            )
    return found


def compare(title: str, trial: Trial, sides: dict[str, Callable[[], Inputs]]) -> dict[str, float]:
    """Every side, and how far the SAE is ahead of each of the others."""
    n_learned, n_measured = int(trial.learned.sum()), int(trial.measured.sum())
    share = trial.solutions.is_correct[trial.measured].mean()
    print(f"\n{title}: learned from {n_learned:,} solutions, measured on {n_measured:,}, {share:.0%} of them correct")
    print(f"{'side':12}{'AUROC':>8}{'95% interval':>18}{'within question':>18}  chosen, in how many folds")
    figures: dict[str, float] = {}
    draws: dict[str, Doubles] = {}
    for side, make in sides.items():
        score, chosen = trial.scores(make())
        area, within = trial.area(score), trial.within_question(score)
        draws[side] = trial.draws(score)
        low, high = np.nanpercentile(draws[side], (2.5, 97.5))
        figures |= {side: area, f"{side}_low": low, f"{side}_high": high, f"{side}_within_question": within}
        said = ", ".join(f"{name} ({count})" for name, count in Counter(chosen).most_common())
        print(f"{side:12}{area:8.3f}{low:10.3f} to{high:6.3f}{within:18.3f}  {said}", flush=True)
    for side in list(sides)[1:]:
        low, high = np.nanpercentile(draws["sae"] - draws[side], (2.5, 97.5))
        difference = figures["sae"] - figures[side]
        figures |= {f"sae_over_{side}": difference, f"sae_over_{side}_low": low, f"sae_over_{side}_high": high}
        print(f"SAE minus {side:12}{difference:+.3f}  ({low:+.3f} to {high:+.3f})")
    return figures


def main() -> None:
    """Reads, learns, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SAERL_REFERENCE_DATA"))
    parser.add_argument("--limit", type=int, help="only the first so many questions, to try it")
    parser.add_argument("--every-probe", action="store_true", help="also each kind of probe on each input of the SAE")
    parser.add_argument("--cache", type=Path, default=model_cache() / "benchmarks")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder with gsm8k_model_solutions.jsonl: --data FOLDER")
    everyone = load_solutions(Path(arguments.data), None)
    responses = [f"\n{solution}" for solution in everyone.solutions]
    request = Request(everyone.questions, responses, (LAYER,), SCOPES, dtype="bfloat16")
    views, facts = read_texts(request, arguments.cache)
    for layer, found in facts["layers"].items():
        print(f"SAE of layer {layer}: explained variance {found['explained_variance']:.3f}, L0 {found['l0']:.1f}")
    solutions = load_solutions(Path(arguments.data), arguments.limit)
    n = len(solutions.questions)

    def first(inputs: Inputs) -> Inputs:
        return {name: matrix[:n] for name, matrix in inputs.items()}

    sides: dict[str, Callable[[], Inputs]] = {
        "sae": lambda: first(feature_inputs(views, random=False)),
        "dense": lambda: first(state_inputs(views)),
        "random_sae": lambda: first(feature_inputs(views, random=True)),
        "tfidf": lambda: word_inputs(solutions),
        "length": lambda: first(length_inputs(views)),
    }
    small = np.char.startswith(solutions.models, "6b")
    everybody = np.ones(n, dtype=bool)
    result: dict[str, float] = {}
    with one_thread():
        for title, suffix, learned, measured in (
            ("all models", "", everybody, everybody),
            ("learned from the small models, measured on the large", "_unseen_model", small, ~small),
            ("learned from the large models, measured on the small", "_unseen_model_reverse", ~small, small),
        ):
            figures = compare(title, Trial(solutions, learned, measured), sides)
            result |= {f"{name}{suffix}": round(float(value), 4) for name, value in figures.items()}
        probes = every_probe(Trial(solutions, everybody, everybody), sides["sae"]()) if arguments.every_probe else {}
    sae_names = {f"auroc_{side}": result[side] for side in sides}
    sae_names |= {f"auroc{suffix}": result[f"sae{suffix}"] for suffix in ("_unseen_model", "_unseen_model_reverse")}
    details = {name: value if np.isfinite(value) else None for name, value in result.items()}
    print(json.dumps(sae_names | {"every_probe": probes, "details": details}))


if __name__ == "__main__":
    main()
