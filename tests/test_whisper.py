"""A recogniser is trained by the same trainer as a voice: it learns, survives its machine, and judges a voice."""
import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_resume import history

from vaani_lib.audio import from_int16, write_audio
from vaani_lib.cli import main
from vaani_lib.compare import Comparison, diagnoses, figures, overview
from vaani_lib.config import WhisperSettings, settings_to_json
from vaani_lib.corpus import prepare
from vaani_lib.espeak import say
from vaani_lib.layouts import read_corpus
from vaani_lib.prepared import load_prepared
from vaani_lib.recogniser import load_recogniser
from vaani_lib.run_row import voice_of
from vaani_lib.runs import list_runs, read_run
from vaani_lib.state import copied, save_tensors
from vaani_lib.tour import run_training
from vaani_lib.training import train
from vaani_lib.whisper import tiny_whisper

WORDS = ("આજે સવારે.", "ઘણા દિવસે.", "મારી બહેન.")
CHILD = """
import json, sys
from vaani_lib.config import settings_from_json
from vaani_lib.training import train
settings, *places = sys.argv[1:]
train(settings_from_json(json.loads(settings)), *places)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Three short sentences by espeak-ng, each twelve times to learn from, once to be heard; and what no Whisper can learn."""
    folder = tmp_path_factory.mktemp("whisper")
    spoken = {text: say(text, "gu", sample_rate=16000)[0] for text in (*WORDS, "લાંબું વાક્ય", "ક" * 60)}
    for split, count in (("train", 12), ("valid", 1)):
        rows = [(f"{i}_{n}.wav", text, spoken[text]) for n in range(count) for i, text in enumerate(WORDS)]
        if split == "train":
            rows += [("slow.wav", "લાંબું વાક્ય", spoken["લાંબું વાક્ય"].repeat(4)), ("many.wav", "ક" * 60, spoken["ક" * 60][:40000])]
        (folder / "recordings" / split).mkdir(parents=True)
        for name, _, wav in rows:
            write_audio(folder / "recordings" / split / name, wav, 16000)
        table = "".join(f"{name}|{text}|asha\n" for name, text, _ in rows)
        (folder / "recordings" / split / "metadata.csv").write_text(table, encoding="utf-8")
    return prepare(read_corpus(folder / "recordings"), folder / "prepared").folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """An untrained Whisper that hears three seconds, with dropout, as a plain Hugging Face folder."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whisper = tiny_whisper(seconds=3, size=96, tokens=96)
    whisper.model.config.dropout = 0.005
    whisper.describe(folder)
    save_tensors(copied(whisper.weights()), folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def settings(base) -> WhisperSettings:
    return WhisperSettings(base=str(base), batch_size=2, grad_accum=2, learning_rate=3e-3, learning_rate_decay=0.99,
                           warmup_steps=10, epochs=12, seed=3)


@pytest.fixture(scope="module")
def whole(settings, prepared, tmp_path_factory) -> tuple[Path, list[str]]:
    """The run that nothing happened to, and what it said."""
    said = []
    return train(settings, prepared, tmp_path_factory.mktemp("runs"), "whole", say=said.append), said


def test_it_learns_a_few_clips_without_a_mistake_and_says_how_it_was_before(whole):
    run, said = whole
    curves = {tag: dict(points) for tag, points in history(run).items()}
    best, last = read_run(run).best, 108
    assert curves["CER/normalised"][0] > 0.5 and best["metric"] == curves["CER/normalised"][best["step"]] == 0.0, curves["CER/normalised"]
    assert min(curves["WER/raw"].values()) == min(curves["CER/raw"].values()) == 0.0
    assert set(curves["CER/normalised"]) == {*range(0, last + 1, 9)} and set(curves["Valid/cross_entropy"]) == {*range(9, last + 1, 9)}
    assert any(words.startswith("Before training: CER ") for words in said), said
    assert any("CER 0.000 (best so far)" in words for words in said), said
    with open(run / "samples" / f"validation_e{best['epoch']:04d}.csv", encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["said"] for row in rows] == [row["heard"] for row in rows] == list(WORDS)


def test_what_it_cannot_learn_is_named_before_the_first_step(whole):
    _, said = whole
    named = [words for words in said if words.startswith("Left out")]
    assert len(named) == 2 and any("slow.wav" in w and "3 s at a time" in w for w in named), said
    assert any("many.wav" in w and "writes 96" in w for w in named), said
    assert max(map(said.index, named)) < next(i for i, words in enumerate(said) if words.startswith("Before training"))


def test_killed_and_gone_on_with_on_a_new_machine_equals_uninterrupted(whole, settings, prepared, tmp_path):
    """SIGKILL in the third epoch; the machine is lost, and only Drive is left."""
    places = [prepared, tmp_path / "runs", "killed", tmp_path / "drive"]
    command = [sys.executable, "-c", CHILD, json.dumps(settings_to_json(settings)), *map(str, places)]
    said = []
    run_training(command, kill_at=22, say=said.append)
    shutil.rmtree(tmp_path / "runs")
    run = train(settings, *places, say=said.append)
    begun = next(words for words in said if words.startswith("Going on with killed"))
    assert "in the Drive folder" in begun and "epoch 2, step 18" in begun, begun
    assert history(run) == history(whole[0]) and len(history(run)["Loss/cross_entropy"]) == 108
    for kept in ("best", "last"):
        ours, theirs = (load_file(folder / kept / "model.safetensors") for folder in (run, whole[0]))
        assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours), kept
    tables = [{file.name: file.read_bytes() for file in (folder / "samples").iterdir()} for folder in (run, whole[0])]
    assert tables[0] == tables[1] and len(tables[0]) == 13


def test_best_is_a_folder_that_transformers_pipeline_and_the_judge_take(whole, prepared, tmp_path, capsys):
    from transformers import pipeline

    best, data = whole[0] / "best", load_prepared(prepared)
    row = data.rows("valid")[0]
    heard = pipeline("automatic-speech-recognition", model=str(best), device="cpu")
    wav = from_int16(data.waveform(row))
    assert heard({"raw": wav, "sampling_rate": 16000})["text"].strip() == row.text, "the language and the task are in the folder"
    assert load_recogniser(str(whole[0]))(wav, 16000).strip() == row.text
    file = tmp_path / "score.json"
    arguments = ["score", "compact", "--data-dir", str(prepared), "--sentences", "1", "--asr", str(whole[0]), "--json", str(file)]
    assert main(arguments) == 0, capsys.readouterr().err
    assert json.loads(file.read_text(encoding="utf-8"))["figures"]["character errors"]["mean"] >= 0


def test_the_tables_of_runs_and_the_diagnosis_show_it(whole, capsys):
    runs = Comparison(list_runs(whole[0].parent))
    (row,) = overview(runs).rows
    assert str(row["best CER"]).startswith("0.000 in epoch") and "best validation mel" not in row and row["steps"] == 108
    assert {"CER/normalised", "WER/raw", "Valid/cross_entropy"} <= set(figures(runs).columns) and diagnoses(runs).rows == []
    with pytest.raises(ValueError, match="of type 'whisper'"):  # what the row of players shows of it
        voice_of(runs.runs[0], "best").load()
    assert main(["diagnose", str(whole[0])]) == 0 and "nothing that is certainly wrong" in capsys.readouterr().out


@pytest.mark.parametrize("command, start, words", [
    ("train", "compact", "one of `vaani whisper`"), ("whisper", "compact", "holds a model of type 'vits'")])
def test_a_voice_and_a_recogniser_are_not_taken_for_each_other(whole, prepared, tmp_path, capsys, command, start, words):
    run = shutil.copytree(whole[0], tmp_path / "runs" / "taken" if command == "train" else tmp_path / "kept")
    arguments = ["--data-dir", str(prepared), "--output-dir", str(tmp_path / "runs"), "--run", "taken", "--base", start, "--device", "cpu"]
    assert main([command, *arguments]) == 2 and words in capsys.readouterr().err
    assert (run / "best" / "model.safetensors").is_file()


def test_the_command_starts_a_run_from_a_run_with_its_encoder_frozen(whole, prepared, tmp_path, capsys):
    arguments = ["--data-dir", str(prepared), "--output-dir", str(tmp_path), "--run", "tuned", "--base", str(whole[0]),
                 "--freeze", "encoder", "--batch-size", "4", "--grad-accum", "1", "--max-steps", "2", "--device", "cpu"]
    assert main(["whisper", *arguments]) == 0, capsys.readouterr().err
    assert "Before training: CER 0.000" in capsys.readouterr().out
    before, after = (load_file(folder / "model.safetensors") for folder in (whole[0] / "best", tmp_path / "tuned" / "last"))
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved and all(name.startswith("model.decoder.") for name in moved)
    assert main(["whisper", *arguments, "--language", "hi"]) == 2 and "language was gu and is now hi" in capsys.readouterr().err
