"""Embeddings: what an answer is about, as numbers, by a small sentence encoder on the CPU.

The encoder is all-MiniLM-L6-v2 (Reimers and Gurevych 2019, arXiv 1908.10084; Wang et al. 2020, arXiv 2002.10957): six
layers of a BERT with 384 dimensions, whose outputs are averaged over the tokens of a text. Its weights are fetched like
those of a local model; its graph is put together here and run by OpenVINO, so that no torch is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from simforge.audit.figures import Array
from simforge.errors import UsageError
from simforge.models import weights

LAYERS, HEADS, WIDTH = 6, 12, 384
TOKENS = 128
"Of a text that are read; the encoder was trained with as many."
BATCH = 32
EPSILON = 1e-12


def embed(texts: Sequence[str]) -> Array:
    """The embedding of each text (texts, 384), of length 1. Raises `UsageError` where a library is missing, and
    `ModelError` where the weights cannot be had."""
    tokenizer, encoder = _loaded()
    tokens = [one.ids for one in tokenizer.encode_batch(list(texts))]
    found = np.zeros((len(texts), WIDTH), np.float32)
    order = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))  # alike in length: little is padded
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        wide = max(len(tokens[place]) for place in part)
        ids, mask = np.zeros((len(part), wide), np.int64), np.zeros((len(part), wide), np.float32)
        for row, place in enumerate(part):
            count = len(tokens[place])
            ids[row, :count], mask[row, :count] = tokens[place], 1
        found[part] = encoder([ids, mask])[0]
    scaled: Array = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), EPSILON)
    return scaled


@cache
def _loaded() -> tuple[Any, Any]:
    """The tokenizer and the encoder, once a process."""
    try:
        import openvino
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ImportError as problem:
        raise UsageError(
            f'embeddings need {problem.name}: install SimForge with the extra report ("simforge[report]").'
        ) from None
    values, vocabulary = weights.encoder()
    tokenizer = Tokenizer.from_file(str(vocabulary))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.no_padding()
    compiled = openvino.Core().compile_model(_graph(load_file(values)), "CPU")
    return tokenizer, compiled


def _graph(values: dict[str, Array]) -> Any:
    """The encoder with its average, from token numbers and a mask, both (texts, tokens)."""
    import openvino
    from openvino import opset13 as op

    def whole(*numbers: int) -> Any:
        return op.constant(np.array(numbers, np.int64))

    def linear(x: Any, name: str) -> Any:
        product = op.matmul(x, op.constant(values[f"{name}.weight"]), False, True)
        return op.add(product, op.constant(values[f"{name}.bias"]))

    def normal(x: Any, name: str) -> Any:
        scaled = op.mvn(x, whole(-1), True, EPSILON, "INSIDE_SQRT")
        return op.add(op.multiply(scaled, op.constant(values[f"{name}.weight"])), op.constant(values[f"{name}.bias"]))

    def heads(x: Any) -> Any:
        return op.transpose(op.reshape(x, whole(0, 0, HEADS, WIDTH // HEADS), True), whole(0, 2, 1, 3))

    ids = op.parameter([-1, -1], np.int64, name="ids")
    mask = op.parameter([-1, -1], np.float32, name="mask")
    zero, first = op.constant(np.int64(0)), op.constant(np.int64(1))
    places = op.range(zero, op.gather(op.shape_of(ids), first, zero), first, "i64")
    x = op.gather(op.constant(values["embeddings.word_embeddings.weight"]), ids, zero)
    x = op.add(x, op.gather(op.constant(values["embeddings.position_embeddings.weight"]), places, zero))
    x = op.add(x, op.constant(values["embeddings.token_type_embeddings.weight"][0]))
    x = normal(x, "embeddings.LayerNorm")
    hidden = op.multiply(op.subtract(mask, op.constant(np.float32(1))), op.constant(np.float32(1e4)))
    hidden = op.unsqueeze(hidden, whole(1, 2))  # what is padded is not attended to
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (heads(linear(x, f"{name}.attention.self.{one}")) for one in ("query", "key", "value"))
        seen = op.transpose(op.scaled_dot_product_attention(query, key, value, hidden), whole(0, 2, 1, 3))
        seen = op.reshape(seen, whole(0, 0, WIDTH), True)
        x = normal(op.add(x, linear(seen, f"{name}.attention.output.dense")), f"{name}.attention.output.LayerNorm")
        inner = op.gelu(linear(x, f"{name}.intermediate.dense"), "erf")
        x = normal(op.add(x, linear(inner, f"{name}.output.dense")), f"{name}.output.LayerNorm")
    counted = op.unsqueeze(mask, whole(2))
    mean = op.divide(op.reduce_sum(op.multiply(x, counted), whole(1)), op.reduce_sum(counted, whole(1)))
    return openvino.Model([mean], [ids, mask])
