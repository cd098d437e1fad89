"""Train the default model from nothing, with attention weights that compress well.

The loss is that of extractive question answering, plus auxiliary ones that the
generator makes possible: middle layers also learn which relation each token states or
asks for, which mentions are of the entity asked for, and which facts. Their heads are dropped at the end.

From `--pull-from` on, every few steps each layer's attention is pulled towards its Tucker
truncation (tucker.pull), with an error budget that shrinks linearly to its final value.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForQuestionAnswering

import tucker
from features import IGNORE, RELATIONS, Encoder, Feature, collate
from passages.generate import Generator

POSITIONS = 384
POSITION_PAIRS = 8  # sine and cosine pairs that the position table begins with
RANKS = (62, 16, 4)  # the default ranks: compression ratio 4.07 in every layer
# Ranks and the final relative error that training aims for at each: the steps below the
# default make the spectrum decay, so that lower ranks lose accuracy gradually.
BUDGETS = ((RANKS, 0.12), ((44, 13, 4), 0.24), ((28, 10, 4), 0.42))


class Trainee(nn.Module):
    """The model with its auxiliary heads."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.qa = BertForQuestionAnswering(config)
        self.relation = nn.Linear(config.hidden_size, len(RELATIONS))
        self.named = nn.Linear(config.hidden_size, 2)
        self.asked = nn.Linear(config.hidden_size, 2)
        self._initialise()

    def _initialise(self) -> None:
        """Start from the circuits that reading needs, and not from BERT's N(0, 0.02).

        Both kinds emerge from noise too, but only after tens of thousands of steps. In the
        first two layers half of the heads attend to a token's neighbours and half to its
        equals, so that facts meet their verbs and a question's name finds its mentions.
        All of it is trained on from there.
        """
        for parameter in self.qa.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.04)
        embeddings, pairs = self.qa.bert.embeddings, POSITION_PAIRS
        words, table = embeddings.word_embeddings.weight.data, embeddings.position_embeddings.weight.data
        nn.init.normal_(words, std=0.06)
        nn.init.normal_(embeddings.token_type_embeddings.weight, std=0.02)
        # Positions begin as sinusoids in coordinates of their own.
        rates = torch.logspace(math.log10(2.8), math.log10(0.06), pairs)
        angles = torch.arange(table.shape[0])[:, None] * rates
        words[:, :2 * pairs] = 0
        nn.init.normal_(table, std=0.005)
        table[:, :pairs], table[:, pairs:2 * pairs] = 0.18 * angles.sin(), 0.18 * angles.cos()
        size = self.qa.config.hidden_size // self.qa.config.num_attention_heads
        for layer, neighbours in zip(self.qa.bert.encoder.layer, ((-1, 1, -2), (-3, 2, -5))):
            own = layer.attention.self
            for head in range(self.qa.config.num_attention_heads):
                query = own.query.weight.data[head * size:(head + 1) * size]
                key = own.key.weight.data[head * size:(head + 1) * size]
                if head < len(neighbours):
                    nn.init.normal_(query, std=0.01)
                    nn.init.normal_(key, std=0.01)
                    # A sinusoid at p + offset is the one at p, rotated by rate * offset.
                    turn, index = rates * neighbours[head], torch.arange(pairs)
                    query[index, index] = query[index + pairs, index + pairs] = turn.cos()
                    query[index, index + pairs], query[index + pairs, index] = turn.sin(), -turn.sin()
                    key[index, index] = key[index + pairs, index + pairs] = 1.0
                else:
                    nn.init.normal_(query, std=0.08)
                    query[:, :2 * pairs] = 0
                    key.copy_(query)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The four losses: answer span, relations, mentions and facts of the asked entity."""
        output = self.qa.bert(
            batch["input_ids"], attention_mask=batch["attention_mask"], token_type_ids=batch["token_type_ids"],
            position_ids=batch["position_ids"], output_hidden_states=True)
        logits = self.qa.qa_outputs(output.last_hidden_state)
        logits = logits.masked_fill(batch["attention_mask"][:, :, None] == 0, -1e4)
        span = (F.cross_entropy(logits[:, :, 0], batch["start"]) + F.cross_entropy(logits[:, :, 1], batch["end"])) / 2
        depth = len(output.hidden_states) - 1
        heads = {"relations": (self.relation, depth // 2), "named": (self.named, depth // 2),
                 "asked": (self.asked, depth - 1)}
        losses = [span]
        for name, (head, at) in heads.items():
            labels = batch[name].flatten()
            total = F.cross_entropy(head(output.hidden_states[at]).flatten(0, 1), labels, ignore_index=IGNORE,
                                    reduction="sum")
            losses.append(total / (labels != IGNORE).sum().clamp(min=1))
        return torch.stack(losses)


def batches(features: list[Feature], budget: int, rng: random.Random) -> list[list[Feature]]:
    """Cut features into batches of similar lengths and about `budget` tokens, in random order."""
    ordered = sorted(features, key=lambda f: len(f.ids))
    out: list[list[Feature]] = [[]]
    for feature in ordered:
        if len(feature.ids) * (len(out[-1]) + 1) > budget and out[-1]:
            out.append([])
        out[-1].append(feature)
    rng.shuffle(out)
    return out


def produce(queue, tokenizer: Path, seed: int, short_share, token_budget: int, skip: int) -> None:
    """Fill a queue with batches for ever (its own process, so that training never waits)."""
    torch.set_num_threads(1)
    encoder = Encoder(tokenizer, POSITIONS)
    rng = random.Random(seed)
    sources = {size: Generator("train", seed + number, size) for number, size in enumerate(("short", "normal", "long"))}
    step = skip
    while True:
        short, normal, long_ = short_share(step)
        examples = []
        for size in rng.choices(("short", "normal", "long"), weights=(short, normal, long_), k=500):
            examples += sources[size].examples(2)
        for batch in batches(encoder.encode(examples), token_budget, rng):
            queue.put(collate(batch, POSITIONS, rng.random() < 0.3, rng))
            step += 1


class Mix:
    """Shares of short, normal and long passages at a step: short ones first."""

    def __init__(self, steps: int):
        self.steps = steps

    def __call__(self, step: int) -> tuple[float, float, float]:
        done = step / self.steps
        return (1.0, 0.0, 0.0) if done < 0.1 else (0.5, 0.5, 0.0) if done < 0.25 else (0.2, 0.74, 0.06)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, a plateau, then a cosine down to a fiftieth of the peak."""
    warm, plateau = 400, 0.4 * steps
    if step < plateau:
        return peak * min(1.0, (step + 1) / warm)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - plateau) / (steps - plateau))))


