"""Train the lower-cased WordPiece vocabulary and write the tokenizer's four files.

The vocabulary is small on purpose: names are then split into pieces, and the model
learns to copy pieces, which is what lets it answer with names that it has never seen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from passages.generate import Generator

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = list("abcdefghijklmnopqrstuvwxyz0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~°€£–—’“”")


def corpus(passages: int, seed: int):
    """Texts of the training split: passages and their questions."""
    source = Generator("train", seed)
    for _ in range(passages):
        for index, example in enumerate(source.examples(2)):
            if index == 0:
                yield example.context
            yield example.question


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the tokenizer's files")
    parser.add_argument("--vocab-size", type=int, default=3000)
    parser.add_argument("--passages", type=int, default=20000)
    parser.add_argument("--max-length", type=int, default=384)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=args.vocab_size, special_tokens=SPECIAL, initial_alphabet=CHARACTERS, show_progress=False)
    tokenizer.train_from_iterator(corpus(args.passages, args.seed), trainer)
    # The trainer adds continuation pieces only as it saw them: complete them, so that any word of
    # these characters can be written and [UNK] is left for other scripts.
    vocabulary = tokenizer.get_vocab()
    for character in CHARACTERS:
        if character.isalnum():
            vocabulary.setdefault("##" + character, len(vocabulary))
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    cls, sep = vocabulary["[CLS]"], vocabulary["[SEP]"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)])

    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.out / "tokenizer.json"))
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    (args.out / "vocab.txt").write_text("\n".join(ordered) + "\n", encoding="utf-8")
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
             "mask_token": "[MASK]"}
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": None,
                "tokenize_chinese_chars": True, "model_max_length": args.max_length, **names}
    for name, content in (("tokenizer_config.json", settings), ("special_tokens_map.json", names)):
        (args.out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{len(ordered)} pieces")


if __name__ == "__main__":
    main()
