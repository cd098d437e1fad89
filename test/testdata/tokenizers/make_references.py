"""Makes the reference tokenizers and their encodings for test/qa/tokenizer_reference_test.ts.

Run with Python, tokenizers 0.22.2 (0.23.2 loses overflow windows) and sentencepiece: python make_references.py
Each <name>/tokenizer.json is trained on the corpus below; <name>/cases.json holds what the Rust tokenizers make of random
Unicode texts (seeded): ids, offsets in code points, word numbers, and the windows of a pair.
"""

import json
import os
import random
import tempfile

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

assert tokenizers.__version__ == "0.22.2", tokenizers.__version__
HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20260117

CORPUS = [
    "The Eiffel Tower is located in Paris, France. It was built in 1889 and is 330 metres tall.",
    "Who wrote the theory of relativity? Albert Einstein wrote it, in 1905; it's well-known, isn't it?",
    "Crème brûlée, naïve façade, Ångström, Straße, İstanbul, Łódź, Kraków, señor, coöperate.",
    "東京は日本の首都です。北京是中国的首都。서울은 대한민국의 수도이다.",
    "Ο Σωκράτης ήταν φιλόσοφος στην Αθήνα. Москва — столица России, основана в 1147 году.",
    "القاهرة هي عاصمة مصر. हिन्दी भारत की भाषा है। ภาษาไทย",
    "Emoji 😀 👨‍👩‍👧 🇫🇷 and ﬁ ligatures, full width ＡＢＣ１２３ and ½ and x² and ™ and “quotes” – dashes…",
    "tabs\tand\nnew lines,   many   spaces, a@b.com https://example.org/a?b=c#d $5.00 £2.50 €1,000",
] * 4

ALPHABET = (
    list("abcdefghijklmnopqrstuvwxyz") * 3
    + list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    + list(" " * 40)
    + list(".,;:!?'\"()[]{}<>-_/\\@#$%^&*+=~`|\t\n\r")
    + list("àéîöûñçøåßœæłđþÀÉÎÖÛÑÇØÅŒİıŁ")
    + list("\u0301\u0308\u0323\u0302\u030a\u0327\u093f\u0947\u200d\ufe0f\u200b\u00ad\ufeff\u00a0\u2003\u3000\u0085\u2028\u0000\ufffd\u0007")
    + list("東京日本中国の首都です、。「」𠀀𪚥北") + list("서울한국가각") + list("ΑΒΓΣσςαήώ") + list("МоскваЙй") + list("القاهرة") + list("हिन्दी") + list("ภาษาไทย")
    + list("😀👨👩👧🇫🇷🏽❤½²™ﬁﬂＡＢ１２…–—“”‘’«»€£¿¡·•°ǅǆẛạ̣ỗ\u1e69\u0344\u212b\u2126")
)
FRAGMENTS = [
    "the tower ", "The Eiffel Tower", " is located in ", "Paris", "it's ", "isn't", " we'll ", "1889", "  ", "   ", "[SEP]", "[CLS]", "<mask>",
    " <mask> ", "</s>", "Σωκράτης", "ΟΔΟΣ", "İstanbul", "``quoted''", "e\u0301", "a\u0323\u0302", "\u1100\u1161\u11a8", "👨‍👩‍👧", "🇫🇷", "ﬁ", "½", "ᾳ", "ŉ", "ǰ",
]


def random_text(rng, pieces):
    return "".join(rng.choice(FRAGMENTS) if rng.random() < 0.35 else rng.choice(ALPHABET) for _ in range(pieces))


def charsmap():
    """A small normalisation table in SentencePiece's compiled form."""
    pairs = [("ﬁ", "fi"), ("ﬂ", "fl"), ("½", "1⁄2"), ("™", "TM"), ("²", "2"), ("…", "..."), ("\u200b", ""), ("\u00ad", ""), ("\ufeff", ""),
             ("e\u0301", "é"), ("a\u0323", "ạ"), ("\u00a0", " "), ("\u3000", " "), ("\u2003", " "), ("\t", " "), ("\n", " "), ("\r", " "), ("\u212b", "Å"), ("\u1100\u1161\u11a8", "각")]
    pairs += [(chr(0xFF01 + index), chr(0x21 + index)) for index in range(94)]
    with tempfile.TemporaryDirectory() as folder:
        rules, text = f"{folder}/rules.tsv", f"{folder}/text.txt"
        with open(rules, "w") as file:
            for source, target in pairs:
                file.write(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n")
        with open(text, "w") as file:
            file.write("\n".join(CORPUS))
        sentencepiece.SentencePieceTrainer.train(
            input=text, model_prefix=f"{folder}/m", vocab_size=400, hard_vocab_limit=False, normalization_rule_tsv=rules, minloglevel=2
        )
        model = sentencepiece_model_pb2.ModelProto()
        with open(f"{folder}/m.model", "rb") as file:
            model.ParseFromString(file.read())
        return model.normalizer_spec.precompiled_charsmap


def wordpiece(lowercase, strip):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=strip, lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=420, special_tokens=specials, show_progress=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer, {"cls_token": "[CLS]", "pad_token": "[PAD]"}


def byte_bpe(add_prefix_space, trim):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=trim, add_prefix_space=add_prefix_space)
    return tokenizer, {"cls_token": "<s>", "pad_token": "<pad>", "add_prefix_space": add_prefix_space}


