"""Turn examples into batches of token ids, positions and training labels."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from passages.generate import Example
from passages.templates import KINDS

RELATIONS = ["none"] + [f"{kind.name}.{r}" for kind in KINDS.values() for r in kind.types]
_RELATION_ID = {name: number for number, name in enumerate(RELATIONS)}
IGNORE = -100


@dataclass
class Feature:
    """One encoded example.

    Per token, for the auxiliary losses: `relations`, the relation that it states or asks for;
    `named`, whether this mention is of the entity asked for; `asked`, the same for facts.
    """

    ids: list[int]
    types: list[int]
    start: int
    end: int
    relations: list[int]
    named: list[int]
    asked: list[int]


class Encoder:
    """Encodes question and passage as Hugging Face's pipeline does: [CLS] q [SEP] p [SEP]."""

    def __init__(self, folder: Path, max_length: int = 384):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.max_length = max_length

    def encode(self, examples: list[Example]) -> list[Feature]:
        """Features of examples; those longer than the model's positions are left out."""
        encodings = self.tokenizer.encode_batch([(e.question, e.context) for e in examples])
        features = []
        for example, encoding in zip(examples, encodings):
            if len(encoding.ids) <= self.max_length:
                features.append(self._feature(example, encoding))
        return features

    @staticmethod
    def _feature(example: Example, encoding) -> Feature:
        def span(start: int, end: int) -> tuple[int, int]:
            return encoding.char_to_token(start, 1), encoding.char_to_token(end - 1, 1)

        length = len(encoding.ids)
        relations, named, asked = [0] * length, [IGNORE] * length, [IGNORE] * length
        sep = encoding.type_ids.index(1) - 1
        relations[1:sep] = [_RELATION_ID[example.relation]] * (sep - 1)
        for begin, end, is_asked in example.mentions:
            first, last = span(begin, end)
            named[first:last + 1] = [int(is_asked)] * (last + 1 - first)
        for begin, end, relation, is_asked in example.facts:
            first, last = span(begin, end)
            relations[first:last + 1] = [_RELATION_ID[relation]] * (last + 1 - first)
            asked[first:last + 1] = [int(is_asked)] * (last + 1 - first)
        if example.inverse:  # whose fact it is would be the answer itself
            named = asked = [IGNORE] * length
        start = end = 0
        if example.answer_start >= 0:
            start, end = span(example.answer_start, example.answer_start + len(example.answer))
        return Feature(encoding.ids, encoding.type_ids, start, end, relations, named, asked)


def collate(features: list[Feature], positions: int, shift: bool, rng: random.Random) -> dict[str, torch.Tensor]:
    """Pad features to one batch.

    With `shift`, each passage's position ids begin at a random place beyond its question, so
    that short examples train every position of the table.
    """
    width = max(len(f.ids) for f in features)

    def pad(rows: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (width - len(row)) for row in rows])

    position_ids = torch.arange(width).repeat(len(features), 1)
    if shift:
        for row, feature in enumerate(features):
            passage = feature.types.index(1)
            position_ids[row, passage:] += rng.randint(0, positions - width)
    return {
        "input_ids": pad([f.ids for f in features], 0),
        "attention_mask": pad([[1] * len(f.ids) for f in features], 0),
        "token_type_ids": pad([f.types for f in features], 0),
        "position_ids": position_ids,
        "relations": pad([f.relations for f in features], IGNORE),
        "named": pad([f.named for f in features], IGNORE),
        "asked": pad([f.asked for f in features], IGNORE),
        "start": torch.tensor([f.start for f in features]),
        "end": torch.tensor([f.end for f in features]),
    }
