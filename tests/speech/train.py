"""Learns the guards' classifiers from the texts in `personas/speech/roles.jsonl`.

    uv run python tests/speech/train.py            prints how well they do, held out
    uv run python tests/speech/train.py --write    and writes personas/speech/roles.yaml

`role_flip` tells an assistant's message from a person's, `refusal` a model that steps out of
its role from a person. Runs of characters, TF-IDF and logistic regression over the runs that
tell most. Neighbouring lines are on one topic, so folds are made of blocks of lines.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

SPEECH = Path(__file__).parents[2] / "personas" / "speech"
BLOCK = 40
"Lines that stay together in a fold."
KEPT = 4000
"Runs of characters that are shipped."


CLASSES = {"role_flip": "assistant", "refusal": "refusal"}
"What each classifier tells from a person's messages."


def texts(name: str) -> tuple[list[str], np.ndarray]:
    """Messages, and whether each is one that the classifier looks for."""
    rows = [
        json.loads(line)
        for line in (SPEECH / "roles.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    known = [row for row in rows if row["role"] in ("user", CLASSES[name])]
    return [row["text"] for row in known], np.array(
        [row["role"] == CLASSES[name] for row in known]
    )


def pipeline():
    runs = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True, norm=None
    )
    return make_pipeline(
        runs,
        SelectKBest(chi2, k=KEPT),
        Normalizer(),
        LogisticRegression(C=20.0, max_iter=2000, class_weight="balanced"),
    )


def held_out(name: str) -> str:
    """How well it does on messages that it has not seen, by length."""
    said, truth = texts(name)
    groups = (
        np.arange(len(said)) // BLOCK
        if name == "role_flip"
        else np.arange(len(said)) % 50
    )
    p = cross_val_predict(
        pipeline(), said, truth, groups=groups, cv=GroupKFold(5), method="predict_proba"
    )[:, 1]
    length = np.array([len(text.split()) for text in said])
    lines = []
    for low, high in ((0, 10), (10, 26), (26, 51), (51, 1000)):
        some = (length >= low) & (length < high)
        if not (some & truth).any():
            continue
        found, false = (p[some & truth] > 0.9).mean(), (p[some & ~truth] > 0.9).mean()
        half, wrong = (p[some & truth] > 0.5).mean(), (p[some & ~truth] > 0.5).mean()
        auc = roc_auc_score(truth[some], p[some])
        lines.append(
            f"{name}, {low:>3} words and more: {some.sum():>4} messages, AUC {auc:.2f}, "
            f"p > 0.9: {found:.2f} found, {false:.3f} of the people's; p > 0.5: {half:.2f}, "
            f"{wrong:.3f}"
        )
    return "\n".join(lines)


def learnt(name: str) -> dict[str, object]:
    """The shipped form: bias, and by run of characters its coefficient and inverse document
    frequency."""
    runs, best, _, regression = pipeline().fit(*texts(name))
    kept = best.get_support(indices=True)
    told = zip(
        runs.get_feature_names_out()[kept],
        regression.coef_[0],
        runs.idf_[kept],
        strict=True,
    )
    weights = {
        run: [round(float(weight), 4), round(float(idf), 4)]
        for run, weight, idf in told
    }
    return {
        "bias": round(float(regression.intercept_[0]), 4),
        "weights": dict(sorted(weights.items())),
    }


if __name__ == "__main__":
    for name in CLASSES:
        print(held_out(name))
    if "--write" in sys.argv:
        every = json.dumps(
            {name: learnt(name) for name in CLASSES},
            ensure_ascii=False,
            separators=(",", ":"),
        )
        (SPEECH / "roles.yaml").write_text(
            every.replace('],"', '],\n"') + "\n", encoding="utf-8"
        )
