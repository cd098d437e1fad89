"""Export a checkpoint to a model folder: ONNX by PyTorch's exporter, configuration, tokenizer."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from transformers import BertForQuestionAnswering

DEFAULT_RANKS = (62, 16, 4)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Logits(nn.Module):
    """The model with plain tensors in and out, as the exporter wants it."""

    def __init__(self, model: BertForQuestionAnswering):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return out.start_logits, out.end_logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="model folder; other files in it are kept")
    parser.add_argument("--opset", type=int, default=17)
    args = parser.parse_args()

    model = BertForQuestionAnswering.from_pretrained(args.checkpoint, attn_implementation="eager").eval()
    torch.manual_seed(0)
    # Two rows of different lengths, so that the mask is traced as data.
    ids = torch.randint(5, model.config.vocab_size, (2, 24))
    mask = torch.ones_like(ids)
    mask[1, 17:] = 0
    types = torch.zeros_like(ids)
    types[:, 8:] = 1
    (args.out / "onnx").mkdir(parents=True, exist_ok=True)
    target, fresh = args.out / "onnx" / "model.onnx", args.out / "onnx" / "model.onnx.new"
    axes = {name: {0: "batch", 1: "sequence"} for name in (*INPUTS, "start_logits", "end_logits")}
    torch.onnx.export(Logits(model), (ids, mask, types), str(fresh), input_names=list(INPUTS),
                      output_names=["start_logits", "end_logits"], dynamic_axes=axes, opset_version=args.opset,
                      dynamo=False)

    # The exported graph must agree with PyTorch at other shapes than the traced ones.
    session = onnxruntime.InferenceSession(str(fresh), providers=["CPUExecutionProvider"])
    for batch, length in ((1, 9), (3, 200), (2, model.config.max_position_embeddings)):
        ids = torch.randint(5, model.config.vocab_size, (batch, length))
        mask = torch.ones_like(ids)
        mask[-1, length // 2:] = 0
        types = (torch.arange(length) > 4).long().repeat(batch, 1)
        with torch.no_grad():
            want = Logits(model)(ids, mask, types)
        got = session.run(None, dict(zip(INPUTS, (ids.numpy(), mask.numpy(), types.numpy()))))
        for name, a, b in zip(("start", "end"), want, got):
            difference = float(np.abs(a.numpy() - b)[mask.numpy() == 1].max())
            if not difference < 1e-3:
                raise SystemExit(f"export check failed: {name} logits differ by {difference} at {batch} x {length}")
    fresh.replace(target)

    config = model.config.to_dict()
    config = {"architectures": ["BertForQuestionAnswering"], **{k: v for k, v in config.items() if not k.startswith("_")}}
    config["tuckerd"] = {"ranks": list(DEFAULT_RANKS)}  # what the server compresses to, unless it is told otherwise
    (args.out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name in TOKENIZER_FILES:
        shutil.copy(args.checkpoint / name, args.out / name)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
