"""Voices and recordings by their Hugging Face names: the Hub's own client asks a Hub of this machine."""
import json
import subprocess
import sys

import datasets
from hub import running_hub

from vaani_lib.base import COMPACT
from vaani_lib.demo import demo_sentences, make_corpus
from vaani_lib.voice import Voice

SPEAKS = """
import sys
from vaani_lib.voice import Voice
try:
    voice = Voice.load(sys.argv[1])
except FileNotFoundError as error:
    sys.exit(str(error))
print(voice.speakers, voice.say("કેમ છો?", seed=1)[0][::500].tolist())
"""
READS = """
import json, sys
from vaani_lib.layouts import read_corpus
try:
    corpus = read_corpus(sys.argv[1])
except FileNotFoundError as error:
    sys.exit(str(error))
print(json.dumps([(u.text, u.speaker, u.split, u.audio.stat().st_size) for u in corpus.utterances]))
"""


def python(environment: dict[str, str], program: str, name: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program, name], env=environment, capture_output=True, text=True)


def test_a_voice_by_its_name_and_again_when_the_hub_is_out_of_reach(tmp_path):
    with running_hub({"models/facebook/mms-tts-guj": COMPACT}, tmp_path / "home") as environment:
        fetched = python(environment, SPEAKS, "facebook/mms-tts-guj")
        unknown = python(environment, SPEAKS, "facebook/mms-tts-xyz")
    voice = Voice.load("compact")
    assert fetched.stdout.strip() == f"{voice.speakers} {voice.say('કેમ છો?', seed=1)[0][::500].tolist()}", fetched.stderr
    assert unknown.returncode == 1 and unknown.stderr.startswith("facebook/mms-tts-xyz could not be had from the Hugging Face Hub")
    assert "Check the name and the connection" in unknown.stderr
    again = python(environment, SPEAKS, "facebook/mms-tts-guj")
    assert again.stdout == fetched.stdout, again.stderr


def test_recordings_by_the_name_of_their_dataset_and_its_configuration(tmp_path):
    files = sorted(make_corpus(tmp_path / "corpus", sentences=demo_sentences()[:4]).rglob("*.wav"))[:4]
    texts = demo_sentences()[: len(files)]
    rows = {"audio": [{"bytes": file.read_bytes(), "path": file.name} for file in files], "transcription": texts, "speaker_id": [3, 3, 7, 7]}
    recordings = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
    for split, chosen in (("train", [0, 1, 2]), ("validation", [3])):
        (tmp_path / "hub" / "gu_in").mkdir(parents=True, exist_ok=True)
        recordings.select(chosen).to_parquet(tmp_path / "hub" / "gu_in" / f"{split}-00000-of-00001.parquet")
    parts = "".join(f"  - split: {split}\n    path: gu_in/{split}-*\n" for split in ("train", "validation"))
    (tmp_path / "hub" / "README.md").write_text(f"---\nconfigs:\n- config_name: gu_in\n  data_files:\n{parts}---\n")
    with running_hub({"datasets/somebody/fleurs": tmp_path / "hub"}, tmp_path / "home") as environment:
        environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
        found = python(environment, READS, "somebody/fleurs:gu_in")
        unknown = python(environment, READS, "somebody/nothing")
    again = python(environment, READS, "somebody/fleurs:gu_in")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == [
        [text, str(speaker), split, file.stat().st_size]
        for text, speaker, split, file in zip(texts, rows["speaker_id"], ("train", "train", "train", "valid"), files)
    ]
    assert unknown.returncode == 1 and "the Hugging Face Hub gave no dataset of that name" in unknown.stderr
    assert again.stdout == found.stdout and "Retrying" not in again.stderr, "out of reach, what was fetched is read, without a minute's wait"


def test_a_dataset_that_was_never_fetched_is_one_sentence_when_the_hub_is_out_of_reach(tmp_path):
    with running_hub({}, tmp_path / "home") as environment:
        pass
    missing = python(environment, READS, "somebody/fleurs")
    assert missing.stderr.count("\n") == 1 and missing.stderr.startswith("There is no folder somebody/fleurs, and the Hugging Face Hub"), missing.stderr


SENDS = """
import sys
from vaani_lib.cli import main
sys.exit(main(["export", "compact", sys.argv[1], "--to", "hub", "--repo-id", "asha/first", "--consent", "No person speaks."]))
"""


def test_an_exported_voice_is_sent_is_private_and_is_loaded_again_by_its_name(tmp_path):
    repositories = {"new": tmp_path / "there"}
    with running_hub(repositories, tmp_path / "home") as environment:
        sent = python({**environment, "HF_TOKEN": "hf_test"}, SENDS, str(tmp_path / "exported"))
        again = python(environment, SPEAKS, "asha/first")
    assert sent.returncode == 0 and "Sent to https://huggingface.co/asha/first, where it is private" in sent.stdout, sent
    there = tmp_path / "there/asha/first"
    assert json.loads((there.parent / "first.private.json").read_text()) is True
    files = {file.name: file.read_bytes() for file in (tmp_path / "exported").iterdir()}
    assert files == {name: (there / name).read_bytes() for name in files} and "No person speaks." in files["README.md"].decode()
    assert again.stdout.split()[0] == "('asha',", again
