"""Write the measured tables into a model card, between its two `measured` markers.

Takes what evaluate.py printed, so that the card holds nothing that was not measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def group_table(name: str, heading: str, dense: dict, low: dict) -> list[str]:
    """One row per group: number of questions, exact match dense and compressed."""
    rows = [f"| {heading} | questions | dense | compressed |", "| --- | ---: | ---: | ---: |"]
    rows += [f"| {key} | {count} | {exact:.1f} | {low[name][key][0]:.1f} |"
             for key, (exact, count) in dense[name].items()]
    return rows + [""]


def tables(dense: dict, low: dict, others: list[dict]) -> str:
    """All tables, as Markdown."""
    lines = ["| | exact match % | F1 % |", "| --- | ---: | ---: |",
             f"| dense | {dense['exact']:.2f} | {100 * dense['f1']:.2f} |"]
    for run in [low, *others]:
        r1, r2, r3 = run["ranks"]
        ratio, worst = run["layers"][0]["compression_ratio"], max(x["relative_error"] for x in run["layers"])
        lines.append(f"| ranks ({r1}, {r2}, {r3}): ratio {ratio:.2f}, largest relative error {worst:.3f} "
                     f"| {run['exact']:.2f} | {100 * run['f1']:.2f} |")
    lines += ["", f"At ({', '.join(map(str, low['ranks']))}), the default ranks:", "",
              "| layer | relative error | compression ratio |", "| ---: | ---: | ---: |"]
    lines += [f"| {x['layer']} | {x['relative_error']:.4f} | {x['compression_ratio']:.2f} |" for x in low["layers"]]
    lines += [""]
    for name, heading in (("answerable", "has an answer"), ("kind", "passage about"), ("form", "question form")):
        lines += group_table(name, heading, dense, low)
    return "\n".join(lines).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dense", type=Path, required=True, help="what evaluate.py printed without --ranks")
    parser.add_argument("--compressed", type=Path, required=True, help="the same at the default ranks")
    parser.add_argument("--other", type=Path, action="append", default=[], help="the same at other ranks; repeatable")
    parser.add_argument("--card", type=Path, required=True)
    args = parser.parse_args()

    read = lambda path: json.loads(path.read_text())
    card = args.card.read_text(encoding="utf-8")
    before, rest = card.split(BEGIN)
    after = rest.split(END)[1]
    measured = tables(read(args.dense), read(args.compressed), [read(p) for p in args.other])
    args.card.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
