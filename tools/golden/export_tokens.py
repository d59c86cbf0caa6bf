"""Train three small tokenizers as Gemma's was, ask transformers for the ids of many strings, store in golden/tokens.

With the packages of tools/requirements.txt: ``python tools/golden/export_tokens.py``.
"""

import gzip
import hashlib
import io
import json
import platform
import random
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from PIL import Image
from transformers import GemmaTokenizer, PaliGemmaProcessor, SiglipImageProcessorPil

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "tokens"
SEED = 20240514
TOKENS_PER_IMAGE = 4
LOCATIONS = [f"<loc{n:04d}>" for n in range(1024)]
SEGMENTS = [f"<seg{n:03d}>" for n in range(128)]

# gemma: everything that Gemma's has.  bare: no places, no newlines and few spaces of its own, so that the processor
# has to add its tokens.  image: <image> is a piece of the model, and merges reach far (few alphabets, long pieces).
TOKENIZERS = {
    "gemma": {
        "symbols": ["<mask>", "[@BOS@]", "<unused0>", "<start_of_turn>", *("\n" * n for n in range(1, 32))]
        + ["\u2581" * n for n in range(2, 32)]
        + ["<table>", "</b>", "\t", "\t\t", *LOCATIONS, *SEGMENTS],
        "learned": 700,
        "scripts": ("latin", "cyrillic", "greek", "han", "kana", "arabic", "devanagari"),
    },
    "bare": {"symbols": ["<mask>", "\u2581\u2581", "\u2581\u2581\u2581"], "learned": 300, "scripts": ("latin", "han")},
    "image": {
        "symbols": [*("\u2581" * n for n in range(2, 9)), "\n", "\n\n", "<image>", *LOCATIONS, *SEGMENTS],
        "learned": 900,
        "scripts": ("latin", "cyrillic"),
    },
}
SYLLABLES = {
    "latin": "ba ke ti lo mu ran sel vor qui the ing cat dog é ü ñ Sch A B".split(),
    "cyrillic": "при вет ко шка дом мы на ст ра".split(),
    "greek": "γά τα και λό γος".split(),
    "han": "猫 狗 生 活 的 真 谛 是 图 片 坐 在".split(),
    "kana": "ね こ は カ メ ラ の です".split(),
    "arabic": "قط ال بي ت جم يل".split(),
    "devanagari": "बि ल् ली न म स् ते".split(),
}
SENTENCES = (
    "caption en", "detect cat ; dog", "segment the left cup", "ocr", "answer en Where is the cow standing?",
    "Une photo d'un chat assis sur le canapé.", "Ein Hund läuft über die Straße — schnell!", "¿Dónde está el gato?",
    "Кошка сидит на окне.", "Η γάτα κάθεται στο παράθυρο.", "猫坐在窗台上。", "猫は窓辺に座っている。", "고양이가 창가에 앉아 있다",
    "القطة تجلس على النافذة", "חתול יושב על אדן החלון", "बिल्ली खिड़की पर बैठी है", "แมวนั่งอยู่บนหน้าต่าง",
    "Con mèo ngồi bên cửa sổ",
    "1234567890", "3.14159", "x = 1 + 22 - 333", "$5.00 at 12:30", "http://example.org/a?b=c&d=%20",
    "def f(x):\n    return x",
)
ATOMS = (
    *" abcxyzKQ019.,;:!?-_/\\<>[](){}'\"#@&%$",
    "  ", "   ", " " * 7, " " * 31, " " * 32, " " * 33, " " * 64, "\n", "\n\n", "\n" * 31, "\n" * 33, "\t", "\t\t",
    "\r\n",
    "\u2581", "\u2581\u2581", "\u2581" * 5, "\u2581" * 33, "\u2581 \u2581", " \u2581\u2581 ", "\u00a0", "\u3000",
    "\u2028",
    "\0", "\x01", "\x7f", "\ufeff", "\u200b", "\u200d", "\u202e", "\ufffd", "\u0301", "e\u0301", "ﬁ", "Å", "ⅷ", "½",
    "²",
    "😀", "👩‍👩‍👧", "🇨🇭", "👍🏽", "☃", "𝔘", "𠮷", "猫", "ね", "кош", "γά", "قط", "बि", "한", "é", "ß", "İ", "ǆ",
    "<loc0000>", "<loc0512>", "<loc1023>", "<loc1024>", "<loc12>", "<seg000>", "<seg127>", "<seg128>", "<image>",
    "<bos>",
    "<eos>", "<pad>", "<unk>", "<mask>", "<unused0>", "<start_of_turn>", "<table>", "</b>", "[@BOS@]", "<0x41>",
    "<loc", "0512>",
    "cat", " cat", "the", " the ", "ing", "bake", "ti lo", "ranrunran", "aaaa", "ababab", "12", "2024",
)
PROMPTS = (
    "", "caption en", " caption en ", "detect cat ; dog", "two\nlines", "ends\n", "ends\n\n", "\n", "  ", "猫 😀",
    "a\u2581b",
    "segment cat", "ocr\t", "x" * 40, " " * 40,
)
SUFFIXES = (None, "", "a cat", "<loc0100><loc0200><loc0300><loc0400> cat", "\n", " leading", "猫", "two\nlines ")


