"""Texts -> tokenizer.json and one stream of token ids per source: python prepare_data.py CORPORA OUT

CORPORA holds clic/ (unpacked), tinystories/ and african-pratham-storybooks/; README.md lists sources and licences.
OUT gets tokenizer.json, {stories,children,novels,heldout}.bin (uint16) and data.json (what went where, in tokens).
"""
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 4096
END = "<|endoftext|>"
# Whole books that no training step sees: two for children, one for grown-ups. Of the stories, every 50th is held out.
HELD_OUT_BOOKS = ("willows", "prigio", "Jekyll")


def straight(text: str) -> str:
    """One spelling of quotes, dashes and spaces, so that 4,096 tokens go further."""
    for before, after in {"‘": "'", "’": "'", "“": '"', "”": '"', "—": "--", "–": "-", "…": "...", "\u00a0": " ", "_": ""}.items():
        text = text.replace(before, after)
    return re.sub(r"[^\x20-\x7e\u00c0-\u00ff\n]", "", text)


def paragraphs(text: str) -> str:
    """Hard-wrapped lines joined; one newline between paragraphs."""
    return "\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", straight(text)) if part.strip())


def restore_case(text: str, names: set[str]) -> str:
    """Half of the stories come lower-cased: capitals back at the start of sentences and of speech, and for names."""
    text = re.sub(r"(?<![a-z'])[a-z]+", lambda m: m[0].capitalize() if m[0] in names or m[0] == "i" else m[0], text)
    return re.sub(r"(^|[.!?][\"']?\s+|(?:^|\s)\")([a-z])", lambda m: m[1] + m[2].upper(), text, flags=re.M)


def names_in(text: str) -> set[str]:
    """Words that stand capitalised in the middle of a sentence more often than not."""
    inside = Counter(re.findall(r"(?<=[a-z,] )[A-Za-z]+", text))
    return {w.lower() for w in inside if w[0].isupper() and w != "I" and inside[w] > inside[w.lower()]}


def read_stories(corpora: Path) -> list[str]:
    cased_text = straight((corpora / "tinystories/tinystories-2MB.txt").read_text(errors="ignore"))
    cased = [story.strip() for story in cased_text.split(END)][:-1]  # the last one is cut off
    lower_text = straight((corpora / "tinystories/tinystories-4MB.txt").read_text(errors="ignore"))
    # The lower-cased file begins with the same stories: take what follows the last of them.
    overlap = lower_text.rfind(cased[-1].split("\n")[0].lower()[:100])
    assert overlap > 0, "the two files no longer overlap"
    names = names_in(cased_text)
    # There, one newline ends a story and two end a paragraph.
    lower = re.sub(r"\n\n+", "\0", lower_text[overlap:]).split("\n")[1:-1]
    lower = [restore_case(story.replace("\0", "\n"), names).strip() for story in lower]
    simple = []
    for file in sorted((corpora / "african-pratham-storybooks").glob("*/*.md")):
        lines = file.read_text(errors="ignore").split("\n##\n* License")[0].split("\n")
        body = "\n".join("" if line.startswith(("##", "!")) else line.lstrip("# ") for line in lines[1:])
        simple.append(paragraphs(body))
    return [story for story in cased + lower + simple if len(story) > 100]


def main(corpora: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    texts: dict[str, list[str]] = {"stories": [], "children": [], "novels": [], "heldout": []}
    for i, story in enumerate(read_stories(corpora)):
        texts["heldout" if i % 50 == 49 else "stories"].append(story)
    for file in sorted((corpora / "clic").glob("*/*.txt")):
        held_out = file.stem in HELD_OUT_BOOKS
        kind = "children" if file.parent.name == "ChiLit" else "novels"
        texts["heldout" if held_out else kind].append(paragraphs(file.read_text(errors="ignore")))

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts["stories"] * 2 + texts["children"], trainer)
    tokenizer.save(str(out / "tokenizer.json"))

    summary = {}
    for name, documents in texts.items():
        ids = [[0] + e.ids for e in tokenizer.encode_batch(documents)]
        np.concatenate([np.array(i, dtype=np.uint16) for i in ids]).tofile(out / f"{name}.bin")
        summary[name] = {"documents": len(ids), "tokens": sum(map(len, ids)), "characters": sum(map(len, documents))}
    (out / "data.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