def qwen_like():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(words), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, {"pad_token": "<|end|>"}


def llama_like():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator([text[:60] for text in CORPUS[:3]], trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)])
    return tokenizer, {}


def unigram(albert):
    tokenizer = Tokenizer(models.Unigram())
    table = charsmap()
    if albert:
        tokenizer.normalizer = normalizers.Sequence([
            normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
            normalizers.Lowercase(), normalizers.Precompiled(table), normalizers.Replace(Regex(" {2,}"), " "),
        ])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        specials = ["<pad>", "<unk>", "[CLS]", "[SEP]"]
        cls, sep = "[CLS]", "[SEP]"
    else:
        tokenizer.normalizer = normalizers.Precompiled(table)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        specials = ["<s>", "<pad>", "</s>", "<unk>"]
        cls, sep = "<s>", "</s>"
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=380, special_tokens=specials, unk_token="<unk>", show_progress=False))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("Eiffel", normalized=True, single_word=True)])
    ids = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    pair = f"{cls} $A {sep} $B:1 {sep}:1" if albert else f"{cls} $A {sep} {sep} $B {sep}"
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{cls} $A {sep}", pair=pair, special_tokens=ids)
    return tokenizer, {"cls_token": cls, "pad_token": "<pad>"}


def pair_windows(tokenizer, first, second, max_length, stride):
    tokenizer.enable_truncation(max_length, stride=stride, strategy="only_second")
    encoding = tokenizer.encode(first, second)
    tokenizer.no_truncation()
    return [
        {
            "ids": window.ids,
            "offsets": window.offsets,
            "words": [-1 if word is None else word for word in window.word_ids],
            "sequences": [-1 if sequence is None else sequence for sequence in window.sequence_ids],
            "typeIds": window.type_ids,
        }
        for window in [encoding, *encoding.overflowing]
    ]


def main():
    makers = {
        "bert-uncased": lambda: wordpiece(True, None),
        "bert-cased": lambda: wordpiece(False, False),
        "roberta": lambda: byte_bpe(False, True),
        "roberta-prefix-space": lambda: byte_bpe(True, True),
        "gpt-untrimmed": lambda: byte_bpe(False, False),
        "qwen-like": qwen_like,
        "llama-like": llama_like,
        "albert": lambda: unigram(True),
        "xlm-roberta": lambda: unigram(False),
    }
    for name, make in makers.items():
        tokenizer, config = make()
        rng = random.Random(f"{SEED} {name}")
        folder = f"{HERE}/{name}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/tokenizer.json", "w") as file:
            file.write(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
        with open(f"{folder}/tokenizer_config.json", "w") as file:
            json.dump(config, file)
        texts = CORPUS[:8] + FRAGMENTS + ["", " ", "\n", " a", "a ", "x" * 120, "\u200b", "\u200bab", "\u0301"] + [random_text(rng, rng.randint(1, 30)) for _ in range(int(os.environ.get("TEXTS", "40")))]
        singles = []
        for text in texts:
            encoding = tokenizer.encode(text, add_special_tokens=False)
            singles.append({"text": text, "ids": encoding.ids, "offsets": encoding.offsets, "words": [-1 if word is None else word for word in encoding.word_ids]})
        pairs = []
        for _ in range(int(os.environ.get("PAIRS", "6"))):
            first, second = random_text(rng, rng.randint(1, 6)), random_text(rng, rng.randint(1, 60))
            length = len(tokenizer.encode(first, "").ids) + rng.randint(2, 40)
            room = length - len(tokenizer.encode(first, "").ids)
            stride = rng.randint(0, room - 1)
            pairs.append({"first": first, "second": second, "maxLength": length, "stride": stride, "windows": pair_windows(tokenizer, first, second, length, stride)})
        with open(f"{folder}/cases.json", "w") as file:
            file.write(json.dumps({"singles": singles, "pairs": pairs}, ensure_ascii=True, separators=(",", ":")) + "\n")


main()
