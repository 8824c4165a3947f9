"""Every fault that the check knows is planted in clean recordings, in several sizes: it must find nearly all of them
and leave the clean ones alone. And each kind of unusable input gets one clear sentence."""

import io
import json
import os
import tracemalloc
from base64 import b64encode
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vaani_lib import corpus
from vaani_lib.audio import encode_audio, load_audio, resample, set_level, speech_bounds, speech_level
from vaani_lib.checker import Checker
from vaani_lib.data_checks import check, prepare_checked
from vaani_lib.demo import DEMO_VOICES, demo_sentences, make_corpus
from vaani_lib.espeak import say
from vaani_lib.file_checks import Limits
from vaani_lib.layouts import Corpus, Utterance
from vaani_lib.measures import Measures, measure_samples
from vaani_lib.prepared import ShardWriter
from vaani_lib.report import CODES
from vaani_lib.set_checks import Recording, coverage_issues, total_issues
from vaani_lib.speech import trim_silence
from vaani_lib.text import COMPACT_CHARACTERS

HUMAN = Path(os.environ.get("VAANI_SHARED_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
HEADER = "filename|text|speaker_id\n"


class Tokenizer:
    """Knows what the compact voice knows."""

    encoder = {c: i for i, c in enumerate(COMPACT_CHARACTERS)}
    normalize = True

    def __call__(self, text):
        ids = [self.encoder[c] for c in text.lower() if c in self.encoder]
        return type("Encoding", (), {"input_ids": [0] * (2 * len(ids) + 1)})

    def get_vocab(self):
        return self.encoder


def wav_bytes(wav: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wav, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def clips() -> list[tuple[np.ndarray, int, str, str]]:
    """Clean recordings: (wav, rate, text, speaker), by espeak-ng and, where her recordings are, by a person."""
    spoken = []
    for number, text in enumerate(demo_sentences()[:42]):
        speaker = list(DEMO_VOICES)[number % 2]
        wav, rate = say(text, voice=DEMO_VOICES[speaker])
        wav = np.asarray(wav, np.float32) / (32768 if np.issubdtype(np.asarray(wav).dtype, np.integer) else 1)
        spoken.append((0.5 * wav / np.abs(wav).max(), rate, text, speaker))
    folder = HUMAN / "en_ljspeech32"
    for line in (folder / "metadata.csv").read_text().splitlines()[1:19] if folder.is_dir() else ():
        name, text, speaker = line.split("|")
        wav, rate = load_audio(folder / name)
        spoken.append((0.6 * wav, rate, text + ("" if text[-1] in ".?!" else "."), speaker))
    for name in ("en_openslr83_5", "gu_openslr78"):  # phones at 48 kHz, with long silences: made clean first
        for line in (HUMAN / name / "metadata.csv").read_text().splitlines()[1:] if (HUMAN / name).is_dir() else ():
            file, text, _ = line.split("|")
            if any(c.isdigit() for c in text):
                continue
            wav, rate = load_audio(HUMAN / name / file, 22050)
            spoken.append((set_level(trim_silence(wav, rate), rate, -19), rate, text.rstrip(".") + ".", name))
    return spoken


def write(folder: Path, rows: list[tuple[bytes | None, str, str]], suffix: str = "wav") -> Path:
    """A corpus of (file, text, speaker); None is a file that is not there."""
    (folder / "audio").mkdir(parents=True)
    for number, (data, _, _) in enumerate(rows):
        if data is not None:
            (folder / "audio" / f"{number:03d}.{suffix}").write_bytes(data)
    lines = [f"audio/{number:03d}.{suffix}|{text}|{speaker}\n" for number, (_, text, speaker) in enumerate(rows)]
    (folder / "metadata.csv").write_text(HEADER + "".join(lines), encoding="utf-8")
    return folder


def found(folder: Path, tokenizer=None) -> dict[str, set[int]]:
    """Which rows each code was found in."""
    codes = defaultdict(set)
    for issue in check(folder, tokenizer).issues:
        if issue.file:
            codes[issue.code].add(int(Path(issue.file).stem))
    return codes


# ---- faults: each takes (wav, rate, random generator) and gives the bytes of a faulty file ----


def clipped(share):
    def plant(wav, rate, rng):
        limit = np.quantile(np.abs(wav), 1 - share)
        return wav_bytes(np.clip(wav, -limit, limit) * rng.uniform(0.4, 0.99) / limit, rate)
    return plant


def noisy(snr, colour=0.0):
    def plant(wav, rate, rng):
        spectrum = np.fft.rfft(rng.standard_normal(len(wav))) / np.maximum(1, np.arange(len(wav) // 2 + 1)) ** colour
        noise = np.fft.irfft(spectrum, len(wav))
        noise *= 10 ** ((speech_level(wav, rate) - snr) / 20) / noise.std()
        return wav_bytes(0.5 * (wav + noise), rate)
    return plant


def hum(level):
    def plant(wav, rate, rng):
        time, mains = np.arange(len(wav)) / rate, rng.choice([50, 60])
        amplitude = np.sqrt(2) * 10 ** ((speech_level(wav, rate) + level) / 20)
        return wav_bytes(0.7 * (wav + amplitude * np.sin(2 * np.pi * mains * time + rng.uniform(0, 6))), rate)
    return plant


def edges(before, after, room=0.0):
    def plant(wav, rate, rng):
        quiet = lambda seconds: room * rng.standard_normal(int(seconds * rate))
        return wav_bytes(np.concatenate([quiet(before), wav, quiet(after)]), rate)
    return plant


def holes(count):
    def plant(wav, rate, rng):
        wav = wav.copy()
        wav[rng.choice(len(wav), count)] = rng.choice([np.nan, np.inf])
        return wav_bytes(wav, rate, "FLOAT")
    return plant


def cut(seconds):
    def plant(wav, rate, rng):
        start, end = speech_bounds(wav, rate)
        at = start + int(rng.uniform(0.2, 0.5) * (end - start))
        return wav_bytes(wav[at:at + int(seconds * rate)], rate)
    return plant


def cut_file(format, share):
    def plant(wav, rate, rng):
        data = encode_audio(wav, rate, format)
        return data[:int(share * len(data))]
    return plant


def at_rate(new, back=False):
    def plant(wav, rate, rng):
        wav = resample(wav, rate, new)
        return wav_bytes(resample(wav, new, rate) if back else wav, rate if back else new)
    return plant


SOUND_FAULTS = {
    "missing-file": [lambda w, r, g: None],
    "empty-file": [lambda w, r, g: b"", lambda w, r, g: wav_bytes(w[:0], r)],
    "truncated": [cut_file(format, share) for share in (0.1, 0.5, 0.99) for format in ("wav", "flac", "mp3", "ogg")],
    "unreadable": [lambda w, r, g: b"<html>404</html>" * 40, lambda w, r, g: bytes(g.integers(0, 256, 5000, np.uint8))],
    "stereo": [lambda w, r, g, x=x: wav_bytes(np.stack([w, x * w], 1), r) for x in (1, 0)],
    "sample-rate": [at_rate(8000), at_rate(11025), at_rate(44100), at_rate(48000)],
    "clipped": [clipped(share) for share in (0.002, 0.005, 0.02, 0.1)],
    "dc-offset": [lambda w, r, g, d=d: wav_bytes(0.5 * w + d, r) for d in (0.01, 0.02, -0.05, 0.3)],
    "nan": [holes(1), holes(50)],
    "silent": [lambda w, r, g: wav_bytes(0 * w, r), lambda w, r, g: wav_bytes(0 * w + 0.2, r),
               lambda w, r, g: wav_bytes(2e-4 * g.standard_normal(len(w)), r),
               lambda w, r, g: wav_bytes(0.1 * g.standard_normal(len(w)), r),  # loud, but nobody speaks
               lambda w, r, g: wav_bytes(0.2 * np.sin(2 * np.pi * 50 / r * np.arange(len(w))), r)],
    "too-short": [cut(0.04), cut(0.2), cut(0.45)],
    "too-long": [lambda w, r, g, s=s: wav_bytes(np.resize(w, int(s * r)), r) for s in (21, 35)],
    "edge-silence": [edges(1.1, 0), edges(1.3, 0), edges(0, 2), edges(1.2, 4, room=1e-4), edges(1.5, 2, room=4e-3),
                     edges(1.3, 2, room=0.01)],
    "noisy": [noisy(snr) for snr in (20, 15, 10, 5, 0)] + [noisy(snr, 0.5) for snr in (15, 10, 0)],
    "narrow-band": [at_rate(8000, back=True), at_rate(11025, back=True)],
    "level": [lambda w, r, g, x=x: wav_bytes(x * w, r) for x in (0.2, 0.15, 0.08, 0.03)],
    "hum": [hum(level) for level in (-35, -30, -20, -10)],
}
# Each takes (text, another text) and gives a faulty text.
TEXT_FAULTS = {
    "empty-text": [lambda t, o: "", lambda t, o: "  ", lambda t, o: "\u200b\u200d"],
    "unknown-characters": [lambda t, o: t + " ☕", lambda t, o: "देवनागरी", lambda t, o: t[:5] + "漢字" + t[5:]],
    "not-nfc": [lambda t, o: t + " cafe\u0301", lambda t, o: "A\u030a " + t],
    "zero-width": [lambda t, o: t[:3] + "\u200b" + t[3:], lambda t, o: "\ufeff" + t,
                   lambda t, o: t.replace(" ", "\u200c ", 1)],
    "mixed-script": [lambda t, o: t[:-1] + " ગુજરાતmail.", lambda t, o: "аgain " + t, lambda t, o: t[:-1] + " वह."],
    "digits": [lambda t, o: "૨૫ " + t, lambda t, o: t + " 1947", lambda t, o: "50% " + t, lambda t, o: "₹ " + t,
               lambda t, o: "© " + t],
    "tags": [lambda t, o: "<laugh> " + t, lambda t, o: t + " [noise]", lambda t, o: t + " ટી_Letter",
             lambda t, o: "#um " + t],
    "end-punctuation": [lambda t, o, e=end: t.rstrip(".?!। ") + e for end in ("", ",", " –")],
    "rate": [lambda t, o: " ".join(t.split()[:max(1, len(t.split()) // 3)]) + ".", lambda t, o: f"{t} {t}"],
    "alignment": [lambda t, o, n=times: f"{t} {o} " * n for times in (4, 8, 12, 30)],
}


def saved(format="wav", gain=1.0, rate=None, subtype="PCM_16", silence=0.0):
    def copy(wav, old_rate):
        wav = np.concatenate([np.zeros(int(silence * old_rate), np.float32), gain * resample(wav, old_rate, rate or old_rate)])
        return wav_bytes(wav, rate or old_rate, subtype) if format == "wav" else encode_audio(wav, rate or old_rate, format)
    return copy


COPIES = [saved(), saved(gain=0.5), saved(gain=0.1), saved(gain=1.3), saved("mp3"), saved("ogg", 0.7), saved("flac"),
          saved(rate=16000), saved(rate=44100, gain=0.8), saved(subtype="PCM_24"), saved(silence=0.3)]
# Each takes (all clips, the number of one, how many were planted before) and gives a row that is added.
ADDED = {
    "duplicate-audio": lambda clips, n, k: (COPIES[k % len(COPIES)](*clips[n][:2]), *(clips[n] if k % 2 else clips[n - 1])[2:]),
    "repeated-text": lambda clips, n, k: (wav_bytes(*(clips[n] if k % 2 else clips[n + 2])[:2]), *clips[n][2:]),
    "same-text": lambda clips, n, k: (wav_bytes(0.9 * clips[n][0][::-1], clips[n][1]),
                                      [str, str.upper, lambda text: text.strip(".?!")][k % 3](clips[n][2]), clips[n][3]),
}
OVERLAPS = [str, str.upper, lambda text: text.strip(".?!"), lambda text: f" {text.replace(' ', '  ')}\u200b"]


def plant(clips, folder: Path, code: str) -> tuple[set[int], dict[str, set[int]]]:
    """Plants `code` in every third clip, each time in the next size; (rows with the fault, what was found)."""
    rng, rows, faulty, added = np.random.default_rng(0), [], set(), []
    for number, (wav, rate, text, speaker) in enumerate(clips):
        data = wav_bytes(wav, rate)
        if number % 3 == 1 and code in ADDED:
            faulty.add(len(clips) + len(added))
            added.append(ADDED[code](clips, number, len(added)))
        elif number % 3 == 1:
            sizes = SOUND_FAULTS.get(code) or TEXT_FAULTS[code]
            change = sizes[len(faulty) % len(sizes)]
            faulty.add(number)
            if code in SOUND_FAULTS:
                data = change(wav, rate, rng)
            else:
                text = change(text, clips[(number + 6) % len(clips)][2])
        rows.append((data, text, speaker))
    return faulty, found(write(folder, rows + added), Tokenizer())


def plant_unlisted(clips, folder: Path) -> tuple[set[int], dict[str, set[int]]]:
    """Removes every third row."""
    write(folder, [(wav_bytes(wav, rate), text, speaker) for wav, rate, text, speaker in clips])
    lines, faulty = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines(), set(range(1, len(clips), 3))
    kept = [line for number, line in enumerate(lines, start=-1) if number not in faulty]
    (folder / "metadata.csv").write_text("\n".join(kept), encoding="utf-8")
    return faulty, found(folder, Tokenizer())


def plant_overlap(clips, folder: Path) -> tuple[set[int], dict[str, set[int]]]:
    """A valid/ of which a third has sentences of train/; its rows are numbered after those of train/."""
    rows = [(wav_bytes(wav, rate), text, speaker) for wav, rate, text, speaker in clips]
    half, faulty = len(clips) // 2, set()
    for number in range(half + 1, len(clips), 3):
        rows[number] = (rows[number][0], OVERLAPS[len(faulty) % 4](rows[number - half][1]), rows[number][2])
        faulty.add(number)
    write(folder / "train", rows[:half])
    write(folder / "valid", [(None, text, speaker) for _, text, speaker in rows[:half]] + rows[half:])
    table = folder / "valid" / "metadata.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(lines[:1] + lines[1 + half:]), encoding="utf-8")
    return faulty, found(folder, Tokenizer())


def test_planted_faults_are_found_and_clean_recordings_left_alone(clips, tmp_path, capsys):
    lines, wrong = [f"{'fault':20} recall  false alarms   ({len(clips)} clips, a third of them faulty)"], []
    others = {"unlisted": plant_unlisted, "overlap": plant_overlap}
    for code in (*SOUND_FAULTS, *TEXT_FAULTS, *ADDED, *others):
        folder = tmp_path / code
        faulty, codes = others[code](clips, folder) if code in others else plant(clips, folder, code)
        clean = set(range(len(clips))) - faulty
        recall, alarms = len(codes[code] & faulty) / len(faulty), len(codes[code] & clean) / len(clean)
        lines.append(f"{code:20} {recall:5.0%}  {alarms:5.0%}")
        alarmed = {other: sorted(rows & clean) for other, rows in codes.items() if rows & clean}
        if recall < 0.95 or len(set().union(*alarmed.values())) > 0.02 * len(clean):
            wrong.append((code, f"missed {sorted(faulty - codes[code])}", f"false {alarmed}"))
    for code, (recall, alarms, sets) in planted_in_sets().items():
        lines.append(f"{code:20} {recall:5.0%}  {alarms:5.0%}   ({sets} sets, half of them faulty)")
        if recall < 0.95 or alarms > 0.02:
            wrong.append((code, recall, alarms))
    with capsys.disabled():
        print("\n" + "\n".join([*lines, *([] if HUMAN.is_dir() else [f"Without human recordings: {HUMAN} is not there."])]))
    assert not wrong
    assert len(lines) - 1 == len(CODES), "every code is planted"


def made_up(minutes: dict[str, float], texts: list[str], seconds: float) -> list[Recording]:
    """Recordings of `seconds` that nobody made: each speaker has so many minutes, one in ten is kept for valid."""
    recordings = []
    for speaker, amount in minutes.items():
        for number in range(max(2, round(60 * amount / seconds))):
            text, split = texts[len(recordings) % len(texts)], "valid" if number % 10 == 1 else "train"
            utterance = Utterance(Path(f"{speaker}_{number}.wav"), text, speaker, split, number)
            recordings.append(Recording(utterance.audio.name, utterance, Measures(rate=16000, seconds=seconds, level=-20), text))
    return recordings


def planted_in_sets() -> dict[str, tuple[float, float, int]]:
    """Recall and false alarms of what only a whole set can have, in sets of every size."""
    rng, hits = np.random.default_rng(0), defaultdict(lambda: {True: [], False: []})
    for number in range(40):
        faulty, seconds, texts = number % 2 == 0, rng.uniform(2, 8), demo_sentences()
        share = rng.uniform(0.02, 0.17) if faulty else rng.uniform(0.25, 1)
        most = rng.uniform(15, 120)
        uneven = made_up({"asha": most, "dev": share * most}, texts, seconds)
        little = made_up({"asha": rng.uniform(0.3, 9) if faulty else rng.uniform(12, 120)}, texts, seconds)
        letter = rng.choice(list("કગચજટડણતદનપબમયરલવશસહળ"))
        without = [text for text in texts if letter not in text] if faulty else texts
        lacking = made_up({"asha": most}, without, seconds)
        for code, recordings in (("imbalance", uneven), ("too-little", little), ("coverage", lacking)):
            found = {issue.code for issue in [*total_issues(recordings, Limits()), *coverage_issues(recordings)]}
            hits[code][faulty].append(code in found)
    return {code: (np.mean(of[True]), np.mean(of[False]), 40) for code, of in hits.items()}


def test_copies_are_found_however_they_were_saved(clips, tmp_path):
    rows = [(wav_bytes(wav, rate), text, speaker) for wav, rate, text, speaker in clips[::2]]
    copies = {}
    for number, (wav, rate, text, speaker) in enumerate(clips[::2]):
        if number % 3 == 0:
            copies[len(rows)] = number
            data = [wav_bytes(wav, rate), wav_bytes(0.5 * wav, rate), encode_audio(wav, rate, "mp3"),
                    wav_bytes(resample(wav, rate, 16000), 16000)][len(copies) % 4]
            rows.append((data, text if number % 2 else f"{text} બીજું લખાણ.", speaker))
    folder = write(tmp_path / "data", rows)
    for path in (folder / "audio").iterdir():  # an mp3 under a wav's name is read as what it is
        assert load_audio(path)[0].size
    codes = found(folder)
    assert len(codes["duplicate-audio"] & set(copies)) >= 0.95 * len(copies)
    assert not codes["duplicate-audio"] - set(copies)
    assert codes["repeated-text"] == {copy for copy, number in copies.items() if number % 2}
    assert not codes["same-text"], "the same text and the same sound"


def test_texts_that_come_back(clips, tmp_path):
    rows = [(wav_bytes(wav, rate), text, speaker) for wav, rate, text, speaker in clips[:20]]
    wav, rate, _, speaker = clips[21]
    _, _, text, other = clips[0]
    assert speaker != other
    rows += [(wav_bytes(wav, rate), text, speaker), (wav_bytes(clips[23][0], rate), clips[1][2], clips[1][3])]
    folder = write(tmp_path / "train", rows)
    assert found(folder)["same-text"] == {21}, "another speaker may say the same"

    write(tmp_path / "valid", [rows[2], (rows[3][0], "સાવ નવું વાક્ય.", "asha")])
    issues = [issue for issue in check(tmp_path).issues if issue.code == "overlap"]
    assert [issue.file for issue in issues] == ["valid/audio/000.wav"]


def test_what_a_set_lacks(clips, tmp_path):
    asha = [clip for clip in clips if clip[3] == "asha"]
    rows = [(wav_bytes(wav, rate), text, speaker) for wav, rate, text, speaker in asha[:15]]
    rows.append((wav_bytes(clips[1][0], clips[1][1]), clips[1][2], "ravi"))
    report = check(write(tmp_path / "data", rows))
    codes = {issue.code: issue.message for issue in report.issues if not issue.file}
    said = " ".join(issue.message for issue in report.issues if issue.code == "too-little")
    assert "ravi" in codes["imbalance"] and "minutes of speech; 10" in said and "each needs about 5" in said and "ravi has 0." in said
    assert "ઝ" in codes["coverage"]
    assert report.ok and report.figures["speakers"].keys() == {"asha", "ravi"}


def test_memory_for_each_clip_is_small(tmp_path, monkeypatch):
    """What a check and prepare need at their peak for one clip more: a long corpus must fit on a small machine."""
    rng, wav = np.random.default_rng(0), np.full(800, 1000, np.int16)
    note = measure_samples(0.1 * rng.standard_normal((16000, 1)).astype(np.float32), 16000).to_json()
    sounds = lambda number: b64encode(rng.integers(-127, 127, 256).astype(np.int8)).decode()
    monkeypatch.setattr(corpus, "parallel_map", lambda function, items, title: map(function, items))
    changing = lambda name: {"sha": name, "signature": sounds(name), "seconds": 6 + int(name) % 80 / 10}
    monkeypatch.setattr(corpus, "inspect", lambda path, *_: (f"{int(path.stem):064d}", note | {"heard": True} | changing(path.stem), wav))
    monkeypatch.setattr(ShardWriter.__init__, "__defaults__", ("", 20_000))

    def peak(clips: int) -> int:
        root = tmp_path / str(clips)
        root.mkdir()
        rows = [Utterance(root / f"{n:06d}.wav", f"{chr(0xA95 + n % 30)}. " + "આજે સવારે પવન ઠંડો છે. " * 3, "asha", "train", n) for n in range(clips)]
        tracemalloc.start(1)
        corpus.prepare(whole := Corpus(root, tuple(rows), ""), tmp_path / f"{clips} set", inspection=Checker(whole, Limits()))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(10)  # what is made once
    each = (peak(600) - peak(100)) / 500 / 1000
    assert each < 4.5, f"{each:.2f} kB a clip"


# ---- what cannot be used: one clear sentence each, and the good rows are prepared ----


def faulty_rows(clip) -> dict[str, tuple[bytes | None, str, str]]:
    wav, rate, text, speaker = clip
    good = wav_bytes(wav, rate)
    return {
        "good": (good, text, speaker),
        "missing": (None, text, speaker),
        "no text": (good, "", speaker),
        "few columns": (good, "FEW", speaker),
        "truncated": (good[:len(good) // 2], text, speaker),
        "empty": (b"", text, speaker),
        "stereo": (wav_bytes(np.stack([wav, wav], 1), rate), text, speaker),
        "44.1 kHz": (wav_bytes(resample(wav, rate, 44100), 44100), text, speaker),
        "8 kHz": (wav_bytes(resample(wav, rate, 8000), 8000), text, speaker),
        "short": (wav_bytes(wav[rate // 2:rate // 2 + int(0.4 * rate)], rate), "અ", speaker),
        "silent": (wav_bytes(0 * wav, rate), text, speaker),
        "NaN": (wav_bytes(np.where(np.arange(len(wav)) == 5, np.nan, wav), rate, "FLOAT"), text, speaker),
        "unknown": (good, "漢字", speaker),
    }


SENTENCES = {
    "missing": ("missing-file", "the file is not there"),
    "no text": ("empty-text", "has no text"),
    "few columns": ("unreadable", "has 2 of the 3 columns it needs"),
    "truncated": ("truncated", "it ends after"),
    "empty": ("empty-file", "the file has no bytes"),
    "silent": ("silent", "nothing is louder than -120 dB"),
    "NaN": ("nan", "1 samples are NaN or infinite"),
    "unknown": ("unknown-characters", "the voice knows no letter of '漢字'"),
}
REPAIRED = {"stereo": "stereo", "44.1 kHz": "sample-rate", "8 kHz": "sample-rate", "short": "too-short"}


@pytest.fixture
def mixed(clips, tmp_path) -> tuple[Path, dict[str, str]]:
    """A corpus with every kind of bad input, and ten good rows; {kind: file}."""
    kinds = faulty_rows(clips[0])
    rows = list(kinds.values()) + [(wav_bytes(wav, rate), text, speaker) for wav, rate, text, speaker in clips[1:11]]
    folder = write(tmp_path / "data", rows)
    table = folder / "metadata.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("|FEW|asha\n", "|only two\n"), encoding="utf-8")
    return folder, {kind: f"audio/{number:03d}.wav" for number, kind in enumerate(kinds)}


def test_every_bad_input_gets_its_sentence_and_the_rest_is_prepared(mixed, tmp_path):
    folder, files = mixed
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}
    report, prepared = prepare_checked(folder, tmp_path / "set", Tokenizer())
    for kind, (code, words) in SENTENCES.items():
        found = [i for i in report.issues if i.file == files[kind] and i.code == code]
        assert found and found[0].severity == "error" and words in found[0].message, (kind, found)
        assert found[0].remedy and folder / files[kind] in report.excluded()
    for kind, code in REPAIRED.items():
        found = [i for i in report.issues if i.file == files[kind] and i.code == code]
        assert [i.severity for i in found] == ["warning"], (kind, found)
    kept = {row.file for row in prepared.rows("train") + prepared.rows("valid")}
    assert kept == {files["good"], *(files[kind] for kind in REPAIRED)} | {f"audio/{n:03d}.wav" for n in range(13, 23)}
    left_out = (tmp_path / "set" / "left_out.csv").read_text(encoding="utf-8")
    assert all(files[kind] in left_out for kind in SENTENCES)
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}

    assert not report.ok and len(report.text().splitlines()) < 60
    assert max(map(len, report.text().splitlines())) < 250
    again, same = prepare_checked(folder, tmp_path / "set", Tokenizer())
    assert again == report and same.fingerprint == prepared.fingerprint


def test_a_remembered_check_is_made_anew_when_something_changes(mixed, tmp_path):
    folder, files = mixed
    report, prepared = prepare_checked(folder, tmp_path / "set")
    (folder / files["truncated"]).write_bytes((folder / files["good"]).read_bytes())
    again, repaired = prepare_checked(folder, tmp_path / "set")
    assert "truncated" in report.summary["codes"] and "truncated" not in again.summary["codes"]
    assert len(repaired.all_rows) == len(prepared.all_rows) + 1
    strict, _ = prepare_checked(folder, tmp_path / "set", Tokenizer())
    assert "unknown-characters" in strict.summary["codes"] and "unknown-characters" not in again.summary["codes"]


def test_a_corpus_with_nothing_to_train_on_says_why_and_writes_nothing(clips, tmp_path):
    silent = [(wav_bytes(0 * wav, rate), text, speaker) for wav, rate, text, speaker in clips[:3]]
    with pytest.raises(ValueError, match="no recording that can be trained on .*nothing is louder"):
        prepare_checked(write(tmp_path / "silent", silent), tmp_path / "set")
    (tmp_path / "columns").mkdir()
    (tmp_path / "columns" / "metadata.csv").write_text(HEADER + "a.wav|\nb.wav\n")
    with pytest.raises(ValueError, match="no recording that can be trained on .*columns it needs"):
        prepare_checked(tmp_path / "columns", tmp_path / "set")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no metadata.csv \(found: nothing\)"):
        prepare_checked(tmp_path / "none", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_json_has_one_entry_for_each_fault(mixed, tmp_path):
    folder, files = mixed
    (folder / "audio" / "notes.mp3").write_bytes(b"nobody lists this")
    content = json.loads(check(folder).to_json(tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {(i["code"], i["file"]) for i in content["issues"]} >= {
        ("nan", files["NaN"]), ("stereo", files["stereo"]), ("unlisted", "audio/notes.mp3")}
    assert content["summary"]["codes"]["truncated"] == 1 and content["summary"]["error"] >= 7


def test_a_clean_corpus_and_human_recordings_pass(tmp_path):
    make_corpus(tmp_path / "demo")
    report = check(tmp_path / "demo", Tokenizer())
    assert [i for i in report.issues if i.file] == [], "nothing is wrong with any file"
    if not (HUMAN / "en_ljspeech32").is_dir():
        pytest.skip(f"the human recordings are not here ({HUMAN / 'en_ljspeech32'})")
    report, prepared = prepare_checked(HUMAN / "en_ljspeech32", tmp_path / "set", Tokenizer())
    assert report.ok and len(prepared.all_rows) == 32 and [i.code for i in report.issues if i.file] == []
