"""Embeddings: the topic of an answer as numbers, by a small sentence encoder on the CPU.

The encoder is all-MiniLM-L6-v2 (Reimers and Gurevych 2019, arXiv 1908.10084; Wang et al.
2020, arXiv 2002.10957): six BERT layers with 384 dimensions, whose outputs are averaged over
the tokens of a text. Its weights are fetched like those of a local model. Its graph is built
here and run by OpenVINO, so that torch is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from simforge.audit.figures import Array
from simforge.errors import UsageError
from simforge.install import how_to_install
from simforge.models import downloads

LAYERS, HEADS, WIDTH = 6, 12, 384


MAX_TOKENS = 128
"Tokens read of each text, the length that the encoder was trained with."


BATCH = 32


EPSILON = 1e-12


def embed(texts: Sequence[str]) -> Array:
    """Embed each text as a vector of length 1: (texts, 384). Raises `UsageError` if a library
    is missing, and `ModelError` if the weights cannot be fetched."""
    tokenizer, encoder = _load_encoder()
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    vectors = np.zeros((len(texts), WIDTH), np.float32)
    order = sorted(
        range(len(tokens)), key=lambda place: len(tokens[place])
    )  # similar lengths: little padding
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        longest = max(len(tokens[place]) for place in part)
        ids, mask = (
            np.zeros((len(part), longest), np.int64),
            np.zeros((len(part), longest), np.float32),
        )
        for row, place in enumerate(part):
            count = len(tokens[place])
            ids[row, :count], mask[row, :count] = tokens[place], 1
        vectors[part] = encoder([ids, mask])[0]
    scaled: Array = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), EPSILON
    )
    return scaled


@cache
def _load_encoder() -> tuple[Any, Any]:
    """Load the tokenizer and the encoder, once per process."""
    try:
        import openvino
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ImportError as problem:
        raise UsageError(
            f"embeddings need {problem.name}: {how_to_install('report')}."
        ) from None
    values, vocabulary = downloads.encoder_files()
    tokenizer = Tokenizer.from_file(str(vocabulary))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    compiled = openvino.Core().compile_model(_encoder_graph(load_file(values)), "CPU")
    return tokenizer, compiled


def _encoder_graph(values: dict[str, Array]) -> Any:
    """Build the encoder with mean pooling, from token ids and a mask, both (texts, tokens)."""
    import openvino
    from openvino import opset13 as op

    def whole(*numbers: int) -> Any:
        return op.constant(np.array(numbers, np.int64))

    def linear(x: Any, name: str) -> Any:
        product = op.matmul(x, op.constant(values[f"{name}.weight"]), False, True)
        return op.add(product, op.constant(values[f"{name}.bias"]))

    def normal(x: Any, name: str) -> Any:
        scaled = op.mvn(x, whole(-1), True, EPSILON, "INSIDE_SQRT")
        return op.add(
            op.multiply(scaled, op.constant(values[f"{name}.weight"])),
            op.constant(values[f"{name}.bias"]),
        )

    def heads(x: Any) -> Any:
        return op.transpose(
            op.reshape(x, whole(0, 0, HEADS, WIDTH // HEADS), True), whole(0, 2, 1, 3)
        )

    ids = op.parameter([-1, -1], np.int64, name="ids")
    mask = op.parameter([-1, -1], np.float32, name="mask")
    zero, first = op.constant(np.int64(0)), op.constant(np.int64(1))
    positions = op.range(zero, op.gather(op.shape_of(ids), first, zero), first, "i64")
    x = op.gather(op.constant(values["embeddings.word_embeddings.weight"]), ids, zero)
    x = op.add(
        x,
        op.gather(
            op.constant(values["embeddings.position_embeddings.weight"]),
            positions,
            zero,
        ),
    )
    x = op.add(x, op.constant(values["embeddings.token_type_embeddings.weight"][0]))
    x = normal(x, "embeddings.LayerNorm")
    attention_bias = op.multiply(
        op.subtract(mask, op.constant(np.float32(1))), op.constant(np.float32(1e4))
    )
    attention_bias = op.unsqueeze(
        attention_bias, whole(1, 2)
    )  # padding is not attended to
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            heads(linear(x, f"{name}.attention.self.{part}"))
            for part in ("query", "key", "value")
        )
        attended = op.transpose(
            op.scaled_dot_product_attention(query, key, value, attention_bias),
            whole(0, 2, 1, 3),
        )
        attended = op.reshape(attended, whole(0, 0, WIDTH), True)
        x = normal(
            op.add(x, linear(attended, f"{name}.attention.output.dense")),
            f"{name}.attention.output.LayerNorm",
        )
        inner = op.gelu(linear(x, f"{name}.intermediate.dense"), "erf")
        x = normal(
            op.add(x, linear(inner, f"{name}.output.dense")), f"{name}.output.LayerNorm"
        )
    token_mask = op.unsqueeze(mask, whole(2))
    mean = op.divide(
        op.reduce_sum(op.multiply(x, token_mask), whole(1)),
        op.reduce_sum(token_mask, whole(1)),
    )
    return openvino.Model([mean], [ids, mask])
