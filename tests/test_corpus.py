"""Data folders as people have them, and what prepare makes of them."""

import csv
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from vaani_lib.audio import from_int16, speech_level, write_audio
from vaani_lib.corpus import is_prepared, load_prepared, prepare, read_corpus

HUMAN = Path(os.environ.get("VAANI_SHARED_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
TEXTS = ["કેમ છો તમે?", "આજે વરસાદ છે.", "મને ચા ગમે છે.", "તે ઘરે ગયો.", "પુસ્તક ક્યાં છે?", "ચાલો, જઈએ!"]


def tone(number: int, rate: int = 22050, seconds: float = 0.6) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (150 + 20 * number) * time)).astype(np.float32)


def record(folder: Path, names: list[str], rate: int = 22050) -> list[str]:
    """Writes a tone under each of `names`; returns them."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".wav", ".mp3", ".flac", ".ogg"):
            write_audio(path.with_suffix(path.suffix.lower()), tone(number, rate), rate)
            path.with_suffix(path.suffix.lower()).rename(path)
    return names


def read(folder: Path) -> list[tuple[str, str, str]]:
    corpus = read_corpus(folder)
    assert not corpus.problems, corpus.problems
    assert all(u.audio.is_file() for u in corpus.utterances)
    return [(u.audio.name, u.text, u.speaker) for u in corpus.utterances]


NAMES = [f"{number:04d}.wav" for number in range(6)]
WANTED = [(name, text, "asha") for name, text in zip(NAMES, TEXTS, strict=True)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", ["|", "\t", ",", ";"])
@pytest.mark.parametrize("header", [True, False])
def test_separators_headers_line_ends_and_encodings(tmp_path, encoding, end, separator, header):
    record(tmp_path / "audio", NAMES)
    quote = (lambda text: f'"{text}"') if separator in ",;" else (lambda text: text)
    rows = [["filename", "text", "speaker_id"]] * header + [[n, quote(t), s] for n, t, s in WANTED]
    table = end.join(separator.join(row) for row in rows) + end
    (tmp_path / "metadata.csv").write_bytes(table.encode(encoding))
    assert read(tmp_path) == WANTED


@pytest.mark.parametrize("place, written", [
    ("audio", "audio/{}"), ("audio", "{}"), ("wavs", "{}"), ("wavs", "wavs/{}"), (".", "./{}"), ("audio", "audio\\{}"),
    ("wavs/asha", "wavs/asha/{}"), ("audio", "/home/somebody/corpus/{}")])
def test_recordings_are_found_where_people_put_them(tmp_path, place, written):
    record(tmp_path / place, NAMES)
    for names in (NAMES, [Path(name).stem for name in NAMES], [name.upper() for name in NAMES]):
        lines = [f"{written.format(name)}|{text}|asha\n" for name, text in zip(names, TEXTS, strict=True)]
        (tmp_path / "metadata.csv").write_text("filename|text|speaker_id\n" + "".join(lines), encoding="utf-8")
        assert read(tmp_path) == WANTED


def test_names_with_spaces_gujarati_letters_and_accents(tmp_path):
    accent = unicodedata.normalize("NFD", "caf\u00e9.ogg")
    names = ["મારો અવાજ ૧.wav", "two words.flac", accent, "ચાર.mp3", "5.WAV", "છ.Mp3"]
    record(tmp_path / "train" / "audio", names)
    written = [unicodedata.normalize("NFC", name) for name in names]
    lines = [f"audio/{name}|{text}|asha\n" for name, text in zip(written, TEXTS, strict=True)]
    (tmp_path / "train" / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    assert [name for name, _, _ in read(tmp_path)] == names
    assert len(prepare(read_corpus(tmp_path), tmp_path.parent / "set").all_rows) == 6


def test_extra_columns_and_another_order(tmp_path):
    record(tmp_path, NAMES)
    lines = [f"{number}\t{speaker}\t{name}\t{text}\t2\n" for number, (name, text, speaker) in enumerate(WANTED)]
    header = "number\tclient_id\tpath\tsentence\tup_votes\n"
    (tmp_path / "metadata.tsv").write_text(header + "".join(lines), encoding="utf-8")
    assert read(tmp_path) == WANTED


@pytest.mark.parametrize("order", ["name duration text speaker", "name text duration speaker", "name size text", "name take text speaker"])
def test_a_column_that_names_no_speaker_is_passed_over_without_a_header(tmp_path, order):
    record(tmp_path, NAMES)
    columns = [{"name": name, "text": text, "speaker": who, "duration": f"{1.9 + number % 3 / 10:.2f}", "size": f"{91244 + 13 * number}",
                "take": f"take-{number}"} for number, (name, text, who) in enumerate(WANTED)]
    lines = ["|".join(row[column] for column in order.split()) + "\n" for row in columns]
    (tmp_path / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    assert read(tmp_path) == [(name, text, who if "speaker" in order else "speaker") for name, text, who in WANTED]
    assert "not used" in read_corpus(tmp_path).layout


@pytest.mark.parametrize("header", ["wav_filename,wav_filesize,transcript", "File Name,Size,Transcript", "datei,groesse,satz"])
def test_a_header_of_another_program_is_no_row(tmp_path, header):
    record(tmp_path, NAMES)
    lines = [f'{name},{91244 + 13 * number},"{text}"\n' for number, (name, text, _) in enumerate(WANTED)]
    (tmp_path / "metadata.csv").write_text(f"{header}\n{''.join(lines)}", encoding="utf-8")
    assert read(tmp_path) == [(name, text, "speaker") for name, text, _ in WANTED]
    assert header.split(",")[1] in read_corpus(tmp_path).layout


def test_a_header_over_names_without_a_suffix_is_no_row(tmp_path):
    record(tmp_path / "wavs", NAMES)
    lines = [f"{name[:-4]}|{text}\n" for name, text, _ in WANTED]
    (tmp_path / "metadata.csv").write_text("name|sentence\n" + "".join(lines), encoding="utf-8")
    assert [name for name, _, _ in read(tmp_path)] == NAMES and "not known (name, sentence)" in read_corpus(tmp_path).layout


def test_ljspeech_reads_the_normalised_text(tmp_path):
    record(tmp_path / "wavs", NAMES)
    raw = ["Dr. Smith came", "It was 5 then", "Mr. Low", "7 of them", "all in 1899", "the end of it"]
    said = ["Doctor Smith came", "It was five then", "Mister Low", "seven of them", "in nineteen", "the end of it"]
    lines = [f"{name[:-4]}|{a}|{b}\n" for name, a, b in zip(NAMES, raw, said, strict=True)]
    (tmp_path / "metadata.csv").write_text("".join(lines))
    assert [text for _, text, _ in read(tmp_path)] == said and "as in LJSpeech" in read_corpus(tmp_path).layout


def test_openslr_has_the_speaker_in_the_name_and_may_come_in_two_tables(tmp_path):
    names = [f"guf_{speaker:05d}_{take:011d}.wav" for speaker in (1063, 3209) for take in range(3)]
    record(tmp_path, names)
    for half, table in ((slice(0, 3), "line_index_female.tsv"), (slice(3, 6), "line_index_male.tsv")):
        lines = [f"{name[:-4]}\t{text}\n" for name, text in zip(names[half], TEXTS[half], strict=True)]
        (tmp_path / table).write_text("".join(lines), encoding="utf-8")
    assert read(tmp_path) == [(name, text, name[:9]) for name, text in zip(names, TEXTS, strict=True)]
    assert "speakers in the names as in OpenSLR" in read_corpus(tmp_path).layout


@pytest.mark.parametrize("written", ["{}", "{}.wav", "gu_in_female/{}"])
def test_openslr_with_its_recordings_in_the_folders_they_were_unzipped_into(tmp_path, written):
    names = [f"guf_01063_{take:011d}" for take in range(6)]
    record(tmp_path / "data" / "gu_in_female", [f"{name}.wav" for name in names])
    lines = [f"{written.format(name)}\t{text}\n" for name, text in zip(names, TEXTS, strict=True)]
    (tmp_path / "line_index.tsv").write_text("".join(lines), encoding="utf-8")
    assert read(tmp_path) == [(f"{name}.wav", text, "guf_01063") for name, text in zip(names, TEXTS, strict=True)]


def test_a_name_that_two_recordings_have_is_said_with_both(tmp_path):
    record(tmp_path / "monday", NAMES)
    record(tmp_path / "tuesday", NAMES[:1])
    (tmp_path / "metadata.csv").write_text("".join("|".join(row) + "\n" for row in WANTED), encoding="utf-8")
    corpus = read_corpus(tmp_path)
    assert [u.audio.name for u in corpus.utterances] == NAMES[1:]
    assert [(p.code, p.row) for p in corpus.problems] == [("missing-file", 1)]
    assert "monday/0000.wav, tuesday/0000.wav" in corpus.problems[0].message


def test_a_recording_that_is_missing_is_not_taken_from_the_other_split(tmp_path):
    for split in ("train", "valid"):
        record(tmp_path / split / "audio", NAMES)
        (tmp_path / split / "metadata.csv").write_text("".join("|".join(row) + "\n" for row in WANTED), encoding="utf-8")
    (tmp_path / "train" / "audio" / NAMES[2]).unlink()
    assert [u.audio.relative_to(tmp_path) for u in read_corpus(tmp_path).utterances if not u.audio.is_file()] == [Path("train") / NAMES[2]]


@pytest.mark.parametrize("empty, used", [("dev", "train.tsv"), ("train", "validated.tsv"), ("", "train.tsv")])
def test_common_voice_of_a_small_language_has_tables_without_rows(tmp_path, empty, used):
    record(tmp_path / "clips", [name.replace("wav", "mp3") for name in NAMES])
    for table in {"train", "test", "validated", empty} - {""}:
        lines = [f"asha\t{name.replace('wav', 'mp3')}\t{text}\t2\n" for name, text, _ in WANTED] * (table != empty)
        (tmp_path / f"{table}.tsv").write_text("client_id\tpath\tsentence\tup_votes\n" + "".join(lines), encoding="utf-8")
    assert [text for _, text, _ in read(tmp_path)] == TEXTS
    assert read_corpus(tmp_path).layout.startswith(used) and {u.split for u in read_corpus(tmp_path).utterances} == {"train", "valid"}


def test_a_valid_folder_whose_table_has_only_a_header_is_no_valid(tmp_path):
    record(tmp_path / "train", NAMES)
    (tmp_path / "valid").mkdir()
    for split, rows in (("train", WANTED), ("valid", [])):
        lines = ["filename|text|speaker_id\n", *("|".join(row) + "\n" for row in rows)]
        (tmp_path / split / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    assert read(tmp_path) == WANTED and "held back" in read_corpus(tmp_path).layout


def test_common_voice_has_train_and_dev_in_one_folder(tmp_path):
    record(tmp_path / "clips", [name.replace("wav", "mp3") for name in NAMES])
    for table, half in (("train.tsv", slice(0, 4)), ("dev.tsv", slice(4, 6)), ("invalidated.tsv", slice(0, 6))):
        lines = [f"asha\t{name.replace('wav', 'mp3')}\t{text}\t2\n" for name, text, _ in WANTED[half]]
        (tmp_path / table).write_text("client_id\tpath\tsentence\tup_votes\n" + "".join(lines), encoding="utf-8")
    assert [text for _, text, _ in read(tmp_path)] == TEXTS and "as in Common Voice" in read_corpus(tmp_path).layout
    assert [u.split for u in read_corpus(tmp_path).utterances] == ["train"] * 4 + ["valid"] * 2


def test_common_voice_of_which_only_the_validated_rows_are_there(tmp_path):
    record(tmp_path / "clips", [name.replace("wav", "mp3") for name in NAMES])
    for table, half in (("validated.tsv", slice(0, 6)), ("invalidated.tsv", slice(0, 2)), ("other.tsv", slice(2, 4))):
        lines = [f"asha\t{name.replace('wav', 'mp3')}\t{text}\t2\n" for name, text, _ in WANTED[half]]
        (tmp_path / table).write_text("client_id\tpath\tsentence\tup_votes\n" + "".join(lines), encoding="utf-8")
    assert [text for _, text, _ in read(tmp_path)] == TEXTS


def test_audiofolder_with_csv_in_train_and_validation(tmp_path):
    for folder, half in (("train", slice(0, 4)), ("validation", slice(4, 6))):
        record(tmp_path / folder, NAMES[half])
        lines = [f'{name},"{text}",{who}\n' for name, text, who in WANTED[half]]
        (tmp_path / folder / "metadata.csv").write_text("file_name,transcription,speaker\n" + "".join(lines), encoding="utf-8")
    assert read(tmp_path) == WANTED
    assert [u.split for u in read_corpus(tmp_path).utterances] == ["train"] * 4 + ["valid"] * 2


@pytest.mark.parametrize("splits, used", [(("test",), [[0, 1]]), (("validation", "test"), None), (("train", "dev"), [[0, 1], [2, 3]])])
def test_which_splits_of_a_hugging_face_dataset_are_used(tmp_path, monkeypatch, splits, used):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record(tmp_path, NAMES)
    rows = {"audio": [{"bytes": (tmp_path / name).read_bytes(), "path": name} for name in NAMES], "sentence": TEXTS}
    made = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
    saved = {name: made.select([2 * i, 2 * i + 1]) for i, name in enumerate(splits)}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    if used is None:
        with pytest.raises(FileNotFoundError, match="has only validation and test; expected a split of the name train"):
            read_corpus(tmp_path / "saved")
    else:
        assert [u.text for u in read_corpus(tmp_path / "saved").utterances] == [TEXTS[i] for part in used for i in part]
        assert ("its split test" in read_corpus(tmp_path / "saved").layout) == (splits == ("test",))


def test_a_mistyped_folder_inside_a_folder_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "recordings", NAMES[:1])
    with pytest.raises(FileNotFoundError, match="^There is no folder recordings/nothing. Expected one with metadata.csv"):
        read_corpus("recordings/nothing")


@pytest.mark.parametrize("splits", [("train",), ("train", "validation", "test")])
def test_a_folder_saved_by_hugging_face_datasets(tmp_path, monkeypatch, splits):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record(tmp_path / "audio", NAMES)
    sounds = [{"bytes": (tmp_path / "audio" / name).read_bytes(), "path": name} for name in NAMES]
    rows = {"audio": sounds, "sentence": TEXTS, "client_id": ["asha"] * 6}
    made = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
    saved = made if len(splits) == 1 else datasets.DatasetDict({name: made.select([2 * i, 2 * i + 1]) for i, name in enumerate(splits)})
    saved.save_to_disk(tmp_path / "saved")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "saved").rglob("*"))
    found = read_corpus(tmp_path / "saved")
    assert "a Hugging Face dataset" in found.layout and not found.problems
    assert [(u.text, u.speaker) for u in found.utterances] == [(text, "asha") for text in TEXTS[:6 if len(splits) == 1 else 4]]
    assert found.utterances[3].audio.read_bytes() == (tmp_path / "audio" / NAMES[3]).read_bytes()
    assert read_corpus(tmp_path / "saved") == found
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "saved").rglob("*"))


def test_audiofolder_with_json_lines(tmp_path):
    record(tmp_path / "train", NAMES)
    lines = [json.dumps({"file_name": name, "text": text, "speaker": who}) + "\n" for name, text, who in WANTED]
    (tmp_path / "train" / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    assert read(tmp_path) == WANTED and "audiofolder" in read_corpus(tmp_path).layout


def test_indictts(tmp_path):
    record(tmp_path / "wav", NAMES)
    lines = [f'( {name[:-4]} " {text} " )\n' for name, text in zip(NAMES, TEXTS, strict=True)]
    (tmp_path / "txt.done.data").write_text("".join(lines), encoding="utf-8")
    assert [(name, text.strip()) for name, text, _ in read(tmp_path)] == [row[:2] for row in WANTED]
    assert "as in IndicTTS" in read_corpus(tmp_path).layout


def test_festvox_keeps_its_table_in_etc(tmp_path):
    record(tmp_path / "wav", NAMES)
    (tmp_path / "etc").mkdir()
    lines = [f'( {name[:-4]} " {text} " )\n' for name, text in zip(NAMES, TEXTS, strict=True)]
    (tmp_path / "etc" / "txt.done.data").write_text("".join(lines), encoding="utf-8")
    assert [name for name, _, _ in read(tmp_path)] == NAMES


def test_a_split_holds_every_sentence_once_and_each_speaker_gives_its_share(tmp_path):
    record(tmp_path, names := [f"{number:04d}.wav" for number in range(60)])
    says = lambda number: f"વાક્ય {'કખગઘચછજઝટઠ'[number // 2 % 10]}{'અઆઇઈઉ'[number // 20]}" + ("." if number % 2 else "")
    lines = [f"{name}|{says(number)}|{'asha' if number % 3 else 'dev'}\n" for number, name in enumerate(names)]
    (tmp_path / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    first, again, other = (read_corpus(tmp_path, seed=seed).utterances for seed in (0, 0, 1))
    assert first == again != other
    held = [{u.text.rstrip(".") for u in first if u.split == split} for split in ("train", "valid")]
    assert not held[0] & held[1], "a full stop makes no other sentence"
    shares = {who: np.mean([u.split == "valid" for u in first if u.speaker == who]) for who in ("asha", "dev")}
    assert all(0.05 <= share <= 0.2 for share in shares.values()), shares


def test_quotation_marks_are_text_unless_a_program_put_them_there(tmp_path):
    record(tmp_path, NAMES[:3])
    lines = ['0000.wav|"હા," તેણે કહ્યું.|a\n', '0001.wav|"""ના"", તેણે કહ્યું."|a\n', '0002.wav|તેણે "કેમ?" પૂછ્યું|a\n']
    (tmp_path / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    assert [text for _, text, _ in read(tmp_path)] == ['"હા," તેણે કહ્યું.', '"ના", તેણે કહ્યું.', 'તેણે "કેમ?" પૂછ્યું']


@pytest.mark.parametrize("content, words", [
    ("", "holds no rows"), ("filename|text|speaker_id\n", "holds no rows but its header"),
    ("a b c\nd e f\n", "has no separator"), (b"a.wav|caf\xe9|x\n", "is not UTF-8: line 1"),
    (b"PK\x03\x04rest", "Excel workbook")])
def test_a_table_that_cannot_be_read_says_what_to_do(tmp_path, content, words):
    (tmp_path / "metadata.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=words):
        read_corpus(tmp_path)


def test_no_table_says_what_is_there_and_where_one_is(tmp_path):
    record(tmp_path / "data" / "recordings", NAMES[:1])
    (tmp_path / "data" / "recordings" / "metadata.csv").write_text("0000.wav|હા|a\n", encoding="utf-8")
    words = r"has no metadata.csv \(found: recordings/\).*There is one in .*recordings"
    with pytest.raises(FileNotFoundError, match=words):
        read_corpus(tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        read_corpus(tmp_path / "nothing")


# ---- the prepared set ----


def corpus_at(folder: Path, rate: int, subtype: str = "PCM_16", channels: int = 1) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        wav = np.repeat(tone(number, rate)[:, None], channels, axis=1)
        soundfile.write(folder / name, wav, rate, subtype=subtype)
    (folder / "metadata.csv").write_text("".join("|".join(row) + "\n" for row in WANTED), encoding="utf-8")
    return folder


@pytest.mark.parametrize("rate, subtype, channels", [
    (8000, "PCM_16", 1), (16000, "PCM_16", 1), (22050, "PCM_24", 2), (44100, "FLOAT", 1), (48000, "PCM_16", 2)])
def test_every_rate_and_width_becomes_one(tmp_path, rate, subtype, channels):
    corpus = read_corpus(corpus_at(tmp_path / "data", rate, subtype, channels))
    prepared = prepare(corpus, tmp_path / "set")
    assert prepared.sample_rate == 16000 and len(prepared.all_rows) == 6
    assert {row.split for row in prepared.all_rows} == {"train", "valid"}
    for row in prepared.all_rows:
        wav = prepared.waveform(row)
        assert wav.dtype == np.int16 and abs(len(wav) - 0.6 * 16000) < 300
        assert abs(speech_level(from_int16(wav), 16000) + 23) < 0.3
        pitch = np.abs(np.fft.rfft(wav)).argmax() * 16000 / len(wav)
        assert abs(pitch - (150 + 20 * int(row.file[:4]))) < 3, "the right sound for the text"


def test_another_rate_for_another_voice(tmp_path):
    prepared = prepare(read_corpus(corpus_at(tmp_path / "data", 48000)), tmp_path / "set", sample_rate=22050)
    assert prepared.sample_rate == 22050 and abs(prepared.all_rows[0].length - 0.6 * 22050) < 400


def test_killed_while_preparing_leaves_no_half_set_and_goes_on_from_there(tmp_path):
    corpus_at(tmp_path / "data", 22050)
    code = ("import os, signal, sys; from vaani_lib import corpus, prepared\n"
            "prepared.ShardWriter.__init__.__defaults__ = ('', 20_000)  # two sentences in a shard\n"
            "work = corpus.prepare_samples; seen = []\n"
            "def counts(*args):\n"
            "    seen.append(1)\n"
            "    if len(seen) > int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return work(*args)\n"
            "corpus.prepare_samples = counts\n"
            "corpus.parallel_map = lambda function, items, title: map(function, items)\n"
            "corpus.prepare(corpus.read_corpus(sys.argv[1]), sys.argv[2]); print(len(seen))\n")

    def attempt(out: str, most: int):
        command = [sys.executable, "-c", code, tmp_path / "data", tmp_path / out, str(most)]
        return subprocess.run(command, capture_output=True, text=True)

    for most in (5, 1):
        assert attempt("set", most).returncode == -9 and not (tmp_path / "set").exists()
    done = attempt("set", 6)
    assert done.stdout.strip() == "2", f"four sentences were there already\n{done.stderr}"
    assert attempt("whole", 6).stdout.strip() == "6" and sorted(p.name for p in tmp_path.iterdir()) == ["data", "set", "whole"]
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "set" / path.name).read_bytes() == path.read_bytes()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    corpus = read_corpus(corpus_at(tmp_path / "data", 16000))
    (tmp_path / "file").write_text("I am not a folder")
    for out, words in ((tmp_path / "file", "holds other things"), (tmp_path / "file" / "set", "cannot be written"),
                       (tmp_path / "data" / "set", "never touched")):
        with pytest.raises(ValueError, match=words):
            prepare(corpus, out)
    assert (tmp_path / "file").read_text() == "I am not a folder"


def test_human_recordings_are_prepared_as_they_are(tmp_path):
    folder = HUMAN / "en_ljspeech32"
    if not folder.is_dir():
        pytest.skip(f"the human recordings are not here ({folder})")
    corpus = read_corpus(folder)
    assert len(corpus.utterances) == 32 and not corpus.problems and {u.speaker for u in corpus.utterances} == {"LJ"}
    prepared = prepare(corpus, tmp_path / "set")
    assert is_prepared(tmp_path / "set") and len(prepared.rows("train")) == 29 and len(prepared.rows("valid")) == 3
    seconds = sum(row.length for row in prepared.all_rows) / 16000
    assert 215 < seconds < 222, "221.7 s of speech with little silence around it"
    size = sum(path.stat().st_size for path in (tmp_path / "set").iterdir())
    assert size < 1.05 * 2 * 16000 * seconds
    with open(tmp_path / "set" / "left_out.csv", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["file", "reason", "row"]]
    assert load_prepared(tmp_path / "set") == prepared
