"""The recordings from which the compact Gujarati voice learns: prompts of OpenSLR 78, words and letters, by espeak-ng.

    python recipes/compact_voice/corpus.py PROMPTS OUT

PROMPTS: the folder with line_index_female.tsv and line_index_male.tsv of https://openslr.org/78 (CC BY-SA 4.0).
OUT/recordings gets train/ and valid/ with metadata.csv; OUT/held_out has 100 sentences that are in neither.
"""
import argparse
import random
import sys
import unicodedata
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from vaani_lib.audio import write_audio
from vaani_lib.base import compact_tokenizer
from vaani_lib.espeak import say
from vaani_lib.text import normalize, unknown_characters

# Two low, two high: medians of 197, 105, 181 and 86 Hz
VOICES = {"asha": "gu+f2", "dev": "gu+m3", "mira": "gu+f4", "kavi": "gu+m8"}
HELD_OUT, VALID, WORDS, PUNCTUATED = 100, 40, 1600, 400
LONGEST = 110  # characters: about 8 seconds
SEED = 78


def sentences(prompts: Path) -> list[str]:
    """Every prompt once, as it is read aloud; none with a character that the voice does not know, none that is long."""
    tokenizer, found = compact_tokenizer(), {}
    for file in ("line_index_female.tsv", "line_index_male.tsv"):
        for line in (prompts / file).read_text(encoding="utf-8").splitlines():
            text = normalize(line.partition("\t")[2].strip())
            if text[-1:] not in ".?!।":
                text += "."
            if 12 <= len(text) <= LONGEST and not unknown_characters(text, tokenizer):
                found[text] = True
    return list(found)


def frequent_words(texts: list[str], count: int) -> list[str]:
    """The most frequent words of two letters and more."""
    words = Counter(word.strip(".,?!।;:'\"-()") for text in texts for word in text.split())
    return [word for word, _ in words.most_common() if len(word) >= 2][:count]


def letters() -> list[str]:
    """Every consonant with every sign, every vowel, and each consonant before each: rows of a primer."""
    consonants, vowels = ([c for c in map(chr, range(*ends)) if unicodedata.category(c) == "Lo"] for ends in ((0x0A95, 0x0ABA), (0x0A85, 0x0A95)))
    signs = ["", *"ાિીુૂૃેૈોૌંૅૉઃઁૄ"]
    rows = [[c + sign for sign in signs] for c in consonants] + [[*vowels, "ૠ", "ૡ", "કૢ", "કૣ", "સોઽહમ્", "ૐ"]]
    rows += [[c + "્" + second for second in consonants] for c in consonants]
    return [", ".join(row[i: i + 6]) + "." for row in rows for i in range(0, len(row), 6)]


def punctuated(texts: list[str]) -> list[str]:
    """Sentences with the marks that prompts lack: dashes, quotes, brackets, points, and no full stop, as people type."""
    marks = ("{} – {}", "{} — {}", "{}; {}", "{}: {}", "{}… {}", '"{}" {}', "({}) {}", "'{}' {}")
    found = []
    for number, text in enumerate(texts):
        words = text.rstrip(".?!।").split()
        half = len(words) // 2
        text = marks[number % len(marks)].format(" ".join(words[:half]), " ".join(words[half:]))
        found.append(text + ("", ".", "।", "॥", "!")[number % 5])
    return found


def spoken(job: tuple[Path, str, str]) -> None:
    file, text, voice = job
    write_audio(file, *say(text, voice=voice))


def write(folder: Path, rows: list[tuple[str, str]]) -> None:
    """audio/ and metadata.csv for (text, speaker)."""
    names = [f"audio/{speaker}_{number:05d}.wav" for number, (_, speaker) in enumerate(rows)]
    jobs = [(folder / name, text, VOICES[speaker]) for name, (text, speaker) in zip(names, rows)]
    with ProcessPoolExecutor() as pool:
        for _ in tqdm(pool.map(spoken, jobs, chunksize=50), total=len(jobs), desc=folder.name, disable=None):
            pass
    lines = [f"{name}|{text}|{speaker}" for name, (text, speaker) in zip(names, rows)]
    (folder / "metadata.csv").write_text("\n".join(["filename|text|speaker_id", *lines]) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    chance = random.Random(SEED)
    texts = sentences(arguments.prompts)
    chance.shuffle(texts)
    held_out, valid, train = texts[:HELD_OUT], texts[HELD_OUT: HELD_OUT + VALID], texts[HELD_OUT + VALID:]
    names = list(VOICES)
    # each sentence by two of the voices; each word by all, by two of them as it is typed, without a full stop; each row of the primer by two
    rows = [(text, names[(number + turn) % len(names)]) for number, text in enumerate(train) for turn in (0, 1)]
    for number, word in enumerate(frequent_words(train, WORDS)):
        rows += [(word + "." * ((number + turn) % 2), name) for turn, name in enumerate(names)]
    rows += [(text, names[(number + turn) % len(names)]) for number, text in enumerate(letters()) for turn in (0, 1)]
    rows += [(text, names[number % len(names)]) for number, text in enumerate(punctuated(train[:PUNCTUATED]))]
    in_turn = lambda texts: [(text, names[number % len(names)]) for number, text in enumerate(texts)]
    write(arguments.out / "held_out", in_turn(held_out))
    write(arguments.out / "recordings" / "valid", in_turn(valid))
    write(arguments.out / "recordings" / "train", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