def train(settings, rng):
    """A SentencePiece model, serialized."""
    syllables = [s for script in settings["scripts"] for s in SYLLABLES[script]]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(1500)]
    words += [str(rng.randrange(10000)) for _ in range(50)] + [w for s in SENTENCES for w in s.split()]
    lines = [" ".join(rng.choice(words) for _ in range(12)) for _ in range(2000)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=4 + len(settings["symbols"]) + 256 + settings["learned"],
        byte_fallback=True,
        character_coverage=0.995,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=settings["symbols"],
        pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def make_strings(rng):
    """Sentences, atoms alone, runs, and random mixtures, each once."""
    strings = [*SENTENCES, *ATOMS, "", "".join(map(chr, range(128)))]
    strings += [character * n for character in " \n\t\u2581a" for n in range(1, 70, 3)]
    strings += [" " * n + "cat" + " " * (80 - n) for n in range(0, 80, 5)]
    strings += [chr(rng.choice((rng.randrange(0x80, 0xD800), rng.randrange(0xE000, 0x30000)))) * 2 for _ in range(200)]
    while len(strings) < 1700:
        strings.append("".join(rng.choice(ATOMS) for _ in range(rng.randint(2, 9))))
    syllables = [s for each in SYLLABLES.values() for s in each] + [" "] * 20
    while len(strings) < 2400:
        strings.append("".join(rng.choice(syllables) for _ in range(rng.randint(3, 25))))
    return sorted(set(strings))


def reference(serialized, folder):
    """transformers' tokenizer, loaded from tokenizer.model and again from the tokenizer.json that it saves."""
    (folder / "tokenizer.model").write_bytes(serialized)
    pictures = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    pictures.image_seq_length = TOKENS_PER_IMAGE
    processor = PaliGemmaProcessor(pictures, GemmaTokenizer.from_pretrained(folder))
    processor.save_pretrained(folder / "saved")
    again = GemmaTokenizer.from_pretrained(folder / "saved")
    return processor, again, (folder / "saved" / "tokenizer.json").read_bytes()


def prompt_cases(processor):
    """Ids and token types of prompts: none, one or several pictures, with and without an answer."""
    picture = Image.new("RGB", (5, 4), "red")
    cases = []
    for prompt in PROMPTS:
        for suffix in SUFFIXES:
            for images in (1, 2, 3):
                made = processor(
                    images=[[picture] * images], text=[prompt], suffix=None if suffix is None else [suffix]
                )
                cases.append([prompt, suffix, images, made["input_ids"][0], made["token_type_ids"][0]])
    # Placing the pictures oneself: <bos> follows the last.
    for prompt, images in (("<image>caption", 1), ("a <image> b<image>\nc", 2), ("<image><image> x <image>", 3)):
        made = processor(images=[[picture] * images], text=[prompt])
        cases.append([prompt, None, images, made["input_ids"][0], made["token_type_ids"][0]])
    return cases


def decode_cases(tokenizer, rng):
    """Random ids, byte pieces among them often, and what transformers makes of them."""
    byte_ids = [tokenizer.convert_tokens_to_ids(f"<0x{n:02X}>") for n in range(256)]
    cases = []
    for _ in range(150):
        ids = [rng.choice(byte_ids) if rng.random() < 0.5 else rng.randrange(len(tokenizer)) for _ in range(8)]
        cases.append([ids, tokenizer.decode(ids, skip_special_tokens=True), tokenizer.decode(ids)])
    return cases


def main():
    rng = random.Random(SEED)
    FOLDER.mkdir(parents=True, exist_ok=True)
    strings = make_strings(rng)
    cases = {"strings": strings, "ids": {}, "prompts": {}, "decoded": {}}
    for name, settings in TOKENIZERS.items():
        serialized = train(settings, rng)
        with tempfile.TemporaryDirectory() as folder:
            processor, again, saved = reference(serialized, Path(folder))
        ids = [processor.tokenizer.encode(text, add_special_tokens=False) for text in strings]
        assert ids == [again.encode(text, add_special_tokens=False) for text in strings], name
        cases["ids"][name] = ids
        cases["prompts"][name] = prompt_cases(processor)
        cases["decoded"][name] = decode_cases(processor.tokenizer, rng)
        (FOLDER / f"{name}.model").write_bytes(serialized)
        (FOLDER / f"{name}.tokenizer.json.gz").write_bytes(gzip.compress(saved, mtime=0))
    text = json.dumps(cases, separators=(",", ":"))
    (FOLDER / "cases.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    write_manifest(len(strings))


def write_manifest(count):
    """Say where all this comes from."""
    files = sorted(path for path in FOLDER.iterdir() if path.name != "MANIFEST.json")
    modules = (transformers, tokenizers, sentencepiece)
    manifest = {
        "format": "npgemma.golden.tokens",
        "version": [1, 0],
        "command": "python tools/golden/export_tokens.py",
        "reference": "transformers GemmaTokenizer in PaliGemmaProcessor, from tokenizer.model and tokenizer.json",
        "made_by": {"python": platform.python_version(), **{m.__name__: m.__version__ for m in modules}},
        "seed": SEED,
        "strings": count,
        "tokens_per_image": TOKENS_PER_IMAGE,
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    (FOLDER / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    print(f"{count} strings x {len(TOKENIZERS)} tokenizers; {sum(p.stat().st_size for p in FOLDER.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
