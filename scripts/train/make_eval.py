"""Write the test questions as a SQuAD 2.0 file.

Each question's id is `kind/form/relation/number`, so that accuracy can be tabulated.
"""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path

from features import Encoder
from passages.generate import Generator

MAX_ANSWER_TOKENS = 15  # the default of Hugging Face's question-answering pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=900)
    parser.add_argument("--long-share", type=float, default=0.06, help="share of long passages (about 150 to 380 tokens)")
    parser.add_argument("--seed", type=int, default=77)
    args = parser.parse_args()

    encoder = Encoder(args.tokenizer)
    sources = [Generator("test", args.seed), Generator("test", args.seed + 1, "long")]
    titles: dict[str, list[dict]] = collections.defaultdict(list)
    total = made = 0
    while total < args.questions:
        made += 1
        source = sources[made % round(1 / args.long_share) == 0] if args.long_share else sources[0]
        kept = [e for e in source.examples(2)
                if len(encoder.tokenizer.encode(e.question, e.context).ids) <= encoder.max_length
                and len(encoder.tokenizer.encode(e.answer).ids) - 2 <= MAX_ANSWER_TOKENS][:args.questions - total]
        if not kept:
            continue
        qas = []
        for example in kept:
            total += 1
            answers = [{"text": example.answer, "answer_start": example.answer_start}] if example.answer else []
            identity = example.id.rsplit("/", 1)[0]
            qas.append({"id": f"{identity}/{total:04d}", "question": example.question,
                        "is_impossible": not answers, "answers": answers})
        titles[kept[0].id.split("/")[0]].append({"context": kept[0].context, "qas": qas})
    data = [{"title": title, "paragraphs": paragraphs} for title, paragraphs in sorted(titles.items())]
    args.out.write_text(json.dumps({"version": "v2.0", "data": data}, indent=1, ensure_ascii=False) + "\n",
                        encoding="utf-8")
    print(f"{total} questions, {sum(len(t['paragraphs']) for t in data)} passages")


if __name__ == "__main__":
    main()