def exact(model: BertForQuestionAnswering, held: list[dict[str, Tensor]]) -> tuple[float, float]:
    """Share of examples with both ends right, of answerable and of unanswerable ones."""
    right, total = [0, 0], [0, 0]
    model.eval()
    with torch.no_grad():
        for batch in held:
            out = model(batch["input_ids"], attention_mask=batch["attention_mask"],
                        token_type_ids=batch["token_type_ids"])
            ok = (out.start_logits.argmax(-1) == batch["start"]) & (out.end_logits.argmax(-1) == batch["end"])
            for index, none in enumerate((batch["start"] > 0, batch["start"] == 0)):
                right[index] += int((ok & none).sum())
                total[index] += int(none.sum())
    model.train()
    return right[0] / max(1, total[0]), right[1] / max(1, total[1])


def compressed_copy(model: BertForQuestionAnswering, ranks: tuple[int, int, int]) -> BertForQuestionAnswering:
    """A copy whose attention is truncated to `ranks` in every layer."""
    copy = BertForQuestionAnswering(model.config)
    copy.load_state_dict(model.state_dict())
    for layer in copy.bert.encoder.layer:
        heads = model.config.num_attention_heads
        tucker.set_layer_weights(layer, tucker.truncate(tucker.layer_weights(layer, heads), ranks))
    return copy


