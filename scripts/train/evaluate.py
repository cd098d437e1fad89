"""Measure exact match and F1 of a model folder on a SQuAD 2.0 file, dense or compressed.

The exported ONNX file itself is run, with ONNX Runtime. `--ranks` first replaces each
layer's attention weights by their Tucker reconstruction at those ranks (the same function
that the server runs as factors). The answer is the best span of at most 15 tokens, widened
to whole words, or none where position 0 scores higher, as in SQuAD 2's evaluation.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import string
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from tokenizers import Tokenizer

import tucker

MAX_ANSWER_TOKENS = 15
_PROJECTION = re.compile(r"layer\.(\d+)/attention/(self/query|self/key|self/value|output/dense)/MatMul$")


def normalise(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(predicted: str, expected: str) -> float:
    """SQuAD's word-overlap F1."""
    a, b = normalise(predicted).split(), normalise(expected).split()
    if not a or not b:
        return float(a == b)
    common = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def truncate_model(model: onnx.ModelProto, heads: int, ranks: tuple[int, int, int]) -> list[dict]:
    """Replace each layer's attention by its reconstruction, in place; returns a line per layer."""
    initializers = {i.name: i for i in model.graph.initializer}
    layers: dict[int, dict[str, onnx.TensorProto]] = collections.defaultdict(dict)
    for node in model.graph.node:
        found = _PROJECTION.search(node.name)
        if found:
            layers[int(found[1])][found[2]] = initializers[node.input[1]]
    report = []
    for number, tensors in sorted(layers.items()):
        order = [tensors[n] for n in ("self/query", "self/key", "self/value", "output/dense")]
        w = tucker.stack(*(torch.from_numpy(numpy_helper.to_array(t).copy()) for t in order), heads)
        approximation = tucker.truncate(w, ranks, sweeps=20)
        for tensor, matrix in zip(order, tucker.unstack(approximation)):
            tensor.CopyFrom(numpy_helper.from_array(matrix.contiguous().numpy(), tensor.name))
        report.append({"layer": number, "relative_error": round(tucker.relative_error(w, approximation), 4),
                       "compression_ratio": round(tucker.compression_ratio(tuple(w.shape), ranks), 4)})
    return report


class Reader:
    """Answers questions with an ONNX model."""

    def __init__(self, folder: Path, ranks: tuple[int, int, int] | None):
        config = json.loads((folder / "config.json").read_text())
        model = onnx.load(str(folder / "onnx" / "model.onnx"))
        self.layers = truncate_model(model, config["num_attention_heads"], ranks) if ranks else []
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.limit = config["max_position_embeddings"]

    def answer(self, question: str, context: str) -> str:
        """The best answer, or an empty string for none."""
        encoding = self.tokenizer.encode(question, context)
        if len(encoding.ids) > self.limit:
            raise ValueError(f"reading a passage: {len(encoding.ids)} tokens, the model takes {self.limit}")
        feeds = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask,
                 "token_type_ids": encoding.type_ids}
        start, end = self.session.run(["start_logits", "end_logits"],
                                      {k: np.array([v], dtype=np.int64) for k, v in feeds.items()})
        inside = np.array([s == 1 for s in encoding.sequence_ids])
        scores = np.where(inside, start[0], -np.inf)[:, None] + np.where(inside, end[0], -np.inf)[None, :]
        scores[np.tril_indices_from(scores, -1)] = -np.inf
        scores[np.triu_indices_from(scores, MAX_ANSWER_TOKENS)] = -np.inf
        first, last = np.unravel_index(np.argmax(scores), scores.shape)
        if start[0, 0] + end[0, 0] > scores[first, last]:
            return ""
        begin = encoding.word_to_chars(encoding.token_to_word(int(first)), 1)[0]
        stop = encoding.word_to_chars(encoding.token_to_word(int(last)), 1)[1]
        return context[begin:stop]


def tabulate(results: list[dict]) -> dict:
    """Exact match (per cent) in total and per group."""
    groups: dict[str, dict[str, list[float]]] = {"kind": collections.defaultdict(list),
                                                 "form": collections.defaultdict(list),
                                                 "answerable": collections.defaultdict(list)}
    for r in results:
        kind, form = r["id"].split("/")[:2]
        groups["kind"][kind].append(r["exact"])
        groups["form"][form].append(r["exact"])
        groups["answerable"]["no" if r["impossible"] else "yes"].append(r["exact"])
    mean = lambda values: round(100 * sum(values) / len(values), 2)
    return {"questions": len(results), "exact": mean([r["exact"] for r in results]),
            "f1": round(sum(r["f1"] for r in results) / len(results), 4),
            **{name: {key: [mean(v), len(v)] for key, v in sorted(group.items())} for name, group in groups.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ranks", type=lambda t: tuple(int(x) for x in t.split(",")), help="r1,r2,r3; none: dense")
    parser.add_argument("--errors", type=int, default=0, help="wrong answers to print")
    args = parser.parse_args()

    reader = Reader(args.model, args.ranks)
    results = []
    for article in json.loads(args.data.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                expected = [a["text"] for a in qa["answers"]] or [""]
                got = reader.answer(qa["question"], paragraph["context"])
                results.append({"id": qa["id"], "impossible": qa["is_impossible"],
                                "exact": max(float(normalise(got) == normalise(e)) for e in expected),
                                "f1": max(f1(got, e) for e in expected)})
                if not results[-1]["exact"] and args.errors > 0:
                    args.errors -= 1
                    print(f"{paragraph['context']}\n  {qa['id']}: {qa['question']}\n  got {got!r}, not {expected!r}")
    print(json.dumps({"ranks": args.ranks, "layers": reader.layers, **tabulate(results)}, indent=1))


if __name__ == "__main__":
    main()