def save(folder: Path, model: BertForQuestionAnswering, tokenizer: Path, state: dict) -> None:
    """Write a checkpoint beside the old one, then swap them."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(tokenizer / name, fresh / name)
    (fresh / "training.json").write_text(json.dumps(state["log"], indent=1))
    torch.save(state, fresh / "state.pt")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder that train_tokenizer.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per batch, padding included")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--ffn", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--pull-from", type=float, default=0.25, help="share of the steps before pulling begins")
    parser.add_argument("--pull-until", type=float, default=0.75, help="share at which the final budget is reached")
    parser.add_argument("--pull-every", type=int, default=10)
    parser.add_argument("--report-every", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2501)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    encoder = Encoder(args.tokenizer, POSITIONS)
    config = BertConfig(
        vocab_size=encoder.tokenizer.get_vocab_size(), hidden_size=192, num_hidden_layers=args.layers,
        num_attention_heads=6, intermediate_size=args.ffn, max_position_embeddings=POSITIONS,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="sdpa")
    trainee = Trainee(config)
    decayed = [p for p in trainee.parameters() if p.dim() == 2]
    plain = [p for p in trainee.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.98), fused=True)
    begin, log = 0, []
    if args.resume:
        state = torch.load(args.out / "state.pt", weights_only=False)
        trainee.load_state_dict(state["trainee"])
        optimizer.load_state_dict(state["optimizer"])
        begin, log = state["step"], state["log"]

    watch = Generator("test", args.seed + 1)  # watched only; the published figures use another seed
    held = [collate(b, POSITIONS, False, random.Random(0))
            for b in batches(encoder.encode([watch.example() for _ in range(400)]), 6144, random.Random(0))]
    queue = multiprocessing.get_context("spawn").Queue(maxsize=64)
    producer = multiprocessing.get_context("spawn").Process(
        target=produce, daemon=True,
        args=(queue, args.tokenizer, args.seed + begin, Mix(args.steps), args.tokens, begin))
    producer.start()

    sums, clock, layers = torch.zeros(4), time.time(), trainee.qa.bert.encoder.layer
    trainee.train()
    for step in range(begin, args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        losses = trainee(queue.get())
        # The auxiliary losses fade: they matter while the circuits form.
        weight = max(0.1, 1 - step / (0.6 * args.steps))
        (losses[0] + weight * losses[1:].mean() * 1.5).backward()
        nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        sums += losses.detach()
        done = step / args.steps
        if done >= args.pull_from and step % args.pull_every == 0:
            progress = min(1.0, (done - args.pull_from) / (args.pull_until - args.pull_from))
            for ranks, final in BUDGETS:
                for layer in layers:
                    tucker.pull(layer, config.num_attention_heads, ranks, 0.9 * (1 - progress) + final * progress)
        if (step + 1) % args.report_every == 0 or step + 1 == args.steps:
            dense = exact(trainee.qa, held)
            low = exact(compressed_copy(trainee.qa, RANKS), held)
            weights = [tucker.layer_weights(layer, config.num_attention_heads) for layer in layers]
            errors = [tucker.relative_error(w, tucker.truncate(w, RANKS)) for w in weights]
            log.append({"step": step + 1, "seconds": round(time.time() - clock, 1),
                        "losses": [round(x, 4) for x in (sums / args.report_every).tolist()],
                        "dense": dense, "compressed": low, "errors": [round(e, 3) for e in errors]})
            print(json.dumps(log[-1]), flush=True)
            sums, clock = torch.zeros(4), time.time()
            save(args.out, trainee.qa, args.tokenizer,
                 {"trainee": trainee.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1, "log": log})
    producer.terminate()


if __name__ == "__main__":
    main()
